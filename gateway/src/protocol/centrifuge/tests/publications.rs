use super::{framed, hex, text};
use crate::protocol::centrifuge::client::{ClientPush, Replies, ReplyKind};
use crate::protocol::centrifuge::publication::*;
use crate::protocol::centrifuge::*;

const INFO: ClientInfoRef<'_> = ClientInfoRef {
    user: "7",
    client: "c\"1",
    conn_info: br#"{"name":"Bo"}"#,
    chan_info: b"[1]",
};

fn full() -> Vec<u8> {
    let mut out = Vec::new();
    let parts = PublicationParts {
        data: br#"{"v":3}"#,
        info: Some(INFO),
        tags: &[("k", "x"), ("quote", "\"")],
        key: "thing",
        time: -1,
    };
    encode(&mut out, &parts);
    out
}

fn plain(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let parts = PublicationParts {
        data,
        ..PublicationParts::default()
    };
    encode(&mut out, &parts);
    out
}

#[test]
fn the_canonical_form_is_protobuf_and_takes_its_offset_at_the_end() {
    let mut out = plain(b"hello");
    assert_eq!(out, hex("2205 68656c6c6f"));
    append_offset(&mut out, 0);
    assert_eq!(out.len(), 7, "0 is no offset");
    append_offset(&mut out, 300);
    assert_eq!(out, hex("2205 68656c6c6f 30ac02"));
    assert_eq!(PublicationView::parse(&out).unwrap().offset(), 300);
}

#[test]
fn all_parts_are_read_back() {
    let mut out = full();
    append_offset(&mut out, u64::MAX);
    let view = PublicationView::parse(&out).unwrap();
    assert_eq!(view.data(), br#"{"v":3}"#);
    assert_eq!(view.info(), Some(INFO));
    assert_eq!(view.offset(), u64::MAX);
    assert_eq!(view.key(), "thing");
    assert_eq!(view.time(), -1);
    let tags: Vec<_> = view.tags().collect();
    assert_eq!(tags, [("k", "x"), ("quote", "\"")]);
    let empty = PublicationView::parse(&[]).unwrap();
    assert_eq!(
        (empty.data(), empty.info(), empty.tags().count()),
        (&[][..], None, 0)
    );
}

#[test]
fn unknown_fields_are_passed_over_and_broken_ones_refused() {
    // offset 6, delta (8), tags {value before key}, prev_data (15), data
    let bytes = hex("3006 4001 3a06 120176 0a016b 7a01ff 220131");
    let view = PublicationView::parse(&bytes).unwrap();
    assert_eq!((view.offset(), view.data()), (6, &b"1"[..]));
    assert_eq!(view.tags().collect::<Vec<_>>(), [("k", "v")]);
    for broken in [
        "22",
        "2205 68",
        "2801",
        "3a02 0a05",
        "2a03 0a01ff",
        "5a01ff",
        "30",
    ] {
        assert!(PublicationView::parse(&hex(broken)).is_err(), "{broken}");
    }
}

#[test]
fn a_json_push_is_the_expected_text() {
    let push = |publication: &[u8], offset| {
        text(|out| {
            push_publication(out, Encoding::Json, "room:1", publication, offset, false).unwrap();
        })
    };
    assert_eq!(
        push(&plain(br#"{"v":3}"#), Some(3)),
        r#"{"push":{"channel":"room:1","pub":{"data":{"v":3},"offset":3}}}"#
    );
    let without = r#"{"push":{"channel":"room:1","pub":{"data":1}}}"#;
    assert_eq!(push(&plain(b"1"), None), without);
    assert_eq!(push(&plain(b"1"), Some(0)), without);
    assert_eq!(
        push(&full(), Some(u64::MAX)),
        concat!(
            r#"{"push":{"channel":"room:1","pub":{"data":{"v":3},"info":{"user":"7","client":"c\"1","#,
            r#""conn_info":{"name":"Bo"},"chan_info":[1]},"offset":18446744073709551615,"#,
            r#""tags":{"k":"x","quote":"\""},"time":-1,"key":"thing"}}}"#
        )
    );
    assert_eq!(
        push(&plain(b"{\r\n \"a\":\n1}"), None),
        r#"{"push":{"channel":"room:1","pub":{"data":{   "a": 1}}}}"#,
        "no line breaks inside of a frame"
    );
}

#[test]
fn a_protobuf_push_is_the_expected_bytes() {
    let mut publication = plain(b"hello");
    append_offset(&mut publication, 6);
    publication.extend(hex("3a06 0a016b 120176"));
    let expected = hex("1b 2219 1204 726f6f6d 2211 2205 68656c6c6f 3006 3a06 0a016b 120176");
    let pushed = framed(Encoding::Protobuf, |out| {
        push_publication(out, Encoding::Protobuf, "room", &publication, None, false).unwrap();
    });
    assert_eq!(pushed, expected);
    let appended = framed(Encoding::Protobuf, |out| {
        push_publication(
            out,
            Encoding::Protobuf,
            "room",
            &plain(b"hello"),
            Some(6),
            false,
        )
        .unwrap();
    });
    assert_eq!(
        appended,
        hex("13 2211 1204 726f6f6d 2209 2205 68656c6c6f 3006")
    );
}

#[test]
fn the_publication_of_a_frame_can_be_embedded_as_it_is() {
    for size in [1, 50, 100, 200, 16_000, 70_000] {
        for channel in ["r", "room:\"\\1\"", &"x".repeat(255)] {
            for encoding in Encoding::ALL {
                let data = format!("\"{}\"", "d".repeat(size));
                let publication = plain(data.as_bytes());
                let mut frame = Vec::new();
                push_publication(&mut frame, encoding, channel, &publication, Some(9), true)
                    .unwrap();
                let embedded = publication_in_frame(&frame, encoding, channel);
                let mut canonical = publication.clone();
                append_offset(&mut canonical, 9);
                let expected = match encoding {
                    Encoding::Protobuf => canonical,
                    Encoding::Json => {
                        let mut object = Vec::new();
                        publication_json(&mut object, &canonical).unwrap();
                        object
                    }
                };
                assert_eq!(embedded, expected);
                let replies = Replies::new(encoding, frame::payload(&frame));
                let kinds: Vec<_> = replies.map(|reply| reply.unwrap().kind).collect();
                let [
                    ReplyKind::Push {
                        channel: at,
                        push: ClientPush::Publication(read),
                    },
                ] = &kinds[..]
                else {
                    panic!("{kinds:?}");
                };
                assert_eq!(
                    (&**at, read.data, read.offset),
                    (channel, data.as_bytes(), 9)
                );
            }
        }
    }
}

#[test]
fn what_is_no_json_goes_to_protobuf_clients_only() {
    for data in [&b"\xff\x00"[..], b"hello", b"", b"{}{}", b"{\"a\":}"] {
        let publication = plain(data);
        let mut out = b"before".to_vec();
        let pushed = push_publication(&mut out, Encoding::Json, "c", &publication, None, false);
        assert_eq!((pushed, &out[..]), (Err(NotJson), &b"before"[..]));
        assert_eq!(publication_json(&mut out, &publication), Err(NotJson));
        assert_eq!(out, b"before");
        push_publication(&mut out, Encoding::Protobuf, "c", &publication, None, false).unwrap();
        assert!(out.len() > 6);
    }
    let mut out = Vec::new();
    let broken = push_publication(&mut out, Encoding::Json, "c", &[0x22], None, true);
    assert_eq!((broken, out.len()), (Err(NotJson), 0));
}

#[test]
fn infos_that_are_no_json_are_left_out_for_json_clients() {
    let info = ClientInfoRef {
        conn_info: b"\x00",
        chan_info: b"1",
        ..ClientInfoRef::default()
    };
    let mut canonical = Vec::new();
    info.encode(&mut canonical);
    let mut out = Vec::new();
    client_info_json(&mut out, &canonical).unwrap();
    assert_eq!(out, br#"{"user":"","client":"","chan_info":1}"#);
    assert_eq!(ClientInfoRef::parse(&canonical), Ok(info));
}
