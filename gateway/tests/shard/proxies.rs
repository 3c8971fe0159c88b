//! Whose connection it is: peers, proxies, and those who only say so. And which pages may open one.

use crate::stand::{Heard, Stand};
use ringway::config::{Config, Origins};
use std::net::SocketAddr;

/// An address may have one connection.
fn stand(proxy_networks: &[&str], trusted: &[&str]) -> Stand {
    use ringway::config::{Flag, Inputs, Machine, Modes, load};
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
    let flag = |key, value| Flag {
        name: "--test",
        key,
        value,
    };
    let mode = if proxy_networks.is_empty() {
        "off"
    } else {
        "require"
    };
    let inputs = Inputs {
        default_file: "/nonexistent".into(),
        flags: vec![
            flag("proxy_protocol.mode", toml::Value::String(mode.into())),
            flag(
                "proxy_protocol.networks",
                toml::Value::Array(list(proxy_networks)),
            ),
            flag("client.trusted_proxies", toml::Value::Array(list(trusted))),
            flag("client.insecure", toml::Value::Boolean(true)),
        ],
        ..Inputs::default()
    };
    let machine = Machine {
        host_name: "test".into(),
        cores: vec![0],
        open_files: 1088,
    };
    let loaded = load(&inputs, Modes::default(), &machine).expect("a good configuration");
    let mut config = loaded.config;
    config.client_limits.address_connections = 1;
    Stand::new(config)
}

const PEER: [u8; 4] = [10, 0, 0, 5];
const STRANGER: [u8; 4] = [192, 0, 2, 1];

fn from(address: [u8; 4]) -> SocketAddr {
    (address, 4711).into()
}

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 8000\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\xdc\x04\x1f\x40";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What a client hears that sends bytes in pieces, and whether its connection is gone then.
fn sends(stand: &mut Stand, peer: [u8; 4], pieces: &[&[u8]]) -> (Vec<Heard>, bool) {
    sends_in(stand, 0, peer, pieces)
}

fn sends_in(stand: &mut Stand, slot: u32, peer: [u8; 4], pieces: &[&[u8]]) -> (Vec<Heard>, bool) {
    stand.accept(slot, from(peer));
    for piece in pieces {
        if stand.is_closed(slot) {
            break;
        }
        stand.receive(slot, piece);
        stand.tick();
    }
    stand.tick();
    let heard = stand.heard(slot);
    let is_gone = stand.is_closed(slot);
    (heard, is_gone)
}

fn named_by_header(client: &str) -> Vec<u8> {
    let kind = if client.contains(':') { "TCP6" } else { "TCP4" };
    let local = if client.contains(':') {
        "::1"
    } else {
        "10.0.0.1"
    };
    let header = format!("PROXY {kind} {client} {local} 1 1\r\n");
    [header.as_bytes(), &Stand::request("")].concat()
}

fn named_by_request(client: &str) -> Vec<u8> {
    Stand::request(&format!("X-Forwarded-For: {client}\r\n"))
}

/// Whose the connection is that is there: from that address another one is too many, from any other it is not.
fn assert_is_of(stand: &mut Stand, client: &str, named: fn(&str) -> Vec<u8>, what: &str) {
    for (slot, address, status) in [(1, "198.51.100.77", 101), (2, client, 503)] {
        let (heard, _) = sends_in(stand, slot, PEER, &[&named(address)]);
        assert_eq!(heard, [Heard::Status(status)], "{address} after {what}");
    }
}

#[test]
fn a_required_header_names_the_client_whole_or_in_pieces() {
    let request = Stand::request("");
    for (header, client) in [
        (V1, "203.0.113.7"),
        (V2, "203.0.113.7"),
        (LOCAL, "10.0.0.5"),
    ] {
        let whole = [header, &request].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        let ways: [Vec<&[u8]>; 4] = [
            vec![&whole],
            vec![header, &request],
            bytes,
            vec![&whole[..header.len() - 3], &whole[header.len() - 3..]],
        ];
        for pieces in ways {
            let mut stand = stand(&["10.0.0.0/8"], &[]);
            let (heard, is_gone) = sends(&mut stand, PEER, &pieces);
            assert_eq!((heard, is_gone), (vec![Heard::Status(101)], false));
            let what = format!("{header:?} in {} pieces", pieces.len());
            assert_is_of(&mut stand, client, named_by_header, &what);
        }
    }
}

#[test]
fn who_is_no_proxy_or_has_no_good_header_is_reset() {
    let request = Stand::request("");
    let good = [V1, &request].concat();
    let twice = [V1, V1, &request].concat();
    let stray = [LOCAL, b"\x01", &request].concat();
    // From elsewhere, whatever it sends; from one address beside the network, and the last within it.
    for (peer, is_reset) in [
        (STRANGER, true),
        ([10, 0, 1, 0], true),
        ([10, 0, 0, 255], false),
    ] {
        let mut stand = stand(&["10.0.0.0/24", "fd00::/8"], &[]);
        let (heard, is_gone) = sends(&mut stand, peer, &[&good]);
        let answer = if is_reset {
            vec![]
        } else {
            vec![Heard::Status(101)]
        };
        assert_eq!((heard, is_gone), (answer, is_reset), "{peer:?}");
        assert_eq!(stand.stats().proxies_refused, u64::from(is_reset));
    }
    let truncated = [&V2[..15], &[11], &V2[16..], &request].concat();
    let oversize = [&V2[..14], &[0x10, 1], &V2[16..]].concat();
    let bad: [&[u8]; 5] = [
        &request,
        b"\x16\x03\x01",
        &truncated,
        &oversize,
        &[b'P'; 200],
    ];
    for head in bad {
        let mut stand = stand(&["10.0.0.0/8"], &[]);
        let (heard, is_gone) = sends(&mut stand, PEER, &[head]);
        assert_eq!((heard, is_gone), (vec![], true), "{head:?}");
        assert_eq!(stand.stats().proxies_refused, 1);
    }
    // Behind a good header it is HTTP.
    for head in [&twice, &stray] {
        let (heard, _) = sends(&mut stand(&["10.0.0.0/8"], &[]), PEER, &[head]);
        assert_eq!(heard, [Heard::Status(400)]);
    }
    // Where none is allowed, a header is a bad request.
    for header in [V1, V2] {
        let (heard, _) = sends(&mut stand(&[], &[]), PEER, &[header, &request]);
        assert_eq!(heard, [Heard::Status(400)]);
    }
}

#[test]
fn a_header_that_does_not_come_whole_in_time_is_given_up() {
    let mut stand = stand(&["10.0.0.0/8"], &[]);
    stand.accept(0, from(PEER));
    stand.accept(1, from(PEER));
    stand.receive(0, &V1[..20]);
    stand.tick();
    stand.advance(9_000);
    stand.receive(1, &[V1, &Stand::request("")].concat());
    stand.tick();
    assert!(!stand.is_closed(0), "it has ten seconds");
    assert_eq!(stand.heard(1), [Heard::Status(101)]);
    stand.advance(1_001);
    stand.tick();
    stand.tick();
    assert!(stand.is_closed(0));
    assert_eq!(stand.heard(0), []);
    assert!(!stand.is_closed(1));
}

#[test]
fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let trusted = &["10.0.0.0/8", "fd00::1"];
    let forged = "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 203.0.113.7, 10.0.0.9\r\n";
    for (peer, lines, client) in [
        (PEER, forged, "203.0.113.7"),
        (PEER, "X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7"),
        (PEER, "X-Forwarded-For: who knows\r\n", "10.0.0.5"),
        (PEER, "", "10.0.0.5"),
        (STRANGER, forged, "192.0.2.1"),
        ([11, 0, 0, 0], forged, "11.0.0.0"),
    ] {
        let mut stand = stand(&[], trusted);
        let (heard, _) = sends(&mut stand, peer, &[&Stand::request(lines)]);
        assert_eq!(heard, [Heard::Status(101)]);
        let what = format!("{lines:?} from {peer:?}");
        assert_is_of(&mut stand, client, named_by_request, &what);
    }
    // A load balancer in front of proxies: the header names a proxy, whose request names the client.
    for (header, client) in [
        ("PROXY TCP4 10.0.0.9 10.0.0.1 1 1\r\n", "203.0.113.7"),
        ("PROXY TCP4 192.0.2.1 10.0.0.1 1 1\r\n", "192.0.2.1"),
    ] {
        let mut stand = stand(&["10.0.0.0/8"], trusted);
        let pieces = [header.as_bytes(), &Stand::request(forged)];
        let (heard, _) = sends(&mut stand, PEER, &pieces);
        assert_eq!(heard, [Heard::Status(101)]);
        assert_is_of(&mut stand, client, named_by_header, header);
    }
}

#[test]
fn every_upgrade_is_asked_for_its_origin() {
    let mut config = Config::for_tests();
    config.debug_echo = true;
    config.client.allowed_origins = Origins::List(vec![
        "https://app.example.com".into(),
        "https://*.example.org".into(),
    ]);
    let mut stand = Stand::new(config);
    let mut slot = 0;
    for path in [
        "/connection/websocket",
        "/connection/websocket?format=protobuf",
        "/echo",
    ] {
        for (lines, status) in [
            ("", 101),
            ("Origin: https://app.example.com\r\n", 101),
            ("Origin: https://a.b.example.org\r\n", 101),
            ("Origin: http://app.example.com\r\n", 403),
            ("Origin: https://app.example.com:8443\r\n", 403),
            ("Origin: https://app.example.com.evil.test\r\n", 403),
            ("Origin: https://example.org\r\n", 403),
            ("Origin: https://evil.test/.example.org\r\n", 403),
            ("Origin: null\r\n", 403),
            ("Origin:\r\n", 403),
            (
                "Origin: https://app.example.com\r\nOrigin: https://app.example.com\r\n",
                400,
            ),
        ] {
            slot += 1;
            stand.accept(slot, from(PEER));
            let request = String::from_utf8(Stand::request(lines)).expect("text");
            let request = request.replacen("/connection/websocket", path, 1);
            stand.receive(slot, request.as_bytes());
            stand.tick();
            assert_eq!(
                stand.heard(slot),
                [Heard::Status(status)],
                "{path} with {lines:?}"
            );
        }
    }
}
