//! A reactor with a minimal shard around it, and the clients that talk to it.

use ringway::ids::Token;
use ringway::reactor::epoll::{EpollReactor, EpollSetup};
use ringway::reactor::uring::{UringReactor, UringSetup};
use ringway::reactor::{CloseHow, EndReason, Event, Reactor, Send, Short, listener};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Uring,
    UringReporting,
    Epoll,
}

/// Runs a test on each reactor, each in a thread of its own: a ring that was dropped interrupts waits of its thread.
pub fn on_each(test: impl Fn(Kind) + Sync) {
    for kind in [Kind::Uring, Kind::UringReporting, Kind::Epoll] {
        if kind != Kind::Epoll
            && ringway::reactor::uring::probe()
                .ring
                .is_err_and(|error| error.leaves_epoll())
        {
            println!("{kind:?}: skipped, io_uring is not to be had here");
            continue;
        }
        println!("{kind:?}");
        std::thread::scope(|scope| scope.spawn(|| test(kind)).join())
            .unwrap_or_else(|_| panic!("on {kind:?}"));
    }
}

/// One connection, as the server sees it.
pub struct Life {
    pub token: Token,
    pub peer: SocketAddr,
    pub received: Vec<u8>,
    pub ended: Option<EndReason>,
    pub writable: u32,
}

/// A reactor, and a shard that opens all it accepts and keeps what it hears.
pub struct Server {
    pub reactor: Box<dyn Reactor>,
    pub address: SocketAddr,
    pub wake: OwnedFd,
    /// Lives of each slot so far.
    pub generations: Vec<u32>,
    pub lives: HashMap<u32, Life>,
    pub closing: HashSet<u32>,
    /// Slots in the order they were accepted.
    pub accepted: Vec<u32>,
    pub closed: u64,
    /// Receives of each slot in the last poll.
    pub receives: HashMap<u32, u32>,
    events: Vec<Event>,
    pub opens: bool,
}

impl Server {
    pub fn new(kind: Kind, slots: u32) -> Self {
        Self::with_buffers(kind, slots, 1024)
    }

    pub fn with_buffers(kind: Kind, slots: u32, buffers: u16) -> Self {
        let listener = listener::claim((Ipv4Addr::LOCALHOST, 0).into(), &[None])
            .unwrap()
            .pop()
            .unwrap();
        let address = listener.local_addr().unwrap();
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
        let (listener, waker) = (Some(listener), wake.try_clone().unwrap());
        let reactor: Box<dyn Reactor> = match kind {
            Kind::Uring | Kind::UringReporting => {
                let sends_report = kind == Kind::UringReporting;
                let setup = UringSetup {
                    listener,
                    slots,
                    buffers,
                    wake: waker,
                    sends_report,
                };
                Box::new(UringReactor::new(setup).unwrap())
            }
            Kind::Epoll => Box::new(
                EpollReactor::new(EpollSetup {
                    listener,
                    slots,
                    buffers,
                    wake: waker,
                })
                .unwrap(),
            ),
        };
        assert_eq!(reactor.slots(), slots);
        Self {
            reactor,
            address,
            wake,
            generations: vec![0; slots as usize],
            lives: HashMap::new(),
            closing: HashSet::new(),
            accepted: Vec::new(),
            closed: 0,
            receives: HashMap::new(),
            events: Vec::new(),
            opens: true,
        }
    }

    /// One poll; checks the contract of every event.
    pub fn poll(&mut self, patience: Duration) {
        let mut events = std::mem::take(&mut self.events);
        self.reactor.poll(patience, &mut events).unwrap();
        self.receives.clear();
        for event in events.drain(..) {
            match event {
                Event::Accepted { slot, peer } => self.on_accepted(slot, peer),
                Event::Received { token, buffer, len } => {
                    assert!(len > 0);
                    let life = self
                        .lives
                        .get_mut(&token.slot)
                        .expect("bytes for a slot that is not open");
                    assert_eq!(life.token, token, "bytes for a former life");
                    assert_eq!(life.ended, None, "bytes behind the end");
                    life.received
                        .extend_from_slice(self.reactor.buffer(buffer, len));
                    self.reactor.recycle(buffer);
                    *self.receives.entry(token.slot).or_default() += 1;
                }
                Event::Ended { token, reason } => {
                    let life = self
                        .lives
                        .get_mut(&token.slot)
                        .expect("an end of a slot that is not open");
                    assert_eq!(life.token, token, "an end of a former life");
                    assert_eq!(life.ended.replace(reason), None, "ended twice");
                }
                Event::Writable { token } => {
                    let life = self
                        .lives
                        .get_mut(&token.slot)
                        .expect("a slot that is not open is writable");
                    assert_eq!(life.token, token, "a former life is writable");
                    life.writable += 1;
                }
                Event::Closed { slot } => {
                    assert!(self.closing.remove(&slot), "slot {slot} closed by itself");
                    self.closed += 1;
                }
            }
        }
        self.events = events;
    }

    pub fn on_accepted(&mut self, slot: u32, peer: SocketAddr) {
        assert!(slot < self.reactor.slots());
        assert!(
            !self.lives.contains_key(&slot) && !self.closing.contains(&slot),
            "slot {slot} given away twice"
        );
        let generation = &mut self.generations[slot as usize];
        *generation += 1;
        let token = Token {
            slot,
            generation: *generation,
        };
        if self.opens {
            self.reactor.open(token);
        }
        self.lives.insert(
            slot,
            Life {
                token,
                peer,
                received: Vec::new(),
                ended: None,
                writable: 0,
            },
        );
        self.accepted.push(slot);
    }

    /// Polls until it holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
            self.poll(Duration::from_millis(20));
        }
    }

    pub fn connect(&mut self) -> (TcpStream, u32) {
        let before = self.accepted.len();
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        self.until("an accept", |server| server.accepted.len() > before);
        (client, *self.accepted.last().unwrap())
    }

    /// Sends what the socket takes now.
    pub fn send(&mut self, slot: u32, bytes: &[u8]) -> Result<u32, i32> {
        let mut short: Vec<Short> = Vec::new();
        self.reactor.flush(&[Send { slot, bytes }], &mut short);
        match short.pop() {
            None => Ok(bytes.len() as u32),
            Some(Short { index: 0, taken }) => taken.map_err(|error| error.errno),
            Some(other) => panic!("{other:?}"),
        }
    }

    pub fn close(&mut self, slot: u32, how: CloseHow) {
        let life = self
            .lives
            .remove(&slot)
            .expect("only what is open is closed");
        self.reactor.close(life.token, how);
        self.closing.insert(slot);
    }

    pub fn life(&self, slot: u32) -> &Life {
        &self.lives[&slot]
    }
}

/// Bytes that differ at every place.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed | 1);
    (0..len).map(|_| rng.next() as u8).collect()
}

/// Xorshift: repeatable, and good enough for choosing.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

/// Connects from an address of its own in 127/8.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}
