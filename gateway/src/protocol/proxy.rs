//! The PROXY protocol, versions 1 and 2: what a proxy says at the head of a connection about the client behind it
//! (haproxy's `doc/proxy-protocol.txt`).
//!
//! Whether a peer may say so is the caller's to know. What else a header of version 2 carries (checksum, TLS details, other
//! TLVs) is skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest header of version 1, its line end included.
const V1_MAX: usize = 107;
/// Begins a header of version 2. No other protocol begins so.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header of version 2 before the addresses.
const V2_FIXED: usize = 16;
/// Most bytes behind those: addresses and TLVs. A header that names certificates has some hundred.
const V2_REST_MAX: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The client's address.
    For(IpAddr),
    /// The proxy speaks for itself (a health check), or does not know an address that we could use: its own counts.
    Itself,
}

/// Why the head of a connection is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It begins otherwise.
    #[error("no PROXY header")]
    Absent,
    /// It begins like one and is none.
    #[error("a malformed PROXY header")]
    Malformed,
    /// It is longer than any that makes sense.
    #[error("a PROXY header that is too long")]
    TooLong,
}

/// Reads the header from the start of a connection, and says how many bytes it took. `None`: it goes on behind `bytes`;
/// call again with all of it and more, which is never more than some kilobytes.
///
/// # Errors
/// As soon as it is certain that there is no good header.
pub fn parse_proxy(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, ProxyError> {
    let begins = |start: &[u8]| {
        let common = bytes.len().min(start.len());
        bytes[..common] == start[..common]
    };
    if begins(&V2_SIGNATURE) {
        version_2(bytes)
    } else if begins(b"PROXY ") {
        version_1(bytes)
    } else {
        Err(ProxyError::Absent)
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, ProxyError> {
    let head = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = head.windows(2).position(|two| two == b"\r\n") else {
        return if head.len() < V1_MAX {
            Ok(None)
        } else {
            Err(ProxyError::TooLong)
        };
    };
    let line = std::str::from_utf8(&head[..end]).map_err(|_| ProxyError::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let proxied = match words.next() {
        // Whatever follows.
        Some("UNKNOWN") => Proxied::Itself,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || {
                let address: IpAddr = words.next()?.parse().ok()?;
                (address.is_ipv4() == (family == "TCP4")).then_some(address)
            };
            let (source, target) = (address(), address());
            let mut port = || words.next().filter(|port| is_port(port));
            let is_whole = target.is_some() && port().is_some() && port().is_some();
            match source {
                Some(source) if is_whole && words.next().is_none() => {
                    Proxied::For(source.to_canonical())
                }
                _ => return Err(ProxyError::Malformed),
            }
        }
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Some((proxied, end + 2)))
}

/// Digits without a sign or leading zeros.
fn is_port(text: &str) -> bool {
    text.parse::<u16>()
        .is_ok_and(|port| port.to_string() == text)
}

fn version_2(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, ProxyError> {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else {
        return Ok(None);
    };
    let [command, family, high, low] = [fixed[12], fixed[13], fixed[14], fixed[15]];
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > V2_REST_MAX {
        return Err(ProxyError::TooLong);
    }
    // Version 2 in the upper half; in the lower one LOCAL or PROXY.
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::Malformed);
    }
    let Some(rest) = bytes.get(V2_FIXED..V2_FIXED + len) else {
        return Ok(None);
    };
    let proxied = match (command, family) {
        (0x20, _) => Proxied::Itself,
        // Over TCP: source, target, and their ports.
        (_, 0x11) => {
            let source: [u8; 4] = first(rest, 12)?;
            Proxied::For(Ipv4Addr::from(source).into())
        }
        (_, 0x21) => {
            let source: [u8; 16] = first(rest, 36)?;
            Proxied::For(IpAddr::from(Ipv6Addr::from(source)).to_canonical())
        }
        // A UNIX socket: two paths of 108 bytes.
        (_, 0x31) => {
            first::<0>(rest, 216)?;
            Proxied::Itself
        }
        (_, 0x00) => Proxied::Itself,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Some((proxied, V2_FIXED + len)))
}

/// The first bytes of addresses that take `len`.
fn first<const N: usize>(rest: &[u8], len: usize) -> Result<[u8; N], ProxyError> {
    let addresses = rest.get(..len).ok_or(ProxyError::Malformed)?;
    addresses
        .first_chunk()
        .copied()
        .ok_or(ProxyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Proxied::*;
    use ProxyError::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A header of version 2.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = (rest.len() as u16).to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &len, rest].concat()
    }

    const FOUR: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0xdc, 4, 0x1f, 0x40];

    fn six() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [
            &source.octets()[..],
            &Ipv6Addr::LOCALHOST.octets(),
            &[0xdc, 4, 0x1f, 0x40],
        ]
        .concat()
    }

    /// Every good header here, and what it says.
    fn good() -> Vec<(Vec<u8>, Proxied)> {
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        let checksum = [&FOUR[..], &[3, 0, 4, 1, 2, 3, 4], &[4, 0, 2, 0, 0]].concat();
        let mapped = [&[0; 10][..], &[0xff, 0xff, 203, 0, 113, 7], &[0; 20]].concat();
        vec![
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 8000\r\n".to_vec(),
                For(ip("203.0.113.7")),
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 1 0\r\n".to_vec(),
                For(ip("2001:db8::7")),
            ),
            (
                b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 0\r\n".to_vec(),
                For(ip("203.0.113.7")),
            ),
            (
                longest.as_bytes().to_vec(),
                For(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), Itself),
            (b"PROXY UNKNOWN ::1 ::1 what ever\r\n".to_vec(), Itself),
            (v2(0x21, 0x11, &FOUR), For(ip("203.0.113.7"))),
            (v2(0x21, 0x21, &six()), For(ip("2001:db8::7"))),
            (v2(0x21, 0x21, &mapped), For(ip("203.0.113.7"))),
            (v2(0x21, 0x11, &checksum), For(ip("203.0.113.7"))),
            (
                v2(0x21, 0x11, &[&FOUR[..], &[0xee; 4084]].concat()),
                For(ip("203.0.113.7")),
            ),
            (v2(0x21, 0x31, &[b'/'; 216]), Itself),
            (v2(0x21, 0x00, &[]), Itself),
            (v2(0x21, 0x00, &[1, 2, 3]), Itself),
            (v2(0x20, 0x00, &[]), Itself),
            (v2(0x20, 0x11, &FOUR), Itself),
            (v2(0x20, 0xff, &[9; 40]), Itself),
        ]
    }

    #[test]
    fn reads_both_versions_at_every_cut_and_leaves_what_follows() {
        for (header, expected) in good() {
            let stream = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            for cut in 0..header.len() {
                assert_eq!(
                    parse_proxy(&stream[..cut]),
                    Ok(None),
                    "{header:?} cut at {cut}"
                );
            }
            for cut in header.len()..=stream.len() {
                let found = parse_proxy(&stream[..cut]);
                assert_eq!(found, Ok(Some((expected, header.len()))), "{header:?}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_header_and_what_is_a_bad_one() {
        let line = |text: &str| text.as_bytes().to_vec();
        let table = [
            (line("GET /connection/websocket HTTP/1.1\r\n\r\n"), Absent),
            (line("proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n"), Absent),
            (line("\r\n\r\nGET"), Absent),
            (line("\u{16}\u{3}\u{1}"), Absent),
            (line("PROXY\r\n"), Absent),
            (line("PROXY \r\n"), Malformed),
            (line("PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n"), Malformed),
            (line("PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n"), Malformed),
            (line("PROXY TCP4 ::1 ::1 1 1\r\n"), Malformed),
            (line("PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n"), Malformed),
            (line("PROXY TCP4 localhost 1.2.3.4 1 1\r\n"), Malformed),
            (b"PROXY TCP4 \xff 1.2.3.4 1 1\r\n".to_vec(), Malformed),
            (
                line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92))),
                TooLong,
            ),
            (line(&"PROXY TCP4 ".repeat(10)), TooLong),
            (v2(0x11, 0x11, &FOUR), Malformed),
            (v2(0x31, 0x11, &FOUR), Malformed),
            (v2(0x22, 0x11, &FOUR), Malformed),
            (v2(0x21, 0x12, &FOUR), Malformed),
            (v2(0x21, 0x41, &FOUR), Malformed),
            (v2(0x21, 0x11, &FOUR[..11]), Malformed),
            (v2(0x21, 0x21, &FOUR), Malformed),
            (v2(0x21, 0x31, &[b'/'; 215]), Malformed),
            (v2(0x21, 0x11, &[0; 4097]), TooLong),
            (v2(0x20, 0x00, &[0; 65535]), TooLong),
        ];
        for (head, expected) in table {
            assert_eq!(parse_proxy(&head), Err(expected), "{head:?}");
        }
        // Just as long as may be.
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(parse_proxy(longest.as_bytes()), Ok(Some((Itself, V1_MAX))));
    }

    #[test]
    fn any_bytes_are_answered_the_same_however_they_are_cut() {
        let mut rng = StdRng::seed_from_u64(7);
        let good = good();
        for _ in 0..20_000 {
            let mut bytes = good[rng.random_range(0..good.len())].0.clone();
            for _ in 0..rng.random_range(0..3) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            let whole = parse_proxy(&bytes);
            let cut = rng.random_range(0..=bytes.len());
            match parse_proxy(&bytes[..cut]) {
                Ok(None) => {}
                early => assert_eq!(early, whole, "{bytes:?} cut at {cut}"),
            }
            if let Ok(Some((_, used))) = whole {
                assert!(used <= bytes.len());
            }
        }
    }
}
