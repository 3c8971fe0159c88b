//! permessage-deflate, both ways.

use super::Draws;
use crate::protocol::websocket::{
    Deflater, Inflater, Opcode, WsError, frame_header_len, frame_len, write_frame,
};

/// The first byte chooses: bytes to be inflated, or several payloads, each behind its length, to be compressed and inflated.
pub fn run(bytes: &[u8]) {
    let mut draws = Draws(bytes);
    let choice = draws.byte();
    if choice & 1 == 0 {
        let message_bytes = [1 << 20, 50_000, 1000, 0][usize::from(choice >> 1 & 3)];
        inflates_within_bounds(draws.0, message_bytes);
    } else {
        comes_back(draws, u32::from(choice >> 1 & 7) + 1, choice >> 4 & 7);
    }
}

fn inflates_within_bounds(payload: &[u8], message_bytes: usize) {
    let mut inflater = Inflater::new();
    let first = inflater.inflate(payload, message_bytes).map(<[u8]>::to_vec);
    if let Ok(inflated) = &first {
        assert!(inflated.len() <= message_bytes);
        assert!(inflated.len() <= (200 * payload.len()).max(16 << 10));
    }
    let again = inflater.inflate(payload, message_bytes).map(<[u8]>::to_vec);
    assert_eq!(again, first, "the message before leaves nothing");
    let unbound = Inflater::for_server()
        .inflate(payload, message_bytes)
        .map(<[u8]>::to_vec);
    if first != Err(WsError::InflatesTooFar) {
        assert_eq!(unbound, first);
    }
}

fn comes_back(mut draws: Draws<'_>, level: u32, window: u8) {
    let mut deflater = Deflater::new(level);
    let mut inflater = Inflater::for_server();
    while !draws.is_empty() {
        let times = usize::from(draws.byte() >> 4) + 1;
        let len = usize::from(draws.byte());
        let payload = draws.take(len).repeat(times * times);
        let mut plain = Vec::new();
        write_frame(&mut plain, Opcode::Binary, &payload);
        let mut out = b"before".to_vec();
        if deflater.deflate(&mut out, &plain) {
            assert!(out.len() <= 6 + plain.len());
            assert_eq!(read(&mut inflater, &out[6..]), payload);
        } else {
            assert_eq!(out, b"before");
        }
        // Whatever it makes of it, it is one frame, which a peer with this window can read.
        let mut tail = plain.clone();
        let window_bits = window + 8;
        deflater.deflate_tail(&mut tail, 0, window_bits);
        assert_eq!(read(&mut inflater, &tail), payload);
        let is_deflated = tail[0] & 0x40 != 0;
        let fits = window_bits == 15 || payload.len() <= 1 << window_bits;
        assert!(
            !is_deflated || fits,
            "a distance may lie outside the window"
        );
        assert!(tail.len() <= plain.len());
    }
}

/// The payload of a whole frame of a server.
fn read(inflater: &mut Inflater, frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame_len(frame), Some(frame.len()));
    let payload = &frame[frame_header_len(frame).expect("a header")..];
    if frame[0] & 0x40 == 0 {
        return payload.to_vec();
    }
    inflater
        .inflate(payload, 1 << 20)
        .expect("what was deflated")
        .to_vec()
}
