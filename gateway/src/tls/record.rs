//! Headers of records, and what is authenticated beside their content (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3).

use super::{CIPHERTEXT_MAX, HEADER_BYTES};

/// What a record holds.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION: u8 = 23;

/// Legacy version on the wire, for both versions.
pub(super) const VERSION: [u8; 2] = [3, 3];

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    /// Bytes behind the header.
    pub(super) len: usize,
}

/// Reads a header; `Err`: no record begins like this, or none this large may be.
pub(super) fn header(bytes: [u8; HEADER_BYTES]) -> Result<Header, BadHeader> {
    let [kind, major, _, high, low] = bytes;
    let len = usize::from(u16::from_be_bytes([high, low]));
    match kind {
        20..=23 if major == 3 && len <= CIPHERTEXT_MAX => Ok(Header { kind, len }),
        20..=23 if major == 3 => Err(BadHeader::TooLong),
        _ => Err(BadHeader::NotTls),
    }
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    NotTls,
    TooLong,
}

/// The header of a record of `len` bytes behind it.
pub(super) fn write_header(kind: u8, len: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = (len as u16).to_be_bytes();
    [kind, VERSION[0], VERSION[1], high, low]
}

/// What TLS 1.2 authenticates beside the content.
pub(super) fn additional_data_12(sequence: u64, kind: u8, plain_len: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&sequence.to_be_bytes());
    data[8..].copy_from_slice(&write_header(kind, plain_len));
    data
}
