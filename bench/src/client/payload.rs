//! The body of a publication: who, where, which, when, and a checksum over all of it.
//!
//! It is a JSON string of exactly the asked size, or two of them around a value of a sample, so it passes through either
//! encoding untouched:
//!
//! | bytes | what |
//! | --- | --- |
//! | 5 | `"~rwb`, the marker |
//! | 8 | publisher, hex: the run's number and the publisher's |
//! | 8 | channel, hex |
//! | 8 | sequence in the channel, hex |
//! | 16 | when it was due, nanoseconds of the run's clock, hex |
//! | n | filler that depends on the sequence; or `",`, a line of the sample, and `,"` |
//! | 16 | checksum of everything before it, hex |
//! | 1 | `"` |
//!
//! With a sample `[` and `]` stand around it on the way there and back.

/// The smallest size there is.
pub const SMALLEST: usize = 62;
/// What a payload starts with.
pub const MARKER: &[u8] = b"\"~rwb";
const ORIGIN_AT: usize = 5;
const SEQUENCE_AT: usize = 21;
const DUE_AT: usize = 29;
const FILLER_AT: usize = 45;
const CHECKSUM_TAIL: usize = 17;

/// Publisher and channel as they stand in a body: comparing is one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin([u8; 16]);

impl Origin {
    pub fn new(publisher: u32, channel: u32) -> Self {
        Self(hex16(u64::from(publisher) << 32 | u64::from(channel)))
    }
}

/// What a body says of itself, once its checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub origin: Origin,
    pub sequence: u32,
    pub due_ns: u64,
}

/// What a body holds beside its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Digits that fill it up to so many bytes, at least [`SMALLEST`].
    Size(usize),
    /// The lines of a sample in turn, a JSON value each. Not none.
    Sample(&'static [&'static [u8]]),
}

impl Body {
    /// Reads a sample, a JSON value a line; it is kept as long as the process lives.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn sample(text: String) -> Result<Self, String> {
        let text: &'static str = text.leak();
        for (number, line) in (1..).zip(text.lines()) {
            let read = serde_json::from_str::<serde::de::IgnoredAny>(line);
            read.map_err(|e| format!("line {number} is not JSON: {e}"))?;
        }
        let lines: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
        match lines.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(Self::Sample(lines.leak())),
        }
    }

    /// The size of the smallest one.
    pub fn smallest(self) -> usize {
        match self {
            Self::Size(size) => size,
            Self::Sample(lines) => {
                SMALLEST + AROUND + lines.iter().map(|l| l.len()).min().unwrap_or(0)
            }
        }
    }

    /// What is published, in bytes: of a sample the mean.
    pub fn typical(self) -> usize {
        match self {
            Self::Size(size) => size,
            Self::Sample(lines) => {
                let all: usize = lines.iter().map(|line| line.len()).sum();
                PROOF + all / lines.len()
            }
        }
    }

    /// In words, for the report.
    pub fn words(self) -> String {
        match self {
            Self::Size(size) => format!("{size} B"),
            Self::Sample(lines) => {
                let (count, typical) = (lines.len(), self.typical());
                format!(
                    "{typical} B on average, of it {PROOF} B of proof beside {count} lines of a sample in turn"
                )
            }
        }
    }

    /// What is published with this stamp, over what `out` held.
    pub fn write(self, out: &mut Vec<u8>, stamp: Stamp) {
        match self {
            Self::Size(size) => write(out, size, stamp),
            Self::Sample(lines) => {
                out.clear();
                out.push(b'[');
                put_stamp(out, stamp);
                out.extend_from_slice(b"\",");
                out.extend_from_slice(line_of(lines, stamp.sequence));
                out.extend_from_slice(b",\"");
                let sum = checksum(&out[1..]);
                out.extend_from_slice(&hex16(sum));
                out.extend_from_slice(b"\"]");
            }
        }
    }

    /// Reads the body at the start of `bytes`, and what stands behind it; none when a bit of it is wrong.
    pub fn read(self, bytes: &[u8]) -> Option<(Stamp, &[u8])> {
        let size = match self {
            Self::Size(size) => size,
            Self::Sample(lines) => {
                let sequence = unhex8(bytes.get(SEQUENCE_AT..DUE_AT)?);
                // If that is wrong, so is the checksum.
                SMALLEST + AROUND + line_of(lines, sequence).len()
            }
        };
        let stamp = read(bytes, size)?;
        match self {
            Self::Size(_) => Some((stamp, &bytes[size..])),
            Self::Sample(_) => Some((stamp, bytes[size..].strip_prefix(b"]")?)),
        }
    }
}

/// What ends the first string, and begins the second.
const AROUND: usize = 4;
/// What is published beside a line of a sample.
const PROOF: usize = SMALLEST + AROUND + 2;

fn line_of(lines: &'static [&'static [u8]], sequence: u32) -> &'static [u8] {
    lines[sequence as usize % lines.len()]
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    out.extend_from_slice(MARKER);
    out.extend_from_slice(&stamp.origin.0);
    out.extend_from_slice(&hex16(u64::from(stamp.sequence))[8..]);
    out.extend_from_slice(&hex16(stamp.due_ns));
}

/// Writes a body of `size` bytes (at least [`SMALLEST`]) over what `out` held.
fn write(out: &mut Vec<u8>, size: usize, stamp: Stamp) {
    debug_assert!(size >= SMALLEST);
    out.clear();
    put_stamp(out, stamp);
    let mut state = u64::from(stamp.sequence) ^ SEEDS[0];
    while out.len() < size - CHECKSUM_TAIL {
        state = mix(state, SEEDS[1]);
        let word = hex16(state);
        let take = (size - CHECKSUM_TAIL - out.len()).min(word.len());
        out.extend_from_slice(&word[..take]);
    }
    let sum = checksum(out);
    out.extend_from_slice(&hex16(sum));
    out.push(b'"');
}

/// Where the body starts in a reply: at `hint` if it does, else wherever the marker is.
pub fn find(reply: &[u8], hint: usize) -> Option<usize> {
    match reply.get(hint..hint + MARKER.len()) {
        Some(found) if found == MARKER => Some(hint),
        _ => memchr::memmem::find(reply, MARKER),
    }
}

/// Reads the body of `size` bytes at the start of `bytes`; none when a bit of it is wrong.
fn read(bytes: &[u8], size: usize) -> Option<Stamp> {
    let body = bytes.get(..size)?;
    let (signed, tail) = body.split_at(size - CHECKSUM_TAIL);
    if tail[..16] != hex16(checksum(signed)) || tail[16] != b'"' {
        return None;
    }
    Some(Stamp {
        origin: Origin(body[ORIGIN_AT..SEQUENCE_AT].try_into().expect("16 bytes")),
        sequence: unhex8(&body[SEQUENCE_AT..DUE_AT]),
        due_ns: u64::from(unhex8(&body[DUE_AT..DUE_AT + 8])) << 32
            | u64::from(unhex8(&body[DUE_AT + 8..FILLER_AT])),
    })
}

const SEEDS: [u64; 4] = [
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
];

/// A fast keyless hash for catching accidents, two lanes of 16 bytes.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (mut a, mut b) = (SEEDS[0] ^ bytes.len() as u64, SEEDS[1]);
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        a = mix(word(&block[..8]) ^ SEEDS[2], word(&block[8..16]) ^ a);
        b = mix(word(&block[16..24]) ^ SEEDS[3], word(&block[24..]) ^ b);
    }
    let mut words = blocks.remainder().chunks_exact(8);
    for eight in &mut words {
        a = mix(word(eight) ^ SEEDS[2], a ^ SEEDS[3]);
    }
    let last = words
        .remainder()
        .iter()
        .fold(0, |last, byte| last << 8 | u64::from(*byte));
    mix(a ^ last ^ SEEDS[1], b ^ SEEDS[3])
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// 16 hex digits, most significant first, eight at a time.
fn hex16(value: u64) -> [u8; 16] {
    let half = |value: u32| {
        let mut n = u64::from(value);
        n = (n | n << 16) & 0x0000_ffff_0000_ffff;
        n = (n | n << 8) & 0x00ff_00ff_00ff_00ff;
        n = (n | n << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        // 6 more carries into bit 4 exactly for 10 to 15.
        let letters = (n + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        (n + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
    };
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&half((value >> 32) as u32));
    digits[8..].copy_from_slice(&half(value as u32));
    digits
}

/// The value of eight hex digits; the checksum has already proved that they are that.
fn unhex8(digits: &[u8]) -> u32 {
    let raw = u64::from_be_bytes(digits.try_into().expect("eight digits"));
    let letters = raw >> 6 & 0x0101_0101_0101_0101;
    let mut n = (raw & 0x0f0f_0f0f_0f0f_0f0f) + letters * 9;
    n = (n | n >> 4) & 0x00ff_00ff_00ff_00ff;
    n = (n | n >> 8) & 0x0000_ffff_0000_ffff;
    (n | n >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp {
            origin: Origin::new(0xabcd_0001, 77),
            sequence,
            due_ns: 0x0123_4567_89ab_cdef,
        }
    }

    #[test]
    fn digits_are_what_format_says() {
        for value in [0, 9, 10, 0xdead_beef_0099_aaff, u64::MAX] {
            assert_eq!(hex16(value), format!("{value:016x}").as_bytes());
            assert_eq!(u64::from(unhex8(&hex16(value)[8..])), value & 0xffff_ffff);
        }
    }

    #[test]
    fn a_body_is_a_json_string_of_the_asked_size_and_reads_back() {
        let mut body = Vec::new();
        for size in [SMALLEST, 63, 64, 100, 1000, 4096] {
            write(&mut body, size, stamp(size as u32));
            assert_eq!(body.len(), size);
            serde_json::from_slice::<String>(&body).unwrap();
            assert_eq!(read(&body, size), Some(stamp(size as u32)));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut body = Vec::new();
        write(&mut body, 128, stamp(5));
        for bit in 0..128 * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            // The marker's own bits are `find`'s business, but the checksum covers them too.
            assert_eq!(read(&body, 128), None, "bit {bit}");
            body[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_sample_goes_line_by_line_and_any_flipped_bit_of_it_is_noticed() {
        let sample = Body::sample("{\"a\":1}\n[]\n\"~rwb\"\n".to_owned()).unwrap();
        let mut out = Vec::new();
        for sequence in 0..7 {
            sample.write(&mut out, stamp(sequence));
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(
                value[1].to_string(),
                ["{\"a\":1}", "[]", "\"~rwb\""][sequence as usize % 3]
            );
            assert!(out.len() >= sample.smallest());
            out.extend_from_slice(b"}}rest");
            let at = find(&out, 0).unwrap();
            assert_eq!(
                sample.read(&out[at..]),
                Some((stamp(sequence), &b"}}rest"[..]))
            );
            // From behind the `[` to the `]`.
            for bit in 8..(out.len() - 6) * 8 {
                out[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(sample.read(&out[1..]), None, "bit {bit}");
                out[bit / 8] ^= 1 << (bit % 8);
            }
        }
        assert!(Body::sample("{}\n{\n".to_owned()).is_err());
        assert!(Body::sample(String::new()).is_err());
    }

    #[test]
    fn is_found_with_a_wrong_hint() {
        let reply = br#"{"push":{"channel":"a","pub":{"data":"~rwb..."}}}"#;
        assert_eq!(find(reply, 37), Some(37));
        assert_eq!(find(reply, 0), Some(37));
        assert_eq!(find(reply, 4000), Some(37));
        assert_eq!(find(b"{}", 0), None);
    }
}
