//! The whole gateway under a crowd that comes and goes at random states, as a process on the real ring: nothing may be left
//! behind, and those who stay must not notice.
//!
//! `RINGWAY_SOAK` is how many connections come (default 10,000; a tenth of them on epoll), `RINGWAY_SEED` what they do,
//! `RINGWAY_BIN` the binary if not the one that cargo built. The same seed draws the same clients; what they meet depends on
//! time.

mod crowd;
mod node;
mod wire;
mod witness;

use crowd::{Crowd, connect_from};
use node::{ADMITTED, DEADLINE, HELD, Metrics, Node};
use ringway::testing::rng::Rng;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use wire::Tops;
use witness::Witnesses;

/// How much more memory the gateway may use at the end than it did before half of the crowd had come.
const GROWTH_MAX: u64 = 32 << 20;
/// So many take long enough for what is kept for a time to be given back as fast as it is taken: memory is level.
const LONG: u64 = 200_000;
/// From so many on, everything that is meant to happen has happened.
const ENOUGH: u64 = 100_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
    )
}

fn count() -> u64 {
    number("RINGWAY_SOAK").unwrap_or(10_000)
}

#[test]
fn a_crowd_leaves_nothing_behind_on_the_ring() {
    let probed = ringway::reactor::uring::probe().ring;
    if probed.is_err_and(|error| error.leaves_epoll()) {
        println!("skipped: io_uring is not to be had here");
        return;
    }
    soak("uring", count());
}

#[test]
fn a_crowd_leaves_nothing_behind_on_epoll() {
    soak("epoll", count() / 10);
}

/// Tells the seed when the test fails.
struct Told<'a>(&'a str, u64, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let Self(reactor, count, seed) = self;
        if std::thread::panicking() {
            eprintln!("failed on {reactor} with RINGWAY_SEED={seed} RINGWAY_SOAK={count}");
        }
    }
}

fn soak(reactor: &str, count: u64) {
    let seed = number("RINGWAY_SEED").unwrap_or(1);
    let _told = Told(reactor, count, seed);
    let start = Instant::now();
    let mut node = Node::start(reactor);
    let files = node.metrics().value("process_open_fds");
    let mut rng = Rng::new(seed);
    let tops = Arc::new(Tops::default());
    let witnesses = Witnesses::gather(&mut node, Arc::clone(&tops));
    let mut crowd = Crowd::new(node.clients, rng.fork(), tops);

    let stop = AtomicBool::new(false);
    let sightings = AtomicU64::new(0);
    let seen = std::thread::scope(|scope| {
        let staying = scope.spawn(|| witnesses.run(&stop, &sightings));
        // Whatever happens here, the witnesses end.
        let stops = Stops(&stop);
        let mut memory = Vec::new();
        while crowd.connected < count {
            crowd.step();
            if crowd.connected * 100 / count > memory.len() as u64 {
                assert!(!staying.is_finished(), "a witness found a fault");
                memory.push(node.metrics().value("process_resident_memory_bytes"));
            }
        }
        println!(
            "{reactor}, seed {seed}: {count} came in {:.1} s, up to {} at a time",
            start.elapsed().as_secs_f32(),
            crowd.tally.open_max
        );
        if count >= LONG {
            check_memory(&memory);
        }
        crowd.leave();
        drop(stops);
        staying
            .join()
            .unwrap_or_else(|fault| std::panic::resume_unwind(fault))
    });
    println!(
        "{seen} publications, seen by each witness in one order; {:?}",
        crowd.tally
    );
    let metrics = come_to_rest(&mut node, files);
    if count >= ENOUGH {
        check_reached(&metrics);
    }
    fill(&mut node, &mut rng);
    come_to_rest(&mut node, files);
    let clients = node.clients;
    let status = node.stop();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(
        TcpStream::connect(clients).is_err(),
        "the port is still open"
    );
    println!("{reactor}: {:.1} s", start.elapsed().as_secs_f32());
}

/// Sets the flag at the end of its life.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The most that the last quarter needed is not much more than what the second quarter did.
fn check_memory(samples: &[u64]) {
    let quarter = samples.len() / 4;
    let most = |from: usize| samples[from..from + quarter].iter().max().copied();
    let (Some(half), Some(end)) = (most(quarter), most(samples.len() - quarter)) else {
        panic!("too few connections to tell memory's growth");
    };
    println!(
        "resident memory: {} KiB before the half, {} KiB at the end",
        half >> 10,
        end >> 10
    );
    assert!(end <= half + GROWTH_MAX, "memory grows: {samples:?}");
}

/// Waits until nothing is left: no connection, no channel, no byte that is kept, no socket, no file.
fn come_to_rest(node: &mut Node, files: u64) -> Metrics {
    const NONE_LEFT: [&str; 8] = [
        "ringway_connections",
        "ringway_blocked_connections",
        "ringway_subscriptions",
        "ringway_users",
        "ringway_attached_channels",
        "ringway_log_bytes",
        "ringway_channels",
        "ringway_history_bytes",
    ];
    node.until("nothing left", |node| {
        let metrics = node.metrics();
        NONE_LEFT.iter().all(|family| metrics.sum(family) == 0)
            && metrics.unfinished() == 0
            && metrics.value("process_open_fds") == files
            && node.sockets() == 0
    });
    node.metrics()
}

/// Everything that the soak is about has happened: otherwise it proves nothing.
fn check_reached(metrics: &Metrics) {
    for series in [
        r#"ringway_connections_closed_total{code="0"}"#,
        r#"ringway_connections_closed_total{code="1000"}"#,
        r#"ringway_connections_closed_total{code="1002"}"#,
        r#"ringway_connections_closed_total{code="3008"}"#,
        r#"ringway_connections_closed_total{code="3012"}"#,
        r#"ringway_connections_closed_total{code="3502"}"#,
        r#"ringway_handshakes_total{result="101"}"#,
        r#"ringway_handshakes_total{result="400"}"#,
        r#"ringway_handshakes_total{result="408"}"#,
        r#"ringway_policy_hits_total{policy="disconnect"}"#,
        r#"ringway_policy_hits_total{policy="skip"}"#,
        r#"ringway_policy_hits_total{policy="latest"}"#,
        r#"ringway_resumes_total{result="recovered"}"#,
        r#"ringway_resumes_total{result="not_recovered"}"#,
    ] {
        let value = metrics.value(series);
        println!("  {series} {value}");
        assert!(value > 0, "{series} never happened");
    }
    for family in ["ringway_send_short_total", "ringway_frames_invalid_total"] {
        assert!(metrics.sum(family) > 0, "{family}: never happened");
    }
}

/// Every slot can be used again: as many connections are held as the tables have places, and of these as many are admitted
/// as ever.
fn fill(node: &mut Node, rng: &mut Rng) {
    let mut clients = Vec::new();
    let mut request = Vec::new();
    wire::upgrade(&mut request, ringway::protocol::centrifuge::Encoding::Json);
    let start = Instant::now();
    while node.metrics().unfinished() < HELD {
        assert!(
            start.elapsed() < DEADLINE && clients.len() < 2 * HELD as usize,
            "{} connections are held of {} that came",
            node.metrics().unfinished(),
            clients.len()
        );
        let missing = HELD.saturating_sub(clients.len() as u64).max(50);
        for _ in 0..missing {
            let mut client = connect_from(Ipv4Addr::LOCALHOST, node.clients, None);
            // Who says nothing is not accepted at once.
            client.write_all(&request[..1]).unwrap();
            clients.push(client);
        }
    }
    for client in &mut clients {
        client.write_all(&request[1..]).unwrap();
    }
    let mut statuses = [0, 0];
    for client in &mut clients {
        match status(client) {
            101 => statuses[0] += 1,
            503 => statuses[1] += 1,
            other => panic!("answered with status {other}"),
        }
    }
    println!("full: {} admitted, {} refused", statuses[0], statuses[1]);
    // More when some have been closed for being slow to say who they are, before the others had their turn.
    assert!(statuses[0] >= ADMITTED);
    while !clients.is_empty() {
        let client = clients.swap_remove(rng.index(clients.len()));
        if rng.chance(500) {
            let at_once = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&client).set_linger(at_once).unwrap();
        }
    }
}

/// The status of an answer; one that the server has no place for yet waits for it.
fn status(client: &mut TcpStream) -> u16 {
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut line = [0; 12];
    loop {
        match client.read_exact(&mut line) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read.expect("an answer"),
        }
    }
    let text = std::str::from_utf8(&line[9..]).expect("a status line");
    text.parse().expect("a status line")
}
