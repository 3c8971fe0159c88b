use super::{framed, hex, text};
use crate::protocol::centrifuge::client::{
    ClientInfo, ClientPublication, ClientPush, ClientReply, Connected, Refreshed, Replies,
    ReplyFailure, ReplyKind, Subscribed,
};
use crate::protocol::centrifuge::publication::{
    ClientInfoRef, PublicationParts, append_offset, encode,
};
use crate::protocol::centrifuge::*;
use crate::protocol::codes::{Disconnect, ReplyError, Unsubscribed};

/// What the server's half writes in both encodings, read back; and the JSON text.
fn check(write: impl Fn(&mut Vec<u8>, Encoding), json: &str, id: u32, kind: ReplyKind<'_>) {
    assert_eq!(text(|out| write(out, Encoding::Json)), json);
    for encoding in Encoding::ALL {
        let payload = framed(encoding, |out| write(out, encoding));
        let replies: Result<Vec<_>, _> = Replies::new(encoding, &payload).collect();
        let kind = kind.clone();
        assert_eq!(replies, Ok(vec![ClientReply { id, kind }]), "{encoding:?}");
    }
}

fn push<'a>(channel: &'a str, push: ClientPush<'a>) -> ReplyKind<'a> {
    let channel = channel.into();
    ReplyKind::Push { channel, push }
}

fn record(data: &[u8], offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let parts = PublicationParts {
        data,
        ..PublicationParts::default()
    };
    encode(&mut out, &parts);
    append_offset(&mut out, offset);
    out
}

fn info() -> (Vec<u8>, ClientInfo<'static>) {
    let info = ClientInfoRef {
        user: "7",
        client: "a1",
        conn_info: b"",
        chan_info: br#"{"r":1}"#,
    };
    let mut canonical = Vec::new();
    info.encode(&mut canonical);
    let read = ClientInfo {
        user: "7".into(),
        client: "a1".into(),
        conn_info: b"",
        chan_info: br#"{"r":1}"#,
    };
    (canonical, read)
}

#[test]
fn connect_replies() {
    let sub = SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: "E1",
        offset: 7,
        ..SubscribeResult::default()
    };
    let result = ConnectResult {
        client: "c-1",
        version: "edge 0.1",
        subs: &[("notify:42", sub)],
        ping: 25,
        pong: true,
        ..ConnectResult::default()
    };
    let read = Connected {
        client: "c-1".into(),
        version: "edge 0.1".into(),
        subs: vec![(
            "notify:42".into(),
            Subscribed {
                recoverable: true,
                positioned: true,
                epoch: "E1".into(),
                offset: 7,
                ..Subscribed::default()
            },
        )],
        ping: 25,
        pong: true,
        ..Connected::default()
    };
    check(
        |out, e| reply_connect(out, e, 1, &result),
        r#"{"id":1,"connect":{"client":"c-1","version":"edge 0.1","subs":{"notify:42":{"recoverable":true,"epoch":"E1","offset":7,"positioned":true}},"ping":25,"pong":true}}"#,
        1,
        ReplyKind::Connect(read),
    );
    let result = ConnectResult {
        client: "x",
        expires: true,
        ttl: 60,
        data: b"[1]",
        session: "s",
        node: "n",
        ..ConnectResult::default()
    };
    let read = Connected {
        client: "x".into(),
        expires: true,
        ttl: 60,
        data: b"[1]",
        session: "s".into(),
        node: "n".into(),
        ..Connected::default()
    };
    check(
        |out, e| reply_connect(out, e, 2, &result),
        r#"{"id":2,"connect":{"client":"x","expires":true,"ttl":60,"data":[1],"session":"s","node":"n"}}"#,
        2,
        ReplyKind::Connect(read),
    );
}

#[test]
fn a_connect_reply_is_the_expected_bytes() {
    let result = ConnectResult {
        client: "pbclient",
        version: "edge",
        ping: 1,
        pong: true,
        ..ConnectResult::default()
    };
    let payload = framed(Encoding::Protobuf, |out| {
        reply_connect(out, Encoding::Protobuf, 1, &result);
    });
    assert_eq!(
        payload,
        hex("18 0801 2a14 0a08 7062636c69656e74 1204 65646765 3801 4001")
    );
}

#[test]
fn subscribe_replies_embed_rendered_publications() {
    check(
        |out, e| reply_subscribe(out, e, 2, &SubscribeResult::default()),
        r#"{"id":2,"subscribe":{}}"#,
        2,
        ReplyKind::Subscribe(Subscribed::default()),
    );
    let write = |out: &mut Vec<u8>, encoding| {
        let mut frames = [Vec::new(), Vec::new()];
        for (offset, frame) in [4, 5].into_iter().zip(&mut frames) {
            let canonical = record(br#"{"v":4}"#, 0);
            push_publication(frame, encoding, "room:1", &canonical, Some(offset), true).unwrap();
        }
        let publications = frames
            .each_ref()
            .map(|frame| publication_in_frame(frame, encoding, "room:1"));
        let result = SubscribeResult {
            expires: true,
            ttl: 0,
            recoverable: true,
            positioned: true,
            epoch: "E2",
            offset: 3,
            recovered: true,
            was_recovering: true,
            publications: &publications,
            data: b"{}",
        };
        reply_subscribe(out, encoding, 8, &result);
    };
    let publication = |offset| ClientPublication {
        data: br#"{"v":4}"#,
        offset,
        ..ClientPublication::default()
    };
    let read = Subscribed {
        expires: true,
        ttl: 0,
        recoverable: true,
        positioned: true,
        epoch: "E2".into(),
        offset: 3,
        recovered: true,
        was_recovering: true,
        publications: vec![publication(4), publication(5)],
        data: b"{}",
    };
    check(
        write,
        r#"{"id":8,"subscribe":{"expires":true,"ttl":0,"recoverable":true,"epoch":"E2","publications":[{"data":{"v":4},"offset":4},{"data":{"v":4},"offset":5}],"recovered":true,"offset":3,"positioned":true,"data":{},"was_recovering":true}}"#,
        8,
        ReplyKind::Subscribe(read),
    );
}

#[test]
fn a_subscribe_reply_is_the_expected_bytes_and_frames_hold_several_replies() {
    let result = SubscribeResult {
        recoverable: true,
        epoch: "ep",
        offset: 5,
        positioned: true,
        ..SubscribeResult::default()
    };
    let mut payload = framed(Encoding::Protobuf, |out| {
        reply_subscribe(out, Encoding::Protobuf, 2, &result);
    });
    assert_eq!(payload, hex("0e 0802 320a 1801 3202 6570 4805 5001"));
    payload.extend(hex(
        "1b 2219 1204 726f6f6d 2211 2205 68656c6c6f 3006 3a06 0a016b 120176 00",
    ));
    let replies: Vec<_> = Replies::new(Encoding::Protobuf, &payload)
        .map(Result::unwrap)
        .collect();
    let subscribed = Subscribed {
        recoverable: true,
        epoch: "ep".into(),
        offset: 5,
        positioned: true,
        ..Subscribed::default()
    };
    let publication = ClientPublication {
        data: b"hello",
        offset: 6,
        tags: vec![("k".into(), "v".into())],
        ..ClientPublication::default()
    };
    let kinds = [
        (2, ReplyKind::Subscribe(subscribed)),
        (0, push("room", ClientPush::Publication(publication))),
        (0, ReplyKind::Ping),
    ];
    assert_eq!(replies, kinds.map(|(id, kind)| ClientReply { id, kind }));
}

#[test]
fn empty_results_are_still_there() {
    check(
        |out, e| reply_unsubscribe(out, e, 11),
        r#"{"id":11,"unsubscribe":{}}"#,
        11,
        ReplyKind::Unsubscribe,
    );
    check(
        |out, e| reply_publish(out, e, 4),
        r#"{"id":4,"publish":{}}"#,
        4,
        ReplyKind::Publish,
    );
    check(
        |out, e| reply_ping(out, e, u32::MAX),
        r#"{"id":4294967295,"ping":{}}"#,
        u32::MAX,
        ReplyKind::PingResult,
    );
    let payload = framed(Encoding::Protobuf, |out| {
        reply_unsubscribe(out, Encoding::Protobuf, 11);
    });
    assert_eq!(payload, hex("04 080b 3a00"));
}

#[test]
fn presence_replies() {
    let (canonical, read) = info();
    check(
        |out, e| reply_presence(out, e, 6, &[("a1", &canonical)]),
        r#"{"id":6,"presence":{"presence":{"a1":{"user":"7","client":"a1","chan_info":{"r":1}}}}}"#,
        6,
        ReplyKind::Presence(vec![("a1".into(), read)]),
    );
    check(
        |out, e| reply_presence(out, e, 6, &[]),
        r#"{"id":6,"presence":{"presence":{}}}"#,
        6,
        ReplyKind::Presence(Vec::new()),
    );
    check(
        |out, e| reply_presence_stats(out, e, 7, 0, 0),
        r#"{"id":7,"presence_stats":{"num_clients":0,"num_users":0}}"#,
        7,
        ReplyKind::PresenceStats {
            clients: 0,
            users: 0,
        },
    );
    check(
        |out, e| reply_presence_stats(out, e, 7, 3, 2),
        r#"{"id":7,"presence_stats":{"num_clients":3,"num_users":2}}"#,
        7,
        ReplyKind::PresenceStats {
            clients: 3,
            users: 2,
        },
    );
}

#[test]
fn history_replies_keep_their_zero_values() {
    let records = [record(br#"{"v":1}"#, 1), record(b"2", 2)];
    let slices = records.each_ref().map(Vec::as_slice);
    let publication = |data, offset| ClientPublication {
        data,
        offset,
        ..ClientPublication::default()
    };
    check(
        |out, e| reply_history(out, e, 5, &slices, "E2", 3).unwrap(),
        r#"{"id":5,"history":{"publications":[{"data":{"v":1},"offset":1},{"data":2,"offset":2}],"epoch":"E2","offset":3}}"#,
        5,
        ReplyKind::History {
            publications: vec![publication(br#"{"v":1}"#, 1), publication(b"2", 2)],
            epoch: "E2".into(),
            offset: 3,
        },
    );
    check(
        |out, e| reply_history(out, e, 5, &[], "", 0).unwrap(),
        r#"{"id":5,"history":{"publications":[],"epoch":"","offset":0}}"#,
        5,
        ReplyKind::History {
            publications: Vec::new(),
            epoch: "".into(),
            offset: 0,
        },
    );
    let binary = record(b"\xff", 1);
    let mut out = b"before".to_vec();
    let reply = reply_history(&mut out, Encoding::Json, 5, &[&records[0], &binary], "e", 1);
    assert_eq!((reply, &out[..]), (Err(NotJson), &b"before"[..]));
}

#[test]
fn rpc_and_refresh_replies() {
    check(
        |out, e| reply_rpc(out, e, 3, br#"{"ok":1}"#).unwrap(),
        r#"{"id":3,"rpc":{"data":{"ok":1}}}"#,
        3,
        ReplyKind::Rpc {
            data: br#"{"ok":1}"#,
        },
    );
    check(
        |out, e| reply_rpc(out, e, 3, b"").unwrap(),
        r#"{"id":3,"rpc":{}}"#,
        3,
        ReplyKind::Rpc { data: b"" },
    );
    let mut out = Vec::new();
    assert_eq!(reply_rpc(&mut out, Encoding::Json, 3, b"x"), Err(NotJson));
    assert!(out.is_empty());
    let refresh = RefreshResult {
        client: "x",
        version: "v",
        expires: true,
        ttl: 60,
    };
    check(
        |out, e| reply_refresh(out, e, 3, &refresh),
        r#"{"id":3,"refresh":{"client":"x","version":"v","expires":true,"ttl":60}}"#,
        3,
        ReplyKind::Refresh(Refreshed {
            client: "x".into(),
            version: "v".into(),
            expires: true,
            ttl: 60,
        }),
    );
    check(
        |out, e| reply_sub_refresh(out, e, 3, Some(60)),
        r#"{"id":3,"sub_refresh":{"expires":true,"ttl":60}}"#,
        3,
        ReplyKind::SubRefresh(Some(60)),
    );
    check(
        |out, e| reply_sub_refresh(out, e, 3, None),
        r#"{"id":3,"sub_refresh":{}}"#,
        3,
        ReplyKind::SubRefresh(None),
    );
}

#[test]
fn errors_always_have_a_message() {
    let failure = |code, message: &'static str, temporary| {
        ReplyKind::Error(ReplyFailure {
            code,
            message: message.into(),
            temporary,
        })
    };
    let denied = ReplyError::PERMISSION_DENIED;
    for message in [None, Some("")] {
        check(
            |out, e| reply_error(out, e, 4, denied, message),
            r#"{"id":4,"error":{"code":103,"message":"permission denied"}}"#,
            4,
            failure(103, "permission denied", false),
        );
    }
    check(
        |out, e| reply_error(out, e, 4, ReplyError::INTERNAL, Some("of the \"backend\"")),
        r#"{"id":4,"error":{"code":100,"message":"of the \"backend\"","temporary":true}}"#,
        4,
        failure(100, "of the \"backend\"", true),
    );
}

#[test]
fn pushes() {
    let (canonical, read) = info();
    check(
        |out, e| push_join(out, e, "room:1", &canonical),
        r#"{"push":{"channel":"room:1","join":{"info":{"user":"7","client":"a1","chan_info":{"r":1}}}}}"#,
        0,
        push("room:1", ClientPush::Join(read.clone())),
    );
    check(
        |out, e| push_leave(out, e, "a\"b", &canonical),
        r#"{"push":{"channel":"a\"b","leave":{"info":{"user":"7","client":"a1","chan_info":{"r":1}}}}}"#,
        0,
        push("a\"b", ClientPush::Leave(read)),
    );
    check(
        |out, e| push_unsubscribe(out, e, "room:1", Unsubscribed::INSUFFICIENT_STATE),
        r#"{"push":{"channel":"room:1","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#,
        0,
        push(
            "room:1",
            ClientPush::Unsubscribe {
                code: 2500,
                reason: "insufficient state".into(),
            },
        ),
    );
    let subscribe = ServerSubscribe {
        recoverable: true,
        positioned: true,
        epoch: "q",
        offset: 12,
        data: b"1",
    };
    check(
        |out, e| push_subscribe(out, e, "deal:9", subscribe),
        r#"{"push":{"channel":"deal:9","subscribe":{"recoverable":true,"epoch":"q","offset":12,"positioned":true,"data":1}}}"#,
        0,
        push(
            "deal:9",
            ClientPush::Subscribe(Subscribed {
                recoverable: true,
                positioned: true,
                epoch: "q".into(),
                offset: 12,
                data: b"1",
                ..Subscribed::default()
            }),
        ),
    );
    check(
        |out, e| push_message(out, e, br#"{"hi":1}"#).unwrap(),
        r#"{"push":{"message":{"data":{"hi":1}}}}"#,
        0,
        push(
            "",
            ClientPush::Message {
                data: br#"{"hi":1}"#,
            },
        ),
    );
    for (why, reconnect) in [(Disconnect::SHUTDOWN, true), (Disconnect::STALE, false)] {
        let tail = if reconnect {
            r#","reconnect":true"#
        } else {
            ""
        };
        let (code, reason) = (why.code, why.reason);
        check(
            |out, e| push_disconnect(out, e, why),
            &format!(r#"{{"push":{{"disconnect":{{"code":{code},"reason":"{reason}"{tail}}}}}}}"#),
            0,
            push(
                "",
                ClientPush::Disconnect {
                    code: u32::from(code),
                    reason: reason.into(),
                    reconnect,
                },
            ),
        );
    }
}

#[test]
fn ping_frames_are_empty_replies() {
    assert_eq!(ping_frame(Encoding::Json), b"\x81\x02{}");
    assert_eq!(ping_frame(Encoding::Protobuf), [0x82, 1, 0]);
    for encoding in Encoding::ALL {
        let payload = frame::payload(ping_frame(encoding));
        let replies: Vec<_> = Replies::new(encoding, payload).collect();
        let kind = ReplyKind::Ping;
        assert_eq!(replies, [Ok(ClientReply { id: 0, kind })]);
    }
}

#[test]
fn clients_ignore_what_they_do_not_know() {
    let text = concat!(
        r#"{"id":1,"new":{},"push":{"channel":"c","id":3,"refreshed":{"a":[]}}}"#,
        "\n",
        r#"{"id":2,"newer":1}"#,
    );
    let replies: Vec<_> = Replies::new(Encoding::Json, text.as_bytes())
        .map(|reply| reply.unwrap().kind)
        .collect();
    assert_eq!(
        replies,
        [push("c", ClientPush::Unknown), ReplyKind::Unknown]
    );
}
