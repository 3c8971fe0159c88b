//! Who a request comes from, as the proxies before us tell it.

use std::net::{IpAddr, SocketAddr};

/// The most lines of `X-Forwarded-For` that are looked at: the last ones, which the proxies nearest to us have written.
pub const FORWARDED_LINES: usize = 4;

/// The client behind the proxies that are trusted: the right-most address in `X-Forwarded-For` that is none of theirs.
///
/// Each proxy puts behind what it got the address that it sees, so only what stands right of the first stranger is known to
/// be true: a client may have sent the rest itself. `peer` is the trusted proxy that the connection comes from; it is also
/// the answer when there is no such line, and where an element cannot be read, the answer is the proxy that wrote it.
pub fn forwarded_for(
    peer: IpAddr,
    lines: &[&str; FORWARDED_LINES],
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    let elements = lines.iter().rev().flat_map(|line| line.rsplit(','));
    for element in elements
        .map(str::trim)
        .filter(|element| !element.is_empty())
    {
        let Some(address) = address_of(element) else {
            break;
        };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    client
}

/// An address, with or without a port, as proxies write it.
fn address_of(element: &str) -> Option<IpAddr> {
    let bare = element
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(element);
    let address = bare.parse().ok().or_else(|| {
        let with_port: SocketAddr = element.parse().ok()?;
        Some(with_port.ip())
    });
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_right_most_address_that_is_no_proxy_of_ours() {
        let is_ours = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.segments()[0] == 0xfd00,
        };
        let table: [(&[&str], &str); 17] = [
            (&[], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (&["203.0.113.7,10.0.0.2 , 10.0.0.3"], "203.0.113.7"),
            // What the client itself has sent.
            (&["198.51.100.9, 203.0.113.7"], "203.0.113.7"),
            (&["10.9.9.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (&["10.9.9.9", "203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
            // From within.
            (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            // Ports and brackets.
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["[2001:db8::7]:4711, [fd00::1]"], "2001:db8::7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            // What cannot be read ends the walk where it was written.
            (&["203.0.113.7, unknown"], "10.0.0.1"),
            (&["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.7, ,10.0.0.2,"], "203.0.113.7"),
        ];
        for (lines, expected) in table {
            let mut all = [""; FORWARDED_LINES];
            all[FORWARDED_LINES - lines.len()..].copy_from_slice(lines);
            let found = forwarded_for("10.0.0.1".parse().unwrap(), &all, is_ours);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{lines:?}");
        }
    }
}
