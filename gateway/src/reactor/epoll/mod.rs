//! The epoll reactor: the fallback where io_uring is refused.
//!
//! The same contract by plain system calls: edge-triggered epoll, accept4, recv into a pool of its own, send. Slots are not
//! file descriptors: a table maps them, and a slot is accepted into again only after its `Closed`.

mod buffers;

use super::clock::Clock;
use super::{
    BufferId, CloseHow, EndReason, Event, FLUSH_MAX, Reactor, ReactorError, ReactorStats, Send,
    SendError, Short, UNTAKEN_MILLIS,
};
use crate::ids::{Now, Token};
use buffers::Buffers;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Connections accepted in one poll.
const ACCEPT_BUDGET: u32 = 64;
/// Receives of one connection in one poll: so many rounds over all that are readable.
const RECEIVE_ROUNDS: u32 = 4;
/// Readiness events taken in one wait.
const WAIT_MAX: usize = 1024;
/// How long to leave accepting alone when the process is out of files or memory.
const PAUSE_MILLIS: u64 = 100;

/// `epoll_data` of the listener and of the wake descriptor; a connection's is its slot and generation, and slots are few.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// What an [`EpollReactor`] is made of.
#[derive(Debug)]
pub struct EpollSetup {
    /// Where connections come from; `None`: nothing is accepted.
    pub listener: Option<TcpListener>,
    /// Slots, those kept for refusals included.
    pub slots: u32,
    /// Receive buffers of 2 KiB.
    pub buffers: u16,
    /// A nonblocking eventfd. A write to it ends a poll.
    pub wake: OwnedFd,
}

impl EpollSetup {
    /// Receive buffers of a shard unless told otherwise.
    pub const BUFFERS: u16 = 1024;

    /// The usual sizes.
    pub fn new(listener: Option<TcpListener>, slots: u32, wake: OwnedFd) -> Self {
        Self {
            listener,
            slots,
            buffers: Self::BUFFERS,
            wake,
        }
    }
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Accepted,
    Open,
    /// Closed; the shard has yet to be told.
    Closed,
}

#[derive(Debug)]
struct Slot {
    socket: Option<OwnedFd>,
    generation: u32,
    state: State,
    /// Something may be there to receive.
    is_readable: bool,
    /// Stands in the queue of readable slots (also while it belongs to nobody).
    is_queued: bool,
    /// The peer has hung up: receive until the end shows.
    is_hung_up: bool,
    /// `Ended` was emitted.
    has_ended: bool,
    /// A `Writable` was asked for.
    is_waiting: bool,
}

impl Slot {
    const FREE: Slot = Slot {
        socket: None,
        generation: 0,
        state: State::Free,
        is_readable: false,
        is_queued: false,
        is_hung_up: false,
        has_ended: false,
        is_waiting: false,
    };

    fn is_life(&self, generation: u32) -> bool {
        self.state == State::Open && self.generation == generation
    }
}

/// Sockets, time and waking by epoll.
pub struct EpollReactor {
    epoll: OwnedFd,
    listener: Option<TcpListener>,
    /// The listener is in the epoll set: it is not while the table is full.
    is_accepting: bool,
    /// Not before this moment (in ms): the process was short of files or memory.
    accept_after: u64,
    wake: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose `Closed` is to be emitted.
    closed: Vec<u32>,
    /// Readable slots, each at most once, in the order they are served.
    readable: VecDeque<u32>,
    buffers: Buffers,
    ready: Vec<epoll::Event>,
    clock: Clock,
    stats: ReactorStats,
}

impl EpollReactor {
    /// Makes the epoll set and the buffers.
    ///
    /// # Errors
    /// [`ReactorError::Io`] when the process is out of files or memory.
    pub fn new(setup: EpollSetup) -> Result<Self, ReactorError> {
        let EpollSetup {
            listener,
            slots,
            buffers,
            wake,
        } = setup;
        let make = || -> io::Result<OwnedFd> {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            epoll::add(
                &set,
                &wake,
                epoll::EventData::new_u64(WAKE),
                epoll::EventFlags::IN,
            )?;
            if let Some(listener) = &listener {
                listener.set_nonblocking(true)?;
            }
            Ok(set)
        };
        let epoll = make().map_err(ReactorError::io("cannot make an epoll set"))?;
        Ok(Self {
            epoll,
            listener,
            is_accepting: false,
            accept_after: 0,
            wake,
            slots: (0..slots).map(|_| Slot::FREE).collect(),
            free: (0..slots).rev().collect(),
            closed: Vec::new(),
            readable: VecDeque::new(),
            buffers: Buffers::new(buffers),
            ready: Vec::with_capacity(WAIT_MAX),
            clock: Clock::new(),
            stats: ReactorStats::default(),
        })
    }

    /// Puts the listener into the set when there is room, and takes it out when there is none.
    fn adjust_accepting(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        if self.accept_after != 0 && self.clock.millis() >= self.accept_after {
            self.accept_after = 0;
        }
        let may_accept = !self.free.is_empty() && self.accept_after == 0;
        if may_accept != self.is_accepting {
            if may_accept {
                let data = epoll::EventData::new_u64(LISTENER);
                epoll::add(&self.epoll, listener, data, epoll::EventFlags::IN)?;
            } else {
                epoll::delete(&self.epoll, listener)?;
                self.stats.accepts_paused += 1;
            }
            self.is_accepting = may_accept;
        }
        Ok(())
    }

    fn wait(&mut self, patience: Duration) -> io::Result<()> {
        let patience = match self.accept_after {
            0 => patience,
            then => patience.min(Duration::from_millis(
                then.saturating_sub(self.clock.millis()).max(1),
            )),
        };
        self.stats.enters += 1;
        self.ready.clear();
        let timeout = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.ready),
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn handle_ready(&mut self, events: &mut Vec<Event>) {
        for index in 0..self.ready.len() {
            let epoll::Event { flags, data } = self.ready[index];
            match data.u64() {
                LISTENER => self.accept(events),
                WAKE => {
                    let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                }
                data => self.on_ready(
                    Token {
                        slot: data as u32,
                        generation: (data >> 32) as u32,
                    },
                    flags,
                    events,
                ),
            }
        }
    }

    fn on_ready(&mut self, token: Token, flags: epoll::EventFlags, events: &mut Vec<Event>) {
        use epoll::EventFlags as F;
        let slot = &mut self.slots[token.slot as usize];
        if !slot.is_life(token.generation) {
            return;
        }
        if slot.is_waiting && flags.intersects(F::OUT | F::ERR | F::HUP) {
            slot.is_waiting = false;
            events.push(Event::Writable { token });
        }
        if flags.intersects(F::RDHUP | F::ERR | F::HUP) {
            slot.is_hung_up = true;
        }
        if flags.intersects(F::IN | F::RDHUP | F::ERR | F::HUP) {
            self.mark_readable(token.slot);
        }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        for _ in 0..ACCEPT_BUDGET {
            let (Some(listener), Some(&number)) = (&self.listener, self.free.last()) else {
                return;
            };
            match rustix::net::acceptfrom_with(
                listener,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok((socket, peer)) => {
                    self.free.pop();
                    let slot = &mut self.slots[number as usize];
                    slot.socket = Some(socket);
                    slot.state = State::Accepted;
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    let peer =
                        peer.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    events.push(Event::Accepted { slot: number, peer });
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    self.accept_after = self.clock.millis() + PAUSE_MILLIS;
                    return;
                }
                // Of a connection that was gone before it was accepted.
                Err(_) => {}
            }
        }
    }

    fn mark_readable(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.has_ended {
            return;
        }
        slot.is_readable = true;
        if !slot.is_queued {
            slot.is_queued = true;
            self.readable.push_back(number);
        }
    }

    /// One receive for each readable slot, as far as buffers go.
    fn receive_round(&mut self, events: &mut Vec<Event>) {
        for _ in 0..self.readable.len() {
            let Some(buffer) = self.buffers.take() else {
                self.stats.buffers_exhausted += 1;
                return;
            };
            let number = self.readable.pop_front().expect("as many as were counted");
            if !self.receive(number, buffer, events) {
                self.buffers.put_back(buffer);
            }
        }
    }

    /// One receive. False: the buffer was not filled.
    fn receive(&mut self, number: u32, buffer: u16, events: &mut Vec<Event>) -> bool {
        let slot = &mut self.slots[number as usize];
        slot.is_queued = false;
        if slot.state != State::Open || !slot.is_readable || slot.has_ended {
            return false;
        }
        slot.is_readable = false;
        let token = Token {
            slot: number,
            generation: slot.generation,
        };
        let socket = slot.socket.as_ref().expect("an open slot has a socket");
        let room = self.buffers.bytes(buffer).len();
        let reason =
            match rustix::net::recv(socket, self.buffers.bytes(buffer), RecvFlags::DONTWAIT) {
                Ok((0, _)) => EndReason::Eof,
                Ok((len, _)) => {
                    events.push(Event::Received {
                        token,
                        buffer: BufferId(buffer),
                        len: len as u32,
                    });
                    // Edge-triggered: a buffer that was not filled, or EAGAIN, says that it is empty (but for the end).
                    if len == room || slot.is_hung_up {
                        self.mark_readable(number);
                    }
                    return true;
                }
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {
                    self.mark_readable(number);
                    return false;
                }
                Err(errno) => EndReason::Error(errno.raw_os_error()),
            };
        slot.has_ended = true;
        events.push(Event::Ended { token, reason });
        false
    }

    fn tell_closed(&mut self, events: &mut Vec<Event>) {
        for number in self.closed.drain(..) {
            let slot = &mut self.slots[number as usize];
            debug_assert_eq!(slot.state, State::Closed);
            // A place in the queue of readable slots is kept: the next life inherits it.
            *slot = Slot {
                is_queued: slot.is_queued,
                ..Slot::FREE
            };
            self.free.push(number);
            events.push(Event::Closed { slot: number });
        }
    }

    /// What a connection's socket is watched for. Writing is looked at only when asked for.
    fn interest() -> epoll::EventFlags {
        epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
    }

    fn data(token: Token) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(token.generation) << 32 | u64::from(token.slot))
    }
}

impl Reactor for EpollReactor {
    fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn poll(&mut self, patience: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        let before = events.len();
        self.tell_closed(events);
        self.adjust_accepting()?;
        let has_news = events.len() > before || !self.readable.is_empty();
        self.wait(if has_news { Duration::ZERO } else { patience })?;
        self.handle_ready(events);
        for _ in 0..RECEIVE_ROUNDS {
            if self.readable.is_empty() {
                break;
            }
            self.receive_round(events);
        }
        Ok(())
    }

    fn buffer(&mut self, buffer: BufferId, len: u32) -> &mut [u8] {
        &mut self.buffers.bytes(buffer.0)[..len as usize]
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.buffers.put_back(buffer.0);
    }

    fn open(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        assert!(
            slot.state == State::Accepted,
            "slot {} cannot be opened: {slot:?}",
            token.slot
        );
        slot.state = State::Open;
        slot.generation = token.generation;
        let socket = slot.socket.as_ref().expect("an accepted slot has a socket");
        // What is there already is reported as an edge.
        if epoll::add(&self.epoll, socket, Self::data(token), Self::interest()).is_err() {
            // Out of memory or of watches: nothing would ever be reported. Let the connection end.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            self.mark_readable(token.slot);
        }
    }

    fn flush(&mut self, sends: &[Send<'_>], short: &mut Vec<Short>) {
        assert!(sends.len() <= FLUSH_MAX, "a flush of {}", sends.len());
        self.stats.sends += sends.len() as u64;
        self.stats.enters += sends.len() as u64;
        for (index, send) in sends.iter().enumerate() {
            assert!(
                !send.bytes.is_empty(),
                "an empty send on slot {}",
                send.slot
            );
            let slot = &self.slots[send.slot as usize];
            let taken = match &slot.socket {
                Some(socket) if slot.state == State::Open => send_now(socket, send.bytes),
                _ => Err(SendError {
                    errno: Errno::BADF.raw_os_error(),
                }),
            };
            if taken != Ok(send.bytes.len() as u32) {
                self.stats.short_sends += 1;
                short.push(Short {
                    index: index as u32,
                    taken,
                });
            }
        }
    }

    fn wait_writable(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        if !slot.is_life(token.generation) || slot.is_waiting {
            return;
        }
        slot.is_waiting = true;
        let socket = slot.socket.as_ref().expect("an open slot has a socket");
        // Changing the watch looks at the socket anew, so a change since the last send is not missed. That OUT stays in it
        // costs an edge now and then.
        let interest = Self::interest() | epoll::EventFlags::OUT;
        let _ = epoll::modify(&self.epoll, socket, Self::data(token), interest);
    }

    fn close(&mut self, token: Token, how: CloseHow) {
        let slot = &mut self.slots[token.slot as usize];
        match slot.state {
            State::Accepted => slot.generation = token.generation,
            State::Open if slot.generation == token.generation => {}
            _ => return,
        }
        let socket = slot.socket.take().expect("a live slot has a socket");
        // Failed: the close is the kernel's plain one then.
        let _ = match how {
            CloseHow::Reset => sockopt::set_socket_linger(&socket, Some(Duration::ZERO)),
            CloseHow::Orderly => sockopt::set_tcp_user_timeout(&socket, UNTAKEN_MILLIS),
        };
        // The last descriptor of a socket takes it out of the set.
        drop(socket);
        slot.state = State::Closed;
        slot.is_readable = false;
        self.closed.push(token.slot);
    }

    fn stop_accepting(&mut self) {
        if let Some(listener) = self.listener.take() {
            // Also where somebody else still has a descriptor of it.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
        self.is_accepting = false;
        self.accept_after = 0;
    }

    fn stats(&self) -> ReactorStats {
        self.stats
    }
}

/// Sends what the socket takes now.
fn send_now(socket: &OwnedFd, bytes: &[u8]) -> Result<u32, SendError> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(taken) => return Ok(taken as u32),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(SendError {
                    errno: errno.raw_os_error(),
                });
            }
        }
    }
}
