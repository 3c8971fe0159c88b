//! UTF-8 of text messages, whole or as it arrives.
//!
//! An assembly keeps its payload in one piece, so the state of an incremental check is one number: how many bytes are
//! known to be whole, valid characters. What follows is at most three bytes of a character that may still become valid;
//! anything that no byte could save is an error at once (section 8.1 lets us fail early, and conformance suites look).

/// The bytes are not, and cannot become, UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// Whether the bytes are UTF-8.
pub fn is_utf8(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// How far `bytes` is valid, given that `bytes[..known]` is: either all of it, or up to an unfinished character of at most
/// three bytes at its end.
///
/// # Errors
/// [`InvalidUtf8`] as soon as no continuation could make the bytes valid.
///
/// # Panics
/// When `known > bytes.len()`.
pub fn utf8_valid_up_to(bytes: &[u8], known: usize) -> Result<usize, InvalidUtf8> {
    match simdutf8::compat::from_utf8(&bytes[known..]) {
        Ok(_) => Ok(bytes.len()),
        // No length: the end came too early, after a prefix of a valid character.
        Err(error) if error.error_len().is_none() => Ok(known + error.valid_up_to()),
        Err(_) => Err(InvalidUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// The table of RFC 3629 section 4, a byte at a time: the state is how many continuation bytes are owed and the range
    /// of the next one. `Err` at the first byte that cannot follow.
    fn naive(bytes: &[u8]) -> Result<usize, InvalidUtf8> {
        let (mut owed, mut low, mut high, mut whole) = (0, 0x80, 0xbf, 0);
        for (i, &byte) in bytes.iter().enumerate() {
            if owed > 0 {
                if byte < low || byte > high {
                    return Err(InvalidUtf8);
                }
                (low, high) = (0x80, 0xbf);
                owed -= 1;
            } else {
                (owed, low, high) = match byte {
                    0x00..=0x7f => (0, 0x80, 0xbf),
                    0xc2..=0xdf => (1, 0x80, 0xbf),
                    0xe0 => (2, 0xa0, 0xbf),
                    0xed => (2, 0x80, 0x9f),
                    0xe1..=0xef => (2, 0x80, 0xbf),
                    0xf0 => (3, 0x90, 0xbf),
                    0xf1..=0xf3 => (3, 0x80, 0xbf),
                    0xf4 => (3, 0x80, 0x8f),
                    _ => return Err(InvalidUtf8),
                };
            }
            if owed == 0 {
                whole = i + 1;
            }
        }
        Ok(whole)
    }

    /// Feeds `bytes` in pieces that end at `cuts`, as an assembly does.
    fn in_pieces(bytes: &[u8], cuts: impl Iterator<Item = usize>) -> Result<usize, InvalidUtf8> {
        let mut known = 0;
        for end in cuts.chain([bytes.len()]) {
            known = utf8_valid_up_to(&bytes[..end], known)?;
            assert!(
                end - known <= 3,
                "more than an unfinished character is left"
            );
        }
        Ok(known)
    }

    #[test]
    fn every_sequence_of_up_to_three_bytes_agrees_with_the_naive_twin() {
        // Every class of byte that the table tells apart, at its borders.
        let borders = [
            0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
            0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ];
        for a in borders {
            assert_eq!(utf8_valid_up_to(&[a], 0), naive(&[a]));
            for b in borders {
                assert_eq!(utf8_valid_up_to(&[a, b], 0), naive(&[a, b]));
                for c in borders {
                    assert_eq!(utf8_valid_up_to(&[a, b, c], 0), naive(&[a, b, c]));
                    for d in borders {
                        let bytes = [a, b, c, d];
                        let expected = naive(&bytes);
                        assert_eq!(utf8_valid_up_to(&bytes, 0), expected, "{bytes:02x?}");
                        assert_eq!(
                            in_pieces(&bytes, 1..4),
                            expected,
                            "{bytes:02x?} a byte at a time"
                        );
                        assert_eq!(is_utf8(&bytes), expected == Ok(4), "{bytes:02x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn long_texts_with_one_bad_byte_agree_with_the_naive_twin_in_any_pieces() {
        let mut rng = StdRng::seed_from_u64(7);
        let text =
            "κόσμε, plain ascii in between, 日本語, 🌍🌏, ~\u{10ffff}\u{d7ff}\u{e000}".repeat(3);
        for _ in 0..3000 {
            let mut bytes = text.clone().into_bytes();
            if rng.random_bool(0.7) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=bytes.len()));
            let mut cuts: Vec<usize> = (0..rng.random_range(0..8))
                .map(|_| rng.random_range(0..=bytes.len()))
                .collect();
            cuts.sort_unstable();
            assert_eq!(in_pieces(&bytes, cuts.into_iter()), naive(&bytes));
        }
    }

    #[test]
    fn fails_on_the_byte_that_cannot_be_saved() {
        // A surrogate and a code point above U+10FFFF are hopeless at their second byte, not at their last.
        assert_eq!(utf8_valid_up_to(b"ok\xed", 0), Ok(2));
        assert_eq!(utf8_valid_up_to(b"ok\xed\xa0", 2), Err(InvalidUtf8));
        assert_eq!(utf8_valid_up_to(b"ok\xf4", 0), Ok(2));
        assert_eq!(utf8_valid_up_to(b"ok\xf4\x90", 2), Err(InvalidUtf8));
    }
}
