//! Deadlines: of a request, a frame, a message; and those who say nothing at all.

use crate::client::{Answer, Client, fragment, frame, place};
use crate::healthy::Healthy;
use crate::node::{DEADLINE, Node};
use ringway::protocol::websocket::Opcode;
use std::io::Write;
use std::time::{Duration, Instant};

crate::scenarios! {
    slow_requests_and_none
    slow_frames_and_messages
    no_connect
    no_pong
}

/// Between two bytes of somebody slow.
const EVERY: Duration = Duration::from_millis(100);
/// What a request may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

const TIMED_OUT: Answer = Answer {
    status: 408,
    retry_after: None,
};

fn slow_requests_and_none(reactor: &str) {
    let node = Node::start(reactor, 0, &[]);
    let healthy = Healthy::start(&node);
    let request = Client::request();
    let start = Instant::now();
    let mut slow: Vec<_> = (0..200).map(|_| Client::silent(place(2), &node)).collect();
    let mut silent: Vec<_> = (0..100).map(|_| Client::silent(place(3), &node)).collect();
    let mut in_time = Client::silent(place(4), &node);
    // More bytes than there is time for.
    let (first, mut rest) = request.split_at(request.len() / 2);
    in_time.write(first);
    for byte in request.iter().take(request.len() - 1) {
        for client in &mut slow {
            client.write(&[*byte]);
        }
        if !rest.is_empty() && start.elapsed() > HANDSHAKE / 3 {
            assert_eq!(node.connections(), 1);
            in_time.write(std::mem::take(&mut rest));
            assert_eq!(in_time.answer().expect("an answer").status, 101);
            healthy.goes_on();
        }
        if start.elapsed() > HANDSHAKE {
            break;
        }
        std::thread::sleep(EVERY);
    }
    for client in slow.iter_mut().chain(&mut silent) {
        assert_eq!(client.answer(), Some(TIMED_OUT));
    }
    assert!(start.elapsed() >= HANDSHAKE);
    assert_eq!(node.metric("ringway_handshakes_total", &["408"]), 300);
    healthy.stop();
    node.assert_small(16);
}

fn slow_frames_and_messages(reactor: &str) {
    let settings = [("RINGWAY_CLIENT__STALL_TIMEOUT", "2s")];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    // A frame that is never whole; and a message of which each fragment is, with a pong between them.
    let mut in_frames = Client::connected(place(2), &node, "");
    let mut in_messages = Client::connected(place(2), &node, "");
    let start = Instant::now();
    in_frames.write(&frame(Opcode::Text, &[b' '; 60_000])[..8]);
    in_messages.write(&fragment(Opcode::Text, false, b" "));
    let mut piece = fragment(Opcode::Continuation, false, b" ");
    piece.extend(frame(Opcode::Pong, b""));
    // A command that takes a second, and then another one.
    let mut in_time = Client::connected(place(3), &node, "");
    std::thread::scope(|scope| {
        let drip = |client: &Client, bytes: &[u8]| {
            let (mut socket, bytes) = (client.socket.try_clone().unwrap(), bytes.to_owned());
            scope.spawn(move || {
                // Until the gateway has had enough.
                while socket.write_all(&bytes).is_ok() {
                    assert!(start.elapsed() < DEADLINE, "it may go on for ever");
                    std::thread::sleep(EVERY);
                }
            });
        };
        drip(&in_frames, b" ");
        drip(&in_messages, &piece);
        for id in [2, 3] {
            let command = format!(r#"{{"id":{id},"ping":{{}}}}"#);
            let whole = frame(Opcode::Text, command.as_bytes());
            for piece in whole.chunks(3) {
                in_time.write(piece);
                std::thread::sleep(EVERY);
            }
            assert_eq!(in_time.reply(id), Ok(()));
        }
        assert_eq!(in_frames.close_code(), 3008);
        assert_eq!(in_messages.close_code(), 3008);
        // The shard's clock is cut to milliseconds.
        assert!(start.elapsed() >= Duration::from_millis(1990));
    });
    assert_eq!(in_time.ping(), Ok(()));
    healthy.stop();
    node.assert_small(16);
}

fn no_connect(reactor: &str) {
    let settings = [("RINGWAY_CLIENT__STALE_CLOSE_DELAY", "5s")];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let start = Instant::now();
    let mut silent: Vec<_> = (0..90).map(|_| Client::upgraded(place(2), &node)).collect();
    // A connect that is never whole is none, and neither are pings.
    let mut busy = Client::upgraded(place(3), &node);
    busy.write(&frame(Opcode::Ping, b""));
    busy.write(&fragment(Opcode::Text, false, br#"{"id":1,"#));
    let mut in_time = Client::upgraded(place(4), &node);
    healthy.goes_on();
    assert_eq!(in_time.connect(""), Ok(()));
    for client in silent.iter_mut().chain([&mut busy]) {
        assert_eq!(client.close_code(), 3502);
    }
    assert!(start.elapsed() >= Duration::from_millis(4990));
    assert_eq!(in_time.ping(), Ok(()));
    healthy.stop();
    node.assert_small(16);
}

fn no_pong(reactor: &str) {
    let settings = [
        ("RINGWAY_CLIENT__PING_INTERVAL", "4s"),
        ("RINGWAY_CLIENT__PONG_TIMEOUT", "3s"),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let mut mute: Vec<_> = (0..50)
        .map(|_| Client::connected(place(2), &node, ""))
        .collect();
    let mut in_time = Client::connected(place(3), &node, "");
    std::thread::scope(|scope| {
        scope.spawn(|| in_time.until_pinged(3));
        for client in &mut mute {
            client.answers_pings = false;
            assert_eq!(client.close_code(), 3012);
        }
    });
    assert_eq!(in_time.ping(), Ok(()));
    healthy.stop();
    node.assert_small(16);
}
