//! The PROXY header.

use super::assert_cuts_do_not_matter;
use crate::protocol::proxy::{Proxied, parse_proxy};
use std::net::IpAddr;

/// More than any header has.
const HEADER_MAX: usize = 16 + 4096;

/// The bytes are what a proxy sends first.
pub fn run(bytes: &[u8]) {
    assert_cuts_do_not_matter(bytes, |bytes| parse_proxy(bytes).transpose());
    match parse_proxy(bytes) {
        Ok(None) => assert!(bytes.len() < HEADER_MAX, "it never has enough"),
        Ok(Some((proxied, used))) => {
            assert!(used <= bytes.len() && used <= HEADER_MAX);
            assert_eq!(parse_proxy(&bytes[..used]), Ok(Some((proxied, used))));
            if let Proxied::For(address) = proxied {
                reads_the_same_when_written(address);
            }
        }
        Err(_) => {}
    }
}

fn reads_the_same_when_written(address: IpAddr) {
    let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
    let text = format!("PROXY {family} {address} {address} 1 65535\r\n");
    let read = Ok(Some((Proxied::For(address), text.len())));
    assert_eq!(parse_proxy(text.as_bytes()), read);

    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    binary.push(if address.is_ipv4() { 0x11 } else { 0x21 });
    binary.extend([0, 2 * octets.len() as u8 + 4]);
    binary.extend([&octets[..], &octets, &[0; 4]].concat());
    let read = Ok(Some((Proxied::For(address), binary.len())));
    assert_eq!(parse_proxy(&binary), read);
}
