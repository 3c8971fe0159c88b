//! Homes: the channels that this shard owns on this node. Only the home numbers, keeps and renders. It knows which views
//! want what and reaches them by messages; it never sees a member.
//!
//! Invariants: `floor ≤ top`; the records cover `(floor, top]`; offsets handed to a view strictly increase, and each
//! append names the offset before it.

pub mod answer;
pub mod publish;

use super::history::History;
use super::keys::Keys;
use super::links::Links;
use super::message::{LaneMask, Message};
use super::presence::Presence;
use crate::config::Config;
use crate::ids::{Now, ShardId};
use crate::protocol::centrifuge::Encoding;
use crate::protocol::websocket::Deflater;
use crate::slab::Slab;
use crate::stats::Deflated;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// A view that is attached.
#[derive(Clone, Copy, Debug)]
struct Attachment {
    shard: ShardId,
    lanes: LaneMask,
    view: u32,
    generation: u32,
}

/// A channel this shard owns.
#[derive(Debug)]
pub struct Home {
    name: Arc<str>,
    hash: u64,
    namespace: u16,
    /// What other nodes publish is heard.
    is_heard: bool,
    /// Names what was asked of the backplane for it; 0: nothing, it is this node's own.
    life: u32,
    /// The newest offset. In channels without history it counts too, but nobody sees it.
    top: u64,
    /// The newest offset no longer held.
    floor: u64,
    attached: SmallVec<[Attachment; 2]>,
    history: Option<Box<History>>,
    presence: Option<Box<Presence>>,
}

const _: () = assert!(std::mem::size_of::<Home>() <= 112);

/// The channels this shard owns.
pub struct Homes {
    keys: Keys,
    config: Arc<Config>,
    epoch: Arc<str>,
    homes: Slab<Home>,
    table: HashTable<u32>,
    /// No channel of this shard has had a larger offset: one that is made anew starts above it, so that a position of its
    /// earlier life is below its floor. No tombstones, and never a false `recovered`.
    high_water: u64,
    history_bytes: u64,
    /// The newest life of a linked channel.
    lives: u32,
    /// Channels in the order in which they were last published to, for dropping history: index and offset then. An entry
    /// of a channel published to since is skipped.
    published: VecDeque<(u32, u64)>,
    /// Where the slow walk over all homes (age of records, homes nobody needs) stands.
    walk: u32,
    render: [Vec<u8>; Encoding::COUNT],
    /// The same frames compressed; empty: not worth it.
    deflated: [Vec<u8>; Encoding::COUNT],
    deflater: Deflater,
    numbered: Vec<u8>,
    /// Publications accepted.
    pub publications: u64,
}

/// Homes looked at in one housekeeping.
const WALK_STEP: u32 = 2048;

impl Homes {
    /// None yet. `epoch` names this boot.
    pub fn new(keys: Keys, config: Arc<Config>, epoch: Arc<str>) -> Self {
        Self {
            keys,
            config,
            epoch,
            homes: Slab::new(),
            table: HashTable::new(),
            high_water: 0,
            history_bytes: 0,
            lives: 0,
            published: VecDeque::new(),
            walk: 0,
            render: Default::default(),
            deflated: Default::default(),
            deflater: Deflater::new(publish::DEFLATE_LEVEL),
            numbered: Vec::new(),
            publications: 0,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.homes.len() == 0
    }

    /// Publications compressed.
    pub fn deflated(&self) -> Deflated {
        self.deflater.done
    }

    /// Bytes of records.
    pub fn history_bytes(&self) -> u64 {
        self.history_bytes
    }

    /// This shard's share of the node's history budget. Homes are spread by hash, so the shares are even.
    fn history_budget(&self) -> u64 {
        self.config.limits.history_bytes / u64::from(self.keys.shards)
    }

    fn find(&self, name: &str, hash: u64) -> Option<u32> {
        self.table
            .find(hash, |i| &*self.homes[*i].name == name)
            .copied()
    }

    fn find_or_make(
        &mut self,
        name: impl FnOnce() -> Arc<str>,
        known: &str,
        hash: u64,
        namespace: u16,
    ) -> u32 {
        if let Some(index) = self.find(known, hash) {
            return index;
        }
        let index = self.homes.insert(Home {
            name: name(),
            hash,
            namespace,
            is_heard: false,
            life: 0,
            top: self.high_water,
            floor: self.high_water,
            attached: SmallVec::new(),
            history: None,
            presence: None,
        });
        let homes = &self.homes;
        self.table.insert_unique(hash, index, |i| homes[*i].hash);
        index
    }

    /// A view wants `lanes` from now on.
    #[allow(clippy::too_many_arguments)] // the fields of one message and its sender
    pub fn attach(
        &mut self,
        from: ShardId,
        name: &Arc<str>,
        hash: u64,
        namespace: u16,
        view: u32,
        generation: u32,
        lanes: LaneMask,
        links: &mut Links,
    ) {
        let index = self.find_or_make(|| name.clone(), name, hash, namespace);
        let home = &mut self.homes[index];
        match home
            .attached
            .iter_mut()
            .find(|a| a.shard == from && a.generation == generation)
        {
            Some(attachment) => attachment.lanes = lanes,
            None => home.attached.push(Attachment {
                shard: from,
                lanes,
                view,
                generation,
            }),
        }
        self.follow(index, links);
        let home = &self.homes[index];
        // Else it is answered as soon as what others publish is heard: nothing after the answer is missed.
        if home.life == 0 || home.is_heard {
            links.to(from).messages.push(Message::Attached {
                name: home.name.clone(),
                view,
                generation,
                lanes,
                top: home.top,
            });
        }
    }

    /// Asks the backplane for what other nodes publish in a channel, once.
    fn follow(&mut self, index: u32, links: &mut Links) {
        let home = &mut self.homes[index];
        if home.life != 0 || !self.config.is_linked(home.namespace) {
            return;
        }
        self.lives = self.lives.wrapping_add(1).max(1);
        home.life = self.lives;
        let control = links.control();
        links.to(control).messages.push(Message::Follow {
            name: home.name.clone(),
            hash: home.hash,
            namespace: home.namespace,
            life: home.life,
        });
    }

    /// What other nodes publish is heard from now on: whoever waits for it is told.
    pub fn followed(&mut self, name: &str, hash: u64, life: u32, links: &mut Links) {
        let Some(index) = self.find(name, hash) else {
            return;
        };
        let home = &mut self.homes[index];
        if home.life != life || home.is_heard {
            return;
        }
        home.is_heard = true;
        for attachment in &home.attached {
            links.to(attachment.shard).messages.push(Message::Attached {
                name: home.name.clone(),
                view: attachment.view,
                generation: attachment.generation,
                lanes: attachment.lanes,
                top: home.top,
            });
        }
    }

    /// A view is gone.
    pub fn detach(
        &mut self,
        from: ShardId,
        name: &str,
        hash: u64,
        generation: u32,
        links: &mut Links,
    ) {
        let Some(index) = self.find(name, hash) else {
            return;
        };
        self.homes[index]
            .attached
            .retain(|a| !(a.shard == from && a.generation == generation));
        self.free_if_unused(index, links);
    }

    fn free_if_unused(&mut self, index: u32, links: &mut Links) {
        let home = &self.homes[index];
        let is_used =
            !home.attached.is_empty() || home.history.is_some() || home.presence.is_some();
        if is_used {
            return;
        }
        self.high_water = self.high_water.max(home.top);
        let Some(home) = self.homes.remove(index) else {
            return;
        };
        if let Ok(entry) = self.table.find_entry(home.hash, |i| *i == index) {
            entry.remove();
        }
        if home.life != 0 {
            let control = links.control();
            links.to(control).messages.push(Message::Unfollow {
                name: home.name,
                life: home.life,
            });
        }
    }

    /// A few times a second: drops records that are too old, frees homes that nobody needs.
    pub fn housekeep(&mut self, now: Now, links: &mut Links) {
        let end = self.homes.slots();
        for _ in 0..WALK_STEP.min(end) {
            self.walk = if self.walk + 1 >= end {
                0
            } else {
                self.walk + 1
            };
            if self.homes.get(self.walk).is_some() {
                self.expire(self.walk, now);
                self.free_if_unused(self.walk, links);
            }
        }
        if self.published.len() > 1024 + 4 * self.homes.len() {
            let homes = &self.homes;
            self.published.retain(|(index, top)| {
                homes
                    .get(*index)
                    .is_some_and(|h| h.top == *top && h.history.is_some())
            });
        }
    }

    /// Drops the records of a channel that are older than its `history_ttl`.
    fn expire(&mut self, index: u32, now: Now) {
        let home = &mut self.homes[index];
        let Some(history) = &mut home.history else {
            return;
        };
        let ttl = self.config.channels.namespaces[usize::from(home.namespace)]
            .1
            .history_ttl
            .as_millis() as u64;
        let before = history.bytes();
        history.expire(now.millis.saturating_sub(ttl), &mut home.floor);
        self.history_bytes -= before - history.bytes();
        if history.is_empty() {
            home.history = None;
        }
    }

    /// Drops records of the least recently published channels until the budget holds. Floors rise: a client that needed
    /// them is told.
    fn enforce_history_budget(&mut self, links: &mut Links) {
        let budget = self.history_budget();
        while self.history_bytes > budget {
            let Some((index, top)) = self.published.pop_front() else {
                return;
            };
            let Some(home) = self.homes.get_mut(index).filter(|home| home.top == top) else {
                continue;
            };
            let Some(history) = &mut home.history else {
                continue;
            };
            let before = history.bytes();
            while self.history_bytes - (before - history.bytes()) > budget
                && history.drop_oldest(&mut home.floor)
            {}
            self.history_bytes -= before - history.bytes();
            if history.is_empty() {
                home.history = None;
                self.free_if_unused(index, links);
            } else {
                self.published.push_front((index, top));
                return;
            }
        }
    }
}
