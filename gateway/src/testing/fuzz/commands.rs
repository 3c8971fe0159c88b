//! Commands, in JSON and in Protobuf, and publications in their neutral form.

use crate::protocol::centrifuge::client::{
    self, ClientPush, Connect, Position, Replies, ReplyKind,
};
use crate::protocol::centrifuge::publication::{PublicationView, publication_json};
use crate::protocol::centrifuge::{
    Command, Commands, DecodeError, Encoding, Method, SubscribeRequest, json as json_text,
    push_publication,
};
use crate::protocol::websocket::frame_header_len;

/// The bytes are a payload of a text frame.
pub fn json(bytes: &[u8]) {
    commands(Encoding::Json, bytes);
    let other = std::str::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    let opening = bytes
        .iter()
        .filter(|byte| matches!(byte, b'[' | b'{'))
        .count();
    let ours = json_text::is_valid(bytes);
    assert!(ours == other || (other && opening > json_text::DEPTH_MAX as usize));
}

/// The bytes are a payload of a binary frame, or a publication.
pub fn protobuf(bytes: &[u8]) {
    commands(Encoding::Protobuf, bytes);
    publication(bytes);
}

fn commands(encoding: Encoding, bytes: &[u8]) {
    let read = |bytes| Commands::new(encoding, bytes).collect::<Vec<_>>();
    let all = read(bytes);
    assert!(!all.is_empty(), "an error at least");
    // What a command leaves is a payload of its own.
    let mut walk = Commands::new(encoding, bytes);
    for at in 0..all.len() {
        let rest = walk.rest();
        match walk.next() {
            Some(Ok(_)) => assert_eq!(drop_places(read(rest)), drop_places(all[at..].to_vec())),
            Some(Err(_)) => assert_eq!(at, all.len() - 1, "the first error is the last word"),
            None => panic!("there were {} before", all.len()),
        }
    }
    assert!(walk.next().is_none());
    let good: Vec<&Command<'_>> = all.iter().flatten().collect();
    if encoding == Encoding::Json {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
        // Both stop at what they cannot read.
        for (value, command) in values.map_while(Result::ok).zip(&good) {
            assert_eq!(value["id"].as_u64().unwrap_or(0), u64::from(command.id));
        }
    }
    for command in good {
        reads_the_same_when_written(encoding, command);
    }
    // A server's words are read by the same code.
    assert!(Replies::new(encoding, bytes).next().is_some());
}

/// An error says where it is, and that is counted from the payload's start.
fn drop_places<'a>(
    commands: Vec<Result<Command<'a>, DecodeError>>,
) -> Vec<Result<Command<'a>, DecodeError>> {
    let placeless = |error| match error {
        DecodeError::Json { .. } => DecodeError::Json { at: 0 },
        other => other,
    };
    commands
        .into_iter()
        .map(|it| it.map_err(placeless))
        .collect()
}

fn reads_the_same_when_written(encoding: Encoding, command: &Command<'_>) {
    let mut out = Vec::new();
    if !write(&mut out, encoding, command) {
        return;
    }
    let again: Vec<_> = Commands::new(encoding, &out).collect();
    assert_eq!(again.len(), 1, "{command:?}");
    let again = again[0].as_ref().expect("what was written");
    let mut twice = Vec::new();
    assert!(write(&mut twice, encoding, again));
    assert_eq!(out, twice, "{command:?} against {again:?}");
    // Line breaks inside of a value become spaces, and what is at its default is left out: so not the commands are held
    // against each other but what is written of them, and of the original what no rewriting can change.
    assert_eq!(
        (again.id, again.method.token()),
        (command.id, command.method.token())
    );
    assert_eq!(
        std::mem::discriminant(&again.method),
        std::mem::discriminant(&command.method)
    );
}

/// Appends a command as a client would. `false`: no client of ours says that.
fn write(out: &mut Vec<u8>, encoding: Encoding, command: &Command<'_>) -> bool {
    let id = command.id;
    // A client leaves data out rather than send what is no JSON.
    match &command.method {
        Method::Pong => client::pong(out, encoding),
        Method::Connect(request) => {
            let subs: Vec<_> = request
                .subs
                .iter()
                .map(|sub| {
                    (
                        &*sub.channel,
                        Position {
                            offset: sub.offset,
                            epoch: &sub.epoch,
                        },
                    )
                })
                .collect();
            let connect = Connect {
                token: &request.token,
                data: request.data,
                name: &request.name,
                version: &request.version,
                subs: &subs,
            };
            client::connect(out, encoding, id, &connect);
        }
        Method::Subscribe(request) => subscribe(out, encoding, id, request),
        Method::Unsubscribe(request) => client::unsubscribe(out, encoding, id, &request.channel),
        Method::Publish(request) => {
            client::publish(out, encoding, id, &request.channel, request.data);
        }
        Method::Presence(request) => client::presence(out, encoding, id, &request.channel),
        Method::PresenceStats(request) => {
            client::presence_stats(out, encoding, id, &request.channel);
        }
        Method::History(request) => {
            let since = request.since.as_ref();
            let history = client::History {
                channel: &request.channel,
                limit: request.limit,
                since: since.map(|at| Position {
                    offset: at.offset,
                    epoch: &at.epoch,
                }),
                reverse: request.reverse,
            };
            client::history(out, encoding, id, &history);
        }
        Method::Ping => client::ping(out, encoding, id),
        Method::Send { data } if id == 0 => client::send(out, encoding, data),
        Method::Rpc { method, data } => client::rpc(out, encoding, id, method, data),
        Method::Refresh { token } => client::refresh(out, encoding, id, token),
        Method::SubRefresh(request) => {
            client::sub_refresh(out, encoding, id, &request.channel, &request.token);
        }
        Method::Send { .. } | Method::Unknown => return false,
    }
    true
}

fn subscribe(out: &mut Vec<u8>, encoding: Encoding, id: u32, request: &SubscribeRequest<'_>) {
    let position = Position {
        offset: request.offset,
        epoch: &request.epoch,
    };
    let subscribe = client::Subscribe {
        channel: &request.channel,
        token: &request.token,
        recover: request.recover.then_some(position),
        data: request.data,
        positioned: request.positioned,
        recoverable: request.recoverable,
        join_leave: request.join_leave,
    };
    client::subscribe(out, encoding, id, &subscribe);
}

/// A publication in its neutral form is pushed as it is in both encodings, or, in JSON, not at all.
fn publication(canonical: &[u8]) {
    let view = PublicationView::parse(canonical);
    let mut text = Vec::new();
    if publication_json(&mut text, canonical).is_ok() {
        assert!(
            json_text::is_valid(&text),
            "{}",
            String::from_utf8_lossy(&text)
        );
        assert!(!text.contains(&b'\n'), "a line break would end it");
    }
    for encoding in Encoding::ALL {
        let mut out = Vec::new();
        let pushed = push_publication(&mut out, encoding, "a\"b", canonical, None, false);
        let Ok(view) = &view else { continue };
        if pushed.is_err() {
            assert_eq!(encoding, Encoding::Json, "Protobuf takes any bytes");
            assert!(out.is_empty() && !json_text::is_valid(view.data()));
            continue;
        }
        let payload = &out[frame_header_len(&out).expect("a frame")..];
        let reply = Replies::new(encoding, payload)
            .next()
            .expect("a reply")
            .expect("a good one");
        let ReplyKind::Push {
            channel,
            push: ClientPush::Publication(read),
        } = reply.kind
        else {
            panic!("{:?}", reply.kind);
        };
        assert_eq!(
            (&*channel, &*read.key, read.offset),
            ("a\"b", view.key(), view.offset())
        );
        assert_eq!(read.time, view.time());
        let tags: Vec<_> = read
            .tags
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        assert_eq!(tags, view.tags().collect::<Vec<_>>());
        let broken = |byte: &u8| matches!(byte, b'\n' | b'\r') && encoding == Encoding::Json;
        let spaced = view
            .data()
            .iter()
            .map(|byte| if broken(byte) { b' ' } else { *byte });
        assert_eq!(
            read.data.trim_ascii(),
            spaced.collect::<Vec<_>>().trim_ascii()
        );
    }
}
