//! Views: a channel on this shard, from its first subscriber to a second after its last.

use super::backfill::KEEP_MILLIS;
use super::keys::Keys;
use super::lane::{Lane, LaneKind, Member, Rendition};
use super::links::Links;
use super::message::{LaneMask, Message, Span};
use crate::config::{Config, SlowPolicy};
use crate::ids::{ShardId, Token};
use crate::log::Pool;
use crate::protocol::centrifuge::Encoding;
use crate::slab::Slab;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::sync::Arc;

const NO_LANE: u32 = u32::MAX;
/// Bytes of the newest publications of all keys of a lane, unless `lag.bytes` is more. Keys come from the server API only.
const LATEST_BYTES: usize = 4 * 1024 * 1024;
/// How long a view without members stays attached: clients that leave and come back cost its home nothing.
const DETACH_AFTER_MILLIS: u64 = 1000;

/// A channel on this shard.
#[derive(Debug)]
pub struct View {
    /// Its name.
    pub name: Arc<str>,
    /// Keyed hash of the name.
    pub hash: u64,
    /// Its namespace's index.
    pub namespace: u16,
    /// What its home was asked for, and what has been answered.
    asked: LaneMask,
    attached: LaneMask,
    /// Names this life of the view; messages of another are dropped.
    pub generation: u32,
    /// Subscriptions, those that still wait included.
    pub subscriptions: u32,
    /// How often it stands in the queue of idle views.
    idle_entries: u32,
    /// The newest offset seen.
    pub top: u64,
    lanes: [u32; LaneKind::COUNT],
    /// Connections with a subscription that waits for the home.
    #[allow(clippy::box_collection)] // 8 bytes in the usual case, nobody waiting
    pub(super) waiting: Option<Box<Vec<Token>>>,
}

const _: () = assert!(std::mem::size_of::<View>() <= 80);

/// A member that changed its place because another left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whose.
    pub slot: u32,
    /// Which of its subscriptions.
    pub sub: u32,
    /// The place it has now.
    pub member: u32,
}

/// What a frame that arrives asks of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Nothing.
    Done,
    /// The numbers do not follow: the view has missed something and all its members must be told.
    Broken {
        /// The view.
        view: u32,
    },
    /// The publication is not JSON: the members that read JSON cannot have it.
    NotJson {
        /// The view.
        view: u32,
    },
}

/// The channels of one shard.
pub struct Hub {
    pub(crate) keys: Keys,
    pub(crate) config: Arc<Config>,
    /// Views by index.
    pub views: Slab<View>,
    table: HashTable<u32>,
    /// Lanes by index.
    pub lanes: Slab<Lane>,
    /// Chunks.
    pub pool: Pool,
    pub(crate) dirty: VecDeque<u32>,
    /// Lanes that hold bytes (or did a moment ago).
    pub(super) held: Vec<u32>,
    /// Lanes with a fetch to be sent at the end of the tick.
    pub(super) to_fetch: Vec<u32>,
    /// Views without subscriptions, their life, and since when.
    idle: VecDeque<(u32, u32, u64)>,
    generation: u32,
}

impl Hub {
    /// An empty hub.
    pub fn new(keys: Keys, config: Arc<Config>) -> Self {
        Self {
            keys,
            config,
            views: Slab::new(),
            table: HashTable::new(),
            lanes: Slab::new(),
            pool: Pool::default(),
            dirty: VecDeque::new(),
            held: Vec::new(),
            to_fetch: Vec::new(),
            idle: VecDeque::new(),
            generation: 0,
        }
    }

    /// The view of a channel, if there is one.
    pub fn find(&self, name: &str, hash: u64) -> Option<u32> {
        self.table
            .find(hash, |i| &*self.views[*i].name == name)
            .copied()
    }

    /// The view of a channel, made if need be, with one more subscription (see [`Hub::release`]) that wants `lanes`. The
    /// home is asked for what it has not been asked for yet.
    pub fn retain(
        &mut self,
        name: &str,
        hash: u64,
        namespace: u16,
        lanes: LaneMask,
        links: &mut Links,
    ) -> u32 {
        let index = self.find(name, hash).unwrap_or_else(|| {
            self.generation = self.generation.wrapping_add(1);
            let index = self.views.insert(View {
                name: name.into(),
                hash,
                namespace,
                asked: LaneMask::default(),
                attached: LaneMask::default(),
                generation: self.generation,
                subscriptions: 0,
                idle_entries: 0,
                top: 0,
                lanes: [NO_LANE; LaneKind::COUNT],
                waiting: None,
            });
            let views = &self.views;
            self.table.insert_unique(hash, index, |i| views[*i].hash);
            index
        });
        let view = &mut self.views[index];
        view.subscriptions += 1;
        if !view.asked.covers(lanes) {
            view.asked = view.asked.with(lanes);
            self.attach(index, links);
        }
        index
    }

    /// Asks the home of a view for all that was ever asked for: an answer to an earlier question promises no more than that.
    fn attach(&self, index: u32, links: &mut Links) {
        let view = &self.views[index];
        let batch = links.to(self.keys.home(view.hash));
        batch.messages.push(Message::Attach {
            name: view.name.clone(),
            hash: view.hash,
            namespace: view.namespace,
            view: index,
            generation: view.generation,
            lanes: view.asked,
        });
    }

    /// One subscription less.
    pub fn release(&mut self, index: u32, now_millis: u64) {
        let view = &mut self.views[index];
        view.subscriptions -= 1;
        if view.subscriptions == 0 {
            view.idle_entries += 1;
            self.idle.push_back((index, view.generation, now_millis));
        }
    }

    /// Whether the home has answered for these lanes.
    pub fn is_attached(&self, view: u32, lanes: LaneMask) -> bool {
        self.views[view].attached.covers(lanes)
    }

    /// The connection is to be looked at again when the home has answered.
    pub fn wait(&mut self, view: u32, token: Token) {
        let waiting = self.views[view].waiting.get_or_insert_default();
        // Looked at again for another reason, it says so again.
        if waiting.last() != Some(&token) {
            waiting.push(token);
        }
    }

    /// A live view, if the message is not of another life.
    pub(crate) fn current(&mut self, view: u32, generation: u32) -> Option<&mut View> {
        self.views
            .get_mut(view)
            .filter(|v| v.generation == generation)
    }

    /// The home has answered an attach: `waiters` are to be looked at again. From here on the view shares the home's copy of
    /// the channel's `name`, as all its views do.
    pub fn on_attached(
        &mut self,
        name: &Arc<str>,
        (view, generation): (u32, u32),
        lanes: LaneMask,
        top: u64,
        waiters: &mut Vec<Token>,
    ) {
        let Some(view) = self.current(view, generation) else {
            return;
        };
        debug_assert!(
            view.attached == LaneMask::default() || view.top == top,
            "what follows an attach is gapless"
        );
        view.attached = view.attached.with(lanes);
        view.top = top;
        view.name = name.clone();
        waiters.extend(view.waiting.take().into_iter().flat_map(|w| *w));
    }

    /// The home has dropped frames of this view, which asks to be attached anew. Whether it is of this life: then all its
    /// members have lost their position.
    pub fn on_missed(&mut self, index: u32, generation: u32, links: &mut Links) -> bool {
        let Some(view) = self.current(index, generation) else {
            return false;
        };
        view.attached = LaneMask::default();
        for lane in view.lanes.into_iter().filter(|lane| *lane != NO_LANE) {
            self.lanes[lane].unjoin_backfills();
        }
        self.attach(index, links);
        true
    }

    /// The lane of a view, made if need be.
    pub(super) fn lane(&mut self, view: u32, kind: LaneKind) -> u32 {
        let at = self.views[view].lanes[kind.index()];
        if at != NO_LANE {
            return at;
        }
        let lane = self.lanes.insert(Lane::new(view, kind));
        self.views[view].lanes[kind.index()] = lane;
        lane
    }

    /// The lane of a view, if it has one of this kind.
    pub fn lane_of(&self, view: u32, kind: LaneKind) -> Option<u32> {
        let lane = self.views[view].lanes[kind.index()];
        (lane != NO_LANE).then_some(lane)
    }

    /// The members of a view that read publications in JSON.
    pub fn json_members(&self, view: u32) -> impl Iterator<Item = u32> + '_ {
        Rendition::ALL
            .into_iter()
            .filter(|rendition| rendition.encoding == Encoding::Json)
            .filter_map(move |rendition| self.lane_of(view, LaneKind::Publications(rendition)))
            .flat_map(|lane| self.lanes[lane].members.iter().map(|member| member.slot))
    }

    /// Lanes of a view.
    pub fn lanes_of(&self, view: u32) -> impl Iterator<Item = u32> + '_ {
        self.views[view]
            .lanes
            .iter()
            .copied()
            .filter(|lane| *lane != NO_LANE)
    }

    /// Adds a member at the head of a lane. Returns lane and place.
    pub fn join(&mut self, view: u32, kind: LaneKind, slot: u32, sub: u32) -> (u32, u32) {
        let lane = self.lane(view, kind);
        let head = self.lanes[lane].head;
        (lane, self.add(lane, Member::live(slot, sub, head)))
    }

    /// Adds a member that reads a backfill first. Returns lane and place.
    pub fn join_backfill(
        &mut self,
        view: u32,
        kind: LaneKind,
        slot: u32,
        sub: u32,
        backfill: u16,
        cursor: u64,
    ) -> (u32, u32) {
        let lane = self.lane(view, kind);
        self.lanes[lane].backfill_mut(backfill).readers += 1;
        (
            lane,
            self.add(lane, Member::recovering(slot, sub, backfill, cursor)),
        )
    }

    fn add(&mut self, lane: u32, member: Member) -> u32 {
        let lane = &mut self.lanes[lane];
        lane.members.push(member);
        super::sweep::owe_for_joining(lane);
        lane.members.len() as u32 - 1
    }

    /// Removes a member. The last member takes its place; its connection must be told.
    pub fn leave(&mut self, lane_index: u32, place: u32) -> Option<Moved> {
        let lane = &mut self.lanes[lane_index];
        let gone = lane.members.swap_remove(place as usize);
        if let Some(backfill) = gone.backfill() {
            lane.backfill_mut(backfill).readers -= 1;
        }
        if lane.members.is_empty() {
            // Frames are not appended to a lane that nobody reads, so where a backfill joins it is no longer known.
            self.drop_log(lane_index);
            return None;
        }
        // One less to visit, or the sweep would meet somebody twice in one flush.
        let members = lane.members.len() as u32;
        if let Some(log) = &mut lane.log {
            log.sweep.owed = log.sweep.owed.min(members);
        }
        let moved = lane.members.get(place as usize).copied()?;
        if moved.backfill().is_none() {
            super::sweep::owe_after_move(lane, moved.cursor);
        }
        Some(Moved {
            slot: moved.slot,
            sub: moved.sub(),
            member: place,
        })
    }

    fn drop_log(&mut self, lane: u32) {
        let lane = &mut self.lanes[lane];
        if let Some(log) = lane.log.take() {
            self.pool.give_log(log);
        }
        lane.unjoin_backfills();
        if let Some(extras) = &mut lane.extras {
            extras.latest = None;
        }
    }

    /// Frames of one publication (or one frame without an offset) arrive from the home.
    #[allow(clippy::too_many_arguments)] // the fields of one message
    pub fn on_append(
        &mut self,
        index: u32,
        generation: u32,
        (prev, offset): (u64, u64),
        frames: [Span; Rendition::COUNT],
        sideband: bool,
        not_json: bool,
        key: Span,
        bytes: &[u8],
        now_millis: u64,
    ) -> Appended {
        let stale_allowed = crate::planted!(GenerationNotChecked);
        let Some(view) = self
            .views
            .get_mut(index)
            .filter(|v| stale_allowed || v.generation == generation)
        else {
            return Appended::Done;
        };
        if !sideband {
            if prev != view.top && !stale_allowed {
                view.top = offset;
                return Appended::Broken { view: index };
            }
            // Equal: a publication that is not kept, so that nobody can ask for it again.
            debug_assert!(offset >= prev || stale_allowed, "offsets never fall");
            view.top = offset;
        }
        let namespace = view.namespace;
        let lanes = view.lanes;
        let mut outcome = Appended::Done;
        for rendition in Rendition::ALL {
            let kind = match sideband {
                false => LaneKind::Publications(rendition),
                true if rendition.deflated => break,
                true => LaneKind::Sideband(rendition.encoding),
            };
            let lane = lanes[kind.index()];
            if lane == NO_LANE {
                continue;
            }
            if self.lanes[lane].members.is_empty() {
                // Nobody reads: nothing is appended, so where a backfill would join the log is no longer known.
                self.lanes[lane].unjoin_backfills();
                continue;
            }
            let frame = frames[rendition.index()].of(bytes);
            if frame.is_empty() {
                if not_json && rendition.encoding == Encoding::Json {
                    outcome = Appended::NotJson { view: index };
                }
                continue;
            }
            self.append(lane, namespace, frame, key.of(bytes), now_millis);
        }
        outcome
    }

    fn append(&mut self, index: u32, namespace: u16, frame: &[u8], key: &[u8], now_millis: u64) {
        let options = &self.config.channels.namespaces[usize::from(namespace)].1;
        let lane = &mut self.lanes[index];
        if options.slow == SlowPolicy::Latest && lane.kind.is_publications() {
            let extras = lane.extras.get_or_insert_default();
            let latest = extras.latest.get_or_insert_default();
            latest.put(key, lane.head, frame);
            latest.bound(LATEST_BYTES.max(options.lag_bytes as usize));
        }
        let log = lane.log.get_or_insert_with(|| self.pool.take_log());
        lane.head = log.append(&mut self.pool, index, lane.head, frame, now_millis);
        if !lane.is_held {
            lane.is_held = true;
            self.held.push(index);
        }
        self.owe_lap(index);
        self.enforce_budget();
    }

    /// Every member of the lane is to be visited once more.
    pub(crate) fn owe_lap(&mut self, index: u32) {
        let lane = &mut self.lanes[index];
        if super::sweep::owe(lane) && !lane.is_dirty {
            lane.is_dirty = true;
            self.dirty.push_back(index);
        }
    }

    /// Drops what is too far behind the head or too old. Only after a lap: until then a frame may be one that nobody was
    /// offered yet, and no member is to be blamed for a burst.
    pub(crate) fn enforce_lag(&mut self, index: u32, now_millis: u64) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let options =
            &self.config.channels.namespaces[usize::from(self.views[lane.view].namespace)].1;
        let (bytes, millis) = (
            u64::from(options.lag_bytes),
            options.lag_time.as_millis() as u64,
        );
        let Some(log) = &mut lane.log else { return };
        // Who takes all that it is offered has fallen behind because we are slow, not because it is.
        let healthy = log
            .sweep
            .passed
            .min(log.sweep.passed_before)
            .min(log.sweep.unfinished);
        if log.enforce_lag(
            &mut self.pool,
            (lane.head, healthy),
            bytes,
            now_millis,
            millis,
        ) {
            // The next lap finds who has fallen off.
            self.owe_lap(index);
        }
    }

    /// Evicts the shard's oldest chunks while its logs hold more than their budget.
    pub(super) fn enforce_budget(&mut self) {
        while self.pool.bytes_in_use() > self.config.limits.log_bytes {
            let Some(oldest) = self.pool.next_oldest() else {
                return;
            };
            let Some(lane) = self.lanes.get_mut(oldest.lane) else {
                continue;
            };
            let mut evicted = lane
                .log
                .as_mut()
                .is_some_and(|log| log.evict(&mut self.pool, oldest.serial));
            for backfill in lane
                .extras
                .iter_mut()
                .flat_map(|e| e.backfills.iter_mut().flatten())
            {
                evicted |= backfill.evict(&mut self.pool, oldest.serial);
            }
            if evicted {
                self.owe_lap(oldest.lane);
            }
        }
        if self.pool.order_is_stale() {
            let lanes = &self.lanes;
            self.pool.compact_order(|name| {
                lanes.get(name.lane).is_some_and(|lane| {
                    lane.log.as_ref().is_some_and(|log| log.holds(name.serial))
                        || lane
                            .extras
                            .iter()
                            .flat_map(|e| e.backfills.iter().flatten())
                            .any(|backfill| backfill.log.holds(name.serial))
                })
            });
        }
    }

    /// A few times a second: drops what is too old, frees what nobody needs, detaches what is idle.
    pub fn housekeep(&mut self, now_millis: u64, links: &mut Links) {
        let mut held = std::mem::take(&mut self.held);
        held.retain(|index| self.housekeep_lane(*index, now_millis));
        // Lanes that became held meanwhile were pushed to the emptied list.
        held.append(&mut self.held);
        self.held = held;

        while let Some((index, generation, since)) = self.idle.front().copied() {
            if since + DETACH_AFTER_MILLIS > now_millis {
                break;
            }
            self.idle.pop_front();
            let Some(view) = self.current(index, generation) else {
                continue;
            };
            view.idle_entries -= 1;
            // A view that came back and went idle again stands further behind in the queue, too.
            if view.subscriptions == 0 && view.idle_entries == 0 {
                self.detach(index, links);
            }
        }
    }

    fn housekeep_lane(&mut self, index: u32, now_millis: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(index) else {
            return false;
        };
        if let Some(extras) = &mut lane.extras {
            for slot in &mut extras.backfills {
                if slot
                    .as_ref()
                    .is_some_and(|b| b.readers == 0 && b.used_millis + KEEP_MILLIS <= now_millis)
                    && let Some(mut backfill) = slot.take()
                {
                    backfill.log.clear(&mut self.pool);
                }
            }
            while matches!(extras.backfills.last(), Some(None)) {
                extras.backfills.pop();
            }
        }
        if lane.log.is_some() {
            // The end of the lap drops what is too old, and frees what all have.
            self.owe_lap(index);
            return true;
        }
        let keeps_backfill = lane
            .extras
            .as_ref()
            .is_some_and(|e| !e.backfills.is_empty());
        if !keeps_backfill {
            lane.is_held = false;
        }
        keeps_backfill
    }

    fn detach(&mut self, index: u32, links: &mut Links) {
        let Some(view) = self.views.remove(index) else {
            return;
        };
        if let Ok(entry) = self.table.find_entry(view.hash, |i| *i == index) {
            entry.remove();
        }
        for lane in view.lanes.into_iter().filter(|lane| *lane != NO_LANE) {
            debug_assert!(
                self.lanes[lane].members.is_empty(),
                "a detached view has no members"
            );
            self.drop_log(lane);
            let mut lane = self.lanes.remove(lane);
            for backfill in lane
                .iter_mut()
                .flat_map(|l| l.extras.iter_mut())
                .flat_map(|e| e.backfills.iter_mut().flatten())
            {
                backfill.log.clear(&mut self.pool);
            }
        }
        links
            .to(self.keys.home(view.hash))
            .messages
            .push(Message::Detach {
                name: view.name,
                hash: view.hash,
                generation: view.generation,
            });
    }

    /// Names and members of the channels that have any, for the server API.
    pub fn channels(&self) -> impl Iterator<Item = (Arc<str>, u32)> + '_ {
        self.views
            .iter()
            .filter(|(_, v)| v.subscriptions > 0)
            .map(|(_, v)| (v.name.clone(), v.subscriptions))
    }

    /// Whether a sweep has work.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether a fetch is to be sent.
    pub fn wants_fetch(&self) -> bool {
        !self.to_fetch.is_empty()
    }

    /// Whether there are lanes to housekeep or views to detach.
    pub fn needs_housekeeping(&self) -> bool {
        !self.held.is_empty() || !self.idle.is_empty()
    }

    /// The home of a view.
    pub fn home_of(&self, view: u32) -> ShardId {
        self.keys.home(self.views[view].hash)
    }
}
