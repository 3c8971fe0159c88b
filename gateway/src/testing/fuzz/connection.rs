//! A connection from its first byte to its end, on a shard of its own: twice, all at once over a smooth socket, and in pieces
//! over one whose sends are cut and refused. What the server says must be well formed, and the same.

use super::Draws;
use super::node::Node;
use crate::protocol::centrifuge::client::{
    self, ClientPush, ClientReply, Connect, Replies, ReplyKind,
};
use crate::protocol::centrifuge::{Encoding, json};
use crate::protocol::http::{SUBPROTOCOL_PROTOBUF, parse_upgrade};
use crate::protocol::websocket::client::{
    ClientDecoder, mark_deflated, write_masked_frame, write_upgrade_request,
};
use crate::protocol::websocket::{
    Deflater, Inflater, Opcode, frame_header_len, is_valid_close_code, write_frame,
};
use crate::testing::net::Weather;
use crate::testing::rng::Rng;
use std::collections::HashMap;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// More would say the same, more slowly.
const STREAM_MAX: usize = 8 << 10;
/// All of its windows are small.
const INFLATED_MAX: usize = 4 << 20;
/// It may be that the commands of one tick are too many, and those of several are not.
const TOO_MANY_REQUESTS: u32 = 111;

/// The first byte chooses how the rest is meant, the second is the weather's seed. What is meant is the bytes that a client
/// sends, or commands: in JSON one message a line, in Protobuf one command behind its length, 0 ending a message.
pub fn run(bytes: &[u8]) {
    let mut draws = Draws(bytes);
    let choice = draws.byte();
    let seed = u64::from(draws.byte());
    let mut stream = match choice & 3 {
        0 => draws.0.to_vec(),
        _ => commands(draws, choice),
    };
    stream.truncate(STREAM_MAX);
    let whole = Heard::of(&stream, Weather::CALM, seed);
    let pieces = Heard::of(&stream, WEATHER, seed);
    whole.assert_says_the_same(&pieces);
}

const WEATHER: Weather = Weather {
    cut: 300,
    refuse: 100,
    reset: 0,
    spurious_writable: 100,
    read_late: 100,
    ghost: 20,
    close_millis: 0,
    writable_millis: 0,
};

/// The bytes of a client that keeps to the framing, if not to more.
fn commands(mut draws: Draws<'_>, choice: u8) -> Vec<u8> {
    let encoding = if choice & 1 == 0 {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    let deflates = choice & 4 != 0;
    let mut lines = String::new();
    if encoding == Encoding::Protobuf {
        lines += &format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_PROTOBUF}\r\n");
    }
    if deflates {
        lines += "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    }
    let mut stream = Vec::new();
    write_upgrade_request(&mut stream, "/connection/websocket", "h", KEY, &lines);
    let mut deflater = deflates.then(|| Deflater::new(1));
    let mut say = |message: &[u8]| {
        let opcode = if encoding == Encoding::Json {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        let start = stream.len();
        let mut plain = Vec::new();
        write_frame(&mut plain, opcode, message);
        let mut packed = Vec::new();
        if deflater
            .as_mut()
            .is_some_and(|it| it.deflate(&mut packed, &plain))
        {
            let payload = &packed[frame_header_len(&packed).expect("a frame")..];
            write_masked_frame(&mut stream, opcode, [1, 2, 3, 4], payload);
            mark_deflated(&mut stream[start..]);
        } else {
            write_masked_frame(&mut stream, opcode, [1, 2, 3, 4], message);
        }
    };
    if choice & 8 == 0 {
        let mut connect = Vec::new();
        client::connect(&mut connect, encoding, 1, &Connect::default());
        say(&connect);
    }
    match encoding {
        Encoding::Json => draws.0.split(|byte| *byte == b'\n').for_each(say),
        Encoding::Protobuf => {
            let mut message = Vec::new();
            while !draws.is_empty() {
                let len = draws.byte();
                if len > 0 && len < 128 {
                    message.push(len);
                    message.extend_from_slice(draws.take(usize::from(len)));
                } else {
                    say(&std::mem::take(&mut message));
                }
            }
            say(&message);
        }
    }
    stream
}

/// What the server said.
#[derive(Debug, Default)]
struct Heard {
    /// The head of its answer, and the body of a refusal.
    http: Vec<u8>,
    /// Messages of `/echo`, and replies.
    said: Vec<String>,
    /// These do not wait for what was asked before them.
    pongs: Vec<Vec<u8>>,
    close: Option<u16>,
    refused_some: bool,
}

impl Heard {
    /// What is said to a client that sends this.
    fn of(stream: &[u8], weather: Weather, seed: u64) -> Self {
        let is_rough = weather.cut > 0;
        let mut rng = Rng::new(seed);
        let buffers = if is_rough {
            (4, 64 + rng.index(4000))
        } else {
            (4, STREAM_MAX)
        };
        let mut node = Node::new(1, seed, weather, buffers);
        let window = if is_rough {
            64 + rng.index(5000)
        } else {
            usize::MAX
        };
        let net = node.nets[0].clone();
        let peer = ([127, 0, 0, 1], 9).into();
        let socket = net
            .borrow_mut()
            .connect(peer, is_rough, window)
            .expect("it listens");
        let mut unsent = stream;
        let mut got = Vec::new();
        let mut quiet = 0;
        while quiet < 40 {
            quiet += 1;
            // A socket that took nothing several times is tried again after a while.
            if quiet > 6 {
                node.clock.advance(20);
            }
            if !unsent.is_empty() {
                let most = unsent.len() as u64;
                let len = if is_rough {
                    rng.magnitude(1, most) as usize
                } else {
                    unsent.len()
                };
                net.borrow_mut().write(socket, &unsent[..len]);
                unsent = &unsent[len..];
                quiet = 0;
            }
            node.turn();
            let most = if is_rough {
                rng.index(6000)
            } else {
                usize::MAX
            };
            let before = got.len();
            net.borrow_mut().read(socket, most, &mut got);
            if got.len() > before || net.borrow().unread(socket) > 0 {
                quiet = 0;
            }
        }
        net.borrow_mut().close(socket);
        node.is_left_clean();
        Self::read(stream, &got)
    }

    fn read(stream: &[u8], got: &[u8]) -> Self {
        let mut heard = Self::default();
        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
            assert!(got.is_empty(), "half an answer");
            return heard;
        };
        let (head, mut rest) = got.split_at(end + 4);
        assert!(head.starts_with(b"HTTP/1.1 "));
        heard.http = head.to_vec();
        if !head.starts_with(b"HTTP/1.1 101") {
            heard.http = got.to_vec();
            rest = &[];
        }
        let is_echo =
            matches!(parse_upgrade(stream), Ok(Some((request, _))) if request.path == "/echo");
        let mut frames = ClientDecoder::new();
        if head.windows(19).any(|it| it == b"permessage-deflate;") {
            frames.allow_deflate();
        }
        frames.push(rest);
        let mut channels = HashMap::new();
        let mut inflater = Inflater::for_server();
        while let Some(frame) = frames.next_frame().expect("a good frame") {
            assert!(heard.close.is_none(), "{frame:?} behind the close");
            assert!(frame.fin, "nothing needs fragments");
            match frame.opcode {
                Opcode::Close => {
                    let code = frame
                        .payload
                        .first_chunk()
                        .map(|code| u16::from_be_bytes(*code));
                    let code = code.expect("a code");
                    assert!(is_valid_close_code(code) && frame.payload.len() <= 125);
                    assert!(std::str::from_utf8(&frame.payload[2..]).is_ok());
                    heard.close = Some(code);
                }
                Opcode::Pong => heard.pongs.push(frame.payload.to_vec()),
                Opcode::Text | Opcode::Binary => {
                    let payload = if frame.deflated {
                        inflater
                            .inflate(frame.payload, INFLATED_MAX)
                            .expect("good DEFLATE")
                    } else {
                        frame.payload
                    };
                    let is_text = frame.opcode == Opcode::Text;
                    assert!(!is_text || std::str::from_utf8(payload).is_ok());
                    if is_echo {
                        heard.said.push(format!("{:?} {payload:x?}", frame.opcode));
                        continue;
                    }
                    let encoding = if is_text {
                        Encoding::Json
                    } else {
                        Encoding::Protobuf
                    };
                    assert!(!is_text || payload.split(|b| *b == b'\n').all(json::is_valid));
                    for reply in Replies::new(encoding, payload) {
                        heard.reply(&reply.expect("a good reply"), &mut channels);
                    }
                }
                Opcode::Ping | Opcode::Continuation => panic!("{frame:?}"),
            }
        }
        assert_eq!(frames.pending_bytes(), 0, "half a frame");
        heard
    }

    /// `channels`: the offset that is known of each.
    fn reply(&mut self, reply: &ClientReply<'_>, channels: &mut HashMap<String, u64>) {
        match &reply.kind {
            ReplyKind::Push {
                channel,
                push: ClientPush::Publication(publication),
            } => {
                let known = channels.insert(channel.to_string(), publication.offset);
                let follows = known.is_none_or(|offset| publication.offset == offset + 1);
                assert!(
                    follows || publication.offset == 0,
                    "{channel} {publication:?} after {known:?}"
                );
            }
            ReplyKind::Push {
                push: ClientPush::Join(_) | ClientPush::Leave(_),
                ..
            } => {}
            ReplyKind::Ping | ReplyKind::Push { .. } => panic!("unasked: {reply:?}"),
            // How far a channel was when a subscription began, and how much of it is in the reply, is a matter of time.
            ReplyKind::Subscribe(_) => {
                channels.clear();
                self.said.push(format!("{} subscribed", reply.id));
            }
            // Whether a client is in a channel yet that it asked for just before, too.
            ReplyKind::Presence(_) | ReplyKind::PresenceStats { .. } => {
                self.said.push(format!("{} presence", reply.id));
            }
            kind => {
                let refused = matches!(kind, ReplyKind::Error(it) if it.code == TOO_MANY_REQUESTS);
                self.refused_some |= refused;
                self.said.push(format!("{} {kind:?}", reply.id));
            }
        }
    }

    /// Of what both have said to the end. A close overtakes replies that were not ready.
    fn assert_says_the_same(&self, other: &Self) {
        assert_eq!(
            String::from_utf8_lossy(&self.http),
            String::from_utf8_lossy(&other.http)
        );
        if self.refused_some || other.refused_some {
            return;
        }
        assert_eq!(self.close, other.close);
        let both = self.said.len().min(other.said.len());
        assert_eq!(self.said[..both], other.said[..both]);
        let pongs = self.pongs.len().min(other.pongs.len());
        assert_eq!(self.pongs[..pongs], other.pongs[..pongs]);
        if self.close.is_none() {
            assert_eq!(self.pongs[pongs..], other.pongs[pongs..]);
            assert_eq!(self.said[both..], other.said[both..]);
        }
    }
}
