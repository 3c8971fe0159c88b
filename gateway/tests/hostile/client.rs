//! A client that does what it is told, right or wrong.

use crate::node::{DEADLINE, Node, SECRET};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use ringway::config::TokenConfig;
use ringway::protocol::centrifuge::Encoding;
use ringway::protocol::centrifuge::client::{
    self as wire, ClientPush, Connect, Replies, ReplyKind, Subscribe,
};
use ringway::protocol::token::{ConnectionGrant, sign_connection};
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::{
    ClientDecoder, mark_deflated, write_masked_fragment, write_masked_frame, write_upgrade_request,
};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x1b, 0x2c, 0x3d, 0x4e];
const JSON: Encoding = Encoding::Json;

/// An address of its own for each scenario: `place(2)` is 127.0.2.1.
pub fn place(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, number, 1)
}

pub struct Client {
    pub socket: TcpStream,
    decoder: ClientDecoder,
    next_id: u32,
    /// Publications and joins that it was pushed.
    pub pushed: u64,
    /// Pings that came.
    pings: u64,
    /// Whether it answers them.
    pub answers_pings: bool,
    closed: Option<u16>,
    /// Replies that nobody has asked for yet.
    replies: HashMap<u32, Result<(), u32>>,
}

/// An upgrade request's answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u32>,
}

impl Client {
    /// Connects; says nothing.
    pub fn silent(from: Ipv4Addr, node: &Node) -> Self {
        Self::with_window(from, node, None)
    }

    /// The same with a receive buffer of a size.
    pub fn with_window(from: Ipv4Addr, node: &Node, bytes: Option<usize>) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if let Some(bytes) = bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&node.clients.into()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        Self {
            socket: socket.into(),
            decoder: ClientDecoder::new(),
            next_id: 0,
            pushed: 0,
            pings: 0,
            answers_pings: true,
            closed: None,
            replies: HashMap::new(),
        }
    }

    /// The bytes of an upgrade request.
    pub fn request() -> Vec<u8> {
        Self::request_with("")
    }

    /// The same with more header lines.
    fn request_with(more_lines: &str) -> Vec<u8> {
        let (mut out, path) = (Vec::new(), "/connection/websocket");
        write_upgrade_request(&mut out, path, "localhost", KEY, more_lines);
        out
    }

    /// Asks for the upgrade.
    pub fn upgrade(&mut self) -> Answer {
        self.write(&Self::request());
        self.answer().expect("an answer")
    }

    /// The answer to an upgrade request; `None`: the connection is over without one.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.socket.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Ok(_) => return None,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
        let text = String::from_utf8(head).unwrap();
        let retry_after = text
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Retry-After: "))
            .map(|seconds| seconds.parse().unwrap());
        Some(Answer {
            status: text[9..12].parse().unwrap(),
            retry_after,
        })
    }

    /// Upgraded.
    pub fn upgraded(from: Ipv4Addr, node: &Node) -> Self {
        let mut client = Self::silent(from, node);
        assert_eq!(client.upgrade().status, 101);
        client
    }

    /// Connected, with permessage-deflate.
    pub fn deflating(from: Ipv4Addr, node: &Node) -> Self {
        let mut client = Self::silent(from, node);
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        client.write(&Self::request_with(offer));
        assert_eq!(client.answer().expect("an answer").status, 101);
        client.decoder.allow_deflate();
        assert_eq!(client.connect(""), Ok(()));
        client
    }

    /// Upgraded and connected, as a user or anonymous.
    pub fn connected(from: Ipv4Addr, node: &Node, user: &str) -> Self {
        let mut client = Self::upgraded(from, node);
        assert_eq!(client.connect(user), Ok(()));
        client
    }

    pub fn connect(&mut self, user: &str) -> Result<(), u32> {
        let config = TokenConfig {
            hmac_secret_key: SECRET.into(),
            ..TokenConfig::default()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let grant = ConnectionGrant {
            user,
            ..ConnectionGrant::default()
        };
        let token = match user {
            "" => String::new(),
            _ => sign_connection(&config, &grant, now.as_secs()).unwrap(),
        };
        self.call(|out, id| {
            let request = Connect {
                token: &token,
                ..Connect::default()
            };
            wire::connect(out, JSON, id, &request);
        })
    }

    pub fn subscribe(&mut self, channel: &str) -> Result<(), u32> {
        self.call(|out, id| {
            let request = Subscribe {
                channel,
                ..Subscribe::default()
            };
            wire::subscribe(out, JSON, id, &request);
        })
    }

    pub fn publish(&mut self, channel: &str, data: &str) -> Result<(), u32> {
        self.call(|out, id| wire::publish(out, JSON, id, channel, data.as_bytes()))
    }

    pub fn ping(&mut self) -> Result<(), u32> {
        self.call(|out, id| wire::ping(out, JSON, id))
    }

    /// Sends a command and waits for its reply: done, or an error's code. A close comes out as its code.
    pub fn call(&mut self, write: impl FnOnce(&mut Vec<u8>, u32)) -> Result<(), u32> {
        let id = self.tell(write);
        self.reply(id)
    }

    /// Sends a command. A connection that is over takes it, too.
    pub fn tell(&mut self, write: impl FnOnce(&mut Vec<u8>, u32)) -> u32 {
        self.next_id += 1;
        let mut command = Vec::new();
        write(&mut command, self.next_id);
        self.write(&frame(Opcode::Text, &command));
        self.next_id
    }

    /// Waits for the reply to a command. A close comes out as its code, an end without one as 0.
    pub fn reply(&mut self, id: u32) -> Result<(), u32> {
        loop {
            self.take_in();
            match (self.replies.remove(&id), self.closed) {
                (Some(outcome), _) => return outcome,
                (None, Some(code)) => return Err(u32::from(code)),
                (None, None) => self.receive(),
            }
        }
    }

    /// Waits for the close frame: its code; 0: it is over without one.
    pub fn close_code(&mut self) -> u16 {
        loop {
            self.take_in();
            match self.closed {
                Some(code) => return code,
                None => self.receive(),
            }
        }
    }

    /// Waits until so many pings came.
    pub fn until_pinged(&mut self, count: u64) {
        while self.pings < count {
            self.take_in();
            assert_eq!(self.closed, None, "closed");
            if self.pings < count {
                self.receive();
            }
        }
    }

    /// Waits until it was pushed so much.
    pub fn until_pushed(&mut self, count: u64) {
        loop {
            self.take_in();
            assert_eq!(self.closed, None, "closed");
            if self.pushed >= count {
                return;
            }
            self.receive();
        }
    }

    fn receive(&mut self) {
        let mut piece = [0; 16 * 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => self.closed = Some(self.closed.unwrap_or(0)),
            Ok(count) => self.decoder.push(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.closed = Some(self.closed.unwrap_or(0));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("nothing comes: {error}"),
        }
    }

    fn take_in(&mut self) {
        let answered = self.pings;
        while let Some(frame) = self.decoder.next_frame().expect("good frames") {
            match frame.opcode {
                Opcode::Close => {
                    let code = frame.payload.first_chunk();
                    self.closed = Some(code.map_or(1005, |code| u16::from_be_bytes(*code)));
                }
                Opcode::Pong => {}
                _ => {
                    for reply in Replies::new(JSON, frame.payload) {
                        let reply = reply.expect("a good reply");
                        match reply.kind {
                            ReplyKind::Ping => self.pings += 1,
                            ReplyKind::Push {
                                push: ClientPush::Publication(_) | ClientPush::Join(_),
                                ..
                            } => self.pushed += 1,
                            ReplyKind::Push { .. } => {}
                            ReplyKind::Error(failure) => {
                                self.replies.insert(reply.id, Err(failure.code));
                            }
                            _ => {
                                self.replies.insert(reply.id, Ok(()));
                            }
                        }
                    }
                }
            }
        }
        for _ in answered..self.pings {
            if !self.answers_pings {
                break;
            }
            let mut pong = Vec::new();
            wire::pong(&mut pong, JSON);
            self.write(&frame(Opcode::Text, &pong));
        }
    }

    /// Writes what it is given; the gateway may have had enough.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        match self.socket.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                let of_a_peer = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(of_a_peer.contains(&error.kind()), "{error}");
                false
            }
        }
    }

    /// Writes, or gives up when the gateway takes nothing for a while.
    pub fn press(&mut self, bytes: &[u8], patience: Duration) -> bool {
        self.socket.set_write_timeout(Some(patience)).unwrap();
        let pressed = self.socket.write_all(bytes).is_ok();
        self.socket.set_write_timeout(Some(DEADLINE)).unwrap();
        pressed
    }
}

/// A masked frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked_frame(&mut out, opcode, MASK, payload);
    out
}

/// A masked text frame whose message is compressed.
pub fn deflated(message: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).unwrap();
    encoder.flush().unwrap();
    let payload = encoder.get_ref();
    let mut out = frame(Opcode::Text, &payload[..payload.len() - 4]);
    mark_deflated(&mut out);
    out
}

/// Commands with the ids 1000 and on, as few frames as may be.
pub fn messages(count: u32, write: impl Fn(&mut Vec<u8>, u32)) -> Vec<u8> {
    let (mut out, mut message) = (Vec::new(), Vec::new());
    for id in 0..count {
        write(&mut message, 1000 + id);
        if message.len() > 60_000 || id + 1 == count {
            out.extend(frame(Opcode::Text, &message));
            message.clear();
        }
    }
    out
}

/// A masked fragment.
pub fn fragment(opcode: Opcode, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked_fragment(&mut out, opcode, is_last, MASK, payload);
    out
}
