//! Unmasking by itself, and as a part of receiving.

use super::work::Work;
use ringway::protocol::websocket::client::write_masked_frame;
use ringway::protocol::websocket::{Decoder, Inflater, Limits, Message, Opcode, apply_mask};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const PAYLOADS: usize = 64;
/// A payload follows a header of six bytes or eight, so it hardly ever begins at a multiple of more than two.
const HEADER: usize = 6;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i % 26) as u8).collect()
}

struct Payloads {
    len: usize,
    masked: Vec<u8>,
    buffer: Vec<u8>,
}

/// An operation is one payload of `len` bytes unmasked.
pub fn payload(len: usize) -> Box<dyn Work> {
    let mut masked = Vec::new();
    for _ in 0..PAYLOADS {
        masked.extend_from_slice(&[0; HEADER]);
        masked.extend(
            bytes(len)
                .iter()
                .zip(KEY.iter().cycle())
                .map(|(b, k)| b ^ k),
        );
    }
    Box::new(Payloads {
        len,
        buffer: masked.clone(),
        masked,
    })
}

impl Work for Payloads {
    fn operations(&self) -> u32 {
        PAYLOADS as u32
    }

    fn prepare(&mut self) {
        self.buffer.copy_from_slice(&self.masked);
    }

    fn run(&mut self) {
        for frame in self.buffer.chunks_exact_mut(HEADER + self.len) {
            apply_mask(&mut frame[HEADER..], KEY);
        }
    }

    fn check(&mut self) {
        let wanted = [&[0; HEADER][..], &bytes(self.len)].concat();
        assert_eq!(self.buffer, wanted.repeat(PAYLOADS));
    }
}

const LIMITS: Limits = Limits {
    message_bytes: 65_536,
    fragments: 1024,
    deflate: false,
};

struct Received {
    decoder: Decoder,
    inflater: Inflater,
    stream: Vec<u8>,
    buffer: Vec<u8>,
    messages: usize,
}

/// An operation is one text frame of 100 bytes out of a buffer full of them: header, mask, UTF-8.
pub fn received_frames() -> Box<dyn Work> {
    let mut stream = Vec::new();
    for _ in 0..PAYLOADS {
        write_masked_frame(&mut stream, Opcode::Text, KEY, &bytes(100));
    }
    Box::new(Received {
        decoder: Decoder::new(),
        inflater: Inflater::new(),
        buffer: stream.clone(),
        stream,
        messages: 0,
    })
}

impl Work for Received {
    fn operations(&self) -> u32 {
        PAYLOADS as u32
    }

    fn prepare(&mut self) {
        self.buffer.copy_from_slice(&self.stream);
        self.messages = 0;
    }

    fn run(&mut self) {
        let mut at = 0;
        loop {
            let decoded = self
                .decoder
                .decode(&LIMITS, &mut self.inflater, &mut self.buffer[at..]);
            let (used, message) = decoded.expect("whole frames");
            at += used;
            match message {
                Some(Message::Text(text)) if text.len() == 100 => self.messages += 1,
                _ => break,
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.messages, PAYLOADS);
        for frame in self.buffer.chunks_exact(HEADER + 100) {
            assert_eq!(frame[HEADER..], bytes(100));
        }
    }
}
