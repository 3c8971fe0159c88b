//! Subscribing, unsubscribing, publishing, falling behind, leaving and recovering, in any order and at any moment, by three
//! clients on a node of two shards, held against plain lists.
//!
//! A *keeper* is subscribed to everything before anything happens and reads all: what it sees is the order of each channel.

use super::Draws;
use super::node::{Client, HISTORY, Node};
use crate::protocol::centrifuge::Encoding;
use crate::protocol::centrifuge::client::{
    self as wire, ClientPush, ClientReply, Connect, Position, Replies, ReplyKind, Subscribe,
    Subscribed,
};
use crate::testing::client::{Connection, Incoming};
use crate::testing::net::Weather;
use crate::testing::payload;
use crate::testing::rng::Rng;
use std::collections::VecDeque;

/// One that keeps history and never drops what a member lacks, one that drops it, one without history.
const CHANNELS: [&str; 3] = ["deep:a", "skip:b", "plain"];
const PLAIN: usize = 2;
const OPERATIONS_MAX: usize = 250;
/// All steps together stay below every timeout.
const MILLIS_MAX: u64 = 5_000;

/// A byte is an operation: what, who, and which channel.
pub fn run(bytes: &[u8]) {
    let mut draws = Draws(bytes);
    let mut world = World::new(u64::from(draws.byte()));
    for _ in 0..OPERATIONS_MAX {
        if draws.is_empty() {
            break;
        }
        let byte = draws.byte();
        let (who, channel) = (usize::from(byte >> 3) % 4 % 3, usize::from(byte >> 5) % 3);
        match byte & 7 {
            0 => world.subscribe(who, channel, false),
            1 => world.subscribe(who, channel, true),
            2 => world.unsubscribe(who, channel),
            3 => world.publish(who, channel, usize::from(draws.byte()) * 8),
            4 => world.reconnect(who),
            5 => world.stall(who),
            6 => world.turn(u64::from(draws.byte())),
            _ => world.settle(),
        }
    }
    world.end();
}

#[derive(Debug)]
enum Ask {
    Connect,
    Subscribe {
        channel: usize,
        recover: Option<u64>,
        kept_from: u64,
    },
    Unsubscribe(usize),
    Publish,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Standing {
    #[default]
    Out,
    Asked,
    /// A member, which has seen these numbers; everything from publication `since` on must be among them.
    In {
        since: u64,
        seen: Vec<u64>,
    },
    Leaving,
}

struct Member {
    client: Client,
    shard: usize,
    encoding: Encoding,
    asks: VecDeque<(u32, Ask)>,
    commands: u32,
    standings: [Standing; 3],
    /// The last offset seen in each channel.
    positions: [Option<u64>; 3],
    is_stalled: bool,
    was_stalled: bool,
}

struct World {
    node: Node,
    rng: Rng,
    keeper: Member,
    members: Vec<Member>,
    book: Book,
    millis: u64,
}

/// What is known of the channels.
#[derive(Default)]
struct Book {
    epoch: String,
    /// By channel: the keeper's sightings. In a channel with history, number `n` has offset `n + 1`.
    order: [Vec<u64>; 3],
    /// By channel: what others saw at which offset, before the keeper did.
    claims: [Vec<(u64, u64)>; 3],
    /// By channel: publications asked for.
    sent: [u64; 3],
    publications: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut node = Node::new(2, seed, Weather::CALM, (8, 2048));
        let mut rng = Rng::new(seed);
        let keeper = Member::connect(&node, &mut rng, 0, Encoding::Json);
        let members = [
            (0, Encoding::Json),
            (1, Encoding::Protobuf),
            (1, Encoding::Json),
        ]
        .map(|(shard, encoding)| Member::connect(&node, &mut rng, shard, encoding));
        node.settle();
        let mut world = Self {
            node,
            rng,
            keeper,
            members: members.into(),
            book: Book::default(),
            millis: 0,
        };
        for channel in 0..CHANNELS.len() {
            world
                .keeper
                .subscribe(&mut world.rng, channel, None, &world.book);
        }
        world.settle();
        assert!(
            world
                .keeper
                .standings
                .iter()
                .all(|it| matches!(it, Standing::In { .. }))
        );
        world
    }

    fn subscribe(&mut self, who: usize, channel: usize, recover: bool) {
        let member = &mut self.members[who];
        let from = member.positions[channel].filter(|_| recover);
        if member.standings[channel] == Standing::Out {
            member.subscribe(&mut self.rng, channel, from, &self.book);
        }
    }

    fn unsubscribe(&mut self, who: usize, channel: usize) {
        let member = &mut self.members[who];
        if matches!(member.standings[channel], Standing::In { .. }) {
            member.standings[channel] = Standing::Leaving;
            let encoding = member.encoding;
            member.say(&mut self.rng, Ask::Unsubscribe(channel), |out, id| {
                wire::unsubscribe(out, encoding, id, CHANNELS[channel]);
            });
        }
    }

    fn publish(&mut self, who: usize, channel: usize, pad: usize) {
        self.book.publications += 1;
        self.book.sent[channel] += 1;
        let data = payload::json(self.book.publications, pad);
        let member = &mut self.members[who];
        let encoding = member.encoding;
        member.say(&mut self.rng, Ask::Publish, |out, id| {
            wire::publish(out, encoding, id, CHANNELS[channel], &data);
        });
    }

    /// Its connection is lost, with all that was asked and not answered; a new one is made.
    fn reconnect(&mut self, who: usize) {
        let old = &self.members[who];
        // What it has published may come or not.
        let lost = old
            .asks
            .iter()
            .filter(|(_, ask)| matches!(ask, Ask::Publish))
            .count();
        if lost > 0 {
            return;
        }
        old.client.close();
        let mut new = Member::connect(&self.node, &mut self.rng, old.shard, old.encoding);
        new.positions = old.positions;
        self.members[who] = new;
    }

    fn stall(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.is_stalled = !member.is_stalled;
        member.was_stalled |= member.is_stalled;
        let window = if member.is_stalled { 0 } else { usize::MAX };
        self.node.nets[member.shard]
            .borrow_mut()
            .set_window(member.client.socket, window);
    }

    fn turn(&mut self, byte: u64) {
        let millis = (byte >> 3) * 40;
        if self.millis + millis < MILLIS_MAX {
            self.millis += millis;
            self.node.clock.advance(millis);
        }
        for _ in 0..=byte & 7 {
            self.node.turn();
        }
        self.read();
    }

    fn settle(&mut self) {
        for _ in 0..3 {
            self.node.settle();
            self.read();
        }
    }

    fn read(&mut self) {
        self.keeper.read(&mut self.book, true);
        for member in self.members.iter_mut().filter(|member| !member.is_stalled) {
            member.read(&mut self.book, false);
        }
    }

    fn end(mut self) {
        for who in 0..self.members.len() {
            if self.members[who].is_stalled {
                self.stall(who);
            }
        }
        for _ in 0..3 {
            self.settle();
        }
        let book = &self.book;
        for (channel, name) in CHANNELS.into_iter().enumerate() {
            let order = &book.order[channel];
            assert_eq!(order.len() as u64, book.sent[channel], "{name} misses some");
            for (offset, id) in &book.claims[channel] {
                assert_eq!(order.get(*offset as usize - 1), Some(id), "offset {offset}");
            }
            for member in &self.members {
                assert!(member.asks.is_empty(), "no answer: {:?}", member.asks);
                assert!(!member.client.is_gone(), "nobody is closed here");
                let Standing::In { since, seen } = &member.standings[channel] else {
                    continue;
                };
                let owed = order.iter().filter(|id| **id > *since);
                assert!(
                    owed.clone().all(|id| seen.contains(id)),
                    "{owed:?} of {seen:?}"
                );
                assert!(
                    order.ends_with(seen),
                    "{seen:?} is not the end of {order:?}"
                );
            }
        }
        self.members
            .iter()
            .chain([&self.keeper])
            .for_each(|member| member.client.close());
        self.node.is_left_clean();
    }
}

impl Member {
    fn connect(node: &Node, rng: &mut Rng, shard: usize, encoding: Encoding) -> Self {
        let net = &node.nets[shard];
        let peer = ([127, 0, 0, 1], 9).into();
        let socket = net
            .borrow_mut()
            .connect(peer, false, usize::MAX)
            .expect("it listens");
        // Those on the second shard are sent what is compressed.
        let window_bits = if shard == 1 { 15 } else { 0 };
        let (link, request) = Connection::new(socket, shard, encoding, window_bits, "", rng);
        let mut member = Self {
            client: Client::new(link, net),
            shard,
            encoding,
            asks: VecDeque::new(),
            commands: 0,
            standings: Default::default(),
            positions: [None; 3],
            is_stalled: false,
            was_stalled: false,
        };
        member.client.write(&request);
        member.say(rng, Ask::Connect, |out, id| {
            wire::connect(out, encoding, id, &Connect::default());
        });
        member
    }

    fn say(&mut self, rng: &mut Rng, ask: Ask, command: impl FnOnce(&mut Vec<u8>, u32)) {
        self.commands += 1;
        self.asks.push_back((self.commands, ask));
        let (mut commands, mut out) = (Vec::new(), Vec::new());
        command(&mut commands, self.commands);
        self.client.link.write(rng, &commands, &mut out);
        self.client.write(&out);
    }

    fn subscribe(&mut self, rng: &mut Rng, channel: usize, from: Option<u64>, book: &Book) {
        self.standings[channel] = Standing::Asked;
        let encoding = self.encoding;
        let ask = Ask::Subscribe {
            channel,
            recover: from,
            kept_from: (book.order[channel].len() as u64).saturating_sub(u64::from(HISTORY)),
        };
        self.say(rng, ask, |out, id| {
            let request = Subscribe {
                channel: CHANNELS[channel],
                recover: from.map(|offset| Position {
                    offset,
                    epoch: &book.epoch,
                }),
                recoverable: true,
                ..Subscribe::default()
            };
            wire::subscribe(out, encoding, id, &request);
        });
    }

    fn read(&mut self, book: &mut Book, is_keeper: bool) {
        for incoming in self.client.read() {
            match incoming {
                Incoming::Upgraded => {}
                Incoming::Message(bytes) => {
                    for reply in Replies::new(self.encoding, &bytes) {
                        self.heard(&reply.expect("a good reply"), book, is_keeper);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn heard(&mut self, reply: &ClientReply<'_>, book: &mut Book, is_keeper: bool) {
        if let ReplyKind::Push { channel, push } = &reply.kind {
            let channel = CHANNELS
                .iter()
                .position(|name| name == channel)
                .expect("a channel");
            match push {
                ClientPush::Publication(publication) => {
                    let id = payload::identify(publication.data).expect("what was published");
                    self.sees(channel, publication.offset, id, book, is_keeper);
                }
                ClientPush::Unsubscribe { code: 2500, .. } => {
                    assert!(channel == 1 && self.was_stalled, "{reply:?}");
                    if self.standings[channel] != Standing::Leaving {
                        self.standings[channel] = Standing::Out;
                    }
                }
                ClientPush::Join(_) | ClientPush::Leave(_) => {}
                other => panic!("{other:?}"),
            }
            return;
        }
        // No answer is due before the end.
        if reply.kind == ReplyKind::Ping {
            return;
        }
        let (id, ask) = self.asks.pop_front().expect("it was asked");
        assert_eq!(reply.id, id, "replies have the order of the commands");
        match (ask, &reply.kind) {
            (Ask::Connect, ReplyKind::Connect(_)) | (Ask::Publish, ReplyKind::Publish) => {}
            (Ask::Unsubscribe(channel), ReplyKind::Unsubscribe) => {
                self.standings[channel] = Standing::Out;
            }
            (
                Ask::Subscribe {
                    channel,
                    recover,
                    kept_from,
                },
                ReplyKind::Subscribe(result),
            ) => {
                self.is_subscribed(channel, recover, kept_from, result, book);
                for publication in &result.publications {
                    let id = payload::identify(publication.data).expect("what was published");
                    self.sees(channel, publication.offset, id, book, is_keeper);
                }
            }
            (ask, kind) => panic!("{ask:?} is answered {kind:?}"),
        }
    }

    fn is_subscribed(
        &mut self,
        channel: usize,
        recover: Option<u64>,
        kept_from: u64,
        result: &Subscribed<'_>,
        book: &mut Book,
    ) {
        assert_eq!(result.recoverable, channel != PLAIN);
        let since = book.publications;
        self.standings[channel] = Standing::In {
            since,
            seen: Vec::new(),
        };
        if channel == PLAIN {
            return;
        }
        book.epoch = result.epoch.to_string();
        assert!(result.offset <= book.sent[channel]);
        self.positions[channel] = Some(result.offset);
        let Some(from) = recover else { return };
        if result.recovered {
            assert!(
                from >= kept_from,
                "{from} was recovered, {kept_from} is the oldest that can be"
            );
            assert_eq!(result.offset, from);
        } else {
            let most = book.sent[channel];
            assert!(
                from + u64::from(HISTORY) < most,
                "{from} was not recovered, top is at most {most}"
            );
        }
    }

    fn sees(&mut self, channel: usize, offset: u64, id: u64, book: &mut Book, is_keeper: bool) {
        if channel != PLAIN {
            let last = self.positions[channel].replace(offset);
            assert_eq!(
                last.map(|last| last + 1),
                Some(offset),
                "{}",
                CHANNELS[channel]
            );
            book.claims[channel].push((offset, id));
        }
        if is_keeper {
            book.order[channel].push(id);
        }
        match &mut self.standings[channel] {
            Standing::In { seen, .. } => seen.push(id),
            Standing::Leaving => {}
            other => panic!("{id} in {}, being {other:?}", CHANNELS[channel]),
        }
    }
}
