//! A thread's connections on a few rings: opening, joining, heartbeats, closing and coming back; what arrives is handed
//! to the scenario.
//!
//! Connections are counted by their place in the thread's share here; what is told of one, and what it tells the server, has
//! its number in the run. Place `i` is slot `i % SLOTS_A_RING` of ring `i / SLOTS_A_RING`, in each of its lives.

use std::io;
use std::time::{Duration, Instant};

mod floor;

use super::centrifuge::{Position, Wish};
use super::credentials::Credentials;
use super::frames::{self, Deframer, Opcode};
use super::handshake::{self, SocketLimits, Target};
use super::inflate::Inflater;
use super::ledger::Faults;
use super::protocol::Protocol;
use super::ring::{Event, Ring, RingSize};
use super::share::Share;
use super::tls;
use floor::Floor;

/// Below the 20,000 a ring's table may hold where `RLIMIT_NOFILE` is that low.
pub const SLOTS_A_RING: usize = 16_384;
/// Connections that may wait for their answers at once while the run ramps up: well below any accept queue.
const OPENING_AT_ONCE: usize = 128;
/// How long one connection may take to be opened and joined.
const OPENING_PATIENCE: Duration = Duration::from_secs(20);

/// The rings for `connections`, with buffers to receive into.
pub fn rings(connections: usize) -> io::Result<Vec<Ring>> {
    let mut rings = Vec::new();
    let mut left = connections;
    while left > 0 {
        let slots = left.min(SLOTS_A_RING);
        rings.push(Ring::new(RingSize {
            slots: slots as u32,
            buffers: 512,
            buffer_bytes: 16 * 1024,
        })?);
        left -= slots;
    }
    Ok(rings)
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The upgrade's answer is outstanding.
    Upgrading,
    /// So many replies to what it said first are outstanding.
    Joining(u8),
    Open,
    /// A Close frame is sent; the server's end is outstanding.
    Closing,
    Closed,
}

struct Connection {
    stage: Stage,
    /// It may be cut: the scenario asked for that.
    expendable: bool,
    /// It has a channel.
    subscribes: bool,
    /// Replies that make it joined.
    replies: u8,
    tls: Option<tls::Session>,
    deframer: Deframer,
    answer: Vec<u8>,
    /// Where it wants to recover from.
    since: Option<Box<Position>>,
}

/// What a scenario hears of a connection.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A reply that is not the fleet's own business.
    Reply(&'a [u8]),
    /// It has joined by this reply, which is empty when none was awaited.
    Joined(&'a [u8]),
    /// It is over, and why. Unless it was closing or expendable it is a fault, and counted already.
    Closed(&'a str),
}

/// What the fleet has to do once the rings are not borrowed.
enum Errand {
    Join(usize),
    Pong(usize),
    /// A frame that answers another.
    Answer(usize, Vec<u8>),
    /// TLS' own: it goes out as it is.
    Wire(usize, Vec<u8>),
    /// The socket of a connection that is over.
    Release(usize),
}

/// How the members of a fleet join.
#[derive(Clone, Debug)]
pub struct Manners {
    pub target: Target,
    /// Where connections go that only publish, if elsewhere.
    pub publish_target: Option<Target>,
    pub protocol: Protocol,
    pub credentials: Credentials,
    /// Ask for positions, to be able to recover.
    pub recoverable: bool,
    /// What the kernel may hold for a connection.
    pub limits: SocketLimits,
    /// Connections a second while the run ramps up; as fast as the server answers without.
    pub ramp: Option<f64>,
}

impl Manners {
    /// What is spoken, for the report.
    pub fn words(&self) -> String {
        let name = self.protocol.name();
        match &self.target.tls {
            None => name.to_owned(),
            Some(tls) => format!("{name} over {}", tls.words()),
        }
    }
}

/// Opened connections.
pub struct Fleet<'a> {
    manners: &'a Manners,
    share: Share,
    rings: Vec<Ring>,
    connections: Vec<Connection>,
    /// Each connection's, for all its lives: signing is no part of coming back.
    tokens: Vec<Option<String>>,
    /// The channel each connection subscribes to; publishers have none.
    channel_of: Box<dyn Fn(usize) -> Option<String> + 'a>,
    errands: Vec<Errand>,
    /// Of what is sealed and opened.
    scratch: Vec<u8>,
    inflater: Inflater,
    opening: usize,
    open: usize,
    pings: u64,
    received: u64,
    pub faults: Faults,
}

impl<'a> Fleet<'a> {
    /// A fleet of a thread on its `rings`, without connections yet.
    pub fn new(
        manners: &'a Manners,
        share: Share,
        rings: Vec<Ring>,
        channel_of: impl Fn(usize) -> Option<String> + 'a,
    ) -> Self {
        Self {
            manners,
            share,
            rings,
            connections: Vec::new(),
            tokens: Vec::new(),
            channel_of: Box::new(channel_of),
            errands: Vec::new(),
            scratch: Vec::new(),
            inflater: Inflater::default(),
            opening: 0,
            open: 0,
            pings: 0,
            received: 0,
            faults: Faults::default(),
        }
    }

    /// Opens connections up to `count`; returns when each has joined. `on_progress` hears the number joined.
    ///
    /// # Errors
    /// When one cannot be opened: a run with fewer would measure something else.
    pub fn open(
        &mut self,
        count: usize,
        mut on: impl FnMut(usize, News<'_>, &mut Faults),
        mut on_progress: impl FnMut(usize),
    ) -> io::Result<()> {
        let (began, before) = (Instant::now(), self.connections.len());
        let mut last_progress = began;
        let at_once = self.share.of(OPENING_AT_ONCE).max(1);
        let ramp = self.manners.ramp.map(|ramp| self.share.part(ramp));
        while self.connections.len() < count || self.opening > 0 {
            let due = ramp.map_or(count, |ramp| {
                before + (began.elapsed().as_secs_f64() * ramp) as usize
            });
            if self.connections.len() < due.min(count) && self.opening < at_once {
                self.dial(self.connections.len(), None)?;
                continue;
            }
            let opening = self.opening;
            self.poll(&mut on)?;
            if self.faults.closed + self.faults.refused + self.faults.malformed > 0 {
                let words = self.faults.first.clone().unwrap_or_default();
                return Err(io::Error::other(format!(
                    "a connection could not be opened: {words}"
                )));
            }
            if self.opening != opening || self.opening == 0 {
                last_progress = Instant::now();
            } else if last_progress.elapsed() > OPENING_PATIENCE {
                return Err(io::Error::other(format!(
                    "{opening} connections got no answer in 20 s"
                )));
            }
            on_progress(self.open);
        }
        Ok(())
    }

    /// Begins to open the next connection, or one that is closed; with `since` it recovers from there.
    pub fn dial(&mut self, index: usize, since: Option<Position>) -> io::Result<()> {
        let channel = (self.channel_of)(index);
        let Manners {
            target,
            publish_target,
            protocol,
            limits,
            ..
        } = self.manners;
        let target = match (&channel, publish_target) {
            (None, Some(target)) => target,
            _ => target,
        };
        let from = (self.share.number(), index);
        let socket = handshake::start_dialling(target.address, from, *limits).map_err(|e| {
            let connection = self.share.connection(index);
            io::Error::new(e.kind(), format!("connection {connection}: {e}"))
        })?;
        let earlier = self.connections.get_mut(index);
        let earlier = earlier.and_then(|connection| connection.tls.take());
        let tls = target.tls.as_ref();
        let tls = tls.map(|tls| tls.begin(earlier)).transpose()?;
        let connection = Connection {
            stage: Stage::Upgrading,
            expendable: false,
            subscribes: channel.is_some(),
            replies: protocol.replies_to_join(channel.is_some()),
            tls,
            deframer: Deframer::default(),
            answer: Vec::new(),
            since: since.map(Box::new),
        };
        let (ring, slot) = self.place_of(index);
        match self.connections.get_mut(index) {
            None => {
                assert_eq!(index, self.connections.len(), "connections begin in order");
                let got = self.rings[ring].attach(socket.into())?;
                debug_assert_eq!(got, slot);
                let number = self.share.connection(index);
                self.tokens.push(self.manners.credentials.token(number)?);
                self.connections.push(connection);
            }
            Some(old) => {
                assert_eq!(old.stage, Stage::Closed, "it has a life");
                let expendable = old.expendable;
                *old = connection;
                old.expendable = expendable;
                self.rings[ring].attach_at(slot, socket.into())?;
            }
        }
        let request = target.upgrade_request(protocol.subprotocol(), channel.as_deref());
        self.rings[ring].receive(slot)?;
        self.opening += 1;
        self.send(index, &request)
    }

    /// Takes what has arrived and hands what is not the fleet's own business to `on(connection, news, faults)`; answers
    /// pings. Never waits. True when there was anything.
    pub fn poll(&mut self, mut on: impl FnMut(usize, News<'_>, &mut Faults)) -> io::Result<bool> {
        let mut any = false;
        for (number, ring) in self.rings.iter_mut().enumerate() {
            let mut floor = Floor {
                share: self.share,
                protocol: &self.manners.protocol,
                scratch: &mut self.scratch,
                deflate: self.manners.target.deflate,
                inflater: &mut self.inflater,
                connections: &mut self.connections,
                faults: &mut self.faults,
                errands: &mut self.errands,
                opening: &mut self.opening,
                open: &mut self.open,
                pings: &mut self.pings,
                received: &mut self.received,
            };
            any |= ring.poll(|event| match event {
                Event::Received { slot, bytes } => {
                    floor.received(number * SLOTS_A_RING + slot as usize, bytes, &mut on);
                }
                Event::Closed { slot, errno } => {
                    let index = number * SLOTS_A_RING + slot as usize;
                    match errno {
                        Some(errno) => {
                            let words = io::Error::from_raw_os_error(errno).to_string();
                            floor.closed(index, &words, &mut on);
                        }
                        None => floor.closed(index, "the server closed the socket", &mut on),
                    }
                }
            })?;
        }
        if !self.errands.is_empty() {
            self.run_errands()?;
        }
        Ok(any)
    }

    fn run_errands(&mut self) -> io::Result<()> {
        let Manners {
            protocol,
            recoverable,
            ..
        } = self.manners;
        for errand in std::mem::take(&mut self.errands) {
            match errand {
                Errand::Join(index) => {
                    let channel = (self.channel_of)(index);
                    let since = self.connections[index].since.take();
                    let wish = channel.as_deref().map(|channel| Wish {
                        channel,
                        recoverable: *recoverable,
                        since: since.as_deref(),
                    });
                    let number = self.share.connection(index) as u64;
                    let token = self.tokens[index].as_deref();
                    let frames = protocol.join_frames(number, token, wish);
                    self.send(index, &frames)?;
                }
                Errand::Pong(index) => self.send(index, &protocol.pong_frame())?,
                Errand::Answer(index, frame) => self.send(index, &frame)?,
                Errand::Wire(index, bytes) => self.put(index, &bytes)?,
                Errand::Release(index) => {
                    let (ring, slot) = self.place_of(index);
                    self.rings[ring].detach(slot)?;
                }
            }
        }
        self.flush()
    }

    /// Resets a connection: nothing is said, and nothing more is heard of it.
    pub fn reset(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        match std::mem::replace(&mut connection.stage, Stage::Closed) {
            // The socket is gone, or is about to be.
            Stage::Closed => return Ok(()),
            Stage::Upgrading | Stage::Joining(_) => self.opening -= 1,
            Stage::Open | Stage::Closing => self.open -= 1,
        }
        let (ring, slot) = self.place_of(index);
        self.rings[ring].detach(slot)
    }

    /// Says goodbye on an open connection: a Close frame; [`News::Closed`] comes when the server has ended its side. Ours
    /// ends by reset then, which leaves no TIME_WAIT behind.
    pub fn close(&mut self, index: usize) -> io::Result<()> {
        if self.connections[index].stage != Stage::Open {
            return Ok(());
        }
        self.connections[index].stage = Stage::Closing;
        let mut frame = Vec::new();
        frames::write_masked(&mut frame, Opcode::Close, &1000u16.to_be_bytes());
        self.send(index, &frame)
    }

    /// From now on it is no fault when the server cuts this connection.
    pub fn make_expendable(&mut self, index: usize) {
        self.connections[index].expendable = true;
    }

    /// Subscribes an open connection; the answer is a [`News::Reply`].
    ///
    /// # Errors
    /// In a protocol that has no such command.
    pub fn subscribe(&mut self, index: usize, id: u64, channel: &str) -> io::Result<()> {
        let wish = Wish {
            channel,
            recoverable: self.manners.recoverable,
            since: None,
        };
        let frame = self.manners.protocol.subscribe_frame(id, wish);
        let frame = frame.ok_or_else(|| io::Error::other("raw protocols have no subscribe"))?;
        self.send(index, &frame)
    }

    /// Leaves a channel; the answer is a [`News::Reply`].
    ///
    /// # Errors
    /// As `subscribe`.
    pub fn unsubscribe(&mut self, index: usize, id: u64, channel: &str) -> io::Result<()> {
        let frame = self.manners.protocol.unsubscribe_frame(id, channel);
        let frame = frame.ok_or_else(|| io::Error::other("raw protocols have no unsubscribe"))?;
        self.send(index, &frame)
    }

    /// Leaves what arrives in the socket.
    pub fn stop_reading(&mut self, index: usize) -> io::Result<()> {
        let (ring, slot) = self.place_of(index);
        self.rings[ring].stop_receiving(slot)
    }

    /// Reads at most `bytes` of a connection that has stopped reading.
    pub fn read_some(&mut self, index: usize, bytes: u32) -> io::Result<()> {
        let (ring, slot) = self.place_of(index);
        match self.connections[index].stage {
            Stage::Closed => Ok(()),
            _ => self.rings[ring].receive_once(slot, bytes),
        }
    }

    /// Reads on.
    pub fn resume_reading(&mut self, index: usize) -> io::Result<()> {
        let (ring, slot) = self.place_of(index);
        match self.connections[index].stage {
            Stage::Closed => Ok(()),
            _ => self.rings[ring].receive(slot),
        }
    }

    /// Sleeps until a ring has something or `limit` is over.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds: Vec<PollFd<'_>> = self
            .rings
            .iter()
            .map(|ring| PollFd::new(ring, PollFlags::IN))
            .collect();
        let timeout = Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Queues bytes for a connection.
    pub fn send(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.connections[index].tls else {
            return self.put(index, bytes);
        };
        let mut wire = std::mem::take(&mut self.scratch);
        wire.clear();
        tls.seal(bytes, &mut wire)?;
        let put = self.put(index, &wire);
        self.scratch = wire;
        put
    }

    fn put(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let (ring, slot) = self.place_of(index);
        match self.connections[index].stage {
            // Its slot is empty, or another's.
            Stage::Closed => Ok(()),
            _ => self.rings[ring].send(slot, bytes),
        }
    }

    /// Submits what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.rings.iter_mut().try_for_each(Ring::flush)
    }

    /// Where a connection is in its life.
    pub fn stage(&self, index: usize) -> Stage {
        self.connections[index].stage
    }

    /// Connections that have begun and not joined.
    pub fn opening(&self) -> usize {
        self.opening
    }

    /// Connections that have joined and are not over.
    pub fn joined(&self) -> usize {
        self.open
    }

    /// True when the server does not take what this connection sends.
    pub fn is_blocked(&self, index: usize) -> bool {
        let (ring, slot) = self.place_of(index);
        self.rings[ring].is_blocked(slot)
    }

    /// Pings answered.
    pub fn pings(&self) -> u64 {
        self.pings
    }

    /// Bytes that subscribers received.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How often receive buffers ran out.
    pub fn exhausted(&self) -> u64 {
        self.rings.iter().map(Ring::exhausted).sum()
    }

    fn place_of(&self, index: usize) -> (usize, u32) {
        (index / SLOTS_A_RING, (index % SLOTS_A_RING) as u32)
    }
}
