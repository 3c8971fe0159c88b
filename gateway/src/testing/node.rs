//! A [`Server`] made of real shards. The world stands between each two of them, so that batches are late when the seed
//! says so: first in, first out for a pair, in any order across pairs.

use super::broker::SimBroker;
use super::net::{Clock, SharedNet};
use super::profile::Profile;
use super::reactor::SimReactor;
use super::rng::Rng;
use super::world::Server;
use crate::config::Config;
use crate::hub::Keys;
use crate::hub::links::Links;
use crate::hub::message::{Message, Request, RequestId, Response};
use crate::ids::ShardId;
use crate::limit::Handshakes;
use crate::mailbox::{Inbox, Outbox, Waker, pair};
use crate::protocol::channel::ChannelName;
use crate::shard::{Permits, Setup, Shard, Turn};
use std::sync::Arc;

/// One direction between two shards.
struct Lane {
    to: usize,
    inbox: Inbox<Message>,
    outbox: Outbox<Message>,
    /// Nothing moves before this moment.
    held_until: u64,
}

/// All shards of a node, the links between them, and the control thread's ends.
pub struct SimNode {
    shards: Vec<Shard<SimReactor>>,
    nets: Vec<SharedNet>,
    clock: Clock,
    keys: Keys,
    lanes: Vec<Lane>,
    link_millis: u64,
    /// By shard: from and to the control thread.
    heard: Vec<Inbox<Message>>,
    said: Vec<Outbox<Message>>,
    config: Arc<Config>,
    broker: SimBroker,
    /// Answers of the control thread's own.
    answered: Vec<(RequestId, Response)>,
    rng: Rng,
}

impl SimNode {
    /// The node of a profile, with a reactor over each net.
    pub fn build(profile: &Profile, nets: &[SharedNet], rng: &mut Rng) -> Self {
        let count = nets.len();
        let keys = Keys {
            hash: [rng.next_u64(), rng.next_u64()],
            shards: count as u16,
        };
        let new_pair = || pair::<Message>(profile.mailbox, Waker::none());
        let no_ends = || (0..=count).map(|_| None).collect::<Vec<_>>();
        let mut outboxes: Vec<Vec<Option<Outbox<Message>>>> =
            (0..count).map(|_| no_ends()).collect();
        let mut inboxes: Vec<Vec<Option<Inbox<Message>>>> = (0..count)
            .map(|_| (0..=count).map(|_| None).collect())
            .collect();
        let (mut lanes, mut heard, mut said) = (Vec::new(), Vec::new(), Vec::new());
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let (near, inbox) = new_pair();
                let (outbox, far) = new_pair();
                outboxes[from][to] = Some(near);
                inboxes[to][from] = Some(far);
                lanes.push(Lane {
                    to,
                    inbox,
                    outbox,
                    held_until: 0,
                });
            }
            let (outbox, inbox) = new_pair();
            outboxes[from][count] = Some(outbox);
            heard.push(inbox);
            let (outbox, inbox) = new_pair();
            inboxes[from][count] = Some(inbox);
            said.push(outbox);
        }
        let limit = profile.config.client.connection_limit;
        let limits = &profile.config.client_limits;
        let handshakes = Handshakes::of_node(limits.handshakes, limits.burst, count as u16);
        let shards = outboxes
            .into_iter()
            .zip(inboxes)
            .zip(Permits::of_node(limit, count as u16))
            .zip(handshakes)
            .enumerate()
            .map(|(number, (((outboxes, inboxes), permits), handshakes))| {
                let id = ShardId(number as u16);
                let (buffers, buffer_bytes) = profile.buffers;
                Shard::new(Setup {
                    id,
                    config: profile.config.clone(),
                    reactor: SimReactor::new(nets[number].clone(), buffers, buffer_bytes),
                    links: Links::new(id, outboxes, inboxes).with_bounds(profile.bounds),
                    sleeper: Waker::none().sleeper(),
                    keys,
                    permits,
                    handshakes,
                    // Small ones leave sweeps unfinished between ticks, as large rooms do.
                    sends_per_flush: *rng.pick(&[2, 3, 5, 16, crate::reactor::FLUSH_MAX]),
                    // The least is one check a tick.
                    check_nanos: *rng.pick(&[1, 1, 100_000, 300_000]),
                    seed: rng.next_u64(),
                    epoch: "boot".into(),
                    acceptor: profile.tls.as_ref().map(|tls| tls.acceptor()),
                })
            })
            .collect();
        Self {
            shards,
            nets: nets.to_vec(),
            clock: nets[0].borrow().clock().clone(),
            keys,
            lanes,
            link_millis: profile.link_millis,
            heard,
            said,
            config: profile.config.clone(),
            broker: SimBroker::new(profile.broker_millis),
            answered: Vec::new(),
            rng: rng.fork(),
        }
    }

    fn is_linked(&self, channel: &str) -> bool {
        let name = ChannelName::parse(channel).expect("a channel's name");
        let namespace = self.config.channels.find(name.namespace());
        self.config.is_linked(namespace.expect("a known namespace"))
    }

    fn say(&mut self, shard: usize, id: RequestId, request: Request) {
        self.said[shard].batch().messages.push(Message::Request {
            id,
            request: Box::new(request),
        });
    }
}

impl Server for SimNode {
    fn tick(&mut self, shard: usize) {
        let turn = self.shards[shard]
            .tick()
            .expect("the simulated reactor does not break");
        assert_eq!(turn, Turn::Running, "nobody asked shard {shard} to stop");
        self.shards[shard].check_invariants();
    }

    fn carry(&mut self, rng: &mut Rng, hurry: bool) {
        let now = self.clock.millis();
        for lane in &mut self.lanes {
            // What a full ring did not take the last time comes first.
            let mut moved = lane.outbox.behind() && lane.outbox.publish();
            while !lane.outbox.behind()
                && (hurry || lane.held_until <= now)
                && !lane.inbox.is_empty()
            {
                if !hurry && self.link_millis > 0 && rng.chance(300) {
                    lane.held_until = now + rng.range(1, self.link_millis);
                    break;
                }
                let mut batch = lane.inbox.take().expect("looked just now");
                std::mem::swap(lane.outbox.batch(), &mut *batch);
                lane.inbox.recycle(batch);
                lane.outbox.publish();
                moved = true;
            }
            if moved {
                self.nets[lane.to].borrow_mut().wake();
            }
        }
        self.broker.carry(now, hurry, rng, &mut self.said);
        for (shard, outbox) in self.said.iter_mut().enumerate() {
            if !outbox.batch().is_empty() || outbox.behind() {
                outbox.publish();
                self.nets[shard].borrow_mut().wake();
            }
        }
    }

    fn ask(&mut self, id: RequestId, request: Request) {
        if let Request::Publish {
            channel,
            publication,
            ..
        } = &request
            && self.is_linked(channel)
        {
            let now = self.clock.millis();
            self.broker
                .publish(channel, publication, now, &mut self.rng);
            let position = None;
            return self.answered.push((id, Response::Published { position }));
        }
        let home = match &request {
            Request::Publish { channel, .. }
            | Request::History { channel, .. }
            | Request::HistoryRemove { channel }
            | Request::Presence { channel }
            | Request::PresenceStats { channel } => Some(self.keys.home_of(channel)),
            Request::UserStatus { user } => Some(self.keys.home_of(user)),
            _ => None,
        };
        match home {
            Some(home) => self.say(home.index(), id, request),
            None => (0..self.shards.len()).for_each(|shard| self.say(shard, id, request.clone())),
        }
    }

    fn answers(&mut self) -> Vec<(RequestId, Response)> {
        let mut answers = std::mem::take(&mut self.answered);
        let now = self.clock.millis();
        for (shard, inbox) in self.heard.iter_mut().enumerate() {
            while let Some(mut batch) = inbox.take() {
                for message in batch.messages.drain(..) {
                    let from = ShardId(shard as u16);
                    if self.broker.told(from, &message, now, &mut self.rng) {
                        continue;
                    }
                    match message {
                        Message::Response { id, response } => answers.push((id, *response)),
                        Message::Publish {
                            channel,
                            publication,
                            reply,
                            ..
                        } => {
                            let name = channel.name.of(&batch.bytes);
                            let name = std::str::from_utf8(name).expect("a channel's name");
                            let publication = publication.of(&batch.bytes);
                            self.broker.publish(name, publication, now, &mut self.rng);
                            let answer = Message::Published { reply, error: None };
                            self.said[shard].batch().messages.push(answer);
                        }
                        other => panic!("a shard told the control thread {other:?}"),
                    }
                }
                inbox.recycle(batch);
            }
        }
        answers
    }

    fn leftovers(&self, forgotten: bool) -> Option<String> {
        let is_empty = |shard: &Shard<SimReactor>| {
            let held = shard.footprint();
            held.connections == 0
                && held.views == 0
                && held.lanes == 0
                && held.chunks == 0
                && held.log_bytes == 0
                && held.blocked == 0
                && held.users == 0
                && held.measured == 0
                && held.tls == 0
                && (!forgotten || held.homes == 0 && held.history_bytes == 0)
        };
        if let Some(channel) = self.broker.follows() {
            return Some(format!("{channel} is still followed"));
        }
        let shard = self.shards.iter().position(|shard| !is_empty(shard))?;
        Some(format!(
            "on shard {shard} {:?}",
            self.shards[shard].footprint()
        ))
    }
}
