//! The servers that link nodes, and the way to them and back: first in, first out, and late when the seed says so.
//!
//! It stands where the control thread and NATS do. What a shard publishes in a linked channel comes back to the channel's
//! home, if that follows the channel by then; that a home is told that it follows is true from that moment on.

use super::rng::Rng;
use crate::hub::links::put;
use crate::hub::message::{ChannelRef, Message};
use crate::ids::ShardId;
use crate::mailbox::Outbox;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A channel as its home named it.
#[derive(Clone, Debug)]
struct Channel {
    name: Arc<str>,
    hash: u64,
    namespace: u16,
    home: ShardId,
    life: u32,
}

/// On the way to the servers.
#[derive(Debug)]
enum Up {
    Follow(Channel),
    Unfollow(Arc<str>, u32),
    Publish(Arc<str>, Vec<u8>),
}

/// On the way back.
#[derive(Debug)]
enum Down {
    Followed(Channel),
    Heard(Channel, Vec<u8>),
}

/// Things and when they arrive, oldest first.
#[derive(Debug)]
struct Way<T>(VecDeque<(u64, T)>);

impl<T> Way<T> {
    fn push(&mut self, at: u64, what: T) {
        let at = self.0.back().map_or(at, |(last, _)| at.max(*last));
        self.0.push_back((at, what));
    }

    fn pop(&mut self, now: u64, hurry: bool) -> Option<T> {
        let (at, _) = self.0.front()?;
        (hurry || *at <= now).then(|| self.0.pop_front().map(|(_, what)| what))?
    }
}

/// The servers.
#[derive(Debug)]
pub struct SimBroker {
    /// Longest that anything is under way, one way.
    millis: u64,
    up: Way<Up>,
    down: Way<Down>,
    followed: BTreeMap<Arc<str>, Channel>,
}

impl SimBroker {
    /// `millis`: the longest that anything is under way, one way.
    pub fn new(millis: u64) -> Self {
        Self {
            millis,
            up: Way(VecDeque::new()),
            down: Way(VecDeque::new()),
            followed: BTreeMap::new(),
        }
    }

    fn later(&self, now: u64, rng: &mut Rng) -> u64 {
        now + rng.range(0, self.millis)
    }

    /// A publication, canonical.
    pub fn publish(&mut self, channel: &str, publication: &[u8], now: u64, rng: &mut Rng) {
        let at = self.later(now, rng);
        let publish = Up::Publish(channel.into(), publication.to_vec());
        self.up.push(at, publish);
    }

    /// What a shard tells the control thread and that is for the servers. Whether it was.
    pub fn told(&mut self, home: ShardId, message: &Message, now: u64, rng: &mut Rng) -> bool {
        let what = match message {
            Message::Follow {
                name,
                hash,
                namespace,
                life,
            } => Up::Follow(Channel {
                name: name.clone(),
                hash: *hash,
                namespace: *namespace,
                home,
                life: *life,
            }),
            Message::Unfollow { name, life } => Up::Unfollow(name.clone(), *life),
            _ => return false,
        };
        let at = self.later(now, rng);
        self.up.push(at, what);
        true
    }

    /// Lets arrive what is due; `hurry`: everything. `shards`: the way to each.
    pub fn carry(&mut self, now: u64, hurry: bool, rng: &mut Rng, shards: &mut [Outbox<Message>]) {
        while let Some(what) = self.up.pop(now, hurry) {
            let at = self.later(now, rng);
            match what {
                Up::Follow(channel) => {
                    self.followed.insert(channel.name.clone(), channel.clone());
                    self.down.push(at, Down::Followed(channel));
                }
                Up::Unfollow(name, life) => {
                    if self.followed.get(&name).is_some_and(|c| c.life == life) {
                        self.followed.remove(&name);
                    }
                }
                Up::Publish(name, publication) => {
                    if let Some(channel) = self.followed.get(&name) {
                        self.down
                            .push(at, Down::Heard(channel.clone(), publication));
                    }
                }
            }
        }
        while let Some(what) = self.down.pop(now, hurry) {
            let (Down::Followed(channel) | Down::Heard(channel, _)) = &what;
            let batch = shards[channel.home.index()].batch();
            let named = ChannelRef {
                hash: channel.hash,
                name: put(batch, channel.name.as_bytes()),
                namespace: channel.namespace,
            };
            let message = match &what {
                Down::Followed(channel) => Message::Followed {
                    channel: named,
                    life: channel.life,
                },
                Down::Heard(_, publication) => Message::Heard {
                    channel: named,
                    publication: put(batch, publication),
                },
            };
            batch.messages.push(message);
        }
    }

    /// A channel that is still followed.
    pub fn follows(&self) -> Option<&str> {
        self.followed.keys().next().map(|name| &**name)
    }
}
