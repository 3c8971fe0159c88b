//! The other side, for tests and the load generator: upgrade and masked frames out, server frames in. Not used by the
//! gateway.

use super::error::WsError;
use super::frame::{Header, Opcode, RSV1, Sender, write_masked_header};
use super::mask::apply_mask;
use crate::protocol::http::accept_key;

/// Appends an upgrade request. `key` is 16 bytes in base64; `more_lines` are whole header lines, each with its CRLF.
pub fn write_upgrade_request(
    out: &mut Vec<u8>,
    target: &str,
    host: &str,
    key: &str,
    more_lines: &str,
) {
    for part in [
        "GET ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        key,
        "\r\n",
        more_lines,
        "\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A server that agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched<'a> {
    /// Bytes of the response; frames follow.
    pub head_len: usize,
    /// The sub-protocol it chose.
    pub subprotocol: Option<&'a str>,
    /// The extensions it agreed to.
    pub extensions: Option<&'a str>,
}

/// A server that did not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeFailed {
    /// Not an HTTP response, or one with over 64 lines.
    #[error("not an HTTP response")]
    Malformed,
    /// Some status other than 101.
    #[error("refused with status {0}")]
    Refused(u16),
    /// `Sec-WebSocket-Accept` does not answer the key.
    #[error("Sec-WebSocket-Accept is absent or wrong")]
    WrongAccept,
}

/// Reads the answer to an upgrade request; `None` when it goes on behind `bytes`.
///
/// # Errors
/// When the server did not agree to the request that carried `key`.
pub fn parse_switching<'a>(
    bytes: &'a [u8],
    key: &str,
) -> Result<Option<Switched<'a>>, UpgradeFailed> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut lines);
    let head_len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(UpgradeFailed::Malformed),
    };
    match response.code {
        Some(101) => {}
        Some(status) => return Err(UpgradeFailed::Refused(status)),
        None => return Err(UpgradeFailed::Malformed),
    }
    let value = |name: &str| {
        response
            .headers
            .iter()
            .find(|line| line.name.eq_ignore_ascii_case(name))
            .map(|it| it.value)
    };
    if value("Sec-WebSocket-Accept") != Some(&accept_key(key)[..]) {
        return Err(UpgradeFailed::WrongAccept);
    }
    let text = |name| value(name).and_then(|value| std::str::from_utf8(value).ok());
    Ok(Some(Switched {
        head_len,
        subprotocol: text("Sec-WebSocket-Protocol"),
        extensions: text("Sec-WebSocket-Extensions"),
    }))
}

/// Appends a masked, unfragmented frame.
pub fn write_masked_frame(out: &mut Vec<u8>, opcode: Opcode, mask: [u8; 4], payload: &[u8]) {
    write_masked_header(out, opcode, payload.len());
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask);
}

/// Appends one frame of a fragmented message: the first has an opcode, the others are continuations, `fin` marks the last.
pub fn write_masked_fragment(
    out: &mut Vec<u8>,
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    payload: &[u8],
) {
    let start = out.len();
    write_masked_frame(out, opcode, mask, payload);
    if !fin {
        out[start] &= 0x7f;
    }
}

/// Marks the first frame of a message, at the start of `frame`, as compressed (RFC 7692 section 6).
pub fn mark_deflated(frame: &mut [u8]) {
    frame[0] |= RSV1;
}

/// A frame from a server, lent until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFrame<'b> {
    /// Whether it ends its message.
    pub fin: bool,
    /// What it is; fragments are not put together.
    pub opcode: Opcode,
    /// Its message is compressed; it is not inflated. Only on a message's first frame.
    pub deflated: bool,
    /// Its bytes. Text is not checked to be UTF-8.
    pub payload: &'b [u8],
}

/// Reads the frames of a server from bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct ClientDecoder {
    buffer: Vec<u8>,
    /// Start of what has not been read.
    at: usize,
    deflate: bool,
}

impl ClientDecoder {
    /// A decoder at the start of a connection, right behind the head of the 101 response.
    pub fn new() -> Self {
        Self::default()
    }

    /// permessage-deflate was agreed.
    pub fn allow_deflate(&mut self) {
        self.deflate = true;
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        // What was read goes when it is at least half, so that no byte moves more than once on average.
        if self.at * 2 >= self.buffer.len() {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// A header that a server must not send.
    pub fn next_frame(&mut self) -> Result<Option<ServerFrame<'_>>, WsError> {
        let rest = &self.buffer[self.at..];
        let Some(header) = Header::parse(rest, Sender::Server, self.deflate)? else {
            return Ok(None);
        };
        let Some(payload) = rest[header.header_len..].get(..header.payload_len) else {
            return Ok(None);
        };
        self.at += header.header_len + header.payload_len;
        Ok(Some(ServerFrame {
            fin: header.fin,
            opcode: header.opcode,
            deflated: header.deflated,
            payload,
        }))
    }

    /// Bytes that are not part of a frame returned so far.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.at
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::write_frame;
    use super::*;
    use crate::protocol::http::{
        Refusal, SUBPROTOCOL_PROTOBUF, parse_upgrade, write_refusal, write_switching,
    };

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    #[test]
    fn both_sides_agree_on_an_upgrade() {
        let mut request = Vec::new();
        let offer = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n";
        write_upgrade_request(
            &mut request,
            "/connection/websocket?a=b",
            "localhost:8000",
            KEY,
            offer,
        );
        let (parsed, used) = parse_upgrade(&request).expect("good").expect("whole");
        assert_eq!(
            (parsed.path, parsed.query, parsed.host),
            ("/connection/websocket", "a=b", "localhost:8000")
        );
        assert!(parsed.offers_protobuf && used == request.len());

        let mut response = Vec::new();
        write_switching(
            &mut response,
            parsed.key,
            Some(SUBPROTOCOL_PROTOBUF),
            parsed.deflate,
        );
        let head_len = response.len();
        response.extend_from_slice(&[0x89, 0]);
        for cut in 0..head_len {
            assert_eq!(
                parse_switching(&response[..cut], KEY),
                Ok(None),
                "cut at {cut}"
            );
        }
        let switched = Switched {
            head_len,
            subprotocol: Some(SUBPROTOCOL_PROTOBUF),
            extensions: None,
        };
        assert_eq!(parse_switching(&response, KEY), Ok(Some(switched)));
        assert_eq!(
            parse_switching(&response, "another key"),
            Err(UpgradeFailed::WrongAccept)
        );
    }

    #[test]
    fn sees_the_status_of_a_refusal() {
        let mut response = Vec::new();
        write_refusal(
            &mut response,
            Refusal::Busy {
                retry_after_seconds: 1,
            },
        );
        assert_eq!(
            parse_switching(&response, KEY),
            Err(UpgradeFailed::Refused(503))
        );
        assert_eq!(parse_switching(b"+OK", KEY), Err(UpgradeFailed::Malformed));
    }

    #[test]
    fn masks_as_in_the_rfc() {
        let mut out = Vec::new();
        write_masked_frame(&mut out, Opcode::Text, [0x37, 0xfa, 0x21, 0x3d], b"Hello");
        assert_eq!(
            out,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }

    #[test]
    fn reads_server_frames_in_any_pieces() {
        let sizes = [0, 5, 125, 126, 300, 65_535, 65_536];
        let mut stream = Vec::new();
        for size in sizes {
            write_frame(&mut stream, Opcode::Binary, &vec![size as u8; size]);
        }
        for piece in [1, 2, 3, 1000, stream.len()] {
            let mut decoder = ClientDecoder::new();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame().expect("the frames are good") {
                    assert!(
                        frame.fin
                            && frame
                                .payload
                                .iter()
                                .all(|&b| b == frame.payload.len() as u8)
                    );
                    seen.push(frame.payload.len());
                }
            }
            assert_eq!(seen, sizes, "in pieces of {piece}");
            assert_eq!(decoder.pending_bytes(), 0);
        }
    }

    #[test]
    fn refuses_masked_frames() {
        let mut decoder = ClientDecoder::new();
        decoder.push(&[0x81, 0x80]);
        assert_eq!(decoder.next_frame(), Err(WsError::Masked));
    }
}
