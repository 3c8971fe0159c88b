//! The sweep: the walk over the members of dirty lanes that decides who is sent what.
//!
//! A lane's hand goes round its member array in order. An append does not restart it: it only owes every member one more
//! visit, so that each member gets one send a lap and later ones more bytes. The sweep is over when nothing is owed.
//!
//! What may be freed is learnt on the way: at the end of a lap nobody is below the smallest position seen in it.

use super::lane::{Lane, Member};
use super::view::Hub;
use crate::log::Sweep;

/// Visits a dirty lane gets before the next one's turn.
const QUANTUM: u32 = 256;
/// Connections gathered for one flush.
pub const GATHER_MAX: usize = crate::reactor::FLUSH_MAX;
const NONE: u32 = u32::MAX;

/// A set of slots as bits.
#[derive(Debug, Default)]
pub struct SlotSet {
    words: Vec<u64>,
    len: u32,
}

impl SlotSet {
    /// Room for slots below `slots`.
    pub fn new(slots: u32) -> Self {
        Self {
            words: vec![0; (slots as usize).div_ceil(64)],
            len: 0,
        }
    }

    /// Whether the slot is in it.
    pub fn contains(&self, slot: u32) -> bool {
        self.words[slot as usize / 64] >> (slot % 64) & 1 == 1
    }

    /// Adds; whether it was not in it.
    pub fn insert(&mut self, slot: u32) -> bool {
        let word = &mut self.words[slot as usize / 64];
        let fresh = *word >> (slot % 64) & 1 == 0;
        *word |= 1 << (slot % 64);
        self.len += u32::from(fresh);
        fresh
    }

    /// Removes; whether it was in it.
    pub fn remove(&mut self, slot: u32) -> bool {
        let held = self.contains(slot);
        self.words[slot as usize / 64] &= !(1 << (slot % 64));
        self.len -= u32::from(held);
        held
    }

    /// How many.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    lane: u32,
    member: u32,
    next: u32,
}

/// The connections of one flush and, for each, the members it is behind in.
pub struct Gather {
    /// First node by slot; `NONE`: the connection has none.
    heads: Vec<u32>,
    nodes: Vec<Node>,
    slots: Vec<u32>,
    max: usize,
    in_gather: SlotSet,
    /// Connections of which every member was gathered, so that a sweep has nothing to add; also those that had none.
    scanned: SlotSet,
    scanned_slots: Vec<u32>,
}

impl Gather {
    /// For slots below `slots`, and at most `max` connections at a time.
    pub fn new(slots: u32, max: usize) -> Self {
        Self {
            max,
            heads: vec![NONE; slots as usize],
            nodes: Vec::with_capacity(4 * GATHER_MAX),
            slots: Vec::with_capacity(GATHER_MAX),
            in_gather: SlotSet::new(slots),
            scanned: SlotSet::new(slots),
            scanned_slots: Vec::with_capacity(GATHER_MAX),
        }
    }

    /// Whether no further connection fits.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.max
    }

    /// Connections that fit.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether there is nobody to send to.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The connections.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Takes a connection in (for its private bytes, or to be scanned). Room was checked by the caller.
    pub fn add_slot(&mut self, slot: u32) {
        if self.in_gather.insert(slot) {
            debug_assert!(self.slots.len() < self.max);
            self.slots.push(slot);
        }
    }

    /// Every member of this connection that is behind is being gathered by the caller.
    pub fn mark_scanned(&mut self, slot: u32) {
        if self.scanned.insert(slot) {
            self.scanned_slots.push(slot);
        }
    }

    /// Adds a member that is behind.
    pub fn add_member(&mut self, slot: u32, lane: u32, member: u32) {
        self.add_slot(slot);
        let next = self.heads[slot as usize];
        self.heads[slot as usize] = self.nodes.len() as u32;
        self.nodes.push(Node { lane, member, next });
    }

    /// Lane and place of each member gathered for a connection.
    pub fn members(&self, slot: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = self.heads[slot as usize];
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some((node.lane, node.member))
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for slot in self.slots.drain(..) {
            self.heads[slot as usize] = NONE;
            self.in_gather.remove(slot);
        }
        for slot in self.scanned_slots.drain(..) {
            self.scanned.remove(slot);
        }
        self.nodes.clear();
    }
}

/// What a sweep found besides members to send to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Members whose cursor has fallen off their log: connection and lane.
    pub lost: Vec<(u32, u32)>,
    /// Lanes in which everybody was visited, or whose sweep ended: to be trimmed after the flush
    /// ([`Hub::end_of_lap`]).
    pub swept: Vec<u32>,
}

/// Everybody is owed one more visit. Whether there is anybody and anything.
pub(super) fn owe(lane: &mut Lane) -> bool {
    let members = lane.members.len() as u32;
    let is_dirty = lane.is_dirty;
    match &mut lane.log {
        Some(log) => {
            if !is_dirty {
                log.sweep = Sweep {
                    hand: 0,
                    owed: members,
                    ..Sweep::fresh()
                };
            }
            log.sweep.owed = members;
            true
        }
        None => false,
    }
}

/// A member has joined at the end of the array. It owes itself nothing, but visits are counted from the hand, and it is now
/// between the hand and the members behind it.
pub(super) fn owe_for_joining(lane: &mut Lane) {
    let is_dirty = lane.is_dirty;
    if let Some(log) = &mut lane.log
        && is_dirty
    {
        log.sweep.owed += 1;
    }
}

/// A member has changed its place, perhaps behind the hand.
pub(super) fn owe_after_move(lane: &mut Lane, cursor: u64) {
    let members = lane.members.len() as u32;
    let is_dirty = lane.is_dirty;
    if let Some(log) = &mut lane.log
        && is_dirty
    {
        log.sweep.stuck = log.sweep.stuck.min(cursor);
        log.sweep.unfinished = log.sweep.unfinished.min(cursor);
        if crate::planted!(MovedMemberSkipped) {
            return;
        }
        log.sweep.owed = members;
    }
}

impl Hub {
    /// Visits members of dirty lanes, round robin, until the gather is full or nothing is owed.
    pub fn sweep(&mut self, blocked: &SlotSet, gather: &mut Gather, findings: &mut Findings) {
        while !gather.is_full() {
            let Some(index) = self.dirty.pop_front() else {
                return;
            };
            let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.log.is_some()) else {
                // Its last member left.
                if let Some(lane) = self.lanes.get_mut(index) {
                    lane.is_dirty = false;
                }
                continue;
            };
            if sweep_lane(index, lane, &mut self.pool, blocked, gather, findings) {
                lane.is_dirty = false;
                findings.swept.push(index);
            } else {
                self.dirty.push_back(index);
            }
        }
    }

    /// After the flush in which a lane's lap or sweep ended: frees what nobody needs, then what is too far behind.
    pub fn end_of_lap(&mut self, index: u32, now_millis: u64) {
        self.trim_swept(index);
        self.enforce_lag(index, now_millis);
    }

    fn trim_swept(&mut self, index: u32) {
        let Some(lane) = self.lanes.get_mut(index) else {
            return;
        };
        let (head, is_dirty, joined) = (lane.head, lane.is_dirty, lane.joined_floor());
        let Some(log) = &mut lane.log else { return };
        if is_dirty {
            return;
        }
        let keep_from = log
            .sweep
            .stuck
            .min(log.sweep.stuck_before)
            .min(joined)
            .min(head);
        log.trim(&mut self.pool, keep_from);
        if keep_from == head
            && let Some(log) = lane.log.take()
        {
            self.pool.give_log(log);
        }
    }

    /// A gathered member was not sent everything: because it took no more, or because it was not given more.
    pub fn is_still_behind(&mut self, lane: u32, cursor: u64, is_blocked: bool) {
        if let Some(log) = &mut self.lanes[lane].log {
            log.sweep.stuck = log.sweep.stuck.min(cursor);
            if !is_blocked {
                log.sweep.unfinished = log.sweep.unfinished.min(cursor);
            }
        }
    }
}

/// Whether the sweep is over.
fn sweep_lane(
    index: u32,
    lane: &mut Lane,
    pool: &mut crate::log::Pool,
    blocked: &SlotSet,
    gather: &mut Gather,
    findings: &mut Findings,
) -> bool {
    let (head, joined) = (lane.head, lane.joined_floor());
    let members: &[Member] = &lane.members;
    let Some(log) = &mut lane.log else {
        return true;
    };
    let base = log.base().unwrap_or(head);
    let mut sweep = log.sweep;
    // Nobody may be gathered twice for one flush. Members that left may have left more owed than there are members.
    sweep.owed = sweep.owed.min(members.len() as u32);
    let mut quantum = QUANTUM;
    while sweep.owed > 0 && quantum > 0 && !gather.is_full() {
        if sweep.hand as usize >= members.len() {
            sweep.hand = 0;
            // A whole lap: nobody is below the smallest position met in it.
            let keep_from = sweep.passed.min(sweep.stuck).min(joined);
            sweep.stuck_before = sweep.stuck;
            sweep.passed_before = sweep.passed.min(sweep.unfinished);
            (sweep.passed, sweep.stuck, sweep.unfinished) = (u64::MAX, u64::MAX, u64::MAX);
            log.trim(pool, keep_from.min(head));
            findings.swept.push(index);
        }
        let place = sweep.hand;
        let member = members[place as usize];
        sweep.hand += 1;
        sweep.owed -= 1;
        quantum -= 1;
        // A recovering member reads its backfill; the connection brings it here when it has caught up.
        if member.backfill().is_some() {
            continue;
        }
        if member.cursor == head {
            sweep.passed = sweep.passed.min(head);
            continue;
        }
        if member.cursor < base {
            findings.lost.push((member.slot, index));
            continue;
        }
        if blocked.contains(member.slot) {
            sweep.stuck = sweep.stuck.min(member.cursor);
        } else {
            sweep.passed = sweep.passed.min(member.cursor);
            if !gather.scanned.contains(member.slot) {
                gather.add_member(member.slot, index, place);
            }
        }
    }
    log.sweep = sweep;
    sweep.owed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_set_counts_what_it_holds() {
        let mut set = SlotSet::new(130);
        assert!(set.insert(129) && !set.insert(129) && set.insert(0));
        assert_eq!(set.len(), 2);
        assert!(set.remove(129) && !set.remove(129) && !set.contains(129) && set.contains(0));
    }

    #[test]
    fn a_gather_keeps_the_members_of_each_connection_apart_and_forgets_them() {
        let mut gather = Gather::new(10, GATHER_MAX);
        gather.add_member(3, 1, 7);
        gather.add_member(4, 1, 8);
        gather.add_member(3, 2, 9);
        assert_eq!(gather.members(3).collect::<Vec<_>>(), [(2, 9), (1, 7)]);
        assert_eq!(gather.slots(), [3, 4]);
        gather.clear();
        assert!(gather.is_empty());
        gather.add_slot(3);
        assert_eq!(gather.members(3).count(), 0);
    }
}
