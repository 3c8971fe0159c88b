//! The upgrade request.

use super::assert_cuts_do_not_matter;
use crate::protocol::http::{
    HEAD_MAX, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTOBUF, UpgradeRequest, forwarded_for, parse_upgrade,
    write_refusal, write_switching,
};
use crate::protocol::websocket::client::{parse_switching, write_upgrade_request};
use std::net::IpAddr;

/// The bytes are what a client sends first.
pub fn run(bytes: &[u8]) {
    assert_cuts_do_not_matter(bytes, |bytes| parse_upgrade(bytes).transpose());
    match parse_upgrade(bytes) {
        Ok(None) => assert!(bytes.len() < HEAD_MAX, "it never has enough"),
        Ok(Some((request, used))) => {
            assert!(used <= bytes.len().min(HEAD_MAX));
            is_answered(&request);
            reads_the_same_when_written(&request);
            names_a_client(&request);
        }
        Err(refusal) => {
            let mut out = Vec::new();
            write_refusal(&mut out, refusal);
            let mut lines = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut lines);
            let head = response.parse(&out).expect("a good response").unwrap();
            assert_eq!(response.code, Some(refusal.status()));
            let length = response
                .headers
                .iter()
                .find(|it| it.name == "Content-Length");
            let length = std::str::from_utf8(length.expect("a length").value);
            assert_eq!(length, Ok(&*(out.len() - head).to_string()));
        }
    }
}

fn is_answered(request: &UpgradeRequest<'_>) {
    let subprotocol = match (request.offers_protobuf, request.offers_json) {
        (true, _) => Some(SUBPROTOCOL_PROTOBUF),
        (false, true) => Some(SUBPROTOCOL_JSON),
        (false, false) => None,
    };
    let mut out = Vec::new();
    write_switching(&mut out, request.key, subprotocol, request.deflate);
    let switched = parse_switching(&out, request.key).expect("it agrees");
    let switched = switched.expect("the whole answer");
    assert_eq!(switched.head_len, out.len());
    assert_eq!(switched.subprotocol, subprotocol);
    assert_eq!(switched.extensions.is_some(), request.deflate.is_some());
}

fn reads_the_same_when_written(request: &UpgradeRequest<'_>) {
    let target = format!("{}?{}", request.path, request.query);
    let mut lines = String::new();
    for (name, value) in [
        ("Origin", request.origin),
        ("User-Agent", request.user_agent),
    ] {
        if let Some(value) = value {
            lines += &format!("{name}: {value}\r\n");
        }
    }
    for value in request.x_forwarded_for {
        lines += &format!("X-Forwarded-For: {value}\r\n");
    }
    if request.offers_protobuf {
        lines += &format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_PROTOBUF}\r\n");
    }
    if request.offers_json {
        lines += &format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_JSON}\r\n");
    }
    if let Some(offer) = request.deflate {
        let bits = offer.window_bits();
        lines += &format!(
            "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}\r\n"
        );
    }
    let mut out = Vec::new();
    write_upgrade_request(&mut out, &target, request.host, request.key, &lines);
    if out.len() > HEAD_MAX {
        return;
    }
    let (again, used) = parse_upgrade(&out).expect("good").expect("whole");
    assert_eq!(used, out.len());
    let window = |request: &UpgradeRequest<'_>| request.deflate.map(|offer| offer.window_bits());
    assert_eq!(window(&again), window(request));
    let again = UpgradeRequest {
        deflate: request.deflate,
        ..again
    };
    assert_eq!(again, *request);
}

fn names_a_client(request: &UpgradeRequest<'_>) {
    let peer = IpAddr::from([10, 0, 0, 1]);
    let is_ours = |address: IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10);
    let client = forwarded_for(peer, &request.x_forwarded_for, is_ours);
    assert_eq!(client, client.to_canonical());
    let nobody = forwarded_for(peer, &request.x_forwarded_for, |_| false);
    assert!(
        nobody == client || is_ours(nobody),
        "who trusts less stops earlier"
    );
}
