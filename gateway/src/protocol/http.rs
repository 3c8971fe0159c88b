//! The HTTP/1.1 upgrade request and its answers (RFC 6455 section 4).
//!
//! The shards speak nothing else: a request either becomes a WebSocket or gets one complete response and is closed. What
//! depends on the node (its paths, allowed origins, limits) is decided by the caller; the answer is a [`Refusal`] either
//! way.

mod answer;
mod forwarded;
mod origin;

pub use answer::{Refusal, accept_key, write_refusal, write_switching};
pub use forwarded::{FORWARDED_LINES, forwarded_for};
pub use origin::origin_allowed;

use crate::protocol::websocket::DeflateOffer;
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use std::mem::MaybeUninit;

/// The most bytes of a request head, with its empty line.
pub const HEAD_MAX: usize = 8 * 1024;

/// The most header lines of a request.
const HEADER_LINES_MAX: usize = 100;

/// The sub-protocol that asks for Protobuf.
pub const SUBPROTOCOL_PROTOBUF: &str = "centrifuge-protobuf";

/// The sub-protocol that asks for JSON, which is also what no sub-protocol means.
pub const SUBPROTOCOL_JSON: &str = "centrifuge-json";

/// A request that may become a WebSocket. Everything RFC 6455 section 4.2.1 asks of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRequest<'a> {
    /// The path, as typed: neither decoded nor normalised.
    pub path: &'a str,
    /// What follows the `?`; empty without one. See [`query_has`].
    pub query: &'a str,
    /// `Host`; exactly one was given.
    pub host: &'a str,
    /// `Origin`: browsers send it, others seldom. See [`origin_allowed`].
    pub origin: Option<&'a str>,
    /// `Sec-WebSocket-Key`, for [`write_switching`].
    pub key: &'a str,
    /// [`SUBPROTOCOL_PROTOBUF`] was among the offers.
    pub offers_protobuf: bool,
    /// [`SUBPROTOCOL_JSON`] was among the offers.
    pub offers_json: bool,
    /// The first offer of permessage-deflate that can be accepted, of all `Sec-WebSocket-Extensions` lines.
    pub deflate: Option<DeflateOffer>,
    /// `User-Agent`, unless it is not UTF-8.
    pub user_agent: Option<&'a str>,
    /// The last lines of `X-Forwarded-For`, as typed, those that are missing in front. See [`forwarded_for`].
    pub x_forwarded_for: [&'a str; FORWARDED_LINES],
}

/// Reads an upgrade request for any path. See [`parse_upgrade_at`].
///
/// # Errors
/// Everything but the refusals that are the caller's.
pub fn parse_upgrade(bytes: &[u8]) -> Result<Option<(UpgradeRequest<'_>, usize)>, Refusal> {
    parse_upgrade_at(bytes, |_| true)
}

/// Reads an upgrade request from the start of a connection, and says how many bytes it took: what follows is WebSocket
/// already. `None`: the head goes on behind `bytes`; call again with all of it and more.
///
/// `serves` says whether there is an endpoint at a path. It is asked before anything about the upgrade is checked, so that
/// a plain request for a path that does not exist is told so, and not that it should be upgraded.
///
/// # Errors
/// The first that applies, in this order: malformed or too large, HTTP version, host, path, method, upgrade, WebSocket
/// version, key, body.
pub fn parse_upgrade_at(
    bytes: &[u8],
    serves: impl FnOnce(&str) -> bool,
) -> Result<Option<(UpgradeRequest<'_>, usize)>, Refusal> {
    let head = &bytes[..bytes.len().min(HEAD_MAX)];
    let mut lines = [const { MaybeUninit::uninit() }; HEADER_LINES_MAX];
    let mut request = httparse::Request::new(&mut []);
    let head_len = match request.parse_with_uninit_headers(head, &mut lines) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::HeadTooLarge);
        }
        Err(httparse::Error::Version) if names_another_version(head) => {
            return Err(Refusal::HttpVersion);
        }
        Err(_) => return Err(Refusal::BadRequest),
    };
    if request.version != Some(1) {
        return Err(Refusal::HttpVersion);
    }
    let headers = Headers::gather(request.headers)?;
    let host = headers.host.only().ok_or(Refusal::BadHost)?;
    let (path, query) = split_target(request.path.unwrap_or_default());
    if !serves(path) {
        return Err(Refusal::NotFound);
    }
    if request.method != Some("GET") {
        return Err(Refusal::MethodNotAllowed);
    }
    if !headers.upgrade_websocket || !headers.connection_upgrade {
        return Err(Refusal::UpgradeRequired);
    }
    if headers.version.only() != Some("13") {
        return Err(Refusal::UnsupportedVersion);
    }
    let key = headers
        .key
        .only()
        .filter(|key| is_sixteen_bytes(key))
        .ok_or(Refusal::BadKey)?;
    if headers.has_body {
        return Err(Refusal::UnexpectedBody);
    }
    let request = UpgradeRequest {
        path,
        query,
        host,
        origin: headers.origin,
        key,
        offers_protobuf: headers.offers_protobuf,
        offers_json: headers.offers_json,
        deflate: headers.deflate,
        user_agent: headers.user_agent,
        x_forwarded_for: headers.x_forwarded_for,
    };
    Ok(Some((request, head_len)))
}

/// A header that must not be repeated.
#[derive(Clone, Copy, Default)]
enum Single<'a> {
    #[default]
    Absent,
    Once(&'a str),
    Repeated,
}

impl<'a> Single<'a> {
    fn see(&mut self, value: &'a str) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    fn only(self) -> Option<&'a str> {
        match self {
            Self::Once(value) => Some(value),
            Self::Absent | Self::Repeated => None,
        }
    }
}

/// What the header lines say about the upgrade.
#[derive(Default)]
struct Headers<'a> {
    host: Single<'a>,
    version: Single<'a>,
    key: Single<'a>,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    has_body: bool,
    origin: Option<&'a str>,
    offers_protobuf: bool,
    offers_json: bool,
    deflate: Option<DeflateOffer>,
    user_agent: Option<&'a str>,
    x_forwarded_for: [&'a str; FORWARDED_LINES],
}

impl<'a> Headers<'a> {
    fn gather(lines: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut headers = Self::default();
        for line in lines {
            headers.see(line)?;
        }
        Ok(headers)
    }

    fn see(&mut self, line: &httparse::Header<'a>) -> Result<(), Refusal> {
        let name = line.name;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // The length decides nearly always: a browser's dozen other headers cost no more than this.
        match name.len() {
            4 if is("Host") => self.host.see(text(line)?),
            6 if is("Origin") => {
                let origin = text(line)?;
                // A second one would have to be ignored or believed; a browser sends one.
                if self.origin.replace(origin).is_some() {
                    return Err(Refusal::BadRequest);
                }
            }
            7 if is("Upgrade") => {
                self.upgrade_websocket |=
                    elements(text(line)?).any(|it| it.eq_ignore_ascii_case("websocket"))
            }
            10 if is("Connection") => {
                self.connection_upgrade |=
                    elements(text(line)?).any(|it| it.eq_ignore_ascii_case("upgrade"));
            }
            10 if is("User-Agent") => self.user_agent = std::str::from_utf8(line.value).ok(),
            14 if is("Content-Length") => self.has_body |= text(line)? != "0",
            15 if is("X-Forwarded-For") => {
                self.x_forwarded_for.rotate_left(1);
                self.x_forwarded_for[FORWARDED_LINES - 1] = text(line)?;
            }
            17 if is("Transfer-Encoding") => self.has_body = true,
            17 if is("Sec-WebSocket-Key") => self.key.see(text(line)?),
            21 if is("Sec-WebSocket-Version") => self.version.see(text(line)?),
            22 if is("Sec-WebSocket-Protocol") => {
                for offer in elements(text(line)?) {
                    self.offers_protobuf |= offer == SUBPROTOCOL_PROTOBUF;
                    self.offers_json |= offer == SUBPROTOCOL_JSON;
                }
            }
            24 if is("Sec-WebSocket-Extensions") => {
                let value = text(line)?;
                self.deflate = self.deflate.or_else(|| DeflateOffer::first(value));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A header's value as text.
fn text<'a>(line: &httparse::Header<'a>) -> Result<&'a str, Refusal> {
    let value = std::str::from_utf8(line.value).map_err(|_| Refusal::BadRequest)?;
    Ok(value.trim_matches([' ', '\t']))
}

/// The elements of a comma-separated list; empty ones are none (RFC 9110 section 5.6.1).
fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty())
}

/// Whether a request line that could not be read is one of some other version of HTTP.
fn names_another_version(head: &[u8]) -> bool {
    let line = head
        .trim_ascii_start()
        .split(|&byte| byte == b'\r' || byte == b'\n')
        .next()
        .unwrap_or_default();
    let version = line.split(|&byte| byte == b' ').nth(2).unwrap_or_default();
    version
        .strip_prefix(b"HTTP/")
        .is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
}

/// Path and query of a request target, which may be a whole address (RFC 9112 section 3.2.2).
fn split_target(target: &str) -> (&str, &str) {
    let local = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => match rest.find(['/', '?']) {
            Some(at) => &rest[at..],
            None => "/",
        },
        _ => target,
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    (if path.is_empty() { "/" } else { path }, query)
}

/// Keys are 16 random bytes; what they are does not matter, so stray bits behind the last one do not either.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

fn is_sixteen_bytes(key: &str) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && KEY_ENGINE.decode_slice(key, &mut nonce) == Ok(16)
}

/// Whether a query has `key=value` among its `&`-separated parts, literally.
pub fn query_has(query: &str, key: &str, value: &str) -> bool {
    query
        .split('&')
        .any(|part| part.split_once('=') == Some((key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const PLAIN: &str = "GET /connection/websocket?format=protobuf&x=1 HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Upgrade: websocket\r\n\
        Connection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn parse(text: &str) -> Result<Option<(UpgradeRequest<'_>, usize)>, Refusal> {
        parse_upgrade(text.as_bytes())
    }

    /// `PLAIN` with `from` replaced; fails when there is nothing to replace.
    fn with(from: &str, to: &str) -> String {
        assert!(PLAIN.contains(from), "{from:?} is not in the request");
        PLAIN.replace(from, to)
    }

    /// `PLAIN` with more header lines.
    fn and(lines: &str) -> String {
        with("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"))
    }

    fn accepted(text: &str) -> UpgradeRequest<'_> {
        parse(text).expect("not refused").expect("whole").0
    }

    #[test]
    fn reads_the_plain_request() {
        let request = accepted(PLAIN);
        assert_eq!(
            request,
            UpgradeRequest {
                path: "/connection/websocket",
                query: "format=protobuf&x=1",
                host: "server.example.com",
                origin: None,
                key: "dGhlIHNhbXBsZSBub25jZQ==",
                offers_protobuf: false,
                offers_json: false,
                deflate: None,
                user_agent: None,
                x_forwarded_for: [""; FORWARDED_LINES],
            }
        );
    }

    #[test]
    fn reads_what_browsers_and_sdks_add() {
        let text = and("Origin: https://app.example.com\r\n\
            sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\
            Sec-WebSocket-Protocol: centrifuge-json, other ,centrifuge-protobuf\r\n\
            User-Agent: Mozilla/5.0\r\n\
            X-Forwarded-For: 10.0.0.1\r\n\
            X-Forwarded-For: 203.0.113.7, 10.0.0.2\r\n\
            Cookie: a=b\r\nPragma: no-cache");
        let request = accepted(&text);
        assert_eq!(request.origin, Some("https://app.example.com"));
        assert_eq!(
            request.deflate,
            DeflateOffer::first("permessage-deflate; client_max_window_bits")
        );
        assert!(request.offers_protobuf && request.offers_json);
        assert_eq!(request.user_agent, Some("Mozilla/5.0"));
        assert_eq!(
            request.x_forwarded_for,
            ["", "", "10.0.0.1", "203.0.113.7, 10.0.0.2"]
        );
    }

    #[test]
    fn subprotocols_come_in_several_lines_and_an_empty_line_is_none() {
        let text =
            and("Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: centrifuge-protobuf");
        assert!(accepted(&text).offers_protobuf);
        for empty in [
            "Sec-WebSocket-Protocol:",
            "Sec-WebSocket-Protocol: ",
            "Sec-WebSocket-Protocol: , ,",
        ] {
            let text = and(empty);
            let request = accepted(&text);
            assert!(
                !request.offers_protobuf && !request.offers_json,
                "{empty:?}"
            );
        }
    }

    #[test]
    fn connection_and_upgrade_are_lists_in_any_case() {
        let text = with("Connection: Upgrade", "connection: keep-alive, uPGRADE");
        accepted(&text);
        let text = with("Upgrade: websocket", "UPGRADE: h2c, WebSocket");
        accepted(&text);
        let text = with(
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        );
        accepted(&text);
    }

    #[test]
    fn says_how_much_was_consumed_at_every_cut() {
        let stream = format!("{PLAIN}\u{1}more");
        for cut in 0..PLAIN.len() {
            assert_eq!(parse(&stream[..cut]), Ok(None), "cut at {cut}");
        }
        for cut in PLAIN.len()..=stream.len() {
            assert_eq!(
                parse(&stream[..cut]).map(|it| it.map(|(_, used)| used)),
                Ok(Some(PLAIN.len()))
            );
        }
    }

    #[test]
    fn refuses_with_the_first_reason_that_applies() {
        use Refusal::*;
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let table = [
            ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".to_owned(), BadRequest),
            ("GET /x y HTTP/1.1\r\n\r\n".to_owned(), BadRequest),
            (with("Host:", "Ho st:"), BadRequest),
            (
                and("Origin: https://a.example\r\nOrigin: https://b.example"),
                BadRequest,
            ),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), HttpVersion),
            (with("HTTP/1.1", "HTTP/1.0"), HttpVersion),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), HttpVersion),
            (with("Host: server.example.com\r\n", ""), BadHost),
            (and("Host: other.example.com"), BadHost),
            (with("GET", "POST"), MethodNotAllowed),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
                MethodNotAllowed,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                UpgradeRequired,
            ),
            (
                with("Connection: Upgrade", "Connection: keep-alive"),
                UpgradeRequired,
            ),
            (with("Upgrade: websocket", "Upgrade: h2c"), UpgradeRequired),
            (with("Version: 13", "Version: 8"), UnsupportedVersion),
            (with("Version: 13", "Version: 13, 8"), UnsupportedVersion),
            (
                with("Sec-WebSocket-Version: 13\r\n", ""),
                UnsupportedVersion,
            ),
            (with(&format!("{key}\r\n"), ""), BadKey),
            (and(key), BadKey),
            (
                with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"),
                BadKey,
            ),
            (
                with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWVl"),
                BadKey,
            ),
            (
                with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="),
                BadKey,
            ),
            (and("Content-Length: 5"), UnexpectedBody),
            (and("Content-Length: none"), UnexpectedBody),
            (and("Transfer-Encoding: chunked"), UnexpectedBody),
        ];
        for (text, refusal) in &table {
            assert_eq!(parse(text), Err(*refusal), "{text}");
        }
        accepted(&and("Content-Length: 0"));
    }

    #[test]
    fn a_path_that_is_not_served_comes_before_method_and_upgrade() {
        let serves = |path: &str| path == "/connection/websocket";
        for text in [
            "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(
                parse_upgrade_at(text.as_bytes(), serves),
                Err(Refusal::NotFound)
            );
        }
        let text = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(
            parse_upgrade_at(text.as_bytes(), serves),
            Err(Refusal::UpgradeRequired)
        );
        assert!(parse_upgrade_at(PLAIN.as_bytes(), serves).is_ok());
    }

    #[test]
    fn a_head_of_8_kib_passes_and_one_byte_more_does_not() {
        let fill = HEAD_MAX - and("X: ").len();
        let text = and(&format!("X: {}", "x".repeat(fill)));
        assert_eq!(text.len(), HEAD_MAX);
        accepted(&text);
        assert_eq!(parse(&text[..HEAD_MAX - 1]), Ok(None));
        let text = and(&format!("X: {}", "x".repeat(fill + 1)));
        assert_eq!(parse(&text), Err(Refusal::HeadTooLarge));
        assert_eq!(
            parse(&text[..HEAD_MAX]),
            Err(Refusal::HeadTooLarge),
            "as soon as it cannot fit any more"
        );
        assert_eq!(
            parse(&and(&"X: y\r\n".repeat(100))),
            Err(Refusal::HeadTooLarge),
            "too many lines"
        );
    }

    #[test]
    fn targets_may_be_whole_addresses() {
        for (target, path, query) in [
            ("/", "/", ""),
            ("/a/b?c=d?e", "/a/b", "c=d?e"),
            ("/a?", "/a", ""),
            ("http://host:80/a?b", "/a", "b"),
            ("ws://host", "/", ""),
            ("ws://host?b", "/", "b"),
            ("/a?u=http://x/y", "/a", "u=http://x/y"),
            ("*", "*", ""),
        ] {
            assert_eq!(split_target(target), (path, query), "{target}");
        }
    }

    #[test]
    fn query_switches_are_matched_whole() {
        let query = "format=protobuf&cf_ws_frame_ping_pong=true&flag";
        assert!(query_has(query, "format", "protobuf"));
        assert!(query_has(query, "cf_ws_frame_ping_pong", "true"));
        assert!(!query_has(query, "format", "proto"));
        assert!(!query_has(query, "ormat", "protobuf"));
        assert!(!query_has(query, "flag", ""));
        assert!(!query_has("", "format", "protobuf"));
    }

    #[test]
    fn damaged_requests_never_panic() {
        let mut rng = StdRng::seed_from_u64(3);
        let text = and(
            "Origin: https://a\r\nSec-WebSocket-Protocol: centrifuge-json\r\nX-Forwarded-For: 10.0.0.1",
        );
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..rng.random_range(1..6) {
                if bytes.is_empty() {
                    break;
                }
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = rng.random(),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at + 1),
                }
            }
            refused += usize::from(parse_upgrade(&bytes).is_err());
        }
        assert!(refused > 1000, "most damage is seen: {refused}");
    }
}
