//! Bytes that nobody meant: random ones, and good ones with some bytes changed, cut or repeated. Nothing may panic, and
//! what is taken for JSON must be what another parser takes for it.

use crate::protocol::centrifuge::client::{self, Connect, History, Position, Replies, Subscribe};
use crate::protocol::centrifuge::publication::{
    ClientInfoRef, PublicationParts, PublicationView, append_offset, client_info_json, encode,
    publication_json,
};
use crate::protocol::centrifuge::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ROUNDS: usize = 20_000;

/// Good payloads of commands and of replies, and one canonical publication.
fn seeds(encoding: Encoding) -> Vec<Vec<u8>> {
    let mut commands = Vec::new();
    let position = Position {
        offset: 3,
        epoch: "é\"",
    };
    let connect = Connect {
        token: "token",
        data: br#"{"a":[1,-2.5e3,"\u00e9",null,true]}"#,
        subs: &[("ns:a", position)],
        ..Connect::default()
    };
    client::connect(&mut commands, encoding, 1, &connect);
    let subscribe = Subscribe {
        channel: "room:1",
        recover: Some(position),
        recoverable: true,
        ..Subscribe::default()
    };
    client::subscribe(&mut commands, encoding, 2, &subscribe);
    client::publish(&mut commands, encoding, 3, "room:1", br#"{"b":[{},[]]}"#);
    let history = History {
        channel: "room:1",
        limit: -1,
        since: Some(position),
        reverse: true,
    };
    client::history(&mut commands, encoding, 4, &history);
    let mut publication = Vec::new();
    let parts = PublicationParts {
        data: br#"{"v":3}"#,
        info: Some(ClientInfoRef {
            user: "7",
            client: "c",
            conn_info: b"1",
            chan_info: b"2",
        }),
        tags: &[("k", "x")],
        key: "key",
        time: 5,
    };
    encode(&mut publication, &parts);
    let mut pushed = Vec::new();
    push_publication(
        &mut pushed,
        encoding,
        "room:1",
        &publication,
        Some(9),
        false,
    )
    .unwrap();
    let replies = [
        frame::payload(&pushed),
        &b"\n"[..usize::from(encoding == Encoding::Json)],
    ]
    .concat();
    append_offset(&mut publication, 4);
    vec![commands, replies, publication]
}

fn spoil(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    const TELLING: &[u8] = b"{}[]\",:\\u0123456789.eE+-tfn \n\0\x01\x08\x12\x1a\x7f\x80\xff";
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = rng.random(),
            1 if at < bytes.len() => bytes[at] = TELLING[rng.random_range(0..TELLING.len())],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, TELLING[rng.random_range(0..TELLING.len())]),
            _ => {
                let from = rng.random_range(0..=at);
                bytes.extend_from_within(from..at);
            }
        }
    }
}

fn read_all(encoding: Encoding, bytes: &[u8]) {
    let commands = Commands::new(encoding, bytes).count();
    let replies = Replies::new(encoding, bytes).count();
    assert!(commands > 0 && replies > 0, "an error at least");
    let mut out = Vec::new();
    let _ = publication_json(&mut out, bytes);
    let _ = client_info_json(&mut out, bytes);
    let _ = push_publication(&mut out, encoding, "c", bytes, None, false);
    if let Ok(view) = PublicationView::parse(bytes) {
        view.tags().for_each(drop);
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..ROUNDS {
        let length = rng.random_range(0..64);
        let bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        for encoding in Encoding::ALL {
            read_all(encoding, &bytes);
        }
    }
}

#[test]
fn spoiled_payloads_never_panic() {
    for encoding in Encoding::ALL {
        let seeds = seeds(encoding);
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..ROUNDS {
            let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
            spoil(&mut rng, &mut bytes);
            read_all(encoding, &bytes);
        }
    }
}

#[test]
fn json_is_what_another_parser_takes_for_it() {
    let values = [
        &br#"{"a":[1,-2.5e3,"\u00e9\n",null,true,false],"b":{"c":{}}}"#[..],
        b"[0.0,-0,1E+2,123456789012345678901]",
        r#""a long string with é and \ud83d\ude00 inside""#.as_bytes(),
        b" [ { \"a\" : [ ] } ] ",
    ];
    let mut rng = StdRng::seed_from_u64(3);
    let mut good = 0;
    for _ in 0..ROUNDS {
        let mut bytes = values[rng.random_range(0..values.len())].to_vec();
        spoil(&mut rng, &mut bytes);
        // Of values that it ignores the other parser does not look at the encoding.
        let text = std::str::from_utf8(&bytes);
        let other =
            text.is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
        assert_eq!(
            json::is_valid(&bytes),
            other,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        good += usize::from(other);
    }
    assert!(
        good > ROUNDS / 100,
        "{good} of {ROUNDS} are JSON: the test tells little"
    );
}

#[test]
fn a_frame_that_was_made_can_be_read_again() {
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..2_000 {
        let mut publication = Vec::new();
        let text: String = (0..rng.random_range(0..40))
            .map(|_| char::from_u32(rng.random_range(0..0x300)).unwrap())
            .collect();
        let data = serde_json::to_vec(&text).unwrap();
        let parts = PublicationParts {
            data: &data,
            tags: &[(&text, &text)],
            key: &text,
            ..PublicationParts::default()
        };
        encode(&mut publication, &parts);
        for encoding in Encoding::ALL {
            let mut out = Vec::new();
            push_publication(&mut out, encoding, &text, &publication, Some(1), false).unwrap();
            let reply = Replies::new(encoding, frame::payload(&out)).next().unwrap();
            let client::ReplyKind::Push { channel, push } = reply.unwrap().kind else {
                panic!();
            };
            let client::ClientPush::Publication(read) = push else {
                panic!();
            };
            assert_eq!((&*channel, &*read.key, read.data), (&*text, &*text, &*data));
            assert_eq!((&*read.tags[0].0, &*read.tags[0].1), (&*text, &*text));
        }
    }
}
