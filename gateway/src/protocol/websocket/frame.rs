//! Frame headers: reading those of clients, writing those of a server, walking a log of whole frames.
//! RFC 6455 section 5.2.

use super::error::WsError;

/// The most payload bytes of a control frame (section 5.5).
pub const CONTROL_MAX: usize = 125;

/// The longest header: two bytes, a length of eight, a mask of four.
pub(super) const HEADER_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// "This message is compressed" (RFC 7692 section 6), on its first frame, where that was agreed.
pub(super) const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// More of a fragmented message.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The end: an optional code and reason.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or comes unasked.
    Pong,
}

impl Opcode {
    /// The four bits on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Whether it is close, ping or pong: short, never fragmented, allowed between fragments.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn from_bits(bits: u8) -> Result<Self, WsError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return Err(WsError::ReservedOpcode(bits)),
        })
    }
}

/// Who sent a frame: clients mask, servers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// A header that is well formed by itself. Whether it may come now is for the decoder to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    /// The message is compressed. On its first frame only.
    pub(super) deflated: bool,
    pub(super) opcode: Opcode,
    /// All zero from a server.
    pub(super) mask: [u8; 4],
    /// Below 2^63.
    pub(super) payload_len: usize,
    pub(super) header_len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` when it goes on behind them. What is wrong is reported with the
    /// first byte that shows it. `deflate`: permessage-deflate was agreed.
    pub(super) fn parse(
        bytes: &[u8],
        sender: Sender,
        deflate: bool,
    ) -> Result<Option<Self>, WsError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        let deflated = match first & RESERVED {
            0 => false,
            RSV1 if deflate => true,
            _ => return Err(WsError::ReservedBits),
        };
        let opcode = Opcode::from_bits(first & 0x0f)?;
        let fin = first & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(WsError::FragmentedControl);
        }
        if deflated && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(WsError::ReservedBits);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        match (sender, second & MASKED != 0) {
            (Sender::Client, false) => return Err(WsError::Unmasked),
            (Sender::Server, true) => return Err(WsError::Masked),
            _ => {}
        }
        let short = second & !MASKED;
        if opcode.is_control() && usize::from(short) > CONTROL_MAX {
            return Err(WsError::ControlTooLong);
        }
        let (payload_len, length_end) = match short {
            126 => {
                let Some(field) = bytes[2..].first_chunk() else {
                    return Ok(None);
                };
                let len = u16::from_be_bytes(*field);
                if len < 126 {
                    return Err(WsError::NonMinimalLength);
                }
                (usize::from(len), 4)
            }
            127 => {
                let Some(field) = bytes[2..].first_chunk() else {
                    return Ok(None);
                };
                let len = u64::from_be_bytes(*field);
                if len >> 63 != 0 {
                    return Err(WsError::LengthOverflow);
                }
                if len <= u64::from(u16::MAX) {
                    return Err(WsError::NonMinimalLength);
                }
                (len as usize, 10)
            }
            len => (usize::from(len), 2),
        };
        let (mask, header_len) = match sender {
            Sender::Server => ([0; 4], length_end),
            Sender::Client => {
                let Some(mask) = bytes[length_end..].first_chunk() else {
                    return Ok(None);
                };
                (*mask, length_end + 4)
            }
        };
        Ok(Some(Self {
            fin,
            deflated,
            opcode,
            mask,
            payload_len,
            header_len,
        }))
    }
}

/// Bytes of the header of an unmasked frame with this many payload bytes: 2, 4 or 10.
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Bytes of the header of the unmasked frame at the start of `bytes`; `None` when there is not even a length byte. For
/// frames this program wrote: nothing is checked.
pub fn frame_header_len(bytes: &[u8]) -> Option<usize> {
    Some(match bytes.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    })
}

/// Bytes of the whole unmasked frame at the start of `bytes`, which may end before it does; `None` when the header itself
/// is cut. Walks a log of frames this program wrote: nothing is checked.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.get(2..)?;
    Some(match bytes[1] {
        126 => 4 + usize::from(u16::from_be_bytes(*rest.first_chunk()?)),
        127 => 10 + u64::from_be_bytes(*rest.first_chunk()?) as usize,
        len => 2 + usize::from(len),
    })
}

/// A header in its shortest form, without a mask, and its length. `mask_bit` is `MASKED` or 0.
fn encode_header(opcode: Opcode, payload_len: usize, mask_bit: u8) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = FIN | opcode.bits();
    let len = header_len(payload_len);
    match len {
        2 => header[1] = mask_bit | payload_len as u8,
        4 => {
            header[1] = mask_bit | 126;
            header[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            header[1] = mask_bit | 127;
            header[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
    (header, len)
}

/// Appends the header of a masked frame. The mask's four bytes are not part of it.
pub(super) fn write_masked_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    let (header, len) = encode_header(opcode, payload_len, MASKED);
    out.extend_from_slice(&header[..len]);
}

/// Appends an unmasked, unfragmented frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    debug_assert!(!opcode.is_control() || payload.len() <= CONTROL_MAX);
    let (header, len) = encode_header(opcode, payload.len(), 0);
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(payload);
}

/// Room [`begin_frame`] leaves for the header. Most publications need just this; a payload below 126 bytes moves by two
/// bytes, one above 64 KiB by six.
const HEADER_ROOM: usize = 4;

/// Where a frame under construction starts. End it with [`end_frame`], or drop it with [`FrameMark::abandon`].
#[must_use = "a frame without a header is left in the buffer"]
#[derive(Debug, PartialEq, Eq)]
pub struct FrameMark(usize);

impl FrameMark {
    /// The payload so far.
    pub fn payload<'a>(&self, out: &'a [u8]) -> &'a [u8] {
        &out[self.0 + HEADER_ROOM..]
    }

    /// Takes the frame out of the buffer again.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.0);
    }
}

/// Starts a frame of unknown length at the end of `out`: what is appended from here on is its payload.
pub fn begin_frame(out: &mut Vec<u8>) -> FrameMark {
    let mark = FrameMark(out.len());
    out.extend_from_slice(&[0; HEADER_ROOM]);
    mark
}

/// Ends the frame: writes its header, in the shortest form, in front of what was appended since `mark`. Returns the
/// length of the whole frame.
pub fn end_frame(out: &mut Vec<u8>, mark: FrameMark, opcode: Opcode) -> usize {
    let FrameMark(start) = mark;
    let payload_start = start + HEADER_ROOM;
    let payload_len = out.len() - payload_start;
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_MAX);
    let (header, len) = encode_header(opcode, payload_len, 0);
    if len != HEADER_ROOM {
        let payload_end = out.len();
        out.resize(payload_end.max(start + len + payload_len), 0);
        out.copy_within(payload_start..payload_end, start + len);
        out.truncate(start + len + payload_len);
    }
    out[start..start + len].copy_from_slice(&header[..len]);
    len + payload_len
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 11] = [
        0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 65_537, 200_000,
    ];

    #[test]
    fn writes_the_examples_of_the_rfc() {
        let mut out = Vec::new();
        write_frame(&mut out, Opcode::Text, b"Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        write_frame(&mut out, Opcode::Ping, b"Hello");
        assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        write_frame(&mut out, Opcode::Binary, &[7; 256]);
        assert_eq!(out[..4], [0x82, 0x7e, 0x01, 0x00]);
        out.clear();
        write_frame(&mut out, Opcode::Binary, &[7; 65_536]);
        assert_eq!(out[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_frame_built_in_place_equals_one_written_whole() {
        for size in SIZES {
            let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut whole = b"before".to_vec();
            write_frame(&mut whole, Opcode::Text, &payload);
            let mut built = b"before".to_vec();
            let mark = begin_frame(&mut built);
            built.extend_from_slice(&payload);
            assert_eq!(mark.payload(&built), payload);
            let len = end_frame(&mut built, mark, Opcode::Text);
            assert_eq!(built, whole, "{size} bytes");
            assert_eq!(len, whole.len() - 6);
            assert_eq!(len, header_len(size) + size);
        }
    }

    #[test]
    fn an_abandoned_frame_leaves_nothing() {
        let mut out = b"before".to_vec();
        let mark = begin_frame(&mut out);
        out.extend_from_slice(b"half a reply");
        mark.abandon(&mut out);
        assert_eq!(out, b"before");
    }

    #[test]
    fn walks_a_log_of_frames() {
        let mut log = Vec::new();
        for size in SIZES {
            write_frame(&mut log, Opcode::Binary, &vec![1; size]);
        }
        let mut at = 0;
        for size in SIZES {
            let header = header_len(size);
            assert_eq!(frame_header_len(&log[at..]), Some(header));
            assert_eq!(frame_len(&log[at..]), Some(header + size));
            for cut in 0..header {
                assert_eq!(frame_len(&log[at..at + cut]), None, "a header cut at {cut}");
            }
            assert_eq!(
                frame_len(&log[at..at + header]),
                Some(header + size),
                "the header is enough"
            );
            at += header + size;
        }
        assert_eq!(at, log.len());
        assert_eq!(frame_len(&log[at..]), None);
    }
}
