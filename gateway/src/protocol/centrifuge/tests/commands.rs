use super::hex;
use crate::protocol::centrifuge::client::{self, Connect, History, Position, Subscribe};
use crate::protocol::centrifuge::*;
use std::borrow::Cow;

fn json(text: &str) -> Vec<Result<Command<'_>, DecodeError>> {
    Commands::new(Encoding::Json, text.as_bytes()).collect()
}

fn one(text: &str) -> Command<'_> {
    match &json(text)[..] {
        [Ok(command)] => command.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

/// What the client's half writes in both encodings, read back.
fn round_trip(write: impl Fn(&mut Vec<u8>, Encoding), id: u32, method: Method<'_>) {
    for encoding in Encoding::ALL {
        let mut payload = Vec::new();
        // Twice: any sequence of commands is a payload.
        write(&mut payload, encoding);
        write(&mut payload, encoding);
        let commands: Vec<_> = Commands::new(encoding, &payload)
            .map(Result::unwrap)
            .collect();
        let method = method.clone();
        let command = Command { id, method };
        assert_eq!(commands, [command.clone(), command], "{encoding:?}");
    }
}

#[test]
fn every_command_round_trips() {
    let position = Position {
        offset: 7,
        epoch: "E\"1",
    };
    let connect = Connect {
        token: "t",
        data: br#"{"a":1}"#,
        name: "js",
        version: "1.0",
        subs: &[("notify:42", position), ("b", Position::default())],
    };
    let sub = |channel, epoch, offset| ServerSubscription {
        channel: Cow::Borrowed(channel),
        recover: true,
        epoch: Cow::Borrowed(epoch),
        offset,
    };
    let expected = ConnectRequest {
        token: "t".into(),
        data: br#"{"a":1}"#,
        name: "js".into(),
        version: "1.0".into(),
        subs: vec![sub("notify:42", "E\"1", 7), sub("b", "", 0)],
    };
    round_trip(
        |out, e| client::connect(out, e, 1, &connect),
        1,
        Method::Connect(expected),
    );
    let subscribe = Subscribe {
        channel: "room:1",
        token: "t",
        recover: Some(Position {
            offset: u64::MAX,
            epoch: "e",
        }),
        data: b"[1]",
        positioned: true,
        recoverable: true,
        join_leave: true,
    };
    let expected = SubscribeRequest {
        channel: "room:1".into(),
        token: "t".into(),
        recover: true,
        epoch: "e".into(),
        offset: u64::MAX,
        data: b"[1]",
        positioned: true,
        recoverable: true,
        join_leave: true,
        ..SubscribeRequest::default()
    };
    round_trip(
        |out, e| client::subscribe(out, e, u32::MAX, &subscribe),
        u32::MAX,
        Method::Subscribe(expected),
    );
    let channel = || ChannelRequest {
        channel: "room:1".into(),
    };
    round_trip(
        |out, e| client::unsubscribe(out, e, 2, "room:1"),
        2,
        Method::Unsubscribe(channel()),
    );
    round_trip(
        |out, e| client::presence(out, e, 3, "room:1"),
        3,
        Method::Presence(channel()),
    );
    round_trip(
        |out, e| client::presence_stats(out, e, 4, "room:1"),
        4,
        Method::PresenceStats(channel()),
    );
    let publish = PublishRequest {
        channel: "room:1".into(),
        data: b"\"hello\"",
        ..PublishRequest::default()
    };
    round_trip(
        |out, e| client::publish(out, e, 5, "room:1", b"\"hello\""),
        5,
        Method::Publish(publish),
    );
    for (limit, since, reverse) in [
        (-1, Some(position), true),
        (0, None, false),
        (10, None, true),
    ] {
        let history = History {
            channel: "room:1",
            limit,
            since,
            reverse,
        };
        let expected = HistoryRequest {
            channel: "room:1".into(),
            limit,
            since: since.map(|since| StreamPosition {
                offset: since.offset,
                epoch: since.epoch.into(),
            }),
            reverse,
        };
        round_trip(
            |out, e| client::history(out, e, 6, &history),
            6,
            Method::History(expected),
        );
    }
    round_trip(|out, e| client::ping(out, e, 7), 7, Method::Ping);
    round_trip(client::pong, 0, Method::Pong);
    round_trip(
        |out, e| client::send(out, e, b"{}"),
        0,
        Method::Send { data: b"{}" },
    );
    let rpc = Method::Rpc {
        method: "m".into(),
        data: b"null",
    };
    round_trip(|out, e| client::rpc(out, e, 8, "m", b"null"), 8, rpc);
    let refresh = Method::Refresh { token: "t".into() };
    round_trip(|out, e| client::refresh(out, e, 9, "t"), 9, refresh);
    let sub_refresh = SubRefreshRequest {
        channel: "c".into(),
        token: "t".into(),
        ..SubRefreshRequest::default()
    };
    round_trip(
        |out, e| client::sub_refresh(out, e, 10, "c", "t"),
        10,
        Method::SubRefresh(sub_refresh),
    );
}

#[test]
fn the_first_frame_of_the_javascript_client_is_read() {
    let text = concat!(
        r#"{"connect":{"token":"<jwt>","name":"js"},"id":1}"#,
        "\n",
        r#"{"subscribe":{"channel":"room:1","recoverable":true,"join_leave":true,"flag":1},"id":2}"#
    );
    let commands = json(text);
    let connect = ConnectRequest {
        token: "<jwt>".into(),
        name: "js".into(),
        ..ConnectRequest::default()
    };
    let subscribe = SubscribeRequest {
        channel: "room:1".into(),
        recoverable: true,
        join_leave: true,
        flag: 1,
        ..SubscribeRequest::default()
    };
    let expected = [
        Ok(Command {
            id: 1,
            method: Method::Connect(connect),
        }),
        Ok(Command {
            id: 2,
            method: Method::Subscribe(subscribe),
        }),
    ];
    assert_eq!(commands, expected);
}

#[test]
fn a_json_publish_is_borrowed_from_its_payload() {
    let payload = br#"{"publish":{"channel":"room:1","data": {"x": [1, 2]} },"id":4}"#;
    let command = Commands::new(Encoding::Json, payload).next().unwrap();
    let Ok(Command {
        id: 4,
        method: Method::Publish(publish),
    }) = command
    else {
        panic!("{command:?}");
    };
    assert!(matches!(publish.channel, Cow::Borrowed("room:1")));
    assert_eq!(publish.data, br#"{"x": [1, 2]}"#);
    assert_eq!(publish.data.as_ptr(), payload[39..].as_ptr());
}

#[test]
fn a_protobuf_publish_is_borrowed_from_its_payload() {
    // Command{id: 4, publish: {channel: "room:1", data: "hi"}}
    let payload = hex("10 0804 3a0c 0a06 726f6f6d3a31 1202 6869");
    let command = Commands::new(Encoding::Protobuf, &payload).next().unwrap();
    let Ok(Command {
        id: 4,
        method: Method::Publish(publish),
    }) = command
    else {
        panic!("{command:?}");
    };
    assert!(matches!(publish.channel, Cow::Borrowed("room:1")));
    assert_eq!(publish.data, b"hi");
    assert_eq!(publish.data.as_ptr(), payload[15..].as_ptr());
}

#[test]
fn json_commands_are_separated_by_one_line_feed() {
    let counts = |text| {
        let commands = json(text);
        let good = commands.iter().filter(|command| command.is_ok()).count();
        (good, commands.len() - good)
    };
    for (text, expected) in [
        ("{}", (1, 0)),
        ("{}\n", (1, 0)),
        ("{}\n{}", (2, 0)),
        ("{}\n{}\n", (2, 0)),
        ("{}\r\n{}\r\n", (2, 0)),
        (" {\n} \n { } ", (2, 0)),
        ("", (0, 1)),
        (" ", (0, 1)),
        ("\n", (0, 1)),
        ("\n{}", (0, 1)),
        ("{}{}", (1, 1)),
        ("{},{}", (1, 1)),
        ("{}\n\n", (1, 1)),
        ("{}\n\n{}", (1, 1)),
        ("{}\nx", (1, 1)),
        ("null", (0, 1)),
        ("[]", (0, 1)),
        ("1", (0, 1)),
        ("{", (0, 1)),
    ] {
        assert_eq!(counts(text), expected, "{text:?}");
    }
    assert_eq!(json(""), [Err(DecodeError::Empty)]);
    let not_text = Commands::new(Encoding::Json, b"{\"\xff\":1}").next();
    assert_eq!(not_text, Some(Err(DecodeError::Utf8)));
}

#[test]
fn an_empty_protobuf_payload_is_an_error_and_a_zero_byte_a_pong() {
    let commands = |bytes| Commands::new(Encoding::Protobuf, bytes).collect::<Vec<_>>();
    assert_eq!(commands(&[]), [Err(DecodeError::Empty)]);
    let pong = Ok(Command {
        id: 0,
        method: Method::Pong,
    });
    assert_eq!(
        commands(&[0, 1]),
        [pong.clone(), Err(DecodeError::Truncated)]
    );
    assert_eq!(commands(&[0, 0]), [pong.clone(), pong]);
}

#[test]
fn commands_without_a_known_method_are_pongs_or_unknown() {
    assert_eq!(one("{}").method, Method::Pong);
    assert_eq!(one(r#"{"id":0}"#).method, Method::Pong);
    assert_eq!(
        one(r#"{"what":{"deep":[1,{"a":null}]}}"#).method,
        Method::Pong
    );
    assert_eq!(one(r#"{"id":5}"#).method, Method::Unknown);
    assert_eq!(one(r#"{"id":5,"ping":null}"#).method, Method::Unknown);
    assert_eq!(one(r#"{"id":5,"what":{}}"#).method, Method::Unknown);
    assert_eq!(one(r#"{"id":5,"ping":{"x":1}}"#).method, Method::Ping);
    // id 5, unknown field 100 of each wire type.
    for field in [
        "a006 01",
        "a106 0000000000000000",
        "a206 01ff",
        "a506 00000000",
    ] {
        let message = hex(&format!("0805 {field}"));
        let payload = [&[message.len() as u8][..], &message].concat();
        let mut commands = Commands::new(Encoding::Protobuf, &payload);
        assert_eq!(commands.next().unwrap().unwrap().method, Method::Unknown);
    }
}

#[test]
fn the_lowest_field_wins_among_methods_and_the_last_among_equals() {
    let first = one(r#"{"id":1,"ping":{},"presence":{"channel":"a"},"rpc":{}}"#);
    assert!(matches!(first.method, Method::Presence(_)));
    let last = one(
        r#"{"id":1,"id":2,"presence":{"channel":"a","channel":"b"},"presence":{"channel":"c"}}"#,
    );
    let presence = ChannelRequest {
        channel: "c".into(),
    };
    assert_eq!((last.id, last.method), (2, Method::Presence(presence)));
}

#[test]
fn escaped_names_and_texts_are_understood() {
    let command =
        one(r#"{"\u0069d":3,"publish":{"chann\u0065l":"a\/b\u0041","data":"\ud83d\ude00"}}"#);
    let publish = PublishRequest {
        channel: "a/bA".into(),
        data: br#""\ud83d\ude00""#,
        ..PublishRequest::default()
    };
    assert_eq!((command.id, command.method), (3, Method::Publish(publish)));
}

#[test]
fn fields_of_the_wrong_type_or_range_are_errors() {
    for text in [
        r#"{"id":"1"}"#,
        r#"{"id":-1}"#,
        r#"{"id":1.0}"#,
        r#"{"id":1e2}"#,
        r#"{"id":4294967296}"#,
        r#"{"id":01}"#,
        r#"{"id":}"#,
        r#"{"id" 1}"#,
        r#"{"id":1,}"#,
        r#"{,"id":1}"#,
        r#"{"id":1 "ping":{}}"#,
        r#"{id:1}"#,
        r#"{"ping":[]}"#,
        r#"{"ping":1}"#,
        r#"{"connect":{"token":1}}"#,
        r#"{"connect":{"subs":[]}}"#,
        r#"{"connect":{"subs":{"a":1}}}"#,
        r#"{"connect":{"subs":{"a":{}}"#,
        r#"{"subscribe":{"recover":1}}"#,
        r#"{"subscribe":{"recover":tru}}"#,
        r#"{"subscribe":{"offset":-1}}"#,
        r#"{"subscribe":{"offset":18446744073709551616}}"#,
        r#"{"subscribe":{"channel":"\ud800"}}"#,
        r#"{"publish":{"data":}}"#,
        r#"{"publish":{"data":{"a"}}}"#,
        r#"{"publish":{"data":01}}"#,
        r#"{"history":{"limit":2147483648}}"#,
        r#"{"history":{"since":1}}"#,
        r#"{"what":{"a":[1,]}}"#,
        "{\"rpc\":{\"method\":\"a\nb\"}}",
    ] {
        let commands = json(text);
        assert!(matches!(commands[..], [Err(_)]), "{text}: {commands:?}");
    }
    for bytes in [
        "02 0a00",                        // id as bytes
        "06 0880808080 10",               // id over 32 bits
        "04 3a02 0801",                   // channel as a number
        "05 3a03 0a01ff",                 // channel not UTF-8
        "05 3a03 0a02 61",                // channel longer than its message
        "02 2b2c",                        // a group
        "01 00",                          // field 0
        "0c 0aff ffff ffff ffff ffff 01", // length over all
    ] {
        let payload = hex(bytes);
        let commands: Vec<_> = Commands::new(Encoding::Protobuf, &payload).collect();
        assert!(matches!(commands[..], [Err(_)]), "{bytes}: {commands:?}");
    }
}

#[test]
fn null_is_the_zero_value_except_as_data() {
    let command = one(
        r#"{"id":1,"subscribe":{"channel":"a","recover":null,"offset":null,"tf":null,"data":null,"flag":null}}"#,
    );
    let subscribe = SubscribeRequest {
        channel: "a".into(),
        data: b"null",
        ..SubscribeRequest::default()
    };
    assert_eq!(command.method, Method::Subscribe(subscribe));
}

#[test]
fn what_must_not_be_ignored_is_noticed() {
    let unavailable = |text| match one(text).method {
        Method::Subscribe(request) => request.is_unavailable(),
        Method::Publish(request) => request.is_unavailable(),
        Method::SubRefresh(request) => request.is_unavailable(),
        other => panic!("{other:?}"),
    };
    for text in [
        r#"{"subscribe":{"channel":"a","tf":{"cmp":"eq"}}}"#,
        r#"{"subscribe":{"channel":"a","type":1}}"#,
        r#"{"publish":{"channel":"a","key":"k"}}"#,
        r#"{"publish":{"channel":"a","removed":true}}"#,
        r#"{"publish":{"channel":"a","type":1}}"#,
        r#"{"sub_refresh":{"channel":"a","type":2}}"#,
        r#"{"sub_refresh":{"channel":"a","track":[{}]}}"#,
    ] {
        assert!(unavailable(text), "{text}");
    }
    for text in [
        r#"{"subscribe":{"channel":"a","delta":"fossil","flag":3,"phase":1,"type":0,"tf":null}}"#,
        r#"{"publish":{"channel":"a","key":"","removed":false,"type":0}}"#,
        r#"{"sub_refresh":{"channel":"a","type":0,"token":"t"}}"#,
    ] {
        assert!(!unavailable(text), "{text}");
    }
    // Subscribe with an empty filter (field 13).
    let payload = hex("04 2a02 6a00");
    let command = Commands::new(Encoding::Protobuf, &payload).next().unwrap();
    let Method::Subscribe(subscribe) = command.unwrap().method else {
        panic!();
    };
    assert!(subscribe.is_unavailable());
}

#[test]
fn protobuf_map_entries_may_come_in_any_order_and_without_parts() {
    // Connect with subs: {value {recover}, key "a"}, {key "b"}, {value {}}.
    let payload = hex("16 0801 2212 1a07 1202 1801 0a0161 1a03 0a0162 1a02 1200");
    let command = Commands::new(Encoding::Protobuf, &payload).next().unwrap();
    let Method::Connect(connect) = command.unwrap().method else {
        panic!();
    };
    let found: Vec<_> = connect
        .subs
        .iter()
        .map(|sub| (&*sub.channel, sub.recover))
        .collect();
    assert_eq!(found, [("a", true), ("b", false), ("", false)]);
}

#[test]
fn nesting_is_limited_in_data() {
    let publish = |levels: usize| {
        format!(
            r#"{{"publish":{{"data":{}{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(json(&publish(64))[0].is_ok());
    assert_eq!(json(&publish(65)), [Err(DecodeError::TooDeep)]);
    assert_eq!(json(&publish(30_000)), [Err(DecodeError::TooDeep)]);
}
