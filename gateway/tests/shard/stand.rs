//! A shard that is ticked by hand. Its reactor hands in what it is given and takes every send whole.

use ringway::config::Config;
use ringway::hub::Keys;
use ringway::hub::links::Links;
use ringway::hub::message::{Message, Request, Response};
use ringway::ids::{Now, ShardId, Token};
use ringway::limit::Handshakes;
use ringway::mailbox::{Inbox, Outbox, Waker, pair};
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::{
    ClientDecoder, parse_switching, write_masked_frame, write_upgrade_request,
};
use ringway::reactor::{BufferId, CloseHow, Event, Reactor, ReactorStats, Send, Short};
use ringway::shard::{Permits, Setup, Shard};
use ringway::stats::ShardStats;
use ringway::tls::Acceptor;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The clock's start, unix seconds.
pub const START: u64 = 1_800_000_000;

/// See the module.
pub struct Scripted {
    slots: u32,
    millis: u64,
    events: Vec<Event>,
    buffers: Vec<Vec<u8>>,
    sent: HashMap<u32, Vec<u8>>,
    closed: Vec<u32>,
    tokens: HashMap<u32, Token>,
}

impl Reactor for Scripted {
    fn slots(&self) -> u32 {
        self.slots
    }

    fn now(&mut self) -> Now {
        Now {
            millis: self.millis,
            nanos: self.millis * 1_000_000,
            unix_millis: START * 1000 + self.millis,
        }
    }

    fn poll(&mut self, _patience: Duration, events: &mut Vec<Event>) -> std::io::Result<()> {
        events.append(&mut self.events);
        Ok(())
    }

    fn buffer(&mut self, buffer: BufferId, _len: u32) -> &mut [u8] {
        &mut self.buffers[usize::from(buffer.0)]
    }

    fn recycle(&mut self, _buffer: BufferId) {}

    fn open(&mut self, token: Token) {
        self.tokens.insert(token.slot, token);
    }

    fn flush(&mut self, sends: &[Send<'_>], _short: &mut Vec<Short>) {
        for send in sends {
            let sent = self.sent.entry(send.slot).or_default();
            sent.extend_from_slice(send.bytes);
        }
    }

    fn wait_writable(&mut self, _token: Token) {}

    fn close(&mut self, token: Token, _how: CloseHow) {
        self.closed.push(token.slot);
        self.events.push(Event::Closed { slot: token.slot });
    }

    fn stop_accepting(&mut self) {}

    fn stats(&self) -> ReactorStats {
        ReactorStats::default()
    }
}

/// What a client heard.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The answer to the upgrade: its HTTP status.
    Status(u16),
    /// A reply or push.
    Json(Value),
    /// The close code.
    Close(u16),
}

#[derive(Default)]
struct Client {
    head: Vec<u8>,
    is_upgraded: bool,
    frames: ClientDecoder,
}

/// A shard, its clients and the control thread's ends.
pub struct Stand {
    pub shard: Shard<Scripted>,
    clients: HashMap<u32, Client>,
    from_shard: Inbox<Message>,
    /// Of what it told the control thread: what nobody has looked at.
    told: Vec<Message>,
    to_shard: Outbox<Message>,
}

impl Stand {
    pub fn new(config: Config) -> Self {
        Self::behind(None, config)
    }

    /// With TLS, where there is an acceptor.
    pub fn behind(acceptor: Option<Acceptor>, mut config: Config) -> Self {
        config.shards = 1;
        // All of its clients have one address.
        config.client_limits.address_handshakes = 0;
        let (near, from_shard) = pair(64, Waker::none());
        let (to_shard, far) = pair(64, Waker::none());
        let slots = 2048;
        let permits = Permits::of_node(0, 1).pop().expect("one shard");
        let shard = Shard::new(Setup {
            id: ShardId(0),
            config: Arc::new(config),
            reactor: Scripted {
                slots,
                millis: 1,
                events: Vec::new(),
                buffers: Vec::new(),
                sent: HashMap::new(),
                closed: Vec::new(),
                tokens: HashMap::new(),
            },
            links: Links::new(ShardId(0), vec![None, Some(near)], vec![None, Some(far)]),
            sleeper: Waker::none().sleeper(),
            keys: Keys {
                hash: [1, 2],
                shards: 1,
            },
            permits,
            handshakes: Handshakes::of_node(0, Duration::ZERO, 1).remove(0),
            sends_per_flush: ringway::reactor::FLUSH_MAX,
            check_nanos: 300_000,
            seed: 7,
            epoch: "e".into(),
            acceptor,
        });
        Self {
            shard,
            clients: HashMap::new(),
            from_shard,
            told: Vec::new(),
            to_shard,
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, millis: u64) {
        self.shard.reactor_mut().millis += millis;
    }

    pub fn tick(&mut self) {
        self.shard
            .tick()
            .expect("the scripted reactor does not break");
        self.shard.reactor_mut().buffers.clear();
        self.shard.check_invariants();
    }

    /// A connection is accepted into a free slot.
    pub fn accept(&mut self, slot: u32, peer: SocketAddr) {
        self.clients.insert(slot, Client::default());
        let event = Event::Accepted { slot, peer };
        self.shard.reactor_mut().events.push(event);
        self.tick();
    }

    /// Bytes arrive, in the next tick.
    pub fn receive(&mut self, slot: u32, bytes: &[u8]) {
        let reactor = self.shard.reactor_mut();
        let token = reactor.tokens[&slot];
        let buffer = BufferId(reactor.buffers.len() as u16);
        reactor.buffers.push(bytes.to_vec());
        reactor.events.push(Event::Received {
            token,
            buffer,
            len: bytes.len() as u32,
        });
    }

    /// An upgrade request with more header lines.
    pub fn request(lines: &str) -> Vec<u8> {
        let mut request = Vec::new();
        write_upgrade_request(
            &mut request,
            "/connection/websocket",
            "localhost",
            KEY,
            lines,
        );
        request
    }

    /// Accepts and upgrades a client from the loopback.
    pub fn upgrade(&mut self, slot: u32) {
        self.accept(slot, ([127, 0, 0, 1], 9).into());
        self.receive(slot, &Self::request(""));
        self.tick();
        assert_eq!(self.heard(slot), [Heard::Status(101)]);
    }

    /// A message of JSON commands arrives, in the next tick.
    pub fn send(&mut self, slot: u32, commands: &str) {
        let mut frame = Vec::new();
        write_masked_frame(&mut frame, Opcode::Text, [1, 2, 3, 4], commands.as_bytes());
        self.receive(slot, &frame);
    }

    /// Upgrades a client, which sends a message; what it heard in that tick.
    pub fn hello(&mut self, slot: u32, commands: &str) -> Vec<Heard> {
        self.upgrade(slot);
        self.send(slot, commands);
        self.tick();
        self.heard(slot)
    }

    /// The bytes that a client was sent since the last call.
    pub fn sent(&mut self, slot: u32) -> Vec<u8> {
        let sent = self.shard.reactor_mut().sent.remove(&slot);
        sent.unwrap_or_default()
    }

    /// What a client has heard since the last call.
    pub fn heard(&mut self, slot: u32) -> Vec<Heard> {
        let sent = self.sent(slot);
        let client = self.clients.get_mut(&slot).expect("an accepted client");
        let mut heard = Vec::new();
        if client.is_upgraded {
            client.frames.push(&sent);
        } else {
            client.head.extend_from_slice(&sent);
            match parse_switching(&client.head, KEY) {
                Ok(None) => return heard,
                Ok(Some(switched)) => {
                    heard.push(Heard::Status(101));
                    client.is_upgraded = true;
                    let rest = client.head.split_off(switched.head_len);
                    client.frames.push(&rest);
                }
                Err(ringway::protocol::websocket::client::UpgradeFailed::Refused(status)) => {
                    client.head.clear();
                    return vec![Heard::Status(status)];
                }
                Err(other) => panic!("{other}"),
            }
        }
        while let Some(frame) = client.frames.next_frame().expect("good frames") {
            match frame.opcode {
                Opcode::Close => {
                    let code = frame.payload.first_chunk().expect("a code");
                    heard.push(Heard::Close(u16::from_be_bytes(*code)));
                }
                _ => {
                    let text = std::str::from_utf8(frame.payload).expect("text");
                    heard.extend(
                        text.lines()
                            .map(|line| Heard::Json(serde_json::from_str(line).expect("JSON"))),
                    );
                }
            }
        }
        heard
    }

    /// Whether the shard has given a connection up.
    pub fn is_closed(&mut self, slot: u32) -> bool {
        self.shard.reactor_mut().closed.contains(&slot)
    }

    /// The control thread asks, and is answered in the tick that follows.
    pub fn ask(&mut self, request: Request) -> Response {
        let batch = self.to_shard.batch();
        batch.messages.push(Message::Request {
            id: 1,
            request: Box::new(request),
        });
        self.to_shard.publish();
        self.tick();
        let mut answer = None;
        for message in self.control_heard() {
            match message {
                Message::Response { response, .. } => answer = Some(*response),
                other => self.told.push(other),
            }
        }
        answer.expect("an answer")
    }

    /// What the shard has told the control thread.
    pub fn control_heard(&mut self) -> Vec<Message> {
        let mut heard = std::mem::take(&mut self.told);
        while let Some(mut batch) = self.from_shard.take() {
            heard.append(&mut batch.messages);
            self.from_shard.recycle(batch);
        }
        heard
    }

    pub fn stats(&mut self) -> ShardStats {
        match self.ask(Request::Stats) {
            Response::Stats(stats) => *stats,
            other => panic!("{other:?}"),
        }
    }
}
