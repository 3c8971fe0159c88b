//! What a request is answered: 101, or why not.

use crate::protocol::websocket::DeflateOffer;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::io::Write as _;

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: not a request.
    BadRequest,
    /// 400: HTTP/1.1 asks for exactly one `Host`.
    BadHost,
    /// 400: `Sec-WebSocket-Key` is absent, there twice, or not 16 bytes.
    BadKey,
    /// 400: plain HTTP where TLS is spoken. For the caller.
    TlsRequired,
    /// 400: an upgrade request has no body.
    UnexpectedBody,
    /// 403: the origin is not allowed. For the caller.
    Forbidden,
    /// 404: no endpoint at this path. See [`parse_upgrade_at`](super::parse_upgrade_at).
    NotFound,
    /// 405: not GET.
    MethodNotAllowed,
    /// 408: the head did not come in time. For the caller.
    TimedOut,
    /// 426: a request that does not ask for a WebSocket.
    UpgradeRequired,
    /// 426: only version 13 is spoken.
    UnsupportedVersion,
    /// 431: over [`HEAD_MAX`](super::HEAD_MAX) bytes, or over 100 lines.
    HeadTooLarge,
    /// 503: over a limit, or draining. For the caller.
    Busy {
        /// When to come back.
        retry_after_seconds: u32,
    },
    /// 505: only HTTP/1.1 can be upgraded.
    HttpVersion,
}

impl Refusal {
    /// The status code.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// Status, its name, and what is wrong in words.
    fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request", "this is not an HTTP/1.1 request"),
            Self::BadHost => (400, "Bad Request", "exactly one Host header is needed"),
            Self::BadKey => (
                400,
                "Bad Request",
                "Sec-WebSocket-Key must be there once, and be 16 bytes in base64",
            ),
            Self::TlsRequired => (400, "Bad Request", "TLS is spoken here: use wss://"),
            Self::UnexpectedBody => (
                400,
                "Bad Request",
                "an upgrade request must not have a body",
            ),
            Self::Forbidden => (403, "Forbidden", "this Origin is not allowed here"),
            Self::NotFound => (404, "Not Found", "there is nothing at this path"),
            Self::MethodNotAllowed => (
                405,
                "Method Not Allowed",
                "only GET can be upgraded to a WebSocket",
            ),
            Self::TimedOut => (408, "Request Timeout", "the request took too long"),
            Self::UpgradeRequired => (
                426,
                "Upgrade Required",
                "this is a WebSocket endpoint: send Upgrade: websocket and Connection: Upgrade",
            ),
            Self::UnsupportedVersion => {
                (426, "Upgrade Required", "Sec-WebSocket-Version must be 13")
            }
            Self::HeadTooLarge => (
                431,
                "Request Header Fields Too Large",
                "the request head is over 8 KiB or over 100 lines",
            ),
            Self::Busy { .. } => (
                503,
                "Service Unavailable",
                "too busy for more connections, try again later",
            ),
            Self::HttpVersion => (
                505,
                "HTTP Version Not Supported",
                "only HTTP/1.1 can be upgraded to a WebSocket",
            ),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row().2)
    }
}

impl std::error::Error for Refusal {}

/// Appends a complete response: the status, what the status asks for, and a line of plain text that says what is wrong.
/// The connection is to be closed behind it.
pub fn write_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    let (status, name, message) = refusal.row();
    // RFC 9110 section 7.8: who sends Upgrade names it in Connection.
    let connection = if status == 426 {
        "close, Upgrade"
    } else {
        "close"
    };
    let length = message.len() + 1;
    let written = write!(
        out,
        "HTTP/1.1 {status} {name}\r\nConnection: {connection}\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n"
    )
    .and_then(|()| match refusal {
        Refusal::MethodNotAllowed => write!(out, "Allow: GET\r\n"),
        Refusal::UpgradeRequired => write!(out, "Upgrade: websocket\r\n"),
        Refusal::UnsupportedVersion => {
            write!(out, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
        }
        Refusal::Busy {
            retry_after_seconds,
        } => write!(out, "Retry-After: {retry_after_seconds}\r\n"),
        _ => Ok(()),
    })
    .and_then(|()| write!(out, "\r\n{message}\n"));
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// Appends the 101 response: from here on both sides speak WebSocket. `subprotocol` must be one the client offered,
/// `deflate` its own offer.
pub fn write_switching(
    out: &mut Vec<u8>,
    key: &str,
    subprotocol: Option<&str>,
    deflate: Option<DeflateOffer>,
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key(key));
    if let Some(name) = subprotocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(name.as_bytes());
    }
    if let Some(offer) = deflate {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        offer.write_response(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).
pub fn accept_key(key: &str) -> [u8; 28] {
    let digest = Sha1::new()
        .chain_update(key)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    let mut accept = [0; 28];
    STANDARD
        .encode_slice(digest, &mut accept)
        .expect("20 bytes are 28 in base64");
    accept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::SUBPROTOCOL_PROTOBUF;

    #[test]
    fn switches_with_the_key_of_the_rfc() {
        let mut out = Vec::new();
        write_switching(&mut out, "dGhlIHNhbXBsZSBub25jZQ==", None, None);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        let mut out = Vec::new();
        write_switching(
            &mut out,
            "dGhlIHNhbXBsZSBub25jZQ==",
            Some(SUBPROTOCOL_PROTOBUF),
            DeflateOffer::first("permessage-deflate; server_max_window_bits=12"),
        );
        let text = String::from_utf8(out).expect("text");
        assert!(text.ends_with(
            "xOo=\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover; server_max_window_bits=12\r\n\r\n"
        ));
    }

    #[test]
    fn every_refusal_is_a_complete_response() {
        use Refusal::*;
        let table = [
            (BadRequest, 400, ""),
            (BadHost, 400, ""),
            (BadKey, 400, ""),
            (TlsRequired, 400, ""),
            (UnexpectedBody, 400, ""),
            (Forbidden, 403, ""),
            (NotFound, 404, ""),
            (MethodNotAllowed, 405, "Allow: GET"),
            (TimedOut, 408, ""),
            (UpgradeRequired, 426, "Upgrade: websocket"),
            (UnsupportedVersion, 426, "Sec-WebSocket-Version: 13"),
            (HeadTooLarge, 431, ""),
            (
                Busy {
                    retry_after_seconds: 7,
                },
                503,
                "Retry-After: 7",
            ),
            (HttpVersion, 505, ""),
        ];
        for (refusal, status, header) in table {
            assert_eq!(refusal.status(), status);
            let mut out = Vec::new();
            write_refusal(&mut out, refusal);
            let text = String::from_utf8(out).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("\r\nConnection: close"), "{head}");
            assert!(
                head.contains(&format!("\r\nContent-Length: {}", body.len())),
                "{head}"
            );
            assert!(
                head.split("\r\n")
                    .any(|line| header.is_empty() || line == header),
                "{head}"
            );
            assert_eq!(body, format!("{refusal}\n"));
        }
    }
}
