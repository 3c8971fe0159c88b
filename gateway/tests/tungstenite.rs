//! Our WebSocket codec against `tungstenite`, both ways and in both roles, over seeded random streams: what one writes, in
//! fragments and with control frames between them, the other reads as it was meant, in any pieces; and of streams that were
//! spoiled both say the same. `tungstenite` has no compression.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::protocol::websocket::client::{ClientDecoder, write_masked_fragment};
use ringway::protocol::websocket::{
    Decoder, Inflater, Limits, Message, Opcode, WsError, close_frame, write_frame,
};
use std::io::{Read, Write};
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

const LIMITS: Limits = Limits {
    message_bytes: 1 << 20,
    fragments: 1024,
    deflate: false,
};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// A socket: bytes to be read, in random pieces, and what was written.
struct Pipe {
    rng: StdRng,
    unread: Vec<u8>,
    at: usize,
    written: Vec<u8>,
}

impl Pipe {
    fn new(seed: u64, unread: &[u8]) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            unread: unread.to_vec(),
            at: 0,
            written: Vec::new(),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.unread[self.at..];
        let most = rest.len().min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let len = self.rng.random_range(1..=most);
        into[..len].copy_from_slice(&rest[..len]);
        self.at += len;
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One frame of a stream that is to be written.
struct Part {
    opcode: Opcode,
    fin: bool,
    payload: Vec<u8>,
}

/// Events, and the frames that are to tell them: fragments, with control frames between them; a close at the end.
fn conversation(rng: &mut StdRng) -> (Vec<Event>, Vec<Part>) {
    let (mut events, mut parts) = (Vec::new(), Vec::new());
    for _ in 0..rng.random_range(1..6) {
        let len = [0, 1, 125, 126, 300, 65_535, 65_536][rng.random_range(0..7)];
        let is_text = rng.random_bool(0.5);
        let payload: Vec<u8> = match is_text {
            true => "aé日🌍\n"
                .chars()
                .cycle()
                .take(len / 2)
                .collect::<String>()
                .into(),
            false => (0..len).map(|_| rng.random()).collect(),
        };
        let mut opcode = if is_text {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        let mut rest = &payload[..];
        loop {
            let cut = match rng.random_bool(0.6) {
                true => rest.len(),
                false => rng.random_range(0..=rest.len()),
            };
            let (piece, behind) = rest.split_at(cut);
            let fin = behind.is_empty() && rng.random_bool(0.8);
            parts.push(Part {
                opcode,
                fin,
                payload: piece.to_vec(),
            });
            (opcode, rest) = (Opcode::Continuation, behind);
            if rng.random_bool(0.2) {
                let len = [0, 5, 125][rng.random_range(0..3)];
                let payload: Vec<u8> = (0..len).map(|_| rng.random()).collect();
                let is_ping = rng.random_bool(0.5);
                let opcode = if is_ping { Opcode::Ping } else { Opcode::Pong };
                parts.push(Part {
                    opcode,
                    fin: true,
                    payload: payload.clone(),
                });
                let control = if is_ping {
                    Event::Ping(payload)
                } else {
                    Event::Pong(payload)
                };
                // It comes before the message that it interrupts.
                events.push(control);
                if fin {
                    let control = events.pop().expect("pushed just now");
                    events.push(message(is_text, &payload_of(&parts)));
                    events.push(control);
                    break;
                }
            } else if fin {
                events.push(message(is_text, &payload_of(&parts)));
                break;
            }
        }
    }
    if rng.random_bool(0.5) {
        let mut payload = 4321_u16.to_be_bytes().to_vec();
        payload.extend_from_slice("adiós".as_bytes());
        parts.push(Part {
            opcode: Opcode::Close,
            fin: true,
            payload,
        });
        events.push(Event::Close(Some(4321), "adiós".into()));
    }
    (events, parts)
}

fn message(is_text: bool, payload: &[u8]) -> Event {
    if is_text {
        Event::Text(payload.to_vec())
    } else {
        Event::Binary(payload.to_vec())
    }
}

/// What the fragments of the last data message come to.
fn payload_of(parts: &[Part]) -> Vec<u8> {
    let is_first = |part: &Part| matches!(part.opcode, Opcode::Text | Opcode::Binary);
    let first = parts.iter().rposition(is_first).expect("a message");
    let data = parts[first..]
        .iter()
        .filter(|part| !part.opcode.is_control());
    data.flat_map(|part| part.payload.clone()).collect()
}

/// As a client of ours writes it.
fn masked(rng: &mut StdRng, parts: &[Part]) -> Vec<u8> {
    let mut stream = Vec::new();
    for part in parts {
        write_masked_fragment(
            &mut stream,
            part.opcode,
            part.fin,
            rng.random(),
            &part.payload,
        );
    }
    stream
}

/// What `tungstenite` reads, and why it stops; `None`: the stream ended.
fn tungstenite_reads(seed: u64, role: Role, stream: &[u8]) -> (Vec<Event>, Option<Error>) {
    let config = WebSocketConfig::default().max_message_size(Some(LIMITS.message_bytes));
    let mut socket = WebSocket::from_raw_socket(Pipe::new(seed, stream), role, Some(config));
    let mut events = Vec::new();
    loop {
        let event = match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Event::Text(text.as_bytes().to_vec()),
            Ok(tungstenite::Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(bytes)) => Event::Ping(bytes.to_vec()),
            Ok(tungstenite::Message::Pong(bytes)) => Event::Pong(bytes.to_vec()),
            Ok(tungstenite::Message::Close(close)) => {
                let code = close.as_ref().map(|close| close.code.into());
                let reason = close.map_or(String::new(), |close| close.reason.to_string());
                events.push(Event::Close(code, reason));
                return (events, None);
            }
            Ok(other) => panic!("{other:?}"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (events, None);
            }
            Err(error) => return (events, Some(error)),
        };
        events.push(event);
    }
}

/// What our decoder of client frames makes of a stream in random pieces.
fn we_read(seed: u64, stream: &[u8]) -> (Vec<Event>, Option<WsError>) {
    let mut pipe = Pipe::new(seed, stream);
    let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new());
    let mut events = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let len = pipe.read(&mut buffer).expect("a pipe");
        if len == 0 {
            return (events, None);
        }
        let mut at = 0;
        loop {
            match decoder.decode(&LIMITS, &mut inflater, &mut buffer[at..len]) {
                Ok((_, None)) => break,
                Ok((used, Some(message))) => {
                    at += used;
                    let event = match message {
                        Message::Text(bytes) => Event::Text(bytes.to_vec()),
                        Message::Binary(bytes) => Event::Binary(bytes.to_vec()),
                        Message::Ping(bytes) => Event::Ping(bytes.to_vec()),
                        Message::Pong(bytes) => Event::Pong(bytes.to_vec()),
                        Message::Close { code, reason } => {
                            events.push(Event::Close(code, reason.to_owned()));
                            return (events, None);
                        }
                    };
                    events.push(event);
                }
                Err(error) => return (events, Some(error)),
            }
        }
    }
}

/// As `tungstenite` writes it.
fn tungstenite_writes(role: Role, parts: &[Part]) -> Vec<u8> {
    let mut socket = WebSocket::from_raw_socket(Pipe::new(0, &[]), role, None);
    for part in parts {
        let payload = part.payload.clone();
        let frame = match part.opcode {
            Opcode::Text => Frame::message(payload, OpCode::Data(Data::Text), part.fin),
            Opcode::Binary => Frame::message(payload, OpCode::Data(Data::Binary), part.fin),
            Opcode::Continuation => Frame::message(payload, OpCode::Data(Data::Continue), part.fin),
            Opcode::Ping => Frame::ping(payload),
            Opcode::Pong => Frame::pong(payload),
            Opcode::Close => Frame::close(Some(CloseFrame {
                code: CloseCode::from(u16::from_be_bytes([payload[0], payload[1]])),
                reason: std::str::from_utf8(&payload[2..])
                    .expect("text")
                    .to_owned()
                    .into(),
            })),
        };
        socket
            .send(tungstenite::Message::Frame(frame))
            .expect("a pipe takes all");
    }
    socket.get_ref().written.clone()
}

#[test]
fn tungstenite_reads_what_we_write() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (events, parts) = conversation(&mut rng);
        let as_client = masked(&mut rng, &parts);
        let (read, error) = tungstenite_reads(seed, Role::Server, &as_client);
        assert!(error.is_none(), "seed {seed}: {error:?}");
        assert_eq!(read, events, "seed {seed}, as a client");

        // A server of ours never fragments.
        let mut as_server = Vec::new();
        for event in &events {
            match event {
                Event::Text(payload) => write_frame(&mut as_server, Opcode::Text, payload),
                Event::Binary(payload) => write_frame(&mut as_server, Opcode::Binary, payload),
                Event::Ping(payload) => write_frame(&mut as_server, Opcode::Ping, payload),
                Event::Pong(payload) => write_frame(&mut as_server, Opcode::Pong, payload),
                Event::Close(code, reason) => {
                    close_frame(&mut as_server, code.expect("a code"), reason);
                }
            }
        }
        let (read, error) = tungstenite_reads(seed, Role::Client, &as_server);
        assert!(error.is_none(), "seed {seed}: {error:?}");
        assert_eq!(read, events, "seed {seed}, as a server");
    }
}

#[test]
fn we_read_what_tungstenite_writes() {
    for seed in 0..150 {
        let (events, parts) = conversation(&mut StdRng::seed_from_u64(seed));
        let as_client = tungstenite_writes(Role::Client, &parts);
        assert_eq!(
            we_read(seed, &as_client),
            (events, None),
            "seed {seed}, a client"
        );

        let as_server = tungstenite_writes(Role::Server, &parts);
        let mut pipe = Pipe::new(seed, &as_server);
        let (mut decoder, mut buffer) = (ClientDecoder::new(), vec![0; 4096]);
        let mut at = 0;
        loop {
            let len = pipe.read(&mut buffer).expect("a pipe");
            if len == 0 {
                break;
            }
            decoder.push(&buffer[..len]);
            while let Some(frame) = decoder.next_frame().expect("a good frame") {
                let part = &parts[at];
                assert_eq!(
                    (frame.opcode, frame.fin),
                    (part.opcode, part.fin),
                    "seed {seed}"
                );
                assert_eq!(frame.payload, part.payload, "seed {seed}");
                at += 1;
            }
        }
        assert_eq!(
            (at, decoder.pending_bytes()),
            (parts.len(), 0),
            "seed {seed}, a server"
        );
    }
}

/// Changes a stream that was good: a bit, a byte, or some bytes less or twice; mostly of a header.
fn spoil(rng: &mut StdRng, stream: &mut Vec<u8>) {
    let near = if rng.random_bool(0.5) {
        stream.len().min(40)
    } else {
        stream.len()
    };
    let at = rng.random_range(0..near);
    match rng.random_range(0..4) {
        0 => stream[at] ^= 1 << rng.random_range(0..8),
        1 => stream[at] = rng.random(),
        2 => drop(stream.drain(at..(at + rng.random_range(1..9)).min(stream.len()))),
        _ => {
            let end = (at + rng.random_range(1..9)).min(stream.len());
            let again = stream[at..end].to_vec();
            stream.splice(at..at, again);
        }
    }
}

#[test]
fn both_say_the_same_of_what_was_spoiled() {
    let (mut good, mut both, mut ours) = (0, 0, 0);
    for seed in 0..2000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (_, mut parts) = conversation(&mut rng);
        parts.iter_mut().for_each(|part| {
            // Short: so that headers are often hit, and characters cut. A close needs its code whole.
            if part.opcode != Opcode::Close {
                part.payload.truncate(130);
            }
        });
        let mut stream = masked(&mut rng, &parts);
        spoil(&mut rng, &mut stream);
        let (we, our_error) = we_read(seed, &stream);
        let (they, their_error) = tungstenite_reads(seed + 1, Role::Server, &stream);
        match our_error {
            // It takes a length in any form (RFC 6455 section 5.2 wants the shortest, below 2^63), and of a close code that
            // must not be on the wire it makes 1002.
            Some(
                WsError::NonMinimalLength | WsError::LengthOverflow | WsError::InvalidCloseCode(_),
            ) => {
                assert!(they.starts_with(&we), "seed {seed}");
                continue;
            }
            // It looks at a frame when all of it is there, so the stream may end first.
            Some(_) if their_error.is_none() => {
                assert_eq!(they, we, "seed {seed}: {our_error:?}");
                ours += 1;
            }
            Some(error) => {
                assert_eq!(they, we, "seed {seed}: {error:?} against {their_error:?}");
                let theirs = match their_error.expect("looked just now") {
                    Error::Utf8(_) => 1007,
                    // It looks at the length of a frame before it looks at anything else.
                    Error::Capacity(_) => continue,
                    Error::Protocol(_) => 1002,
                    other => panic!("seed {seed}: {other:?}"),
                };
                assert_eq!(error.disconnect().code, theirs, "seed {seed}: {error:?}");
                both += 1;
            }
            None => {
                assert!(
                    their_error.is_none(),
                    "seed {seed}: only they find {their_error:?}"
                );
                assert_eq!(they, we, "seed {seed}");
                good += 1;
            }
        }
    }
    assert!(
        good > 100 && both > 100 && ours > 10,
        "{good} good, {both} bad, {ours} for us alone"
    );
}
