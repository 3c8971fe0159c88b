//! From a publish received to the sends submitted, a shard in its steady state allocates nothing.
//!
//! A counting allocator watches two shards that are ticked by hand. Their reactor is scripted: it hands in the bytes that it
//! is given and takes every send whole.

use ringway::config::Config;
use ringway::hub::Keys;
use ringway::hub::links::Links;
use ringway::ids::{Now, ShardId, Token};
use ringway::limit::Handshakes;
use ringway::mailbox::{Waker, pair};
use ringway::protocol::centrifuge::{Encoding, client};
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::{write_masked_frame, write_upgrade_request};
use ringway::reactor::{BufferId, CloseHow, Event, Reactor, ReactorStats, Send, Short};
use ringway::shard::{Permits, Setup, Shard};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system allocator unchanged; only a counter is moved besides.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: as for the trait; what is returned is the system allocator's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as for the trait.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: as for the trait.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SLOTS: u32 = 256;

/// Hands in what it is given; takes every send whole.
struct Scripted {
    events: Vec<Event>,
    arrived: Vec<u8>,
    millis: u64,
    sent: u64,
    sends: u64,
}

impl Reactor for Scripted {
    fn slots(&self) -> u32 {
        SLOTS
    }

    fn now(&mut self) -> Now {
        Now {
            millis: self.millis,
            nanos: self.millis * 1_000_000,
            unix_millis: 1_700_000_000_000 + self.millis,
        }
    }

    fn poll(&mut self, _patience: Duration, events: &mut Vec<Event>) -> std::io::Result<()> {
        events.append(&mut self.events);
        Ok(())
    }

    fn buffer(&mut self, _buffer: BufferId, len: u32) -> &mut [u8] {
        &mut self.arrived[..len as usize]
    }

    fn recycle(&mut self, _buffer: BufferId) {}

    fn open(&mut self, _token: Token) {}

    fn flush(&mut self, sends: &[Send<'_>], _short: &mut Vec<Short>) {
        self.sends += sends.len() as u64;
        self.sent += sends.iter().map(|s| s.bytes.len() as u64).sum::<u64>();
    }

    fn wait_writable(&mut self, _token: Token) {}

    fn close(&mut self, _token: Token, _how: CloseHow) {}

    fn stop_accepting(&mut self) {}

    fn stats(&self) -> ReactorStats {
        ReactorStats::default()
    }
}

fn config(history: bool) -> Arc<Config> {
    let mut config = Config::for_tests();
    config.shards = 2;
    config.client.insecure = true;
    if history {
        let options = Arc::make_mut(&mut config.channels.namespaces[0].1);
        options.history_size = 10;
        options.history_ttl = Duration::from_secs(600);
    }
    Arc::new(config)
}

fn shards(config: &Arc<Config>) -> Vec<Shard<Scripted>> {
    let keys = Keys {
        hash: [1, 2],
        shards: 2,
    };
    let mut out: Vec<Vec<_>> = (0..3).map(|_| (0..3).map(|_| None).collect()).collect();
    let mut inn: Vec<Vec<_>> = (0..3).map(|_| (0..3).map(|_| None).collect()).collect();
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let (outbox, inbox) = pair(64, Waker::none());
            out[from][to] = Some(outbox);
            inn[to][from] = Some(inbox);
        }
    }
    (0..2u16)
        .zip(Permits::of_node(0, 2))
        .zip(Handshakes::of_node(0, Duration::ZERO, 2))
        .map(|((id, permits), handshakes)| {
            Shard::new(Setup {
                id: ShardId(id),
                config: config.clone(),
                reactor: Scripted {
                    events: Vec::new(),
                    arrived: vec![0; 4096],
                    millis: 1000,
                    sent: 0,
                    sends: 0,
                },
                links: Links::new(
                    ShardId(id),
                    std::mem::take(&mut out[id as usize]),
                    std::mem::take(&mut inn[id as usize]),
                ),
                sleeper: Waker::none().sleeper(),
                keys,
                permits,
                handshakes,
                sends_per_flush: ringway::reactor::FLUSH_MAX,
                check_nanos: 1,
                seed: 7,
                acceptor: None,
                epoch: "e".into(),
            })
        })
        .collect()
}

fn tick_all(shards: &mut [Shard<Scripted>]) {
    for _ in 0..6 {
        for shard in shards.iter_mut() {
            shard.tick().expect("the scripted reactor does not break");
        }
    }
}

fn receive(shard: &mut Shard<Scripted>, slot: u32, bytes: &[u8]) {
    let reactor = shard.reactor_mut();
    reactor.arrived[..bytes.len()].copy_from_slice(bytes);
    let token = Token {
        slot,
        generation: 1,
    };
    reactor.events.push(Event::Received {
        token,
        buffer: BufferId(0),
        len: bytes.len() as u32,
    });
}

fn command(encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut payload, mut frame) = (Vec::new(), Vec::new());
    write(&mut payload);
    let opcode = if encoding == Encoding::Json {
        Opcode::Text
    } else {
        Opcode::Binary
    };
    write_masked_frame(&mut frame, opcode, [1, 2, 3, 4], &payload);
    frame
}

fn steady_state_allocations(history: bool) -> u64 {
    let config = config(history);
    let mut shards = shards(&config);
    for shard in &mut shards {
        for slot in 0..100 {
            let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
            shard
                .reactor_mut()
                .events
                .push(Event::Accepted { slot, peer });
        }
    }
    tick_all(&mut shards);
    for shard in &mut shards {
        for slot in 0..100u32 {
            let encoding = Encoding::ALL[slot as usize % 2];
            let mut request = Vec::new();
            let target = if encoding == Encoding::Json {
                "/connection/websocket"
            } else {
                "/connection/websocket?format=protobuf"
            };
            write_upgrade_request(
                &mut request,
                target,
                "localhost",
                "dGhlIHNhbXBsZSBub25jZQ==",
                "",
            );
            receive(shard, slot, &request);
            shard.tick().expect("ticks");
            let hello = command(encoding, |out| {
                client::connect(out, encoding, 1, &client::Connect::default());
                client::subscribe(
                    out,
                    encoding,
                    2,
                    &client::Subscribe {
                        channel: "room",
                        ..Default::default()
                    },
                );
            });
            receive(shard, slot, &hello);
            shard.tick().expect("ticks");
        }
    }
    tick_all(&mut shards);
    let publish = command(Encoding::Json, |out| {
        client::publish(out, Encoding::Json, 3, "room", br#"{"text":"hello"}"#)
    });
    let round = |shards: &mut Vec<Shard<Scripted>>| {
        for shard in shards.iter_mut() {
            shard.reactor_mut().millis += 1;
        }
        for shard in shards.iter_mut() {
            receive(shard, 0, &publish);
        }
        tick_all(shards);
    };
    for _ in 0..2000 {
        round(&mut shards);
    }
    let (allocations, sends) = (
        ALLOCATIONS.load(Ordering::Relaxed),
        shards[0].reactor().sends,
    );
    for _ in 0..1000 {
        round(&mut shards);
    }
    let delivered = shards[0].reactor().sends - sends;
    assert!(
        delivered >= 1000 * 100,
        "every member was sent to: {delivered}"
    );
    shards.iter().for_each(Shard::check_invariants);
    ALLOCATIONS.load(Ordering::Relaxed) - allocations
}

#[test]
fn publishing_allocates_nothing_in_the_steady_state_with_or_without_history() {
    // One test, because the counter is the process's.
    assert_eq!(steady_state_allocations(false), 0, "without history");
    assert_eq!(steady_state_allocations(true), 0, "with a full history");
}
