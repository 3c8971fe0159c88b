//! Every limit of `limits.*` and `client.*_limit`.

use crate::client::{Answer, Client, frame, place};
use crate::healthy::Healthy;
use crate::node::{DEADLINE, Node};
use ringway::protocol::centrifuge::Encoding::Json;
use ringway::protocol::centrifuge::client as wire;
use ringway::protocol::websocket::Opcode;
use std::net::Ipv4Addr;
use std::time::Instant;

crate::scenarios! {
    connections_of_an_address
    handshakes_of_an_address
    handshakes_of_the_node
    connections_of_the_node
    connections_of_a_user
    channels_of_a_connection
    size_of_a_message
    commands_of_a_connection
    publications_of_a_connection
    bytes_of_a_connection
    websocket_pings_of_a_connection
    commands_publications_and_bytes_of_a_user
    a_dry_run_of_all
}

/// Memory that none of these may need.
const MEBIBYTES: u64 = 32;

fn assert_busy(answer: &Answer) {
    assert_eq!(answer.status, 503);
    let seconds = answer.retry_after.expect("Retry-After");
    assert!((1..=5).contains(&seconds), "{seconds}");
}

/// Tries until it is let in again.
fn assert_let_in(from: Ipv4Addr, node: &Node) -> Client {
    let start = Instant::now();
    loop {
        let mut client = Client::silent(from, node);
        match client.upgrade() {
            Answer { status: 101, .. } => return client,
            answer => assert_busy(&answer),
        }
        assert!(start.elapsed() < DEADLINE, "never let in again");
    }
}

fn connections_of_an_address(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__ADDRESS__CONNECTIONS", "5"),
        ("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "0"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    // Who says nothing counts, too.
    let mut five: Vec<_> = (0..4).map(|_| Client::upgraded(place(2), &node)).collect();
    let silent = Client::silent(place(2), &node);
    node.until("all are there", |node| {
        node.metric("ringway_connections_opened_total", &[]) == 6
    });
    assert_busy(&Client::silent(place(2), &node).upgrade());
    // Who is refused and says nothing is told all the same, and does not stay.
    let mut mute = Client::silent(place(2), &node);
    assert_busy(&mute.answer().expect("an answer"));
    assert_eq!(node.hits("limits.address.connections", "refused"), 2);
    drop(Client::upgraded(place(3), &node));
    five.pop();
    let _back = assert_let_in(place(2), &node);
    drop((five, silent));
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn handshakes_of_an_address(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "1"),
        ("RINGWAY_LIMITS__BURST", "20s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let start = Instant::now();
    for _ in 0..20 {
        Client::upgraded(place(2), &node);
    }
    let (mut admitted, mut refused, mut dropped) = (20, 0, 0);
    while dropped < 20 {
        let mut client = Client::silent(place(2), &node);
        client.write(&Client::request());
        match client.answer() {
            None => dropped += 1,
            Some(Answer { status: 101, .. }) => admitted += 1,
            Some(answer) => {
                assert_busy(&answer);
                refused += 1;
            }
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{refused} refused, {dropped} dropped"
        );
    }
    let most = 21 + start.elapsed().as_secs();
    assert!(admitted <= most, "{admitted} of {most} admitted");
    assert!(refused >= 100, "{refused} refused");
    assert_eq!(node.hits("limits.address.handshakes", "refused"), refused);
    assert!(node.hits("limits.address.handshakes", "closed") >= dropped);
    drop(Client::upgraded(place(3), &node));
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn handshakes_of_the_node(reactor: &str) {
    let settings = [
        ("RINGWAY_CLIENT__CONNECTION_RATE_LIMIT", "1"),
        ("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "0"),
        ("RINGWAY_LIMITS__BURST", "20s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let start = Instant::now();
    let healthy = Healthy::start(&node);
    for from in 1..20 {
        Client::upgraded(place(from), &node);
    }
    let (mut admitted, mut refused) = (20, 0);
    while refused < 20 {
        match Client::silent(place(20), &node).upgrade() {
            Answer { status: 101, .. } => admitted += 1,
            answer => {
                assert_busy(&answer);
                refused += 1;
            }
        }
    }
    let most = 22 + start.elapsed().as_secs();
    assert!(admitted <= most, "{admitted} of {most} admitted");
    assert_eq!(
        node.hits("client.connection_rate_limit", "refused"),
        refused
    );
    assert_let_in(place(20), &node);
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn connections_of_the_node(reactor: &str) {
    let node = Node::start(reactor, 0, &[("RINGWAY_CLIENT__CONNECTION_LIMIT", "5")]);
    let healthy = Healthy::start(&node);
    let mut four: Vec<_> = (0..4).map(|_| Client::upgraded(place(2), &node)).collect();
    assert_busy(&Client::silent(place(3), &node).upgrade());
    assert_eq!(node.metric("ringway_handshakes_total", &["503"]), 1);
    four.pop();
    let _back = assert_let_in(place(3), &node);
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn connections_of_a_user(reactor: &str) {
    let settings = [("RINGWAY_CLIENT__USER_CONNECTION_LIMIT", "2")];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let _two = [2, 3].map(|from| Client::connected(place(from), &node, "u"));
    let mut third = Client::upgraded(place(2), &node);
    assert_eq!(third.connect("u"), Err(3504));
    assert_eq!(node.hits("client.user_connection_limit", "refused"), 1);
    Client::connected(place(2), &node, "v");
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn channels_of_a_connection(reactor: &str) {
    let node = Node::start(reactor, 0, &[("RINGWAY_CLIENT__CHANNEL_LIMIT", "3")]);
    let healthy = Healthy::start(&node);
    let mut client = Client::connected(place(2), &node, "");
    for channel in ["a", "b", "c"] {
        assert_eq!(client.subscribe(channel), Ok(()));
    }
    assert_eq!(client.subscribe("d"), Err(106));
    assert_eq!(node.hits("client.channel_limit", "refused"), 1);
    assert_eq!(
        client.call(|out, id| wire::unsubscribe(out, Json, id, "a")),
        Ok(())
    );
    assert_eq!(client.subscribe("d"), Ok(()));
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn size_of_a_message(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let command = br#"{"id":77,"ping":{}}"#;
    let sized = |bytes: usize| {
        let mut message = command.to_vec();
        message.resize(bytes, b' ');
        frame(Opcode::Text, &message)
    };
    let mut within = Client::connected(place(2), &node, "");
    within.write(&sized(65_536));
    assert_eq!(within.reply(77), Ok(()));
    let mut beyond = Client::connected(place(2), &node, "");
    beyond.write(&sized(65_537));
    assert_eq!(beyond.close_code(), 1009);
    // The header is enough to know.
    let mut announced = Client::connected(place(2), &node, "");
    announced.write(&sized(65_537)[..8]);
    assert_eq!(announced.close_code(), 1009);
    assert_eq!(within.ping(), Ok(()));
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

/// What came of many commands at once.
struct Outcome {
    done: u64,
    refused: u64,
    closed: bool,
}

/// Sends commands, all at once, and reads what comes of them.
fn press(client: &mut Client, count: u32, mut write: impl FnMut(&mut Vec<u8>, u32)) -> Outcome {
    let ids: Vec<u32> = (0..count).map(|_| client.tell(&mut write)).collect();
    let mut outcome = Outcome {
        done: 0,
        refused: 0,
        closed: false,
    };
    for id in ids {
        match client.reply(id) {
            Ok(()) => outcome.done += 1,
            Err(111) => outcome.refused += 1,
            Err(3013) => {
                outcome.closed = true;
                break;
            }
            Err(code) => panic!("code {code}"),
        }
    }
    outcome
}

/// Of `at_once` and `per_second`: as many are done, not more; who goes on is closed.
fn assert_paced(
    node: &Node,
    limit: &str,
    (at_once, per_second): (u32, u64),
    write: impl Fn(&mut Vec<u8>, u32),
) {
    let mut client = Client::connected(place(2), node, "");
    let start = Instant::now();
    let within = press(&mut client, at_once, &write);
    assert_eq!((within.done, within.refused), (u64::from(at_once), 0));
    let beyond = press(&mut client, 400, &write);
    let most = per_second * (start.elapsed().as_secs() + 1);
    assert!(beyond.done <= most, "{} of {most} done", beyond.done);
    assert!(
        beyond.closed && beyond.refused >= 99,
        "{} refused",
        beyond.refused
    );
    assert!(node.hits(limit, "refused") >= beyond.refused);
    assert_eq!(node.hits(limit, "closed"), 1);
}

fn commands_of_a_connection(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__CONNECTION__COMMANDS", "10"),
        ("RINGWAY_LIMITS__BURST", "2s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    assert_paced(&node, "limits.connection.commands", (20, 10), |out, id| {
        wire::ping(out, Json, id);
    });
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn publications_of_a_connection(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__CONNECTION__PUBLICATIONS", "10"),
        ("RINGWAY_LIMITS__BURST", "2s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    assert_paced(
        &node,
        "limits.connection.publications",
        (20, 10),
        |out, id| {
            wire::publish(out, Json, id, "room", b"1");
        },
    );
    // Other commands are none.
    let mut other = Client::connected(place(3), &node, "");
    assert!((0..200).all(|_| other.ping() == Ok(())));
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn bytes_of_a_connection(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__CONNECTION__BYTES", "64KiB"),
        ("RINGWAY_LIMITS__BURST", "2s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let data = format!("\"{}\"", "x".repeat(60_000));
    let mut client = Client::connected(place(2), &node, "");
    assert_eq!(client.publish("room", &data), Ok(()));
    assert_eq!(client.publish("room", &data), Ok(()));
    let outcome = press(&mut client, 20, |out, id| {
        wire::publish(out, Json, id, "room", data.as_bytes());
    });
    assert!(outcome.closed);
    assert_eq!(node.hits("limits.connection.bytes", "closed"), 1);
    assert!(node.hits("limits.connection.bytes", "refused") >= outcome.refused);
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn websocket_pings_of_a_connection(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__CONNECTION__COMMANDS", "10"),
        ("RINGWAY_LIMITS__BURST", "2s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let ping = frame(Opcode::Ping, b"x");
    let mut client = Client::connected(place(2), &node, "");
    client.write(&ping.repeat(19));
    assert_eq!(client.ping(), Ok(()));
    client.write(&ping.repeat(400));
    assert_eq!(client.close_code(), 3013);
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn commands_publications_and_bytes_of_a_user(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__USER__COMMANDS", "100"),
        ("RINGWAY_LIMITS__USER__PUBLICATIONS", "20"),
        ("RINGWAY_LIMITS__USER__BYTES", "64KiB"),
        ("RINGWAY_LIMITS__BURST", "2s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let large = format!("\"{}\"", "x".repeat(60_000));
    // How many are tried, and how many of them by one connection at once; how many are done at least (three quarters of a
    // burst) and at most (a quarter more for the other shard), and in each second more.
    for (limit, tried, by_one, at_once, per_second, data) in [
        ("limits.user.commands", 800, 20, 150..=250, 100, None),
        ("limits.user.publications", 200, 5, 30..=50, 20, Some("1")),
        ("limits.user.bytes", 8, 1, 1..=3, 1, Some(&large[..])),
    ] {
        let user = format!("user of {limit}");
        let start = Instant::now();
        let mut several: Vec<_> = (2..8)
            .map(|from| Client::connected(place(from), &node, &user))
            .collect();
        let mut done = 0;
        for turn in 0..tried / by_one {
            let client = &mut several[turn as usize % 6];
            let outcome = press(client, by_one, |out, id| match data {
                None => wire::ping(out, Json, id),
                Some(data) => wire::publish(out, Json, id, "room", data.as_bytes()),
            });
            done += outcome.done;
        }
        let most = at_once.end() + per_second * (start.elapsed().as_secs() + 1);
        let is_fair = done >= *at_once.start() && done <= most;
        assert!(is_fair, "{limit}: {done} of {at_once:?} to {most}");
        let met = node.hits(limit, "refused") + node.hits(limit, "closed");
        assert!(met > 0, "{limit} was never met");
    }
    // Others are not measured by it.
    let mut other = Client::connected(place(9), &node, "other");
    assert!((0..40).all(|_| other.publish("room", "1") == Ok(())));
    healthy.stop();
    node.assert_small(MEBIBYTES);
}

fn a_dry_run_of_all(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__DRY_RUN", r#"["*"]"#),
        ("RINGWAY_LIMITS__BURST", "1s"),
        ("RINGWAY_CLIENT__CONNECTION_LIMIT", "1"),
        ("RINGWAY_CLIENT__CONNECTION_RATE_LIMIT", "1"),
        ("RINGWAY_CLIENT__USER_CONNECTION_LIMIT", "1"),
        ("RINGWAY_CLIENT__CHANNEL_LIMIT", "1"),
        ("RINGWAY_LIMITS__ADDRESS__CONNECTIONS", "1"),
        ("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "1"),
        ("RINGWAY_LIMITS__CONNECTION__COMMANDS", "1"),
        ("RINGWAY_LIMITS__CONNECTION__PUBLICATIONS", "1"),
        ("RINGWAY_LIMITS__CONNECTION__BYTES", "64KiB"),
        ("RINGWAY_LIMITS__USER__COMMANDS", "1"),
        ("RINGWAY_LIMITS__USER__PUBLICATIONS", "1"),
        ("RINGWAY_LIMITS__USER__BYTES", "64KiB"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let data = format!("\"{}\"", "x".repeat(60_000));
    let mut clients: Vec<_> = (0..5)
        .map(|_| Client::connected(place(2), &node, "u"))
        .collect();
    for client in &mut clients {
        for channel in ["a", "b", "c"] {
            assert_eq!(client.subscribe(channel), Ok(()));
            assert_eq!(client.publish("elsewhere", &data), Ok(()));
        }
    }
    for limit in ringway::limit::Limit::ALL {
        assert!(
            node.hits(limit.key(), "dry_run") > 0,
            "{} was never met",
            limit.key()
        );
    }
    assert_eq!(node.metric("ringway_limit_hits_total", &["refused"]), 0);
    assert_eq!(node.metric("ringway_limit_hits_total", &["closed"]), 0);
    drop(clients);
    // What was let in beyond a limit is counted right when it goes.
    node.until("all but one are gone", |node| node.connections() == 1);
    healthy.stop();
    node.assert_small(MEBIBYTES);
}
