//! Memory that strangers would spend: what little bytes become, and budgets that are used up.

use crate::client::{Client, deflated, messages, place};
use crate::healthy::Healthy;
use crate::node::Node;
use ringway::protocol::centrifuge::Encoding::Json;
use ringway::protocol::centrifuge::client as wire;

crate::scenarios! {
    compression_bombs
    histories_beyond_their_budget
    logs_beyond_their_budget
}

/// A command with spaces behind it, compressed.
fn padded(bytes: usize) -> Vec<u8> {
    let mut message = br#"{"id":77,"ping":{}}"#.to_vec();
    message.resize(bytes, b' ');
    deflated(&message)
}

fn compression_bombs(reactor: &str) {
    let settings = [
        ("RINGWAY_LIMITS__ADDRESS__HANDSHAKES", "0"),
        (
            "RINGWAY_CHANNEL__NAMESPACES",
            r#"[{"name": "squeezed", "compress": true}]"#,
        ),
    ];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let mut within = Client::deflating(place(3), &node);
    // However far it shrinks, so much is no bomb.
    within.write(&padded(16 << 10));
    assert_eq!(within.reply(77), Ok(()));
    // Within the size of a message, but grown more than 200-fold; and one that would be 15 MiB.
    for bomb in [padded(60_000), padded(15 << 20)] {
        let mut bombers: Vec<_> = (0..200)
            .map(|_| Client::deflating(place(2), &node))
            .collect();
        for bomber in &mut bombers {
            bomber.write(&bomb);
        }
        for bomber in &mut bombers {
            assert_eq!(bomber.close_code(), 1009);
        }
        healthy.goes_on();
        node.assert_small(32);
    }
    within.write(&padded(16 << 10));
    assert_eq!(within.reply(77), Ok(()));
    healthy.stop();
}

/// Publishes a thousand bytes so many times, a hundred at a time, and waits until that is done.
fn fill(client: &mut Client, channel: &str, hundreds: u32) {
    let data = format!("\"{}\"", "x".repeat(998));
    let hundred = messages(100, |out, id| {
        wire::publish(out, Json, id, channel, data.as_bytes());
    });
    for _ in 0..hundreds {
        client.write(&hundred);
        assert_eq!(client.reply(1099), Ok(()));
    }
}

fn histories_beyond_their_budget(reactor: &str) {
    let settings = [("RINGWAY_LIMITS__HISTORY_BYTES", "8MiB")];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let mut client = Client::connected(place(2), &node, "");
    let held = |node: &Node| node.metric("ringway_history_bytes", &[]);
    for channel in 0..10 {
        fill(&mut client, &format!("kept:first{channel}"), 1);
    }
    assert!(held(&node) >= 1_000_000, "{} are held", held(&node));
    for channel in 0..64 {
        fill(&mut client, &format!("kept:{channel}"), 10);
    }
    // 64 MB have come.
    let (least, most) = (4 << 20, 8 << 20);
    assert!((least..=most).contains(&held(&node)), "{}", held(&node));
    healthy.goes_on();
    node.assert_small(32);
    healthy.stop();
}

fn logs_beyond_their_budget(reactor: &str) {
    let settings = [("RINGWAY_LIMITS__LOG_BYTES", "1MiB")];
    let node = Node::start(reactor, 0, &settings);
    let healthy = Healthy::start(&node);
    let mut publisher = Client::connected(place(2), &node, "");
    let mut deaf: Vec<_> = (0..64)
        .map(|room| {
            let mut client = Client::with_window(place(3), &node, Some(4096));
            assert_eq!(client.upgrade().status, 101);
            assert_eq!(client.connect(""), Ok(()));
            assert_eq!(client.subscribe(&format!("room{room}")), Ok(()));
            client
        })
        .collect();
    let held = |node: &Node| node.metric("ringway_log_bytes", &[]);
    let lost = |node: &Node| node.metric("ringway_policy_hits_total", &["disconnect"]);
    fill(&mut publisher, "room0", 4);
    node.until("it waits for one", |node| held(node) > 0);
    assert_eq!(lost(&node), 0);
    // 256 kB would wait for each.
    for room in 1..64 {
        fill(&mut publisher, &format!("room{room}"), 4);
    }
    node.until("who lags most is given up", |node| lost(node) > 0);
    node.until("the budget is kept", |node| held(node) <= 2 << 20);
    // Whose publications went first.
    assert_eq!(deaf[0].close_code(), 3008);
    healthy.goes_on();
    node.assert_small(32);
    healthy.stop();
}
