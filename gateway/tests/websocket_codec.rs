//! The WebSocket decoder against streams made by the client side of the codec.
//!
//! Method: a seeded generator writes a stream of frames together with the events it must give. The stream is then decoded
//! whole, cut in two at every byte, a byte at a time and in random pieces; each way must give the same events and the
//! same error. Sizes gather around the borders of the length encodings. Bad frames are a table.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::protocol::websocket::client::{
    mark_deflated, write_masked_fragment, write_masked_frame,
};
use ringway::protocol::websocket::{
    Decoder, Deflater, Inflater, Limits, Message, Opcode, WsError, frame_header_len, write_frame,
};

const LIMITS: Limits = Limits {
    message_bytes: 1 << 20,
    fragments: 64,
    deflate: true,
};

/// Bytes a decoder may own beside twice the payload that arrived.
const ASSEMBLY_BYTES: usize = 224;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Event {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(bytes) => Self::Text(bytes.to_vec()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Message::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Message::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// A decoder and all it said, up to the first close or error.
#[derive(Default)]
struct Listener {
    decoder: Decoder,
    inflater: Inflater,
    events: Vec<Event>,
    error: Option<WsError>,
}

impl Listener {
    fn over(&self) -> bool {
        self.error.is_some() || matches!(self.events.last(), Some(Event::Close(..)))
    }

    fn feed(&mut self, limits: &Limits, bytes: &[u8]) {
        let mut input = bytes.to_vec();
        let mut at = 0;
        while !self.over() {
            let inflater = &mut self.inflater;
            match self.decoder.decode(limits, inflater, &mut input[at..]) {
                Ok((used, Some(message))) => {
                    at += used;
                    self.events.push(message.into());
                }
                Ok((used, None)) => {
                    assert_eq!(
                        at + used,
                        input.len(),
                        "without a message everything is consumed"
                    );
                    return;
                }
                Err(error) => {
                    self.error = Some(error);
                    assert!(self.decoder.is_idle(), "nothing is owned after an error");
                }
            }
        }
    }
}

/// Decodes `stream` in pieces that end at `cuts`.
fn listen(
    limits: &Limits,
    stream: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> (Vec<Event>, Option<WsError>) {
    let mut listener = Listener::default();
    let mut at = 0;
    for end in cuts.into_iter().chain([stream.len()]) {
        listener.feed(limits, &stream[at..end]);
        at = end;
        let owned = listener.decoder.owned_bytes();
        assert!(
            owned <= ASSEMBLY_BYTES + 8 + 2 * end,
            "{owned} bytes owned after {end} arrived"
        );
    }
    (listener.events, listener.error)
}

fn random_cuts(rng: &mut StdRng, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = (0..rng.random_range(1..20))
        .map(|_| rng.random_range(0..=len))
        .collect();
    cuts.sort_unstable();
    cuts
}

fn random_text(rng: &mut StdRng, len: usize) -> Vec<u8> {
    const CHARACTERS: [&str; 8] = ["a", "Z", "\n", "é", "\u{7ff}", "日", "\u{ffff}", "🌍"];
    let mut text = String::new();
    while text.len() < len {
        let left = len - text.len();
        let character = CHARACTERS[rng.random_range(0..CHARACTERS.len())];
        text.push_str(if character.len() <= left {
            character
        } else {
            "x"
        });
    }
    text.into_bytes()
}

fn random_bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

fn write_control(rng: &mut StdRng, stream: &mut Vec<u8>, events: &mut Vec<Event>) {
    let len = [0, 1, 7, 124, 125][rng.random_range(0..5)];
    let payload = random_bytes(rng, len);
    if rng.random_bool(0.5) {
        write_masked_frame(stream, Opcode::Ping, rng.random(), &payload);
        events.push(Event::Ping(payload));
    } else {
        write_masked_frame(stream, Opcode::Pong, rng.random(), &payload);
        events.push(Event::Pong(payload));
    }
}

/// The compressed bytes of a message, if it shrinks.
fn deflated(payload: &[u8]) -> Option<Vec<u8>> {
    let (mut plain, mut frame) = (Vec::new(), Vec::new());
    write_frame(&mut plain, Opcode::Binary, payload);
    Deflater::new(6)
        .deflate(&mut frame, &plain)
        .then(|| frame.split_off(frame_header_len(&frame).expect("a whole frame")))
}

/// Writes a message of `len` bytes, whole or in fragments with control frames between them, perhaps compressed.
fn write_message(rng: &mut StdRng, stream: &mut Vec<u8>, events: &mut Vec<Event>, len: usize) {
    let is_text = rng.random_bool(0.5);
    let payload = if is_text {
        random_text(rng, len)
    } else {
        random_bytes(rng, len)
    };
    let deflated = deflated(&payload).filter(|_| rng.random_bool(0.5));
    let sent = deflated.as_ref().unwrap_or(&payload);
    let mut cuts = if rng.random_bool(0.4) {
        random_cuts(rng, sent.len())
    } else {
        Vec::new()
    };
    cuts.push(sent.len());
    let (mut opcode, mut at) = (
        if is_text {
            Opcode::Text
        } else {
            Opcode::Binary
        },
        0,
    );
    for (i, &end) in cuts.iter().enumerate() {
        let fin = i == cuts.len() - 1;
        let start = stream.len();
        write_masked_fragment(stream, opcode, fin, rng.random(), &sent[at..end]);
        if deflated.is_some() && i == 0 {
            mark_deflated(&mut stream[start..]);
        }
        (opcode, at) = (Opcode::Continuation, end);
        if !fin && rng.random_bool(0.3) {
            write_control(rng, stream, events);
        }
    }
    events.push(if is_text {
        Event::Text(payload)
    } else {
        Event::Binary(payload)
    });
}

/// A stream of messages of sizes out of `sizes`, with control frames around and inside them, sometimes with a close.
fn random_stream(rng: &mut StdRng, messages: usize, sizes: &[usize]) -> (Vec<u8>, Vec<Event>) {
    let (mut stream, mut events) = (Vec::new(), Vec::new());
    for _ in 0..messages {
        if rng.random_bool(0.2) {
            write_control(rng, &mut stream, &mut events);
        }
        let len = sizes[rng.random_range(0..sizes.len())];
        write_message(rng, &mut stream, &mut events, len);
    }
    if rng.random_bool(0.3) {
        let (payload, event) = match rng.random_range(0..3) {
            0 => (&b""[..], Event::Close(None, String::new())),
            1 => (&b"\x03\xe8"[..], Event::Close(Some(1000), String::new())),
            _ => (
                &b"\x0f\xa0bye \xc3\xa9"[..],
                Event::Close(Some(4000), "bye é".to_owned()),
            ),
        };
        write_masked_frame(&mut stream, Opcode::Close, rng.random(), payload);
        events.push(event);
    }
    (stream, events)
}

#[test]
fn small_streams_cut_at_every_byte_give_the_same_events() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (stream, events) =
            random_stream(&mut rng, 3, &[0, 1, 2, 3, 20, 100, 124, 125, 126, 127, 300]);
        let expected = (events, None);
        assert_eq!(listen(&LIMITS, &stream, []), expected, "seed {seed}, whole");
        assert_eq!(
            listen(&LIMITS, &stream, 1..stream.len()),
            expected,
            "seed {seed}, a byte at a time"
        );
        for cut in 0..=stream.len() {
            assert_eq!(
                listen(&LIMITS, &stream, [cut]),
                expected,
                "seed {seed}, cut at {cut}"
            );
        }
    }
}

#[test]
fn streams_of_every_size_in_random_pieces_give_the_same_events() {
    let sizes = [
        0, 1, 125, 126, 127, 4095, 65_534, 65_535, 65_536, 65_537, 100_000,
    ];
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (stream, events) = random_stream(&mut rng, 6, &sizes);
        let expected = (events, None);
        assert!(
            listen(&LIMITS, &stream, []) == expected,
            "seed {seed}, whole"
        );
        for _ in 0..3 {
            let cuts = random_cuts(&mut rng, stream.len());
            assert!(
                listen(&LIMITS, &stream, cuts.clone()) == expected,
                "seed {seed}, cut at {cuts:?}"
            );
        }
        assert!(
            listen(&LIMITS, &stream, (0..stream.len()).step_by(4096)) == expected,
            "seed {seed}, in pages"
        );
    }
}

#[test]
fn a_fault_is_the_same_however_the_stream_was_cut() {
    let mut faults = 0;
    for seed in 0..3000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut stream, _) = random_stream(&mut rng, 3, &[0, 1, 5, 20, 126]);
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..stream.len());
            stream[at] ^= 1 << rng.random_range(0..8);
        }
        let limits = Limits {
            message_bytes: 200,
            fragments: 10,
            deflate: seed % 2 == 0,
        };
        let whole = listen(&limits, &stream, []);
        faults += usize::from(whole.1.is_some());
        assert_eq!(
            listen(&limits, &stream, 1..stream.len()),
            whole,
            "seed {seed}, a byte at a time"
        );
        let cuts = random_cuts(&mut rng, stream.len());
        assert_eq!(
            listen(&limits, &stream, cuts.clone()),
            whole,
            "seed {seed}, cut at {cuts:?}"
        );
    }
    assert!(faults > 500, "too few streams were broken: {faults}");
}

#[test]
fn garbage_never_panics() {
    let mut rng = StdRng::seed_from_u64(1);
    let limits = Limits {
        message_bytes: 64,
        fragments: 3,
        deflate: true,
    };
    let mut faults = 0;
    for _ in 0..300_000 {
        let mut bytes = [0_u8; 48];
        rng.fill(&mut bytes);
        let len = rng.random_range(0..=bytes.len());
        if rng.random_bool(0.8) {
            // A header that gets further: no reserved bit without a meaning, masked, not too long.
            bytes[0] &= 0xcb;
            bytes[1] = 0x80 | (bytes[1] & 0x1f);
        }
        let mut listener = Listener::default();
        let (head, tail) = bytes[..len].split_at(len / 2);
        listener.feed(&limits, head);
        listener.feed(&limits, tail);
        faults += usize::from(listener.error.is_some());
    }
    assert!(faults > 100_000, "most garbage is a fault: {faults}");
}

/// The examples of RFC 6455 section 5.7, as a client sends them.
#[test]
fn decodes_the_examples_of_the_rfc() {
    let masked_hello = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(
        listen(&LIMITS, &masked_hello, []),
        (vec![Event::Text(b"Hello".to_vec())], None)
    );
    let masked_pong = [
        0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(
        listen(&LIMITS, &masked_pong, []),
        (vec![Event::Pong(b"Hello".to_vec())], None)
    );
    let fragments = b"\x01\x83\0\0\0\0Hel\x80\x82\0\0\0\0lo";
    assert_eq!(
        listen(&LIMITS, fragments, []),
        (vec![Event::Text(b"Hello".to_vec())], None)
    );
    for (size, header) in [
        (256, &b"\x82\xfe\x01\x00\0\0\0\0"[..]),
        (65_536, b"\x82\xff\0\0\0\0\0\x01\0\0\0\0\0\0"),
    ] {
        let mut stream = header.to_vec();
        stream.resize(header.len() + size, 0x5a);
        assert_eq!(
            listen(&LIMITS, &stream, []),
            (vec![Event::Binary(vec![0x5a; size])], None)
        );
    }
}

/// What the other end of the connection gets to see for each way to break the protocol.
#[test]
fn every_bad_frame_has_its_error_and_close_code() {
    use WsError::*;
    let limits = Limits {
        message_bytes: 1000,
        fragments: 3,
        deflate: false,
    };
    #[rustfmt::skip]
    let table: &[(&str, &[u8], WsError, u16)] = &[
        ("first reserved bit", b"\xc1\x80\0\0\0\0", ReservedBits, 1002),
        ("second reserved bit", b"\xa1\x80\0\0\0\0", ReservedBits, 1002),
        ("third reserved bit", b"\x91\x80\0\0\0\0", ReservedBits, 1002),
        ("reserved bit on a ping", b"\xc9\x80\0\0\0\0", ReservedBits, 1002),
        ("reserved bit, nothing more", b"\xc1", ReservedBits, 1002),
        ("reserved data opcode", b"\x83\x80\0\0\0\0", ReservedOpcode(3), 1002),
        ("last reserved data opcode", b"\x87\x80\0\0\0\0", ReservedOpcode(7), 1002),
        ("reserved control opcode", b"\x8b\x80\0\0\0\0", ReservedOpcode(11), 1002),
        ("last reserved control opcode", b"\x8f\x80\0\0\0\0", ReservedOpcode(15), 1002),
        ("not masked", b"\x81\x05Hello", Unmasked, 1002),
        ("not masked, nothing more", b"\x81\x00", Unmasked, 1002),
        ("fragmented ping", b"\x09\x80\0\0\0\0", FragmentedControl, 1002),
        ("fragmented close", b"\x08\x80\0\0\0\0", FragmentedControl, 1002),
        ("long ping", b"\x89\xfe\0\x7e\0\0\0\0", ControlTooLong, 1002),
        ("long close, nothing more", b"\x88\xfe", ControlTooLong, 1002),
        ("control with a 64-bit length", b"\x8a\xff", ControlTooLong, 1002),
        ("short length in 16 bits", b"\x82\xfe\0\x7d\0\0\0\0", NonMinimalLength, 1002),
        ("short length in 64 bits", b"\x82\xff\0\0\0\0\0\0\0\x01", NonMinimalLength, 1002),
        ("16-bit length in 64 bits", b"\x82\xff\0\0\0\0\0\0\xff\xff", NonMinimalLength, 1002),
        ("length of 2^63", b"\x82\xff\x80\0\0\0\0\0\0\0", LengthOverflow, 1002),
        ("length of 2^64 - 1", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", LengthOverflow, 1002),
        ("continuation of nothing", b"\x80\x80\0\0\0\0", UnexpectedContinuation, 1002),
        ("continuation of nothing, not last", b"\x00\x80\0\0\0\0", UnexpectedContinuation, 1002),
        ("continuation of a finished message", b"\x81\x80\0\0\0\0\x80\x80\0\0\0\0", UnexpectedContinuation, 1002),
        ("text inside a text", b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", InterruptedMessage, 1002),
        ("binary inside a text", b"\x01\x80\0\0\0\0\x02\x80\0\0\0\0", InterruptedMessage, 1002),
        ("close of one byte", b"\x88\x81\0\0\0\0\x03", TruncatedCloseCode, 1002),
        ("close 999", b"\x88\x82\0\0\0\0\x03\xe7", InvalidCloseCode(999), 1002),
        ("close 1005", b"\x88\x82\0\0\0\0\x03\xed", InvalidCloseCode(1005), 1002),
        ("close 1006", b"\x88\x82\0\0\0\0\x03\xee", InvalidCloseCode(1006), 1002),
        ("close 5000", b"\x88\x82\0\0\0\0\x13\x88", InvalidCloseCode(5000), 1002),
        ("close reason not UTF-8", b"\x88\x83\0\0\0\0\x03\xe8\xff", InvalidUtf8, 1007),
        ("close reason ends in a character", b"\x88\x83\0\0\0\0\x03\xe8\xc3", InvalidUtf8, 1007),
        ("text not UTF-8", b"\x81\x81\0\0\0\0\xff", InvalidUtf8, 1007),
        ("text ends in a character", b"\x81\x81\0\0\0\0\xc3", InvalidUtf8, 1007),
        ("text of a surrogate", b"\x81\x83\0\0\0\0\xed\xa0\x80", InvalidUtf8, 1007),
        ("last fragment ends in a character", b"\x01\x81\0\0\0\0\xc3\x80\x80\0\0\0\0", InvalidUtf8, 1007),
        ("character broken by the next fragment", b"\x01\x81\0\0\0\0\xc3\x80\x81\0\0\0\0x", InvalidUtf8, 1007),
        // Nothing of what would follow is needed to see these.
        ("hopeless first fragment", b"\x01\x82\0\0\0\0\xed\xa0", InvalidUtf8, 1007),
        ("hopeless start of a frame that is cut", b"\x81\x8a\0\0\0\0\xf4\x90", InvalidUtf8, 1007),
        ("over the limit, header alone", b"\x82\xfe\x03\xe9\0\0\0\0", MessageTooBig, 1009),
        ("2^63 - 1, header alone", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", MessageTooBig, 1009),
        ("over the limit together", b"\x02\x81\0\0\0\0x\x80\xfe\x03\xe8\0\0\0\0", MessageTooBig, 1009),
        ("four fragments", b"\x02\x80\0\0\0\0\x00\x80\0\0\0\0\x00\x80\0\0\0\0\x80\x80\0\0\0\0", TooManyFragments, 1009),
    ];
    for (name, stream, error, code) in table {
        let (_, found) = listen(&limits, stream, []);
        assert_eq!(found, Some(*error), "{name}");
        assert_eq!(error.disconnect().code, *code, "{name}");
        let (_, found) = listen(&limits, stream, 1..stream.len());
        assert_eq!(found, Some(*error), "{name}, a byte at a time");
    }
}

/// RFC 7692 section 6: the bit stands on the first frame of a message, and nowhere else.
#[test]
fn every_bad_compressed_frame_has_its_error_and_close_code() {
    use WsError::*;
    let limits = Limits {
        message_bytes: 1000,
        fragments: 3,
        deflate: true,
    };
    // "Hello" (section 7.2.3.1), and what is not DEFLATE.
    #[rustfmt::skip]
    let table: &[(&str, &[u8], WsError, u16)] = &[
        ("the bit on a continuation", b"\x41\x83\0\0\0\0\xf2\x48\xcd\xc0\x84\0\0\0\0\xc9\xc9\x07\0", ReservedBits, 1002),
        ("the bit on a continuation alone", b"\x01\x80\0\0\0\0\xc0", ReservedBits, 1002),
        ("the bit on a close", b"\xc8", ReservedBits, 1002),
        ("the bit on a ping", b"\xc9", ReservedBits, 1002),
        ("the bit on a pong", b"\xca", ReservedBits, 1002),
        ("another bit beside it", b"\xe1", ReservedBits, 1002),
        ("second reserved bit", b"\xa1", ReservedBits, 1002),
        ("third reserved bit", b"\x91", ReservedBits, 1002),
        ("a reserved opcode with it", b"\xc3", ReservedOpcode(3), 1002),
        ("not DEFLATE", b"\xc1\x82\0\0\0\0\x07\xff", InvalidDeflate, 1007),
        ("not DEFLATE, in fragments", b"\x42\x81\0\0\0\0\x07\x80\x81\0\0\0\0\xff", InvalidDeflate, 1007),
        ("a distance before the beginning", b"\xc2\x83\0\0\0\0\x4b\x04\xb9", InvalidDeflate, 1007),
        ("inflated text not UTF-8", b"\xc1\x87\0\0\0\0\0\x01\0\xfe\xff\xff\0", InvalidUtf8, 1007),
        ("more than could ever be within the limit", b"\xc2\xfe\x04\xa6\0\0\0\0", MessageTooBig, 1009),
        ("the same in two frames", b"\x42\x80\0\0\0\0\x80\xfe\x04\xa6\0\0\0\0", MessageTooBig, 1009),
        ("four fragments", b"\x42\x80\0\0\0\0\x00\x80\0\0\0\0\x00\x80\0\0\0\0\x80\x80\0\0\0\0", TooManyFragments, 1009),
    ];
    for (name, stream, error, code) in table {
        let (_, found) = listen(&limits, stream, []);
        assert_eq!(found, Some(*error), "{name}");
        assert_eq!(error.disconnect().code, *code, "{name}");
        let (_, found) = listen(&limits, stream, 1..stream.len());
        assert_eq!(found, Some(*error), "{name}, a byte at a time");
    }
}

/// A bomb in one frame and in fragments: it is stopped at its limit, whatever it would grow to.
#[test]
fn a_bomb_is_too_big_or_inflates_too_far() {
    let bomb = deflated(&vec![0; 15 << 20]).expect("zeros shrink");
    assert!(bomb.len() < 20_000, "{}", bomb.len());
    for (message_bytes, error) in [
        (65_536, WsError::MessageTooBig),
        (16 << 20, WsError::InflatesTooFar),
    ] {
        let limits = Limits {
            message_bytes,
            fragments: 2,
            deflate: true,
        };
        for cut in [bomb.len(), 7] {
            let mut stream = Vec::new();
            let fin = cut == bomb.len();
            write_masked_fragment(&mut stream, Opcode::Binary, fin, [1, 2, 3, 4], &bomb[..cut]);
            mark_deflated(&mut stream);
            let rest = &bomb[cut..];
            if !fin {
                write_masked_fragment(&mut stream, Opcode::Continuation, true, [0; 4], rest);
            }
            assert_eq!(listen(&limits, &stream, []), (vec![], Some(error)));
            assert_eq!(error.disconnect().code, 1009);
        }
    }
}

#[test]
fn a_message_at_its_limits_passes() {
    let limits = Limits {
        message_bytes: 1000,
        fragments: 3,
        deflate: false,
    };
    let mut stream = Vec::new();
    write_masked_frame(&mut stream, Opcode::Binary, [1, 2, 3, 4], &[7; 1000]);
    write_masked_fragment(&mut stream, Opcode::Binary, false, [1, 2, 3, 4], &[7; 500]);
    write_masked_fragment(
        &mut stream,
        Opcode::Continuation,
        false,
        [1, 2, 3, 4],
        &[7; 500],
    );
    write_masked_fragment(&mut stream, Opcode::Continuation, true, [1, 2, 3, 4], &[]);
    let expected = (
        vec![Event::Binary(vec![7; 1000]), Event::Binary(vec![7; 1000])],
        None,
    );
    assert_eq!(listen(&limits, &stream, []), expected);
}

#[test]
fn whole_messages_are_lent_from_the_input_and_own_nothing() {
    let mut input = Vec::new();
    write_masked_frame(&mut input, Opcode::Text, [1, 2, 3, 4], b"first");
    write_masked_frame(&mut input, Opcode::Ping, [1, 2, 3, 4], b"second");
    write_masked_frame(&mut input, Opcode::Binary, [1, 2, 3, 4], &[3; 70_000]);
    let range = input.as_ptr_range();
    let (mut decoder, mut inflater) = (Decoder::new(), Inflater::new());
    let (mut at, mut messages) = (0, 0);
    loop {
        let (used, message) = decoder
            .decode(&LIMITS, &mut inflater, &mut input[at..])
            .expect("the frames are good");
        at += used;
        let Some(Message::Text(bytes) | Message::Ping(bytes) | Message::Binary(bytes)) = message
        else {
            break;
        };
        assert!(range.contains(&bytes.as_ptr()), "lent from the input");
        messages += 1;
        assert!(decoder.is_idle());
    }
    assert_eq!((messages, at), (3, input.len()));
}

#[test]
fn what_is_owned_grows_with_what_arrived_and_goes_with_the_message() {
    let mut stream = Vec::new();
    write_masked_frame(&mut stream, Opcode::Binary, [1, 2, 3, 4], &[7; 1_000_000]);
    let mut listener = Listener::default();
    listener.feed(&LIMITS, &stream[..30]);
    assert!(
        listener.decoder.owned_bytes() < 300,
        "the header claims a megabyte, 16 bytes came"
    );
    listener.feed(&LIMITS, &stream[30..50_000]);
    assert!(
        (50_000..=100_300).contains(&listener.decoder.owned_bytes()),
        "{}",
        listener.decoder.owned_bytes()
    );
    listener.feed(&LIMITS, &stream[50_000..]);
    assert_eq!(listener.events.len(), 1);
    assert!(
        listener.decoder.is_idle(),
        "the call that returned no message freed it"
    );
}

#[test]
fn a_cut_control_frame_between_fragments_leaves_the_message_alone() {
    let mut stream = Vec::new();
    write_masked_fragment(&mut stream, Opcode::Text, false, [1, 2, 3, 4], b"Hel");
    write_masked_frame(&mut stream, Opcode::Ping, [5, 6, 7, 8], b"are you there?");
    let ping_end = stream.len();
    write_masked_frame(&mut stream, Opcode::Ping, [5, 6, 7, 8], b"");
    write_masked_fragment(&mut stream, Opcode::Continuation, true, [1, 2, 3, 4], b"lo");
    let mut listener = Listener::default();
    listener.feed(&LIMITS, &stream[..ping_end - 5]);
    assert_eq!(listener.events, []);
    listener.feed(&LIMITS, &stream[ping_end - 5..ping_end]);
    assert_eq!(
        listener.events,
        [Event::Ping(b"are you there?".to_vec())],
        "at once, not after the message"
    );
    assert!(!listener.decoder.is_idle(), "the message is still open");
    listener.feed(&LIMITS, &stream[ping_end..]);
    assert_eq!(
        listener.events[1..],
        [Event::Ping(Vec::new()), Event::Text(b"Hello".to_vec())]
    );
    assert!(listener.decoder.is_idle());
}
