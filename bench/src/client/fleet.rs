//! All connections of a run on a few rings: opening, joining, heartbeats; data is handed to the scenario.
//!
//! Connection `i` is slot `i % SLOTS_A_RING` of ring `i / SLOTS_A_RING`.

use std::io;
use std::time::{Duration, Instant};

use super::centrifuge::Reply;
use super::frames::{self, Deframer, Frame, Opcode};
use super::handshake::{self, Target};
use super::ledger::Faults;
use super::protocol::Protocol;
use super::ring::{Event, Ring, RingSize};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The upgrade's answer is outstanding.
    Upgrading,
    /// So many replies to connect and subscribe are outstanding.
    Joining(u8),
    Open,
    Closed,
}

struct Connection {
    stage: Stage,
    /// Replies that make it joined.
    replies: u8,
    deframer: Deframer,
    answer: Vec<u8>,
}

/// What the fleet has to send once the rings are not borrowed.
enum Errand {
    Join(usize),
    Pong(usize),
    /// A frame that answers another.
    Answer(usize, Vec<u8>),
}

/// How the members of a fleet join.
#[derive(Clone, Debug)]
pub struct Manners {
    pub target: Target,
    /// Where connections go that only publish, if elsewhere.
    pub publish_target: Option<Target>,
    pub protocol: Protocol,
    pub token: Option<String>,
}

/// Opened connections.
pub struct Fleet<'a> {
    manners: &'a Manners,
    rings: Vec<Ring>,
    connections: Vec<Connection>,
    /// The channel each connection subscribes to; publishers have none.
    channel_of: Box<dyn Fn(usize) -> Option<String> + 'a>,
    errands: Vec<Errand>,
    opening: usize,
    pings: u64,
    pub faults: Faults,
}

impl<'a> Fleet<'a> {
    /// A fleet on `rings`, without connections yet.
    pub fn new(
        manners: &'a Manners,
        rings: Vec<Ring>,
        channel_of: impl Fn(usize) -> Option<String> + 'a,
    ) -> Self {
        Self {
            manners,
            rings,
            connections: Vec::new(),
            channel_of: Box::new(channel_of),
            errands: Vec::new(),
            opening: 0,
            pings: 0,
            faults: Faults::default(),
        }
    }

    /// Opens connections up to `count`; returns when each has joined. `on_progress` hears the number opened.
    ///
    /// # Errors
    /// When one cannot be opened: a run with fewer would measure something else.
    pub fn open(&mut self, count: usize, mut on_progress: impl FnMut(usize)) -> io::Result<()> {
        let mut last_progress = Instant::now();
        while self.connections.len() < count || self.opening > 0 {
            if self.connections.len() < count && self.opening < OPENING_AT_ONCE {
                self.open_one()?;
                continue;
            }
            let before = self.opening;
            self.poll(|_, _, _| {})?;
            if self.faults.closed + self.faults.refused + self.faults.malformed > 0 {
                let words = self.faults.first.clone().unwrap_or_default();
                return Err(io::Error::other(format!(
                    "a connection could not be opened: {words}"
                )));
            }
            match self.opening == before {
                false => last_progress = Instant::now(),
                true if last_progress.elapsed() > OPENING_PATIENCE => {
                    let waiting = self.opening;
                    return Err(io::Error::other(format!(
                        "{waiting} connections got no answer in 20 s"
                    )));
                }
                true => {}
            }
            on_progress(self.connections.len() - self.opening);
        }
        Ok(())
    }

    fn open_one(&mut self) -> io::Result<()> {
        let index = self.connections.len();
        let channel = (self.channel_of)(index);
        let target = match (&channel, &self.manners.publish_target) {
            (None, Some(target)) => target,
            _ => &self.manners.target,
        };
        let subprotocol = self.manners.protocol.subprotocol();
        let request = target.upgrade_request(subprotocol, channel.as_deref());
        let socket = handshake::dial_and_ask(target.address, index, &request)
            .map_err(|e| io::Error::new(e.kind(), format!("connection {index}: {e}")))?;
        let ring = &mut self.rings[index / SLOTS_A_RING];
        let slot = ring.attach(socket.into())?;
        debug_assert_eq!(slot as usize, index % SLOTS_A_RING);
        ring.receive(slot)?;
        self.connections.push(Connection {
            stage: Stage::Upgrading,
            replies: self.manners.protocol.replies_to_join(channel.is_some()),
            deframer: Deframer::default(),
            answer: Vec::new(),
        });
        self.opening += 1;
        Ok(())
    }

    /// Takes what has arrived and hands each reply that is not the fleet's own business to `on(connection, reply,
    /// faults)`; answers pings. Never waits. True when there was anything.
    pub fn poll(&mut self, mut on: impl FnMut(usize, &[u8], &mut Faults)) -> io::Result<bool> {
        let mut any = false;
        for (number, ring) in self.rings.iter_mut().enumerate() {
            let mut floor = Floor {
                protocol: &self.manners.protocol,
                connections: &mut self.connections,
                faults: &mut self.faults,
                errands: &mut self.errands,
                opening: &mut self.opening,
                pings: &mut self.pings,
            };
            any |= ring.poll(|event| match event {
                Event::Received { slot, bytes } => {
                    floor.received(number * SLOTS_A_RING + slot as usize, bytes, &mut on);
                }
                Event::Closed { slot, errno } => {
                    floor.closed(number * SLOTS_A_RING + slot as usize, || match errno {
                        Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
                        None => "the server closed the socket".to_owned(),
                    })
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
            protocol, token, ..
        } = self.manners;
        for errand in std::mem::take(&mut self.errands) {
            match errand {
                Errand::Join(index) => {
                    let channel = (self.channel_of)(index);
                    let frames =
                        protocol.join_frames(index as u64, token.as_deref(), channel.as_deref());
                    self.send(index, &frames)?;
                }
                Errand::Pong(index) => self.send(index, &protocol.pong_frame())?,
                Errand::Answer(index, frame) => self.send(index, &frame)?,
            }
        }
        self.flush()
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
        self.rings[index / SLOTS_A_RING].send((index % SLOTS_A_RING) as u32, bytes)
    }

    /// Submits what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.rings.iter_mut().try_for_each(Ring::flush)
    }

    /// True when the server does not take what this connection sends.
    pub fn is_blocked(&self, index: usize) -> bool {
        self.rings[index / SLOTS_A_RING].is_blocked((index % SLOTS_A_RING) as u32)
    }

    /// Pings answered.
    pub fn pings(&self) -> u64 {
        self.pings
    }

    /// How often receive buffers ran out.
    pub fn exhausted(&self) -> u64 {
        self.rings.iter().map(Ring::exhausted).sum()
    }
}

/// The parts of a fleet that may change while a ring is borrowed.
struct Floor<'a> {
    protocol: &'a Protocol,
    connections: &'a mut [Connection],
    faults: &'a mut Faults,
    errands: &'a mut Vec<Errand>,
    opening: &'a mut usize,
    pings: &'a mut u64,
}

impl Floor<'_> {
    fn received(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, &[u8], &mut Faults),
    ) {
        match self.connections[index].stage {
            Stage::Closed => {}
            Stage::Upgrading => self.upgrading(index, bytes, on),
            Stage::Joining(_) | Stage::Open => self.frames(index, bytes, on),
        }
    }

    fn upgrading(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, &[u8], &mut Faults),
    ) {
        let mut answer = std::mem::take(&mut self.connections[index].answer);
        answer.extend_from_slice(bytes);
        match handshake::answer_length(&answer, self.protocol) {
            Ok(None) => self.connections[index].answer = answer,
            Ok(Some(end)) => {
                // Some servers speak first, so replies count from here.
                self.connections[index].stage = match self.connections[index].replies {
                    0 => {
                        *self.opening -= 1;
                        Stage::Open
                    }
                    replies => Stage::Joining(replies),
                };
                self.errands.push(Errand::Join(index));
                self.frames(index, &answer[end..], on);
            }
            Err(words) => self.closed(index, || words),
        }
    }

    fn frames(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, &[u8], &mut Faults),
    ) {
        let mut deframer = std::mem::take(&mut self.connections[index].deframer);
        let walked = deframer.walk(bytes, |frame| match frame {
            Frame::Data(message) => self.protocol.each_reply(message, |reply| {
                if reply.is_empty() {
                    *self.pings += 1;
                    self.errands.push(Errand::Pong(index));
                } else if let Some(frame) = self.protocol.answer_frame(reply) {
                    *self.pings += 1;
                    self.errands.push(Errand::Answer(index, frame));
                } else if self.connections[index].stage == Stage::Open {
                    on(index, reply, self.faults);
                } else {
                    self.joining(index, reply);
                }
            }),
            Frame::Ping(payload) => {
                let mut frame = Vec::new();
                frames::write_masked(&mut frame, Opcode::Pong, payload);
                self.errands.push(Errand::Answer(index, frame));
            }
            Frame::Pong => {}
            Frame::Close(code) => self.closed(index, || format!("the server closed with {code}")),
        });
        self.connections[index].deframer = deframer;
        if let Err(fault) = walked {
            self.faults.malformed += 1;
            self.closed(index, || fault.to_string());
        }
    }

    fn joining(&mut self, index: usize, reply: &[u8]) {
        match (
            self.protocol.read_reply(reply),
            self.connections[index].stage,
        ) {
            (Reply::Done(_) | Reply::Foreign, Stage::Joining(left)) if left > 1 => {
                self.connections[index].stage = Stage::Joining(left - 1);
            }
            (Reply::Done(_) | Reply::Foreign, _) => {
                self.connections[index].stage = Stage::Open;
                *self.opening -= 1;
            }
            // Joins of others, and publications between the two replies of a connection that is re-subscribing.
            (Reply::Push, _) => {}
            (Reply::Refused(id, code, message), _) => {
                self.faults.refused += 1;
                self.faults.explain(|| {
                    format!("connection {index}: command {id}: error {code} {message}")
                });
            }
            (Reply::Garbage, _) => {
                self.faults.malformed += 1;
                let text = String::from_utf8_lossy(reply);
                self.faults
                    .explain(|| format!("connection {index}: no reply: {text}"));
            }
        }
    }

    fn closed(&mut self, index: usize, words: impl FnOnce() -> String) {
        let stage = std::mem::replace(&mut self.connections[index].stage, Stage::Closed);
        match stage {
            Stage::Closed => return,
            Stage::Open => {}
            Stage::Upgrading | Stage::Joining(_) => *self.opening -= 1,
        }
        self.faults.closed += 1;
        self.faults
            .explain(|| format!("connection {index}: {}", words()));
    }
}
