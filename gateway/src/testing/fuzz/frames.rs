//! The frames of a client.

use super::Draws;
use crate::protocol::websocket::client::{write_masked_fragment, write_masked_frame};
use crate::protocol::websocket::{
    Decoder, Inflater, Limits, Message, Opcode, WsError, is_valid_close_code,
};

/// What a decoder may own beside twice the payload that arrived.
const ASSEMBLY_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Data(Opcode, Vec<u8>),
    Control(Opcode, Vec<u8>),
    Close(Option<u16>, String),
}

/// The first byte chooses limits and how the rest is meant: as the bytes of a connection, or as the frames to make, each
/// with its first byte, a length and that many bytes. The second byte is the size of pieces.
pub fn run(bytes: &[u8]) {
    let mut draws = Draws(bytes);
    let choice = draws.byte();
    let limits = Limits {
        message_bytes: [100_000, 300][usize::from(choice & 1)],
        fragments: [64, 3][usize::from(choice >> 1 & 1)],
        deflate: choice & 4 != 0,
    };
    let piece = usize::from(draws.byte()) + 1;
    let stream = if choice & 8 == 0 {
        draws.0.to_vec()
    } else {
        frames(draws)
    };
    let whole = listen(&limits, &stream, stream.len().max(1));
    assert_eq!(listen(&limits, &stream, 1), whole, "a byte at a time");
    assert_eq!(listen(&limits, &stream, piece), whole, "pieces of {piece}");
    keeps_the_rules(&limits, &whole.0);
    reads_the_same_when_written(&limits, &whole.0);
}

fn frames(mut draws: Draws<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !draws.is_empty() {
        let first = draws.byte();
        let len = usize::from(draws.byte());
        let payload = draws.take(len);
        let start = stream.len();
        // With a mask that changes payloads, and is of no account in the input.
        write_masked_frame(&mut stream, Opcode::Text, [7, 0, 0x55, 0], payload);
        stream[start] = first;
    }
    stream
}

/// What comes of a stream in pieces of this size, up to its close or first error.
fn listen(limits: &Limits, stream: &[u8], piece: usize) -> (Vec<Event>, Option<WsError>) {
    let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new());
    let mut events = Vec::new();
    let mut arrived = 0;
    for bytes in stream.chunks(piece) {
        let mut input = bytes.to_vec();
        arrived += input.len();
        let mut at = 0;
        loop {
            match decoder.decode(limits, &mut inflater, &mut input[at..]) {
                Ok((used, None)) => {
                    assert_eq!(at + used, input.len(), "all was consumed");
                    break;
                }
                Ok((used, Some(message))) => {
                    at += used;
                    events.push(Event::of(message));
                    if let Some(Event::Close(..)) = events.last() {
                        return (events, None);
                    }
                }
                Err(error) => {
                    assert!(decoder.is_idle(), "nothing is owned after an error");
                    let code = error.disconnect().code;
                    assert!(matches!(code, 1002 | 1007 | 1009), "{code}");
                    return (events, Some(error));
                }
            }
        }
        let owned = decoder.owned_bytes();
        assert!(
            owned <= ASSEMBLY_BYTES + 2 * arrived,
            "{owned} of {arrived} bytes are owned"
        );
    }
    (events, None)
}

impl Event {
    fn of(message: Message<'_>) -> Self {
        match message {
            Message::Text(bytes) => Self::Data(Opcode::Text, bytes.to_vec()),
            Message::Binary(bytes) => Self::Data(Opcode::Binary, bytes.to_vec()),
            Message::Ping(bytes) => Self::Control(Opcode::Ping, bytes.to_vec()),
            Message::Pong(bytes) => Self::Control(Opcode::Pong, bytes.to_vec()),
            Message::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

fn keeps_the_rules(limits: &Limits, events: &[Event]) {
    for event in events {
        match event {
            Event::Data(opcode, payload) => {
                assert!(payload.len() <= limits.message_bytes);
                assert!(*opcode == Opcode::Binary || std::str::from_utf8(payload).is_ok());
            }
            Event::Control(_, payload) => assert!(payload.len() <= 125),
            Event::Close(code, _) => assert!(code.is_none_or(is_valid_close_code)),
        }
    }
}

fn reads_the_same_when_written(limits: &Limits, events: &[Event]) {
    let mut stream = Vec::new();
    let mask = [1, 2, 3, 4];
    for event in events {
        match event {
            Event::Data(opcode, payload) => {
                let (head, tail) = payload.split_at(payload.len() / 2);
                write_masked_fragment(&mut stream, *opcode, false, mask, head);
                write_masked_fragment(&mut stream, Opcode::Continuation, true, mask, tail);
            }
            Event::Control(opcode, payload) => {
                write_masked_frame(&mut stream, *opcode, mask, payload);
            }
            Event::Close(code, reason) => {
                let code = code.map_or(vec![], |code| code.to_be_bytes().to_vec());
                let payload = [&code[..], reason.as_bytes()].concat();
                write_masked_frame(&mut stream, Opcode::Close, mask, &payload);
            }
        }
    }
    assert_eq!(listen(limits, &stream, 13), (events.to_vec(), None));
}
