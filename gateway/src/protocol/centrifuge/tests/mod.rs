//! The protocol from both sides: what the client's half writes the server's half reads, and the reverse; and the bytes
//! themselves, against transcripts made by hand.

mod commands;
mod garbage;
mod publications;
mod replies;

use super::Encoding;
use super::frame::payload;

/// Bytes from hexadecimal with spaces.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    digits
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// The payload of one frame, which `write` appends behind other bytes.
fn framed(encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut out);
    let frame = &out[6..];
    assert_eq!(&out[..6], b"before");
    assert_eq!(
        frame[0],
        match encoding {
            Encoding::Json => 0x81,
            Encoding::Protobuf => 0x82,
        }
    );
    let payload = payload(frame);
    let header = match payload.len() {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    assert_eq!(frame.len(), header + payload.len());
    payload.to_vec()
}

/// The text of one JSON frame.
fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    String::from_utf8(framed(Encoding::Json, write)).unwrap()
}
