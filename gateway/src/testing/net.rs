//! The outside of one shard: virtual sockets with their client ends, and what befalls them.
//!
//! A socket has two directions. Towards the server bytes wait until the reactor hands them over in pieces; towards the
//! client a *window* bounds what the server's sends may leave unread, as the two kernels' buffers do. A *rough* socket has
//! sends cut, refused and reset at random besides; a smooth one takes everything at once, so whoever reads it promptly has
//! no excuse coming.

use super::rng::Rng;
use crate::ids::{Now, Token};
use crate::reactor::{CloseHow, ReactorStats};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

/// Virtual time, shared by everything in a run.
#[derive(Clone, Debug)]
pub struct Clock(Rc<Cell<u64>>);

impl Default for Clock {
    fn default() -> Self {
        Self(Rc::new(Cell::new(1)))
    }
}

impl Clock {
    /// Milliseconds since the run began; starts above zero.
    pub fn millis(&self) -> u64 {
        self.0.get()
    }

    /// Lets time pass.
    pub fn advance(&self, millis: u64) {
        self.0.set(self.0.get() + millis);
    }

    /// As a reactor tells it.
    pub fn now(&self) -> Now {
        Now {
            millis: self.millis(),
            nanos: self.millis() * 1_000_000,
            unix_millis: 1_790_000_000_000 + self.millis(),
        }
    }
}

/// What befalls rough sockets, per mille of sends or polls.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A send is cut at a random byte.
    pub cut: u32,
    /// A send takes nothing although there is room.
    pub refuse: u32,
    /// A send finds the connection reset.
    pub reset: u32,
    /// A waiting socket is reported writable without reason.
    pub spurious_writable: u32,
    /// A readable socket is passed over in a poll (smooth ones too).
    pub read_late: u32,
    /// A poll also reports something of a life that is over (smooth sockets suffer it too).
    pub ghost: u32,
    /// Longest until a closed slot is free, milliseconds.
    pub close_millis: u64,
    /// Longest until a socket with room is reported writable, milliseconds.
    pub writable_millis: u64,
}

impl Weather {
    /// Nothing befalls anybody.
    pub const CALM: Self = Self {
        cut: 0,
        refuse: 0,
        reset: 0,
        spurious_writable: 0,
        read_late: 0,
        ghost: 0,
        close_millis: 0,
        writable_millis: 0,
    };
}

/// Names a socket for the whole run; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// How the client has given up its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientEnd {
    Open,
    Closed,
    Reset,
}

/// How a client learns that the server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerGone {
    /// After everything it sent.
    Eof,
    /// What was under way is lost.
    Reset,
}

/// What befell a socket: what its client may be excused for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A send was not taken whole.
    pub was_short: bool,
    /// The weather reset it.
    pub was_reset: bool,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) peer: SocketAddr,
    pub(super) rough: bool,
    pub(super) to_server: VecDeque<u8>,
    pub(super) to_client: VecDeque<u8>,
    pub(super) window: usize,
    pub(super) client: ClientEnd,
    pub(super) server_gone: Option<ServerGone>,
    pub(super) facts: Facts,
    /// `Ended` was reported.
    pub(super) end_reported: bool,
    /// `Writable` was asked for; not to be reported before this moment.
    pub(super) writable_due: Option<u64>,
}

impl Socket {
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.to_client.len())
    }

    pub(super) fn is_dead(&self) -> bool {
        self.client != ClientEnd::Open || self.facts.was_reset
    }

    /// Something can be told about it: bytes, or its end.
    pub(super) fn is_readable(&self) -> bool {
        !self.end_reported && (!self.to_server.is_empty() || self.is_dead())
    }
}

/// One place in the file table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Free,
    /// Reported, neither opened nor closed yet.
    Accepted(SocketId),
    Open(SocketId, Token),
    /// Free again at this moment.
    Closing(u64),
}

/// The outside of one shard. The reactor holds the other end.
#[derive(Debug)]
pub struct Net {
    pub(super) rng: Rng,
    pub(super) clock: Clock,
    pub(super) weather: Weather,
    pub(super) listening: bool,
    pub(super) sockets: Vec<Socket>,
    pub(super) backlog: VecDeque<SocketId>,
    pub(super) slots: Vec<Slot>,
    /// The generation each slot had last.
    pub(super) generations: Vec<Option<u32>>,
    /// Lives that ended lately.
    pub(super) dead: VecDeque<Token>,
    pub(super) stats: ReactorStats,
    /// When the last poll was, if it brought nothing.
    pub(super) empty_poll: Option<u64>,
    /// Until when the shard would sleep if nothing happened.
    pub(super) asleep_until: u64,
}

/// Shared by a world and one reactor.
pub type SharedNet = Rc<RefCell<Net>>;

impl Net {
    /// A listener and an empty table of `slots`.
    pub fn new(rng: Rng, clock: Clock, slots: usize, weather: Weather) -> SharedNet {
        Rc::new(RefCell::new(Self {
            rng,
            clock,
            weather,
            listening: true,
            sockets: Vec::new(),
            backlog: VecDeque::new(),
            slots: vec![Slot::Free; slots],
            generations: vec![None; slots],
            dead: VecDeque::new(),
            stats: ReactorStats::default(),
            empty_poll: None,
            asleep_until: 0,
        }))
    }

    /// From now on.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// A client connects; `None`: refused, nobody listens. `window` is what may lie unread on the way to it, bytes.
    pub fn connect(&mut self, peer: SocketAddr, rough: bool, window: usize) -> Option<SocketId> {
        if !self.listening {
            return None;
        }
        let id = SocketId(self.sockets.len() as u32);
        self.sockets.push(Socket {
            peer,
            rough,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            window,
            client: ClientEnd::Open,
            server_gone: None,
            facts: Facts::default(),
            end_reported: false,
            writable_due: None,
        });
        self.backlog.push_back(id);
        Some(id)
    }

    /// The client writes. What the server no longer reads is lost.
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) {
        let socket = self.socket(id);
        if !socket.is_dead() && socket.server_gone.is_none() {
            socket.to_server.extend(bytes);
        }
    }

    /// The client reads at most `most` bytes.
    pub fn read(&mut self, id: SocketId, most: usize, into: &mut Vec<u8>) {
        let socket = self.socket(id);
        let take = socket.to_client.len().min(most);
        into.extend(socket.to_client.drain(..take));
    }

    /// Bytes that wait for the client.
    pub fn unread(&self, id: SocketId) -> usize {
        self.sockets[id.0 as usize].to_client.len()
    }

    /// Whether the client, having read everything, finds the server gone.
    pub fn server_gone(&self, id: SocketId) -> Option<ServerGone> {
        let socket = &self.sockets[id.0 as usize];
        match socket.server_gone {
            _ if socket.facts.was_reset => Some(ServerGone::Reset),
            Some(ServerGone::Eof) if !socket.to_client.is_empty() => None,
            gone => gone,
        }
    }

    /// The client closes its socket: EOF behind what it wrote.
    pub fn close(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.client == ClientEnd::Open {
            socket.client = ClientEnd::Closed;
            socket.to_client.clear();
        }
    }

    /// The client's socket is reset; what it wrote and the server has not read is lost.
    pub fn abort(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.client == ClientEnd::Open {
            socket.client = ClientEnd::Reset;
            socket.to_client.clear();
            socket.to_server.clear();
        }
    }

    /// How much may lie unread from now on.
    pub fn set_window(&mut self, id: SocketId, bytes: usize) {
        self.socket(id).window = bytes;
    }

    /// From now on sends to this socket are neither cut nor refused at random.
    pub fn smooth(&mut self, id: SocketId) {
        self.socket(id).rough = false;
    }

    /// What befell it.
    pub fn facts(&self, id: SocketId) -> Facts {
        self.sockets[id.0 as usize].facts
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether connects are answered.
    pub fn is_listening(&self) -> bool {
        self.listening
    }

    /// Slots that are not free.
    pub fn slots_in_use(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| **slot != Slot::Free)
            .count()
    }

    /// Whether a thread that sleeps in `poll` would be awake by now: there is an event, or its patience is over.
    pub fn is_awake(&self) -> bool {
        let now = self.clock.millis();
        self.asleep_until <= now
            || (self.listening && !self.backlog.is_empty() && self.slots.contains(&Slot::Free))
            || self.slots.iter().any(|slot| match slot {
                Slot::Free | Slot::Accepted(_) => false,
                Slot::Closing(due) => *due <= now,
                Slot::Open(id, _) => {
                    let socket = &self.sockets[id.0 as usize];
                    socket.is_readable() || Self::is_writable(socket, now)
                }
            })
    }

    /// A batch arrived: the sleep ends.
    pub fn wake(&mut self) {
        self.asleep_until = 0;
        self.empty_poll = None;
    }

    /// When the shard wants to be called again at the latest.
    pub fn asleep_until(&self) -> u64 {
        self.asleep_until
    }

    pub(super) fn is_writable(socket: &Socket, now: u64) -> bool {
        socket
            .writable_due
            .is_some_and(|due| due <= now && (socket.room() > 0 || socket.is_dead()))
    }

    pub(super) fn socket(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id.0 as usize]
    }

    /// The kernel's half of a close.
    pub(super) fn close_slot(&mut self, token: Token, how: CloseHow) {
        let slot = token.slot as usize;
        let id = match self.slots[slot] {
            Slot::Open(id, open) => {
                assert_eq!(open, token, "contract: close of another life");
                id
            }
            Slot::Accepted(id) => id,
            other => panic!("contract: close of slot {slot}, which is {other:?}"),
        };
        let due = self.clock.millis() + self.rng.below(self.weather.close_millis + 1);
        self.slots[slot] = Slot::Closing(due);
        self.generations[slot] = Some(token.generation);
        let socket = self.socket(id);
        socket.to_server.clear();
        socket.writable_due = None;
        socket.end_reported = true;
        socket.server_gone = Some(match how {
            CloseHow::Orderly => ServerGone::Eof,
            CloseHow::Reset => {
                socket.to_client.clear();
                ServerGone::Reset
            }
        });
        self.dead.push_back(token);
        if self.dead.len() > 16 {
            self.dead.pop_front();
        }
    }
}
