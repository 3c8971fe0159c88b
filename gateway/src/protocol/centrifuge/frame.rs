//! One complete, unmasked WebSocket frame (RFC 6455 §5.2) around one message.

use super::Encoding;
use super::protobuf::{put_varint, varint_len, write_varint};

/// Appends one frame: text with the object that `body` appends, or binary with the Protobuf message that `body` appends
/// behind its length. Room for the usual header is left in front of the body; where the header turns out to be of
/// another length, the body is moved.
pub(crate) fn frame(out: &mut Vec<u8>, encoding: Encoding, body: impl FnOnce(&mut Vec<u8>)) {
    const ROOM_MAX: usize = 6;
    let start = out.len();
    // A header of four bytes stands before 126 to 65,535 bytes; a message of 128 to 16,383 bytes has a length of two.
    let room = match encoding {
        Encoding::Json => 4,
        Encoding::Protobuf => 6,
    };
    out.extend_from_slice(&[0; ROOM_MAX][..room]);
    body(out);
    let length = out.len() - start - room;
    let prefix = match encoding {
        Encoding::Json => 0,
        Encoding::Protobuf => varint_len(length as u64),
    };
    let (header, header_len) = header(encoding, length + prefix);
    let front = header_len + prefix;
    if front > room {
        out.resize(start + front + length, 0);
    }
    if front != room {
        out.copy_within(start + room..start + room + length, start + front);
        out.truncate(start + front + length);
    }
    out[start..start + header_len].copy_from_slice(&header[..header_len]);
    put_varint(&mut out[start + header_len..start + front], length as u64);
}

/// Appends the start of a Protobuf frame whose message will be `length` bytes.
pub(super) fn start_protobuf(out: &mut Vec<u8>, length: usize) {
    let payload = varint_len(length as u64) + length;
    let (header, header_len) = header(Encoding::Protobuf, payload);
    out.reserve(header_len + payload);
    out.extend_from_slice(&header[..header_len]);
    write_varint(out, length as u64);
}

/// The payload of a complete, unmasked frame.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    let header = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    frame.get(header..).unwrap_or_default()
}

/// A frame's header and its length, 2, 4 or 10 bytes.
fn header(encoding: Encoding, payload: usize) -> ([u8; 10], usize) {
    const FIN: u8 = 0x80;
    let opcode = match encoding {
        Encoding::Json => 1,
        Encoding::Protobuf => 2,
    };
    let mut header = [0; 10];
    header[0] = FIN | opcode;
    let length = match payload {
        0..126 => {
            header[1] = payload as u8;
            2
        }
        126..0x1_0000 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (header, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_minimal_at_every_border() {
        for length in [
            0, 1, 124, 125, 126, 127, 128, 16_383, 16_384, 65_532, 65_533, 65_535, 65_536, 70_000,
        ] {
            for encoding in Encoding::ALL {
                let mut out = b"before".to_vec();
                frame(&mut out, encoding, |out| {
                    out.extend((0..length).map(|i| i as u8))
                });
                let frame = &out[6..];
                let mut expected = Vec::new();
                if encoding == Encoding::Protobuf {
                    write_varint(&mut expected, length as u64);
                }
                expected.extend((0..length).map(|i| i as u8));
                assert_eq!(payload(frame), expected, "{length}");
                let header = match expected.len() {
                    0..126 => vec![expected.len() as u8],
                    126..65_536 => vec![126, (expected.len() >> 8) as u8, expected.len() as u8],
                    more => [&[127][..], &(more as u64).to_be_bytes()].concat(),
                };
                assert_eq!(
                    frame[0],
                    if encoding == Encoding::Json {
                        0x81
                    } else {
                        0x82
                    }
                );
                assert_eq!(frame[1..=header.len()], header, "{length}");
            }
        }
    }
}
