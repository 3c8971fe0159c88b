//! permessage-deflate (RFC 7692) without context takeover: every message is compressed by itself, so that one compressed
//! message serves any number of connections, and a connection keeps no window between two messages.
//!
//! [`Deflater`] and [`Inflater`] are one a thread. They own nothing until they are first used.

use super::error::WsError;
use super::frame::{Opcode, RSV1, begin_frame, end_frame, frame_header_len, frame_len};
use crate::stats::{Deflated, Inflated};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The window of a peer that asks for none smaller, in bits: 32 KiB.
pub const WINDOW_BITS_MAX: u8 = 15;

/// What a flush ends with, and a message leaves out (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Inflated bytes that any message may have.
const RATIO_FREE_BYTES: u64 = 16 * 1024;

/// Inflated bytes for each byte that came, beyond those. DEFLATE itself ends at 1032; text of people and machines stays far
/// below this.
const RATIO_MAX: u64 = 200;

/// Largest buffer that is kept for the next message.
const KEEP_BYTES: usize = 256 * 1024;

/// Compresses whole messages for windows of 32 KiB. A message that is itself no larger than a smaller window fits that
/// one, too: no distance in it can be larger than what came before.
#[derive(Debug)]
pub struct Deflater {
    level: u32,
    state: Option<Box<Compress>>,
    plain: Vec<u8>,
    /// What it did.
    pub done: Deflated,
}

impl Deflater {
    /// One of this level, 1 (fast) to 9 (small). It takes some 300 KiB with its first message.
    pub const fn new(level: u32) -> Self {
        Self {
            level,
            state: None,
            plain: Vec::new(),
            done: Deflated {
                messages: 0,
                left_plain: 0,
                plain_bytes: 0,
                deflated_bytes: 0,
            },
        }
    }

    /// Appends a whole, unmasked, unfragmented data frame again, compressed. `false`: it would not be smaller by an eighth,
    /// and nothing was appended.
    pub fn deflate(&mut self, out: &mut Vec<u8>, frame: &[u8]) -> bool {
        let Some(header_len) = frame_header_len(frame) else {
            return false;
        };
        debug_assert_eq!(frame_len(frame), Some(frame.len()), "one whole frame");
        let opcode = if frame[0] & 0x0f == Opcode::Text.bits() {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        let payload = &frame[header_len..];
        let most = payload.len() - payload.len() / 8;
        let state = self.state.get_or_insert_with(|| {
            let level = Compression::new(self.level);
            Box::new(Compress::new_with_window_bits(
                level,
                false,
                WINDOW_BITS_MAX,
            ))
        });
        state.reset();
        let start = out.len();
        let mark = begin_frame(out);
        let payload_start = out.len();
        // Room for the worst, literals of nine bits: a state that is reset while it holds output is not reset wholly
        // (zlib-rs 0.6), and panics in some later message.
        out.reserve(payload.len() + payload.len() / 8 + 64);
        let done = state.compress_vec(payload, out, FlushCompress::Sync);
        let is_whole = done.is_ok() && out.len() < out.capacity() && out.ends_with(&TAIL);
        let compressed = (out.len() - payload_start).saturating_sub(TAIL.len());
        if !is_whole {
            debug_assert!(false, "{payload:02x?} needed more room");
            self.state = None;
        }
        if !is_whole || compressed > most {
            mark.abandon(out);
            self.done.left_plain += 1;
            return false;
        }
        out.truncate(payload_start + compressed);
        end_frame(out, mark, opcode);
        out[start] |= RSV1;
        self.done.messages += 1;
        self.done.plain_bytes += frame.len() as u64;
        self.done.deflated_bytes += (out.len() - start) as u64;
        true
    }

    /// Compresses the whole frame that `out` holds from `start` on, for a window of so many bits, if it is worth it.
    pub fn deflate_tail(&mut self, out: &mut Vec<u8>, start: usize, window_bits: u8) {
        let fits = window_bits >= WINDOW_BITS_MAX || out.len() - start <= 1 << window_bits;
        // Control frames never are (RFC 7692 section 6.1).
        let is_control = out.get(start).is_none_or(|first| first & 0x08 != 0);
        if !fits || is_control || frame_len(&out[start..]) != Some(out.len() - start) {
            return;
        }
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        plain.extend_from_slice(&out[start..]);
        out.truncate(start);
        if !self.deflate(out, &plain) {
            out.extend_from_slice(&plain);
        }
        if plain.capacity() <= KEEP_BYTES {
            self.plain = plain;
        }
    }
}

/// Inflates whole messages of one client at a time, within bounds.
#[derive(Debug)]
pub struct Inflater {
    ratio_max: u64,
    state: Option<Box<Decompress>>,
    out: Vec<u8>,
    /// What it did.
    pub done: Inflated,
}

impl Inflater {
    /// One for what clients send. It takes some 50 KiB with its first message.
    pub const fn new() -> Self {
        Self::with_ratio(RATIO_MAX)
    }

    /// One for what a server sends, which may shrink as far as it can. Not used by the gateway.
    pub const fn for_server() -> Self {
        Self::with_ratio(u64::MAX)
    }

    const fn with_ratio(ratio_max: u64) -> Self {
        Self {
            ratio_max,
            state: None,
            out: Vec::new(),
            done: Inflated {
                messages: 0,
                deflated_bytes: 0,
                plain_bytes: 0,
                too_big: 0,
                too_far: 0,
                invalid: 0,
            },
        }
    }

    /// The message whose compressed bytes, all its fragments together, are `payload`.
    ///
    /// # Errors
    /// [`WsError::MessageTooBig`] as soon as it has more than `message_bytes`, [`WsError::InflatesTooFar`] as soon as it
    /// grows like a bomb, [`WsError::InvalidDeflate`].
    pub fn inflate(&mut self, payload: &[u8], message_bytes: usize) -> Result<&[u8], WsError> {
        let inflated = self.inflate_into_out(payload, message_bytes);
        match inflated {
            Ok(()) => {
                self.done.messages += 1;
                self.done.deflated_bytes += payload.len() as u64;
                self.done.plain_bytes += self.out.len() as u64;
            }
            Err(WsError::MessageTooBig) => self.done.too_big += 1,
            Err(WsError::InflatesTooFar) => self.done.too_far += 1,
            Err(_) => self.done.invalid += 1,
        }
        inflated.map(|()| &self.out[..])
    }

    fn inflate_into_out(&mut self, payload: &[u8], message_bytes: usize) -> Result<(), WsError> {
        if self.out.capacity() > KEEP_BYTES {
            self.out = Vec::new();
        }
        self.out.clear();
        let state = self.state.get_or_insert_with(|| {
            Box::new(Decompress::new_with_window_bits(false, WINDOW_BITS_MAX))
        });
        state.reset(false);
        let far = RATIO_FREE_BYTES.max(self.ratio_max.saturating_mul(payload.len() as u64));
        for mut input in [payload, &TAIL[..]] {
            loop {
                if self.out.len() == self.out.capacity() {
                    // Room for one byte more than may be tells that it is too big.
                    let most = message_bytes + 1 - self.out.len();
                    self.out.reserve_exact(most.min(self.out.len().max(4096)));
                }
                let taken = state.total_in();
                let status = state
                    .decompress_vec(input, &mut self.out, FlushDecompress::Sync)
                    .map_err(|_| WsError::InvalidDeflate)?;
                input = &input[(state.total_in() - taken) as usize..];
                if self.out.len() > message_bytes {
                    return Err(WsError::MessageTooBig);
                }
                if self.out.len() as u64 > far {
                    return Err(WsError::InflatesTooFar);
                }
                match status {
                    // A block marked as the last one does not end the message (section 7.2.3.4).
                    Status::StreamEnd => state.reset(false),
                    _ if self.out.len() < self.out.capacity() => break,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::write_frame;
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const BIG: usize = 1 << 24;

    fn text(len: usize) -> Vec<u8> {
        let mut rng = StdRng::seed_from_u64(len as u64);
        let words = ["the ", "room ", "is ", "open ", "again ", "since ", "noon "];
        let mut text: Vec<u8> = Vec::new();
        while text.len() < len {
            text.extend_from_slice(words[rng.random_range(0..words.len())].as_bytes());
        }
        text.truncate(len);
        text
    }

    /// What `flate2` makes of it, as a client would send it.
    fn client_bytes(payload: &[u8], level: u32, bits: u8) -> Vec<u8> {
        let mut state = Compress::new_with_window_bits(Compression::new(level), false, bits);
        let mut out = Vec::with_capacity(payload.len() + payload.len() / 8 + 64);
        state
            .compress_vec(payload, &mut out, FlushCompress::Sync)
            .expect("there is room");
        assert!(out.ends_with(&TAIL), "room for all of it");
        out.truncate(out.len() - TAIL.len());
        out
    }

    #[test]
    fn inflates_the_examples_of_the_rfc() {
        let mut inflater = Inflater::new();
        for (compressed, what) in [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], "7.2.3.1"),
            (
                &[
                    0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
                ],
                "7.2.3.3: no compression",
            ),
            (
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
                "7.2.3.4: a final block",
            ),
            (
                &[
                    0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
                ],
                "7.2.3.5: two blocks",
            ),
        ] {
            assert_eq!(
                inflater.inflate(compressed, 100),
                Ok(&b"Hello"[..]),
                "{what}"
            );
        }
        assert_eq!(
            inflater.inflate(&[0], 100),
            Ok(&b""[..]),
            "7.2.3.6: nothing"
        );
    }

    #[test]
    fn a_deflated_frame_inflates_to_what_it_was() {
        let (mut deflater, mut inflater) = (Deflater::new(3), Inflater::new());
        for len in [64, 125, 126, 300, 1000, 65_535, 65_536, 300_000] {
            for opcode in [Opcode::Text, Opcode::Binary] {
                let (payload, mut plain, mut out) = (text(len), Vec::new(), b"before".to_vec());
                write_frame(&mut plain, opcode, &payload);
                assert!(deflater.deflate(&mut out, &plain), "{len} bytes of text");
                let frame = &out[6..];
                assert_eq!(frame[0], 0x80 | RSV1 | opcode.bits());
                assert_eq!(frame_len(frame), Some(frame.len()));
                assert!(frame.len() < plain.len());
                let header = frame_header_len(frame).expect("a whole frame");
                assert_eq!(inflater.inflate(&frame[header..], len), Ok(&payload[..]));
            }
        }
    }

    #[test]
    fn both_ways_are_counted() {
        let (mut deflater, mut inflater) = (Deflater::new(3), Inflater::new());
        let (mut plain, mut out) = (Vec::new(), b"before".to_vec());
        write_frame(&mut plain, Opcode::Text, &text(1000));
        assert!(deflater.deflate(&mut out, &plain));
        assert!(!deflater.deflate(&mut Vec::new(), b"\x81\x02{}"));
        let expected = Deflated {
            messages: 1,
            left_plain: 1,
            plain_bytes: 1004,
            deflated_bytes: out.len() as u64 - 6,
        };
        assert_eq!(deflater.done, expected);

        let sent = client_bytes(&text(1000), 6, 15);
        let bomb = client_bytes(&vec![0; BIG], 9, 15);
        assert!(inflater.inflate(&sent, 1000).is_ok());
        assert!(inflater.inflate(&sent, 999).is_err());
        assert!(inflater.inflate(&bomb, BIG).is_err());
        assert!(inflater.inflate(&[0x07], 10).is_err());
        let expected = Inflated {
            messages: 1,
            deflated_bytes: sent.len() as u64,
            plain_bytes: 1000,
            too_big: 1,
            too_far: 1,
            invalid: 1,
        };
        assert_eq!(inflater.done, expected);
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let mut rng = StdRng::seed_from_u64(1);
        for level in 1..=9 {
            let mut deflater = Deflater::new(level);
            for len in [
                0, 1, 8, 125, 5000, 60_000, 70_000, 100_000, 200_000, 300_000,
            ] {
                let payload: Vec<u8> = (0..len).map(|_| rng.random()).collect();
                let (mut plain, mut out) = (Vec::new(), b"before".to_vec());
                write_frame(&mut plain, Opcode::Binary, &payload);
                assert!(!deflater.deflate(&mut out, &plain), "{len} random bytes");
                assert_eq!(out, b"before");
                // And the next message is not spoilt by the one that was given up.
                let (mut plain, mut out) = (Vec::new(), Vec::new());
                write_frame(&mut plain, Opcode::Text, &text(60_000));
                assert!(deflater.deflate(&mut out, &plain));
                let inflated = Inflater::new()
                    .inflate(&out[4..], 60_000)
                    .map(<[u8]>::to_vec);
                assert_eq!(inflated, Ok(text(60_000)));
            }
        }
    }

    #[test]
    fn takes_every_level_and_window_a_client_may_use() {
        let mut inflater = Inflater::new();
        for len in [0, 1, 100, 5000, 300_000] {
            for level in [0, 1, 6, 9] {
                for bits in 9..=15 {
                    let payload = text(len);
                    let sent = client_bytes(&payload, level, bits);
                    assert_eq!(inflater.inflate(&sent, len), Ok(&payload[..]));
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_where_its_bound_is() {
        let mut inflater = Inflater::new();
        let bomb = client_bytes(&vec![0; BIG], 9, 15);
        assert!(bomb.len() < 20_000, "it is one: {}", bomb.len());
        assert_eq!(inflater.inflate(&bomb, BIG), Err(WsError::InflatesTooFar));
        assert_eq!(
            inflater.inflate(&bomb, 65_536),
            Err(WsError::MessageTooBig),
            "the size comes first"
        );
        assert!(inflater.out.capacity() <= 65_537 * 2 + KEEP_BYTES);
        // The size to the byte, and not a byte of it is believed before it is there.
        let sent = client_bytes(&text(5000), 6, 15);
        assert!(inflater.inflate(&sent, 5000).is_ok());
        assert_eq!(inflater.inflate(&sent, 4999), Err(WsError::MessageTooBig));
        // What is small may repeat itself as it likes.
        let spaces = client_bytes(&[b' '; RATIO_FREE_BYTES as usize], 9, 15);
        assert!(inflater.inflate(&spaces, BIG).is_ok(), "{}", spaces.len());
    }

    #[test]
    fn garbage_is_refused_and_leaves_no_trace() {
        let mut inflater = Inflater::new();
        let mut rng = StdRng::seed_from_u64(2);
        assert_eq!(inflater.inflate(&[0x07], 10), Err(WsError::InvalidDeflate));
        for _ in 0..2000 {
            let mut sent = client_bytes(&text(rng.random_range(1..3000)), 6, 15);
            let at = rng.random_range(0..sent.len());
            sent[at] ^= 1 << rng.random_range(0..8);
            if let Ok(message) = inflater.inflate(&sent, 4000) {
                assert!(message.len() <= 4000);
            }
            let good = client_bytes(&text(500), 6, 15);
            assert_eq!(inflater.inflate(&good, 500), Ok(&text(500)[..]));
        }
    }
}
