//! The Protobuf wire format: varints, tags and length-delimited fields, read strictly and written by hand.

use super::decode::DecodeError;

/// A varint field.
pub(super) const VARINT: u8 = 0;
/// A field of eight bytes.
const FIXED64: u8 = 1;
/// A field with its length in front.
pub(super) const BYTES: u8 = 2;
/// A field of four bytes.
const FIXED32: u8 = 5;

/// A cursor in a message. After a tag was read, the field's value comes next.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Wire type of the tag that was read last.
    wire: u8,
}

impl<'a> Reader<'a> {
    /// At the start of a message.
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            wire: BYTES,
        }
    }

    /// At an empty length-delimited value.
    pub(super) fn empty_value() -> Self {
        Self::new(&[0])
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// A varint of at most 64 bits.
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            if index == 9 && byte > 1 {
                return Err(DecodeError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 {
            DecodeError::Truncated
        } else {
            DecodeError::Varint
        })
    }

    /// The next field's number, or `None` at the end of the message.
    pub(super) fn tag(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| DecodeError::Tag)?;
        self.wire = (tag & 7) as u8;
        match tag >> 3 {
            0 => Err(DecodeError::Tag),
            number => Ok(Some(number)),
        }
    }

    /// The value of a varint field.
    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        self.expect(VARINT)?;
        self.varint()
    }

    /// The value of a length-delimited field.
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        self.expect(BYTES)?;
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        self.advance(length)
    }

    /// The value of a string field.
    pub(super) fn str(&mut self) -> Result<&'a str, DecodeError> {
        simdutf8::basic::from_utf8(self.delimited()?).map_err(|_| DecodeError::Utf8)
    }

    /// Skips the value of a field of any wire type. Groups are refused.
    pub(super) fn skip_field(&mut self) -> Result<(), DecodeError> {
        match self.wire {
            VARINT => self.varint().map(drop),
            FIXED64 => self.advance(8).map(drop),
            BYTES => self.delimited().map(drop),
            FIXED32 => self.advance(4).map(drop),
            _ => Err(DecodeError::Tag),
        }
    }

    fn expect(&self, wire: u8) -> Result<(), DecodeError> {
        if self.wire == wire {
            Ok(())
        } else {
            Err(DecodeError::Tag)
        }
    }

    fn advance(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// How many bytes a varint takes, 1 to 10.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a varint.
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field's tag.
pub(super) fn write_tag(out: &mut Vec<u8>, number: u32, wire: u8) {
    write_varint(out, u64::from(number << 3 | u32::from(wire)));
}

/// Appends a varint field.
pub(super) fn write_number(out: &mut Vec<u8>, number: u32, value: u64) {
    write_tag(out, number, VARINT);
    write_varint(out, value);
}

/// Appends a length-delimited field.
pub(super) fn write_delimited(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    write_tag(out, number, BYTES);
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a message field whose length is known when `body` has written it: one byte of room is left for the length,
/// and a longer message moves up.
pub(super) fn write_message(out: &mut Vec<u8>, number: u32, body: impl FnOnce(&mut Vec<u8>)) {
    write_tag(out, number, BYTES);
    let start = out.len();
    out.push(0);
    body(out);
    let length = out.len() - start - 1;
    let room = varint_len(length as u64);
    if room > 1 {
        out.resize(out.len() + room - 1, 0);
        out.copy_within(start + 1..start + 1 + length, start + room);
    }
    put_varint(&mut out[start..start + room], length as u64);
}

/// Writes a varint over `room`, which is exactly as long as it.
pub(super) fn put_varint(room: &mut [u8], mut value: u64) {
    if let Some((last, first)) = room.split_last_mut() {
        for byte in first {
            *byte = value as u8 | 0x80;
            value >>= 7;
        }
        *last = value as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_length() {
        for bits in 0..64 {
            for value in [(1u64 << bits) - 1, 1 << bits, u64::MAX >> bits] {
                let mut out = Vec::new();
                write_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                let mut room = vec![0; out.len()];
                put_varint(&mut room, value);
                assert_eq!(room, out);
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint(), Ok(value));
                assert!(reader.is_at_end());
                assert_eq!(
                    Reader::new(&out[..out.len() - 1]).varint(),
                    Err(DecodeError::Truncated)
                );
            }
        }
    }

    #[test]
    fn varints_over_64_bits_are_refused() {
        let mut ten = [0xff; 10];
        ten[9] = 2;
        assert_eq!(Reader::new(&ten).varint(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0x80; 11]).varint(), Err(DecodeError::Varint));
        // Longer than needed, but in range: the format allows it.
        assert_eq!(Reader::new(&[0x81, 0x80, 0]).varint(), Ok(1));
    }

    #[test]
    fn messages_of_any_length_get_the_right_prefix() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let mut out = vec![9];
            write_message(&mut out, 5, |out| out.resize(out.len() + length, 7));
            let mut reader = Reader::new(&out[1..]);
            assert_eq!(reader.tag(), Ok(Some(5)));
            assert_eq!(reader.delimited(), Ok(&vec![7; length][..]));
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn groups_and_field_zero_are_refused() {
        for wire in [3, 4, 6, 7] {
            let bytes = [0x10 | wire, 0];
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.tag(), Ok(Some(2)));
            assert_eq!(reader.skip_field(), Err(DecodeError::Tag));
        }
        assert_eq!(Reader::new(&[0x02]).tag(), Err(DecodeError::Tag));
    }
}
