//! Much of everything, with no limit on clients set: what is always bounded has to hold.

use crate::client::{Answer, Client, fragment, frame, messages, place};
use crate::healthy::Healthy;
use crate::node::Node;
use ringway::protocol::centrifuge::Encoding::Json;
use ringway::protocol::centrifuge::client::{self as wire, History};
use ringway::protocol::websocket::Opcode;
use std::time::Duration;

crate::scenarios! {
    websocket_pings
    fragments
    subscriptions
    histories
    remote_calls
    joins_and_leaves
    deep_json
    a_thousand_that_never_read
    a_full_table
}

/// How long the gateway may take nothing before a flooder gives up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Several write a flood and read nothing of what comes of it, until the gateway has had enough of each.
fn flood(node: &Node, healthy: &Healthy, flood: &[u8], mebibytes: u64) {
    let mut flooders: Vec<_> = (0..8)
        .map(|_| Client::with_window(place(2), node, Some(4096)))
        .collect();
    for flooder in &mut flooders {
        assert_eq!(flooder.upgrade().status, 101);
        assert_eq!(flooder.connect(""), Ok(()));
    }
    for flooder in &mut flooders {
        // 16 MiB at least, or until it is closed or not read any more.
        for _ in 0..(16 << 20) / flood.len() + 1 {
            if !flooder.press(flood, PATIENCE) {
                break;
            }
        }
    }
    healthy.goes_on();
    node.assert_small(mebibytes);
}

fn websocket_pings(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let pings = frame(Opcode::Ping, &[b'x'; 125]).repeat(500);
    // Who reads the pongs may go on.
    let mut reader = Client::connected(place(3), &node, "");
    for _ in 0..20 {
        reader.write(&pings);
        assert_eq!(reader.ping(), Ok(()));
    }
    flood(&node, &healthy, &pings, 32);
    assert_eq!(reader.ping(), Ok(()));
    healthy.stop();
}

fn fragments(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let message = |fragments: usize| {
        let command = br#"{"id":77,"ping":{}}"#;
        let mut out = fragment(Opcode::Text, false, b"");
        out.extend(fragment(Opcode::Continuation, false, b"").repeat(fragments - 2));
        out.extend(fragment(Opcode::Continuation, true, command));
        out
    };
    let mut within = Client::connected(place(3), &node, "");
    for _ in 0..20 {
        within.write(&message(1024));
        assert_eq!(within.reply(77), Ok(()));
    }
    let mut beyond = Client::connected(place(3), &node, "");
    beyond.write(&message(1025));
    assert_eq!(beyond.close_code(), 1009);
    // Many hold a message that is nearly whole.
    let nearly = fragment(Opcode::Text, false, &[b' '; 65_000]);
    let mut holders: Vec<_> = (0..200)
        .map(|_| Client::connected(place(2), &node, ""))
        .collect();
    for holder in &mut holders {
        holder.write(&nearly);
    }
    healthy.goes_on();
    node.assert_small(48);
    drop(holders);
    flood(&node, &healthy, &message(1024), 48);
    healthy.stop();
}

fn subscriptions(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let mut client = Client::connected(place(3), &node, "");
    for channel in 0..128 {
        assert_eq!(client.subscribe(&format!("c{channel}")), Ok(()));
    }
    assert_eq!(client.subscribe("c128"), Err(106));
    let on_and_off = messages(2000, |out, id| {
        let channel = format!("flood{}", id / 2);
        match id % 2 {
            0 => {
                let request = wire::Subscribe {
                    channel: &channel,
                    ..wire::Subscribe::default()
                };
                wire::subscribe(out, Json, id, &request);
            }
            _ => wire::unsubscribe(out, Json, id, &channel),
        }
    });
    flood(&node, &healthy, &on_and_off, 96);
    assert_eq!(client.ping(), Ok(()));
    healthy.stop();
}

fn histories(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let mut client = Client::connected(place(3), &node, "");
    let data = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..1000 {
        assert_eq!(client.publish("kept:room", &data), Ok(()));
    }
    let ask = |out: &mut Vec<u8>, id| {
        let request = History {
            channel: "kept:room",
            limit: -1,
            ..History::default()
        };
        wire::history(out, Json, id, &request);
    };
    for _ in 0..20 {
        assert_eq!(client.call(ask), Ok(()));
    }
    flood(&node, &healthy, &messages(2000, ask), 128);
    assert_eq!(client.call(ask), Ok(()));
    healthy.stop();
}

fn remote_calls(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let call = |out: &mut Vec<u8>, id| wire::rpc(out, Json, id, "nothing", b"{}");
    let mut reader = Client::connected(place(3), &node, "");
    for _ in 0..500 {
        assert_eq!(reader.call(call), Err(104));
    }
    flood(&node, &healthy, &messages(2000, call), 48);
    assert_eq!(reader.call(call), Err(104));
    healthy.stop();
}

fn joins_and_leaves(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let mut member = Client::connected(place(3), &node, "");
    assert_eq!(member.subscribe("social:room"), Ok(()));
    let mut deaf: Vec<_> = (0..100)
        .map(|_| Client::with_window(place(4), &node, Some(4096)))
        .collect();
    for client in &mut deaf {
        assert_eq!(client.upgrade().status, 101);
        assert_eq!(client.connect(""), Ok(()));
        assert_eq!(client.subscribe("social:room"), Ok(()));
    }
    // Its own and theirs.
    member.until_pushed(101);
    let in_and_out = messages(2000, |out, id| match id % 2 {
        0 => {
            let request = wire::Subscribe {
                channel: "social:room",
                ..wire::Subscribe::default()
            };
            wire::subscribe(out, Json, id, &request);
        }
        _ => wire::unsubscribe(out, Json, id, "social:room"),
    });
    let mut restless = Client::connected(place(2), &node, "");
    for _ in 0..10 {
        restless.write(&in_and_out);
        assert_eq!(restless.reply(2999), Ok(()));
        healthy.goes_on();
    }
    node.assert_small(64);
    member.until_pushed(101 + 1000);
    assert_eq!(member.ping(), Ok(()));
    healthy.stop();
}

fn deep_json(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let mut within = Client::connected(place(3), &node, "");
    assert_eq!(within.publish("room", &nested(64)), Ok(()));
    let object = format!("{}1{}", r#"{"a":"#.repeat(64), "}".repeat(64));
    assert_eq!(within.publish("room", &object), Ok(()));
    for deep in [
        format!(
            r#"{{"id":9,"publish":{{"channel":"room","data":{}}}}}"#,
            nested(65)
        ),
        format!(
            r#"{{"id":9,"publish":{{"channel":"room","data":{}}}}}"#,
            nested(30_000)
        ),
        format!(r#"{{"id":9,"unknown":{}}}"#, "[".repeat(60_000)),
        nested(32_000),
    ] {
        let mut client = Client::connected(place(2), &node, "");
        client.write(&frame(Opcode::Text, deep.as_bytes()));
        assert_eq!(client.close_code(), 3501);
    }
    assert_eq!(within.ping(), Ok(()));
    healthy.stop();
    node.assert_small(16);
}

fn a_thousand_that_never_read(reactor: &str) {
    let settings = [("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "0")];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let deaf: Vec<_> = (0..1000)
        .map(|_| {
            let mut client = Client::with_window(place(2), &node, Some(4096));
            assert_eq!(client.upgrade().status, 101);
            assert_eq!(client.connect(""), Ok(()));
            assert_eq!(client.subscribe("flood"), Ok(()));
            client
        })
        .collect();
    let mut reader = Client::connected(place(3), &node, "");
    assert_eq!(reader.subscribe("flood"), Ok(()));
    let data = format!("\"{}\"", "x".repeat(4000));
    for round in 1..=1000 {
        assert_eq!(reader.publish("flood", &data), Ok(()));
        reader.until_pushed(round);
    }
    assert!(node.metric("ringway_blocked_connections", &[]) > 0);
    healthy.goes_on();
    // The rest of a publication for each, and what a log may hold.
    node.assert_small(32);
    drop(deaf);
    healthy.stop();
}

fn a_full_table(reactor: &str) {
    full_table(&[], reactor);
}

/// Fills the table of a node that runs under another program.
pub fn full_table(wrapper: &[&str], reactor: &str) {
    // On epoll the two shards share the table, and other files are in it.
    let files = match reactor {
        "uring" => 200,
        _ => 2 * 200 + 256,
    };
    let settings = [
        ("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "0"),
        ("RINGWAY_LIMITS__ADDRESS__CONNECTIONS", "0"),
    ];
    let node = Node::start_under(wrapper, reactor, files, &settings, |_| {});
    let healthy = Healthy::start(&node);
    let (mut held, mut refused) = (Vec::new(), 0);
    while refused < 50 {
        let mut client = Client::silent(place(2), &node);
        match client.upgrade() {
            Answer { status: 101, .. } => held.push(client),
            Answer {
                status: 503,
                retry_after,
            } => {
                assert!(retry_after.is_some_and(|seconds| (1..=5).contains(&seconds)));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(node.connections() <= 2 * 136);
    assert!(held.len() > 136, "{} were let in", held.len());
    healthy.goes_on();
    // The places for refusals are taken, too, by those who say nothing: the rest waits outside.
    let silent: Vec<_> = (0..300).map(|_| Client::silent(place(3), &node)).collect();
    node.until("accepting pauses", |node| {
        node.metric("ringway_accepts_paused_total", &[]) > 0
    });
    healthy.goes_on();
    assert_eq!(held[0].connect(""), Ok(()));
    drop((held, silent));
    node.until("all are gone", |node| node.connections() == 1);
    assert_eq!(Client::silent(place(2), &node).upgrade().status, 101);
    healthy.stop();
    node.assert_small(16);
}
