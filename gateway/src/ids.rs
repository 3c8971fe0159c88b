//! Names for the things a node counts: shards, slots, generations.

/// A shard's number on this node, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The number as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Names one life of a connection slot. The slot is reused, the generation is not (it wraps after 2^32 lives of one slot),
/// so an event that was under way when the slot changed hands is recognised and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The slot, which is also the index in the reactor's file table and in the shard's slab.
    pub slot: u32,
    /// The slot's life.
    pub generation: u32,
}

/// A moment: time since the reactor started, and the wall clock beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; starts above zero.
    pub millis: u64,
    /// Nanoseconds on the same clock, for measuring what a turn costs.
    pub nanos: u64,
    /// Milliseconds since 1970 (may step when the wall clock is set).
    pub unix_millis: u64,
}

impl Now {
    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> u64 {
        self.unix_millis / 1000
    }
}

/// A client's id: random, shown as a UUID, unique on the node and (being 122 random bits) in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId(u128);

/// Length of a client id as text.
pub const CLIENT_ID_LEN: usize = 36;

impl ClientId {
    /// Makes a version 4 UUID of random bits.
    pub fn from_random(bits: u128) -> Self {
        let version = bits & !(0xf << 76) | (4 << 76);
        Self(version & !(0b11 << 62) | (0b10 << 62))
    }

    /// The text, without allocating.
    pub fn text(self) -> ClientIdText {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'-'; CLIENT_ID_LEN];
        let mut at = 0;
        // By the byte, not by the digit: each publication of a client carries its id.
        for (i, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            out[at] = DIGITS[usize::from(byte >> 4)];
            out[at + 1] = DIGITS[usize::from(byte & 0xf)];
            at += 2;
        }
        ClientIdText(out)
    }

    /// Reads the text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut value: u128 = 0;
        let mut digits = 0;
        for (at, c) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            value = value << 4 | u128::from(char::from(c).to_digit(16)?);
            digits += 1;
        }
        (digits == 32 && text.len() == CLIENT_ID_LEN).then_some(Self(value))
    }
}

impl std::fmt::Debug for ClientId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// A client id as text, on the stack.
#[derive(Clone, Copy)]
pub struct ClientIdText([u8; CLIENT_ID_LEN]);

impl ClientIdText {
    /// The 36 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits and dashes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_a_version_4_uuid_and_reads_back() {
        for bits in [0, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let id = ClientId::from_random(bits);
            let text = id.text();
            let hex = format!("{:032x}", id.0);
            let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &hex[group]);
            assert_eq!(text.as_str(), groups.join("-"));
            assert_eq!(&text.as_str()[14..15], "4");
            assert!(matches!(&text.as_str()[19..20], "8" | "9" | "a" | "b"));
            assert_eq!(ClientId::parse(text.as_str()), Some(id));
        }
        assert_eq!(ClientId::parse("no"), None);
        assert_eq!(
            ClientId::parse("0123456789abcdef0011223344556677----"),
            None
        );
    }
}
