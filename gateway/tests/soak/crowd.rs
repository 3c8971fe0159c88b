//! Those who come and go. Each draws a state to get to and a way to end, and may be ended long before it got there.

use crate::node::{self, DEADLINE};
use crate::wire::{self, FLOODED, PASSING, Tops, WATCHED};
use ringway::protocol::centrifuge::Encoding;
use ringway::protocol::centrifuge::client::{
    History, Position, Subscribe, history, presence, publish, rpc, subscribe, unsubscribe,
};
use ringway::testing::rng::Rng;
use rustix::event::epoll;
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sockets that are used at a time, and those beside them that are only held.
pub const USED_MAX: usize = 2200;
pub const LEFT_MAX: usize = 1400;
/// The kernel's table is long while connections are in TIME_WAIT.
const TABLE_EVERY: Duration = Duration::from_secs(4);
/// Publications of the crowd in watched channels are marked as of this publisher.
pub const CROWD: u64 = 0xff;

/// How far a client wants to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Silent,
    HalfRequestLine,
    HalfHeader,
    BadRequest,
    Upgraded,
    Connected,
    Subscribed,
    Busy,
    HalfFrame,
    BadFrame,
    Closed,
    Stalled,
}

/// With how often of a hundred.
const STATES: [(State, u64); 12] = [
    (State::Silent, 4),
    (State::HalfRequestLine, 6),
    (State::HalfHeader, 7),
    (State::BadRequest, 3),
    (State::Upgraded, 9),
    (State::Connected, 10),
    (State::Subscribed, 20),
    (State::Busy, 15),
    (State::HalfFrame, 8),
    (State::BadFrame, 3),
    (State::Closed, 8),
    (State::Stalled, 7),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// What the kernel makes of a close: FIN, or a reset if there are unread bytes.
    Close,
    Reset,
    /// FIN, and then held until the server closes.
    HalfClose,
    /// Held until the server closes.
    Leave,
}

struct Client {
    socket: TcpStream,
    /// All it will write, and how much of it is written.
    script: Vec<u8>,
    written: usize,
    state: State,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    ended: BTreeMap<(State, Ending), u64>,
    /// By the server, while in use.
    ended_by_server: u64,
    /// Left alone, and not told of the server's end.
    untold: u64,
    pub open_max: usize,
}

pub struct Crowd {
    server: SocketAddr,
    rng: Rng,
    tops: Arc<Tops>,
    used: Vec<Client>,
    /// By number: those that wait for the server to close.
    left: HashMap<u64, (Client, Instant)>,
    left_so_far: u64,
    looked: Instant,
    hangups: OwnedFd,
    pub connected: u64,
    published: u64,
    scratch: Vec<u8>,
    pub tally: Tally,
}

impl Crowd {
    pub fn new(server: SocketAddr, rng: Rng, tops: Arc<Tops>) -> Self {
        Self {
            server,
            rng,
            tops,
            used: Vec::new(),
            left: HashMap::new(),
            left_so_far: 0,
            looked: Instant::now(),
            hangups: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            connected: 0,
            published: 0,
            scratch: vec![0; 64 * 1024],
            tally: Tally::default(),
        }
    }

    /// Does one thing, whatever it is.
    pub fn step(&mut self) {
        match self.rng.below(16) {
            0..=1 if self.used.len() < USED_MAX => self.arrive(),
            2..=9 => self.write(),
            10..=12 => self.read(),
            // Fewer end than come, until there are many.
            13 if self.rng.chance(950) => self.end(),
            14 if self.used.len() > USED_MAX / 2 => self.end(),
            15 if self.rng.chance(20) => self.look_after_left(Duration::ZERO),
            _ => {}
        }
    }

    /// Ends all, and waits until the server has given up those that only wait for it.
    pub fn leave(&mut self) {
        while !self.used.is_empty() {
            self.end();
        }
        while !self.left.is_empty() {
            self.look_after_left(Duration::from_millis(200));
        }
    }

    fn arrive(&mut self) {
        let state = self.draw_state();
        let script = self.script(state);
        let source = Ipv4Addr::new(
            127,
            self.rng.range(1, 254) as u8,
            self.rng.below(256) as u8,
            self.rng.range(2, 254) as u8,
        );
        // Small windows are soon full.
        let window = (state == State::Stalled || self.rng.chance(200)).then_some(4096);
        let socket = connect_from(source, self.server, window);
        let client = Client {
            socket,
            script,
            written: 0,
            state,
        };
        self.used.push(client);
        self.connected += 1;
        self.tally.open_max = self.tally.open_max.max(self.used.len() + self.left.len());
        if self.rng.chance(500) {
            self.write_at(self.used.len() - 1, usize::MAX);
        }
    }

    fn draw_state(&mut self) -> State {
        let mut n = self.rng.below(100);
        for (state, weight) in STATES {
            match n.checked_sub(weight) {
                None => return state,
                Some(rest) => n = rest,
            }
        }
        unreachable!("the weights are of a hundred")
    }

    /// The bytes that lead to a state. They are sent in any pieces, and answers are not waited for.
    fn script(&mut self, state: State) -> Vec<u8> {
        let encoding = *self.rng.pick(&Encoding::ALL);
        let mut out = Vec::new();
        if state == State::Silent {
            return out;
        }
        wire::upgrade(&mut out, encoding);
        let line = out.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        match state {
            State::HalfRequestLine => out.truncate(self.rng.range(1, line as u64 - 1) as usize),
            State::HalfHeader => {
                out.truncate(self.rng.range(line as u64, out.len() as u64 - 1) as usize);
            }
            State::BadRequest => {
                let at = self.rng.index(line - 2);
                out[at] = b' ';
            }
            _ => {}
        }
        if state <= State::Upgraded {
            return out;
        }
        wire::greet(&mut out, encoding);
        if state == State::Connected {
            return out;
        }
        let mut channels = Vec::new();
        for id in 0..self.rng.range(1, 4) {
            let channel = self.draw_channel(state);
            self.subscribe(&mut out, encoding, id as u32 + 2, &channel);
            channels.push(channel);
        }
        match state {
            State::Busy => {
                for id in 0..self.rng.range(1, 8) {
                    let channel = self.rng.pick(&channels).clone();
                    self.command(&mut out, encoding, id as u32 + 10, &channel);
                }
            }
            State::HalfFrame => {
                let start = out.len();
                self.command(&mut out, encoding, 10, &channels[0].clone());
                out.truncate(self.rng.range(start as u64 + 1, out.len() as u64 - 1) as usize);
            }
            // Not masked, and of no known kind.
            State::BadFrame => out.extend_from_slice(b"\x83\x05hello"),
            State::Closed => {
                wire::close(&mut out);
                if self.rng.chance(500) {
                    self.command(&mut out, encoding, 10, &channels[0].clone());
                }
            }
            _ => {}
        }
        out
    }

    fn draw_channel(&mut self, state: State) -> String {
        match self.rng.below(10) {
            _ if state == State::Stalled => (*self.rng.pick(&FLOODED)).to_owned(),
            0..=2 => (*self.rng.pick(&WATCHED)).to_owned(),
            3 if self.rng.chance(200) => (*self.rng.pick(&FLOODED)).to_owned(),
            4 => format!("plain:{}", self.rng.below(PASSING)),
            _ => format!("passing{}", self.rng.below(PASSING)),
        }
    }

    fn subscribe(&mut self, out: &mut Vec<u8>, encoding: Encoding, id: u32, channel: &str) {
        let watched = WATCHED.iter().position(|it| *it == channel);
        let recover = self.rng.chance(400).then(|| {
            let top = watched.map_or(5, |channel| self.tops.get(channel));
            let epoch = if self.rng.chance(900) { "" } else { "another" };
            Position {
                offset: top.saturating_sub(self.rng.below(80)),
                epoch,
            }
        });
        let request = Subscribe {
            channel,
            recover,
            positioned: self.rng.chance(300),
            recoverable: self.rng.chance(300),
            join_leave: self.rng.chance(300),
            ..Subscribe::default()
        };
        wire::message(out, encoding, |out| subscribe(out, encoding, id, &request));
    }

    fn command(&mut self, out: &mut Vec<u8>, encoding: Encoding, id: u32, channel: &str) {
        let kind = self.rng.below(6);
        self.published += u64::from(kind <= 1);
        let mark = (CROWD << 40 | self.published).to_string();
        let limit = self.rng.range(0, 30) as i32;
        wire::message(out, encoding, |out| match kind {
            0..=1 => publish(out, encoding, id, channel, mark.as_bytes()),
            2 => unsubscribe(out, encoding, id, channel),
            3 => presence(out, encoding, id, channel),
            4 => rpc(out, encoding, id, "echo", b"{}"),
            _ => {
                let request = History {
                    channel,
                    limit,
                    ..History::default()
                };
                history(out, encoding, id, &request);
            }
        });
    }

    fn write(&mut self) {
        if self.used.is_empty() {
            return;
        }
        let at = self.rng.index(self.used.len());
        let client = &self.used[at];
        let rest = client.script.len() - client.written;
        if rest > 0 {
            let piece = match self.rng.chance(500) {
                true => rest,
                false => self.rng.range(1, rest as u64) as usize,
            };
            self.write_at(at, piece);
        }
    }

    fn write_at(&mut self, at: usize, piece: usize) {
        let client = &mut self.used[at];
        let rest = &client.script[client.written..];
        match client.socket.write(&rest[..piece.min(rest.len())]) {
            Ok(taken) => client.written += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.ended_by_server(at, &error),
        }
    }

    fn read(&mut self) {
        if self.used.is_empty() {
            return;
        }
        let at = self.rng.index(self.used.len());
        let client = &mut self.used[at];
        // Now and then one of these reads after all, and is to be told what its channel's policy says.
        if client.state == State::Stalled && !self.rng.chance(300) {
            return;
        }
        match client.socket.read(&mut self.scratch) {
            Ok(0) => {
                self.tally.ended_by_server += 1;
                self.used.swap_remove(at);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.ended_by_server(at, &error),
        }
    }

    fn ended_by_server(&mut self, at: usize, error: &std::io::Error) {
        let of_a_peer = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(of_a_peer.contains(&error.kind()), "{error}");
        self.tally.ended_by_server += 1;
        self.used.swap_remove(at);
    }

    fn end(&mut self) {
        if self.used.is_empty() {
            return;
        }
        let at = self.rng.index(self.used.len());
        let client = self.used.swap_remove(at);
        let patience = if client.state == State::Stalled {
            300
        } else {
            120
        };
        let ending = match self.rng.below(1000) {
            n if n < patience && self.left.len() < LEFT_MAX => {
                *self
                    .rng
                    .pick(&[Ending::Leave, Ending::Leave, Ending::HalfClose])
            }
            n if n % 2 == 0 => Ending::Reset,
            _ => Ending::Close,
        };
        *self.tally.ended.entry((client.state, ending)).or_default() += 1;
        match ending {
            Ending::Close => {}
            Ending::Reset => socket2::SockRef::from(&client.socket)
                .set_linger(Some(Duration::ZERO))
                .unwrap(),
            Ending::HalfClose => match client.socket.shutdown(Shutdown::Write) {
                Err(error) if error.kind() != ErrorKind::NotConnected => panic!("{error}"),
                // The server may have reset it already.
                _ => self.wait_for_hangup(client),
            },
            Ending::Leave => self.wait_for_hangup(client),
        }
    }

    fn wait_for_hangup(&mut self, client: Client) {
        // Whether it reads or not, nobody reads here: what has not been taken stays.
        let number = self.left_so_far;
        self.left_so_far += 1;
        let interest = epoll::EventFlags::RDHUP;
        let data = epoll::EventData::new_u64(number);
        epoll::add(&self.hangups, &client.socket, data, interest).unwrap();
        self.left.insert(number, (client, Instant::now()));
    }

    fn look_after_left(&mut self, patience: Duration) {
        let mut events = Vec::with_capacity(1024);
        let timeout = patience.try_into().unwrap();
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.hangups, buffer, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return,
            waited => _ = waited.unwrap(),
        }
        for event in events {
            let gone = self.left.remove(&event.data.u64());
            assert!(gone.is_some(), "a hangup of nobody");
        }
        self.forget_untold();
    }

    /// Whom the server's end does not reach, because it does not read what stands before it, is dropped when the server's end
    /// is gone from the kernel's table; and no end may stay there for ever.
    fn forget_untold(&mut self) {
        if self.looked.elapsed() < TABLE_EVERY {
            return;
        }
        let kept = node::server_ends(self.server);
        self.looked = Instant::now();
        self.left.retain(|_, (client, since)| {
            let address = client.socket.local_addr().unwrap();
            let Some(end) = kept.get(&address) else {
                self.tally.untold += 1;
                return false;
            };
            assert!(
                since.elapsed() < DEADLINE,
                "the server keeps {address}, {:?}, of which {} of {} bytes were written; the socket is in state {end}",
                client.state,
                client.written,
                client.script.len()
            );
            true
        });
    }
}

/// Connects from an address of its own in 127/8; afterwards it does not block.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr, window: Option<usize>) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if let Some(bytes) = window {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}
