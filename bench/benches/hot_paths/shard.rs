//! A whole shard between bytes received and sends submitted, ticked by hand. Its reactor is scripted: it hands in what it is
//! given and takes every send whole; its clock stands still.

use super::work::Work;
use ringway::config::check::check;
use ringway::config::raw::Raw;
use ringway::config::source::Origins;
use ringway::config::{Config, Machine, Modes};
use ringway::hub::Keys;
use ringway::hub::links::Links;
use ringway::hub::message::Message;
use ringway::ids::{Now, ShardId, Token};
use ringway::limit::Handshakes;
use ringway::mailbox::{Inbox, Outbox, Waker, pair};
use ringway::protocol::centrifuge::client::{ClientPush, ReplyKind};
use ringway::protocol::centrifuge::{Encoding, client};
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::{
    ClientDecoder, write_masked_frame, write_upgrade_request,
};
use ringway::reactor::{
    BufferId, CloseHow, EndReason, Event, FLUSH_MAX, Reactor, ReactorStats, Send, Short,
};
use ringway::shard::{Footprint, Permits, Setup, Shard};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The gateway draws its keys.
pub const KEYS: Keys = Keys {
    hash: [1, 2],
    shards: 1,
};
const SLOTS: u32 = 1088;
pub const MEMBERS: u32 = 1000;
/// The one who publishes, and whose bytes are read.
pub const FIRST: u32 = 0;
/// As many who come, join, leave or go in one run.
const MOVERS: Range<u32> = FIRST..64;
const DATA: &[u8] = br#"{"id":1234567,"text":"The quick brown fox jumps over the lazy dog, and back again.","at":1764088000}"#;

/// The defaults, on one shard, and everybody may do everything.
pub fn config() -> Arc<Config> {
    configured(Raw::default())
}

/// The same but for what `raw` says.
pub fn configured(raw: Raw) -> Arc<Config> {
    let machine = Machine {
        host_name: "bench".into(),
        cores: vec![0],
        open_files: u64::from(SLOTS),
    };
    let checked = check(raw, &Origins::default(), Modes::default(), &machine);
    let mut config = checked.expect("a valid configuration");
    config.client.insecure = true;
    // All clients have one address.
    config.client_limits.address_handshakes = 0;
    Arc::new(config)
}

/// Those of the only shard.
pub fn links() -> Links {
    links_with_control().0
}

/// The same, and the control thread's ends.
pub fn links_with_control() -> (Links, Outbox<Message>, Inbox<Message>) {
    let (to_control, heard) = pair(64, Waker::none());
    let (said, from_control) = pair(64, Waker::none());
    let links = Links::new(
        ShardId(0),
        vec![None, Some(to_control)],
        vec![None, Some(from_control)],
    );
    (links, said, heard)
}

/// The reactor.
#[derive(Default)]
pub struct Scripted {
    events: Vec<Event>,
    /// By [`BufferId`].
    buffers: Vec<Vec<u8>>,
    pub sends: u64,
    bytes: u64,
    /// What the first client was sent, while it is looked at.
    pub kept: Option<Vec<u8>>,
}

impl Reactor for Scripted {
    fn slots(&self) -> u32 {
        SLOTS
    }

    fn now(&mut self) -> Now {
        Now {
            millis: 1000,
            nanos: 1_000_000_000,
            unix_millis: 1_700_000_000_000,
        }
    }

    fn poll(&mut self, _: Duration, events: &mut Vec<Event>) -> std::io::Result<()> {
        events.append(&mut self.events);
        Ok(())
    }

    fn buffer(&mut self, buffer: BufferId, len: u32) -> &mut [u8] {
        &mut self.buffers[usize::from(buffer.0)][..len as usize]
    }

    fn recycle(&mut self, _: BufferId) {}

    fn open(&mut self, _: Token) {}

    fn flush(&mut self, sends: &[Send<'_>], _: &mut Vec<Short>) {
        self.sends += sends.len() as u64;
        self.bytes += sends
            .iter()
            .map(|send| send.bytes.len() as u64)
            .sum::<u64>();
        if let Some(kept) = &mut self.kept {
            let sent = sends.iter().filter(|send| send.slot == FIRST);
            sent.for_each(|send| kept.extend_from_slice(send.bytes));
        }
    }

    fn wait_writable(&mut self, _: Token) {}

    fn close(&mut self, token: Token, _: CloseHow) {
        self.events.push(Event::Closed { slot: token.slot });
    }

    fn stop_accepting(&mut self) {}

    fn stats(&self) -> ReactorStats {
        ReactorStats::default()
    }
}

/// What a client sends, as one masked frame.
fn frame(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut payload, mut frame) = (Vec::new(), Vec::new());
    write(&mut payload);
    write_masked_frame(&mut frame, Opcode::Text, [1, 2, 3, 4], &payload);
    frame
}

/// With more header lines.
fn upgrade(more_lines: &str) -> Vec<u8> {
    let mut request = Vec::new();
    write_upgrade_request(
        &mut request,
        "/connection/websocket",
        "localhost",
        "dGhlIHNhbXBsZSBub25jZQ==",
        more_lines,
    );
    request
}

fn connect() -> Vec<u8> {
    frame(|out| client::connect(out, Encoding::Json, 1, &client::Connect::default()))
}

pub fn subscribe() -> Vec<u8> {
    let request = client::Subscribe {
        channel: "room",
        ..client::Subscribe::default()
    };
    frame(|out| client::subscribe(out, Encoding::Json, 2, &request))
}

fn unsubscribe() -> Vec<u8> {
    frame(|out| client::unsubscribe(out, Encoding::Json, 3, "room"))
}

/// What happens to some connections at once, before `ticks` ticks.
pub struct Step {
    slots: Range<u32>,
    act: Act,
    ticks: u32,
}

pub enum Act {
    Accept,
    Receive(Vec<u8>),
    End,
}

/// Enough to send something to everybody, a flush a tick.
const TICKS: u32 = MEMBERS / FLUSH_MAX as u32 + 2;

pub fn step(slots: Range<u32>, act: Act) -> Step {
    let ticks = TICKS;
    Step { slots, act, ticks }
}

/// Up to the connect.
fn arrival(slots: Range<u32>) -> Vec<Step> {
    arrival_with(slots, "")
}

/// The same, with more header lines in the upgrade.
pub fn arrival_with(slots: Range<u32>, more_lines: &str) -> Vec<Step> {
    vec![
        step(slots.clone(), Act::Accept),
        step(slots.clone(), Act::Receive(upgrade(more_lines))),
        step(slots, Act::Receive(connect())),
    ]
}

/// A shard that is ticked by hand.
pub fn shard(config: Arc<Config>, links: Links) -> Shard<Scripted> {
    Shard::new(Setup {
        id: ShardId(0),
        config,
        reactor: Scripted::default(),
        links,
        sleeper: Waker::none().sleeper(),
        keys: KEYS,
        permits: Permits::of_node(0, 1).remove(0),
        handshakes: Handshakes::of_node(0, Duration::ZERO, 1).remove(0),
        sends_per_flush: FLUSH_MAX,
        check_nanos: 300_000,
        seed: 7,
        epoch: "e".into(),
        acceptor: None,
    })
}

/// A shard and the steps of a run.
pub struct Script {
    pub shard: Shard<Scripted>,
    steps: Vec<Step>,
    /// The steps as events, made anew for each run: bytes are unmasked in place, and each life has its own token.
    turns: Vec<(Vec<Event>, u32)>,
    generations: Vec<u32>,
    operations: u32,
    /// After the first run, which was looked at: sends and bytes of a run, and what the shard held behind it.
    expected: (u64, u64, Footprint),
}

/// An operation is one delivery: `together` publications arrive at once and go to all members, so many times a run. The
/// share of receiving, numbering, rendering and replying is in it.
pub fn publish(members: u32, together: u32, times: u32) -> Box<dyn Work> {
    let one = frame(|out| client::publish(out, Encoding::Json, 3, "room", DATA));
    let publications = one.repeat(together as usize);
    let steps = (0..times).map(|_| Step {
        slots: FIRST..FIRST + 1,
        act: Act::Receive(publications.clone()),
        // Who is alone is sent to in the same tick.
        ticks: if members == 1 { 1 } else { TICKS },
    });
    let mut room = arrival(FIRST..members);
    room.push(step(FIRST..members, Act::Receive(subscribe())));
    let operations = members * together * times;
    let script = Script::new(room, steps.collect(), operations, |seen| {
        let is_reply = |kind: &ReplyKind<'_>| matches!(kind, ReplyKind::Publish);
        let is_ours = |kind: &ReplyKind<'_>| matches!(kind, ReplyKind::Push { push: ClientPush::Publication(p), .. } if p.data == DATA);
        let count = |is: &dyn Fn(&ReplyKind<'_>) -> bool| seen.iter().filter(|k| is(k)).count();
        let wanted = (together * times) as usize;
        assert_eq!((count(&is_reply), count(&is_ours)), (wanted, wanted));
    });
    assert!(script.expected.0 >= u64::from(members * times));
    Box::new(script)
}

/// An operation is one subscribe and one unsubscribe in a room of many.
pub fn join_and_leave() -> Box<dyn Work> {
    let mut room = arrival(FIRST..MEMBERS);
    room.push(step(MOVERS.end..MEMBERS, Act::Receive(subscribe())));
    let steps = vec![
        step(MOVERS, Act::Receive(subscribe())),
        step(MOVERS, Act::Receive(unsubscribe())),
    ];
    Box::new(Script::new(room, steps, MOVERS.end, |seen| {
        assert!(
            matches!(seen, [ReplyKind::Subscribe(_), ReplyKind::Unsubscribe]),
            "{seen:?}"
        );
    }))
}

/// An operation is one life: accept, upgrade, connect, subscribe, and the end.
pub fn come_and_go() -> Box<dyn Work> {
    let mut room = arrival(MOVERS.end..MEMBERS);
    room.push(step(MOVERS.end..MEMBERS, Act::Receive(subscribe())));
    let mut steps = arrival(MOVERS);
    steps.push(step(MOVERS, Act::Receive(subscribe())));
    steps.push(step(MOVERS, Act::End));
    Box::new(Script::new(room, steps, MOVERS.end, |seen| {
        assert!(
            matches!(seen, [ReplyKind::Connect(_), ReplyKind::Subscribe(_)]),
            "{seen:?}"
        );
    }))
}

impl Script {
    /// A shard after the steps that open its room, and nothing to run yet.
    pub fn opened(shard: Shard<Scripted>, room: Vec<Step>) -> Self {
        let mut script = Self {
            shard,
            steps: room,
            turns: Vec::new(),
            generations: vec![0; SLOTS as usize],
            operations: 0,
            expected: (0, 0, Footprint::default()),
        };
        script.prepare();
        script.run();
        script
    }

    /// `look` is given what the first client reads in the first run.
    fn new(
        room: Vec<Step>,
        steps: Vec<Step>,
        operations: u32,
        look: impl FnOnce(&[ReplyKind<'_>]),
    ) -> Self {
        let mut script = Self::opened(shard(config(), links()), room);
        script.operations = operations;
        script.steps = steps;
        script.shard.reactor_mut().kept = Some(Vec::new());
        script.prepare();
        script.run();
        let reactor = script.shard.reactor_mut();
        let kept = reactor.kept.take().expect("set above");
        read(&kept, look);
        let (sends, bytes) = (reactor.sends, reactor.bytes);
        script.expected = (sends, bytes, script.shard.footprint());
        script
    }
}

/// What a client reads: its replies and pushes, in their order.
fn read(bytes: &[u8], look: impl FnOnce(&[ReplyKind<'_>])) {
    let frames_start = match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(end) if bytes.starts_with(b"HTTP/1.1 101") => end + 4,
        _ => 0,
    };
    let mut decoder = ClientDecoder::new();
    decoder.push(&bytes[frames_start..]);
    let mut payloads = Vec::new();
    while let Some(frame) = decoder.next_frame().expect("right frames") {
        payloads.push(frame.payload.to_vec());
    }
    let replies = payloads.iter();
    let replies = replies.flat_map(|payload| client::Replies::new(Encoding::Json, payload));
    let kinds: Vec<_> = replies
        .map(|reply| reply.expect("right replies").kind)
        .collect();
    look(&kinds);
}

impl Work for Script {
    fn operations(&self) -> u32 {
        self.operations
    }

    fn prepare(&mut self) {
        let reactor = self.shard.reactor_mut();
        (reactor.sends, reactor.bytes) = (0, 0);
        reactor.buffers.clear();
        self.turns.clear();
        for step in &self.steps {
            let mut events = Vec::new();
            for slot in step.slots.clone() {
                let generation = &mut self.generations[slot as usize];
                // The shard counts so, too: one with each life, one with each end.
                *generation += u32::from(matches!(step.act, Act::Accept));
                let token = Token {
                    slot,
                    generation: *generation,
                };
                *generation += u32::from(matches!(step.act, Act::End));
                events.push(match &step.act {
                    Act::Accept => Event::Accepted {
                        slot,
                        peer: SocketAddr::from(([127, 0, 0, 1], 9)),
                    },
                    Act::Receive(bytes) => {
                        reactor.buffers.push(bytes.clone());
                        Event::Received {
                            token,
                            buffer: BufferId(reactor.buffers.len() as u16 - 1),
                            len: bytes.len() as u32,
                        }
                    }
                    Act::End => Event::Ended {
                        token,
                        reason: EndReason::Eof,
                    },
                });
            }
            self.turns.push((events, step.ticks));
        }
    }

    fn run(&mut self) {
        for (events, ticks) in &self.turns {
            self.shard.reactor_mut().events.extend_from_slice(events);
            for _ in 0..*ticks {
                self.shard
                    .tick()
                    .expect("the scripted reactor does not break");
            }
        }
    }

    fn check(&mut self) {
        let Scripted { sends, bytes, .. } = self.shard.reactor();
        assert_eq!((*sends, *bytes, self.shard.footprint()), self.expected);
        self.shard.check_invariants();
    }
}
