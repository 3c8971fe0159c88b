//! Commands in, replies and publications out, in both encodings; frames by themselves.

use super::work::{Work, calls};
use ringway::protocol::centrifuge::client::{self, ClientPush, ReplyKind};
use ringway::protocol::centrifuge::publication::{ClientInfoRef, PublicationParts, encode};
use ringway::protocol::centrifuge::{
    Command, Commands, ConnectResult, Encoding, Method, SubscribeResult, push_publication,
    reply_connect, reply_publish, reply_subscribe,
};
use ringway::protocol::websocket::client::ClientDecoder;
use ringway::protocol::websocket::{Opcode, frame_len, write_frame};
use std::hint::black_box;

pub const JSON: Encoding = Encoding::Json;
pub const PROTOBUF: Encoding = Encoding::Protobuf;

const CHANNEL: &str = "room:lobby";
const EPOCH: &str = "ajshhd";
const CLIENT: &str = "a7a1b3a8-5c1e-4b0f-9d6a-0e5d2f8c4b11";
/// 100 bytes of JSON.
const DATA: &[u8] = br#"{"id":1234567,"text":"The quick brown fox jumps over the lazy dog, and back again.","at":1764088000}"#;
const _: () = assert!(DATA.len() == 100);

/// An operation is one frame of 100 bytes written.
pub fn frame() -> Box<dyn Work> {
    let write = |out: &mut Vec<u8>| write_frame(out, Opcode::Text, black_box(DATA));
    encoding(write, |frame| assert_eq!(frame[2..], *DATA))
}

const FRAMES: u32 = 64;

struct Walk {
    log: Vec<u8>,
    frames: u32,
}

/// An operation is one step over a frame in a log.
pub fn walk() -> Box<dyn Work> {
    let mut log = Vec::new();
    for _ in 0..FRAMES {
        write_frame(&mut log, Opcode::Text, &[b' '; 227]);
    }
    Box::new(Walk { log, frames: 0 })
}

impl Work for Walk {
    fn operations(&self) -> u32 {
        FRAMES
    }

    fn prepare(&mut self) {
        self.frames = 0;
    }

    fn run(&mut self) {
        let mut at = 0;
        while at < self.log.len() {
            at += frame_len(black_box(&self.log[at..])).expect("whole frames");
            self.frames += 1;
        }
    }

    fn check(&mut self) {
        assert_eq!(self.frames, FRAMES);
    }
}

/// An operation is one command decoded.
fn decoding(
    encoding: Encoding,
    write: impl FnOnce(&mut Vec<u8>, Encoding),
    check: impl Fn(Command<'static>) + 'static,
) -> Box<dyn Work> {
    let mut payload = Vec::new();
    write(&mut payload, encoding);
    let payload: &'static [u8] = payload.leak();
    let decode = move || {
        let mut commands = Commands::new(encoding, black_box(payload));
        let command = commands.next().expect("one").expect("a right command");
        assert!(commands.next().is_none());
        command
    };
    calls(decode, check)
}

pub fn connect(encoding: Encoding) -> Box<dyn Work> {
    let request = client::Connect {
        name: "js",
        version: "5.4.0",
        data: br#"{"locale":"en"}"#,
        ..client::Connect::default()
    };
    decoding(
        encoding,
        |out, encoding| client::connect(out, encoding, 1, &request),
        |command| match (command.id, command.method) {
            (1, Method::Connect(seen)) => {
                assert_eq!((&*seen.name, &*seen.version), ("js", "5.4.0"));
                assert_eq!(seen.data, br#"{"locale":"en"}"#);
            }
            other => panic!("{other:?}"),
        },
    )
}

pub fn subscribe(encoding: Encoding) -> Box<dyn Work> {
    let request = client::Subscribe {
        channel: CHANNEL,
        recover: Some(client::Position {
            offset: 1234,
            epoch: EPOCH,
        }),
        recoverable: true,
        positioned: true,
        ..client::Subscribe::default()
    };
    decoding(
        encoding,
        |out, encoding| client::subscribe(out, encoding, 2, &request),
        |command| match (command.id, command.method) {
            (2, Method::Subscribe(seen)) => {
                assert_eq!(
                    (&*seen.channel, seen.offset, &*seen.epoch),
                    (CHANNEL, 1234, EPOCH)
                );
                assert!(seen.recover && seen.recoverable && seen.positioned);
            }
            other => panic!("{other:?}"),
        },
    )
}

pub fn publish(encoding: Encoding) -> Box<dyn Work> {
    decoding(
        encoding,
        |out, encoding| client::publish(out, encoding, 3, CHANNEL, DATA),
        |command| match (command.id, command.method) {
            (3, Method::Publish(seen)) => assert_eq!((&*seen.channel, seen.data), (CHANNEL, DATA)),
            other => panic!("{other:?}"),
        },
    )
}

struct Writing<W, C> {
    out: Vec<u8>,
    write: W,
    check: C,
}

/// An operation is one frame written into a buffer that has room.
fn encoding(
    write: impl Fn(&mut Vec<u8>) + 'static,
    check: impl Fn(&[u8]) + 'static,
) -> Box<dyn Work> {
    Box::new(Writing {
        out: Vec::new(),
        write,
        check,
    })
}

impl<W: Fn(&mut Vec<u8>), C: Fn(&[u8])> Work for Writing<W, C> {
    fn operations(&self) -> u32 {
        FRAMES
    }

    fn run(&mut self) {
        for _ in 0..FRAMES {
            self.out.clear();
            (self.write)(black_box(&mut self.out));
        }
    }

    fn check(&mut self) {
        (self.check)(&self.out);
    }
}

/// What a client reads out of a frame.
fn read(encoding: Encoding, frame: &[u8], check: impl FnOnce(u32, ReplyKind<'_>)) {
    let mut decoder = ClientDecoder::new();
    decoder.push(frame);
    let frame = decoder
        .next_frame()
        .expect("a right frame")
        .expect("a whole one");
    let mut replies = client::Replies::new(encoding, frame.payload);
    let reply = replies.next().expect("one").expect("a right reply");
    check(reply.id, reply.kind);
    assert!(replies.next().is_none());
}

pub fn connected(format: Encoding) -> Box<dyn Work> {
    let write = move |out: &mut Vec<u8>| {
        let result = ConnectResult {
            client: CLIENT,
            version: "0.1.0",
            ping: 25,
            pong: true,
            ..ConnectResult::default()
        };
        reply_connect(out, format, 1, black_box(&result));
    };
    encoding(write, move |frame| {
        read(format, frame, |id, kind| match (id, kind) {
            (1, ReplyKind::Connect(seen)) => {
                assert_eq!((&*seen.client, &*seen.version), (CLIENT, "0.1.0"));
                assert_eq!((seen.ping, seen.pong), (25, true));
            }
            other => panic!("{other:?}"),
        });
    })
}

pub fn subscribed(format: Encoding) -> Box<dyn Work> {
    let write = move |out: &mut Vec<u8>| {
        let result = SubscribeResult {
            recoverable: true,
            positioned: true,
            epoch: EPOCH,
            offset: 1234,
            ..SubscribeResult::default()
        };
        reply_subscribe(out, format, 2, black_box(&result));
    };
    encoding(write, move |frame| {
        read(format, frame, |id, kind| match (id, kind) {
            (2, ReplyKind::Subscribe(seen)) => {
                assert_eq!((&*seen.epoch, seen.offset), (EPOCH, 1234));
                assert!(seen.recoverable && seen.positioned);
            }
            other => panic!("{other:?}"),
        });
    })
}

pub fn published(format: Encoding) -> Box<dyn Work> {
    let write = move |out: &mut Vec<u8>| reply_publish(out, format, black_box(3));
    encoding(write, move |frame| {
        read(format, frame, |id, kind| {
            assert_eq!((id, kind), (3, ReplyKind::Publish))
        });
    })
}

/// From the form in which the home keeps it: rendering for all who read this encoding.
pub fn publication(format: Encoding) -> Box<dyn Work> {
    let parts = PublicationParts {
        data: DATA,
        info: Some(ClientInfoRef {
            user: "42",
            client: CLIENT,
            conn_info: b"",
            chan_info: b"",
        }),
        ..PublicationParts::default()
    };
    let mut canonical = Vec::new();
    encode(&mut canonical, &parts);
    let write = move |out: &mut Vec<u8>| {
        push_publication(
            out,
            format,
            CHANNEL,
            black_box(&canonical),
            Some(1234),
            true,
        )
        .expect("it is JSON");
    };
    encoding(write, move |frame| {
        read(format, frame, |_, kind| match kind {
            ReplyKind::Push {
                channel,
                push: ClientPush::Publication(seen),
            } => {
                assert_eq!((&*channel, seen.data, seen.offset), (CHANNEL, DATA, 1234));
                assert_eq!(seen.info.expect("it was given").client, CLIENT);
            }
            other => panic!("{other:?}"),
        });
    })
}
