//! Delivering: gather who is behind, plan one send for each, flush, and see what the kernel took.
//!
//! A send carries, in this order: the rest of a frame that was cut, private replies, ranges of logs. When it is one range
//! in one chunk it goes out from the log as it lies; else it is put together in the scratch, which is free again when the
//! flush returns. What goes to a client that speaks TLS is sealed from there into a scratch of its own (`tls`).
//!
//! Invariants: at most one send a connection a flush; after the flush nothing is under way; a cursor is always at a frame
//! boundary, and when a send was cut inside a frame the rest of that frame is private.

use super::timers::Timer;
use super::{Ask, Core};
use crate::config::SlowPolicy;
use crate::connection::{Connection, Flags, Phase, Sub};
use crate::hub::Hub;
use crate::hub::lane::Member;
use crate::hub::recover::AtEnd;
use crate::ids::Token;
use crate::log::Log;
use crate::protocol::codes::Disconnect;
use crate::reactor::{CloseHow, FLUSH_MAX, Reactor, Send};
use crate::slab::Table;
use smallvec::SmallVec;

/// Bytes of one send.
const SEND_MAX: usize = 64 * 1024;
/// Bytes of one send to a connection that was ever cut short: with TCP_NOTSENT_LOWAT the kernel takes that and one send.
const SEND_MAX_SHORT: usize = 16 * 1024;
/// The scratch; when it is full the flush takes no more connections.
const SCRATCH_MAX: usize = 1024 * 1024;
/// First wait after the kernel has twice taken nothing although it said it would.
const RETRY_MILLIS: u64 = 10;

#[derive(Clone, Copy, Debug)]
struct Range {
    lane: u32,
    place: u32,
    start: u64,
    end: u64,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// One range, in one chunk.
    Log,
    Private,
    Scratch {
        start: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Part {
    slot: u32,
    source: Source,
    len: usize,
    /// How many of them are private.
    private: usize,
    first_range: usize,
    ranges: usize,
}

/// What a flush sends to whom. Reused.
#[derive(Debug)]
pub(super) struct Plan {
    parts: Vec<Part>,
    ranges: Vec<Range>,
    scratch: Vec<u8>,
    /// What the kernel took of each part.
    taken: Vec<Result<usize, i32>>,
    /// Connections that may be behind still when all of this has left, or that were sent less.
    behind: Vec<u32>,
}

impl Plan {
    /// With the whole scratch touched, so that what a shard costs is seen when it starts.
    pub(super) fn new() -> Self {
        let mut scratch = vec![1; SCRATCH_MAX];
        scratch.clear();
        Self {
            parts: Vec::new(),
            ranges: Vec::new(),
            scratch,
            taken: Vec::new(),
            behind: Vec::new(),
        }
    }
}

/// The bytes of a part as they lie in the log, the private bytes or the scratch.
fn bytes_of<'a>(
    part: &Part,
    hub: &'a Hub,
    conns: &'a Table<Connection>,
    ranges: &[Range],
    scratch: &'a [u8],
) -> &'a [u8] {
    match part.source {
        Source::Scratch { start } => &scratch[start..start + part.len],
        Source::Private => {
            let private = conns.get(part.slot).and_then(|c| c.private.as_ref());
            &private.expect("planned from it").waiting()[..part.len]
        }
        Source::Log => {
            let range = ranges[part.first_range];
            let (_, log, _) = reader(hub, range.lane, range.place);
            log.range(range.start, range.end)
        }
    }
}

fn member(hub: &Hub, lane: u32, place: u32) -> Member {
    hub.lanes[lane].members[place as usize]
}

/// A member, the log that it reads, and the end of that.
fn reader(hub: &Hub, lane: u32, place: u32) -> (Member, &Log, u64) {
    let lane = &hub.lanes[lane];
    let member = lane.members[place as usize];
    match member.backfill() {
        None => (member, lane.log(), lane.head),
        Some(number) => {
            let backfill = lane.backfill(number);
            (member, &backfill.log, backfill.head)
        }
    }
}

impl Core {
    /// One slice of sends.
    pub(super) fn flush<R: Reactor>(&mut self, reactor: &mut R) {
        self.gather.clear();
        self.take_ready();
        self.hub
            .sweep(&self.blocked, &mut self.gather, &mut self.findings);
        if !self.gather.is_empty() {
            self.prepare_sealing();
            self.plan();
            self.seal();
            self.send(reactor);
            self.settle_sends();
            self.retire_worn_keys();
        }
        while let Some(lane) = self.findings.swept.pop() {
            self.hub.end_of_lap(lane, self.now.millis);
        }
        while let Some(slot) = self.not_json.pop() {
            self.close(self.token(slot), Disconnect::INAPPROPRIATE_PROTOCOL);
        }
        let mut lost = std::mem::take(&mut self.findings.lost);
        for (slot, lane) in lost.drain(..) {
            self.fell_off(slot, lane);
        }
        self.findings.lost = lost;
    }

    /// Takes in the connections that no sweep would find.
    fn take_ready(&mut self) {
        // Half of the places are the sweep's, so that many who recover do not keep the others waiting.
        let max = self.gather.max();
        let places = if self.hub.is_dirty() { max / 2 } else { max };
        while self.gather.slots().len() < places {
            let Some(slot) = self.ready.pop_front() else {
                return;
            };
            self.is_ready.remove(slot);
            if self.blocked.contains(slot) {
                continue;
            }
            let Some(conn) = self.conns.get(slot) else {
                continue;
            };
            if conn.private.as_ref().is_some_and(|p| !p.is_empty()) {
                self.gather.add_slot(slot);
            }
            if self.rescan.remove(slot) {
                self.gather.mark_scanned(slot);
                for at in 0.. {
                    let Some(sub) = self.conns.get(slot).and_then(|c| c.subs.get(at).copied())
                    else {
                        break;
                    };
                    self.visit(slot, sub);
                }
            }
            if self.gather.members(slot).next().is_none()
                && let Some(conn) = self.conns.get_mut(slot)
                && conn.private.as_ref().is_none_or(|p| p.is_empty())
            {
                conn.unblock();
            }
        }
    }

    fn visit(&mut self, slot: u32, sub: Sub) {
        let (lane, place) = (sub.lane, sub.place());
        let mut seen = member(&self.hub, lane, place);
        if let Some(number) = seen.backfill() {
            let backfill = self.hub.lanes[lane].backfill(number);
            if seen.cursor < backfill.log.base().unwrap_or(backfill.head) {
                self.findings.lost.push((slot, lane));
                return;
            }
            if seen.cursor < backfill.head {
                self.gather.add_member(slot, lane, place);
                return;
            }
            match self.hub.at_end_of_backfill(lane, place) {
                AtEnd::GoesOn => {}
                AtEnd::Gone => return self.findings.lost.push((slot, lane)),
                AtEnd::NotJson => return self.not_json.push(slot),
            }
            seen = member(&self.hub, lane, place);
            if seen.backfill().is_some() {
                return;
            }
        }
        let lane_state = &self.hub.lanes[lane];
        if seen.cursor < lane_state.base() {
            self.findings.lost.push((slot, lane));
        } else if seen.cursor < lane_state.head {
            self.gather.add_member(slot, lane, place);
        }
    }

    /// Decides what each gathered connection is sent.
    fn plan(&mut self) {
        let Plan {
            parts,
            ranges,
            scratch,
            behind,
            ..
        } = &mut self.plan;
        parts.clear();
        ranges.clear();
        scratch.clear();
        behind.clear();
        for at in 0..self.gather.slots().len() {
            let slot = self.gather.slots()[at];
            let conn = self
                .conns
                .get(slot)
                .expect("gathered connections are there");
            let waiting = conn.private.as_ref().map_or(&[][..], |p| p.waiting());
            let cap = if self.was_short.contains(slot) {
                SEND_MAX_SHORT
            } else {
                SEND_MAX
            };
            let first_range = ranges.len();
            let mut members = self.gather.members(slot);
            let first = members.next();
            if first.is_none() && waiting.is_empty() {
                continue;
            }
            let is_private = first.is_none() || waiting.len() >= cap;
            let room_taken = match self.tls {
                // All is sealed into one scratch.
                Some(_) => parts.iter().map(|part| part.len).sum(),
                None if is_private => 0,
                None => scratch.len(),
            };
            if room_taken + cap > SCRATCH_MAX {
                // The rest comes with the next flush.
                self.rescan.insert(slot);
                if self.is_ready.insert(slot) {
                    self.ready.push_back(slot);
                }
                behind.push(slot);
                continue;
            }
            if is_private {
                if first.is_some() {
                    behind.push(slot);
                }
                let len = waiting.len().min(cap);
                parts.push(Part {
                    slot,
                    source: Source::Private,
                    len,
                    private: len,
                    first_range,
                    ranges: 0,
                });
                continue;
            }
            let (lane, place) = first.expect("just seen");
            let (seen, log, head) = reader(&self.hub, lane, place);
            let (end, is_one_piece) = log.reach(seen.cursor, head, cap - waiting.len());
            ranges.push(Range {
                lane,
                place,
                start: seen.cursor,
                end,
            });
            let mut next = members.next();
            // At the end of a backfill there is something to do, too: go live, or ask for more.
            let is_whole = end == head && seen.backfill().is_none();
            if next.is_some() || !is_whole {
                behind.push(slot);
            }
            if waiting.is_empty() && next.is_none() && is_one_piece {
                let len = (end - seen.cursor) as usize;
                parts.push(Part {
                    slot,
                    source: Source::Log,
                    len,
                    private: 0,
                    first_range,
                    ranges: 1,
                });
                continue;
            }
            let start = scratch.len();
            scratch.extend_from_slice(waiting);
            log.copy_range(seen.cursor, end, scratch);
            while let Some((lane, place)) = next
                && scratch.len() - start < cap
            {
                let (seen, log, head) = reader(&self.hub, lane, place);
                let room = cap - (scratch.len() - start);
                let (end, _) = log.reach(seen.cursor, head, room);
                // The first frame may be larger than what is left: it has a send to itself next time.
                if (end - seen.cursor) as usize > room {
                    break;
                }
                ranges.push(Range {
                    lane,
                    place,
                    start: seen.cursor,
                    end,
                });
                log.copy_range(seen.cursor, end, scratch);
                next = members.next();
            }
            parts.push(Part {
                slot,
                source: Source::Scratch { start },
                len: scratch.len() - start,
                private: waiting.len(),
                first_range,
                ranges: ranges.len() - first_range,
            });
        }
    }

    /// Seals what is planned, where clients speak TLS.
    fn seal(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        let Plan {
            parts,
            ranges,
            scratch,
            ..
        } = &self.plan;
        tls.start_sealing();
        for part in parts {
            let bytes = bytes_of(part, &self.hub, &self.conns, ranges, scratch);
            let private = self.conns.get(part.slot).and_then(|c| c.private.as_ref());
            tls.seal_part(part.slot, bytes, private.map_or(0, |p| p.raw()));
        }
    }

    fn send<R: Reactor>(&mut self, reactor: &mut R) {
        let Plan {
            parts,
            ranges,
            scratch,
            taken,
            ..
        } = &mut self.plan;
        // On the stack, and only as much of it as is sent: the bytes are borrowed, so it cannot be kept.
        let mut sends = SmallVec::<[Send<'_>; FLUSH_MAX]>::new();
        sends.extend(parts.iter().map(|part| Send {
            slot: part.slot,
            bytes: bytes_of(part, &self.hub, &self.conns, ranges, scratch),
        }));
        if let Some(tls) = &self.tls {
            tls.put_sealed(&mut sends);
        }
        self.short.clear();
        if !parts.is_empty() {
            reactor.flush(&sends, &mut self.short);
        }
        taken.clear();
        taken.extend(sends.iter().map(|send| Ok(send.bytes.len())));
        for short in &self.short {
            taken[short.index as usize] = short.taken.map(|n| n as usize).map_err(|e| e.errno);
        }
    }

    fn settle_sends(&mut self) {
        for at in 0..self.plan.parts.len() {
            let part = self.plan.parts[at];
            match self.plan.taken[at] {
                // Below: giving a connection up moves members, and the plan names them by their places.
                Err(_) => {}
                Ok(taken) => self.settle_send(at, &part, taken),
            }
        }
        for at in 0..self.plan.behind.len() {
            let slot = self.plan.behind[at];
            if self
                .conns
                .get(slot)
                .is_none_or(|c| c.phase == Phase::Closing)
            {
                continue;
            }
            let is_blocked = self.blocked.contains(slot);
            let hub = &mut self.hub;
            let mut is_behind = false;
            for (lane, place) in self.gather.members(slot) {
                let Some(state) = hub.lanes.get(lane) else {
                    continue;
                };
                let Some(seen) = state
                    .members
                    .get(place as usize)
                    .copied()
                    .filter(|m| m.slot == slot)
                else {
                    continue;
                };
                match seen.backfill() {
                    Some(_) => is_behind = true,
                    None if seen.cursor < state.head => {
                        is_behind = true;
                        hub.is_still_behind(lane, seen.cursor, is_blocked);
                    }
                    None => {}
                }
            }
            if is_behind {
                self.rescan.insert(slot);
                self.make_ready(slot);
            }
        }
        for at in 0..self.plan.parts.len() {
            if self.plan.taken[at].is_err() {
                self.abandon(self.token(self.plan.parts[at].slot), CloseHow::Orderly);
            }
        }
    }

    fn settle_send(&mut self, at: usize, part: &Part, taken: usize) {
        self.stats.bytes_sent += taken as u64;
        let (planned, rest) = match &mut self.tls {
            Some(tls) => tls.settle_part(at, part.slot, taken),
            None => (taken, 0..0),
        };
        let mut left = planned;
        if part.private > 0 {
            let taken = left.min(part.private);
            self.settle_private(part.slot, taken);
            left -= taken;
        }
        for at in part.first_range..part.first_range + part.ranges {
            let range = self.plan.ranges[at];
            if left == 0 {
                break;
            }
            self.stats.deliveries += 1;
            let len = (range.end - range.start) as usize;
            let cursor = if left >= len {
                left -= len;
                range.end
            } else {
                let cut = range.start + left as u64;
                left = 0;
                self.keep_rest(part.slot, &range, cut)
            };
            let off = u64::from(crate::planted!(CursorOffByOne) && planned < part.len);
            self.hub.lanes[range.lane].members[range.place as usize].cursor = cursor + off;
        }
        let token = self.token(part.slot);
        if planned < part.len || !rest.is_empty() {
            self.keep_sealed_rest(part.slot, rest);
            self.plan.behind.push(part.slot);
            return self.block(token, taken);
        }
        let Some(conn) = self.conns.get_mut(part.slot) else {
            return;
        };
        conn.unblock();
        conn.refusals = 0;
        if conn.private.as_ref().is_some_and(|p| !p.is_empty()) {
            self.make_ready(part.slot);
        } else if conn.phase == Phase::Closing {
            self.last_word_sent(token);
        }
    }

    /// So many private bytes have left.
    fn settle_private(&mut self, slot: u32, taken: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let Some(private) = &mut conn.private else {
            return;
        };
        private.advance(taken);
        if !private.is_empty() {
            return;
        }
        if conn.flags.has(Flags::PING_WAITS) {
            conn.flags.set(Flags::PING_WAITS, false);
            if !self.heartbeat.pinged_just_now(slot, self.now.millis) {
                conn.flags.set(Flags::PING_LATE, true);
            }
        }
        if let Some(private) = conn.private.take() {
            self.spare_private(private);
        }
    }

    /// The kernel took a range up to the middle of a frame: the rest of that frame becomes private, and the cursor goes
    /// behind it. Then nothing that happens to the subscription, the log or the policy can tear the frame.
    fn keep_rest(&mut self, slot: u32, range: &Range, cut: u64) -> u64 {
        let (_, log, _) = reader(&self.hub, range.lane, range.place);
        let boundary = log.boundary_at_or_after(range.start, cut);
        if boundary > cut && !crate::planted!(ShortSendTailLost) {
            let Some(conn) = self.conns.get_mut(slot) else {
                return boundary;
            };
            conn.private_mut(&mut self.spare_private)
                .put_publications(|out| log.copy_range(cut, boundary, out));
        }
        boundary
    }

    /// The kernel took less than it was given: wait until it says that it takes more.
    fn block(&mut self, token: Token, taken: usize) {
        self.was_short.insert(token.slot);
        self.blocked.insert(token.slot);
        let now = self.now.millis;
        let Some(conn) = self.conns.get_mut(token.slot) else {
            return;
        };
        if taken > 0 || !conn.is_blocked() {
            conn.block(now);
        }
        if conn.pings > 0 {
            conn.flags.set(Flags::PING_LATE, true);
        }
        conn.refusals = if taken > 0 {
            0
        } else {
            conn.refusals.saturating_add(1)
        };
        // Under memory pressure the kernel says "writable" and takes nothing: that would spin.
        if conn.refusals > 2 {
            let delay = RETRY_MILLIS << (conn.refusals - 3).min(7);
            self.timers.set(now + delay, token, Timer::Retry);
        } else if !conn.flags.has(Flags::POLLS_OUT) {
            conn.flags.set(Flags::POLLS_OUT, true);
            self.asks.push(Ask::WaitWritable(token));
        }
        if !conn.flags.has(Flags::STALL_TIMED) {
            conn.flags.set(Flags::STALL_TIMED, true);
            let stall = self.config.client.stall_timeout.as_millis() as u64;
            let deadline = (now + stall).saturating_sub(conn.blocked_for(now));
            self.timers.set(deadline, token, Timer::Stall);
        }
    }

    /// The kernel takes bytes again.
    pub(super) fn writable(&mut self, token: Token) {
        let Some(conn) = self.conn(token) else { return };
        conn.flags.set(Flags::POLLS_OUT, false);
        self.unblock(token.slot);
        self.rescan.insert(token.slot);
        self.make_ready(token.slot);
    }

    pub(super) fn unblock(&mut self, slot: u32) {
        self.blocked.remove(slot);
    }

    /// A member's cursor has fallen off: its namespace's policy decides.
    fn fell_off(&mut self, slot: u32, lane_index: u32) {
        let Some(conn) = self.conns.get(slot).filter(|c| c.phase == Phase::Open) else {
            return;
        };
        let Some(sub) = conn.subs.iter().find(|s| s.lane == lane_index).copied() else {
            return;
        };
        let lane = &self.hub.lanes[lane_index];
        let (view, is_sideband) = (lane.view, !lane.kind.is_publications());
        let seen = lane.members[sub.place() as usize];
        let token = self.token(slot);
        if seen.backfill().is_some() {
            // What it recovers cannot be skipped, whatever the policy.
            return self.lose_position(token, view);
        }
        if seen.cursor >= lane.base() {
            return;
        }
        let (head, cursor) = (lane.head, seen.cursor);
        if is_sideband {
            // Joins and leaves are at most once.
            return self.go_to_head(slot, lane_index, sub.place(), head);
        }
        let options =
            &self.config.channels.namespaces[usize::from(self.hub.views[view].namespace)].1;
        match options.slow {
            SlowPolicy::Disconnect => {
                self.stats.policy_hits[0] += 1;
                self.close(token, Disconnect::SLOW);
            }
            SlowPolicy::Skip => {
                self.stats.policy_hits[1] += 1;
                if options.slow_silent {
                    self.go_to_head(slot, lane_index, sub.place(), head);
                } else {
                    self.lose_position(token, view);
                }
            }
            // What is newest is decided when it can be sent.
            SlowPolicy::Latest if self.blocked.contains(slot) => {}
            // Not behind what waits: a reader that is only slow would be given more than it takes.
            SlowPolicy::Latest if conn.private.as_ref().is_some_and(|p| !p.is_empty()) => {
                self.rescan.insert(slot);
                self.make_ready(slot);
            }
            SlowPolicy::Latest => {
                self.stats.policy_hits[2] += 1;
                let lane = &self.hub.lanes[lane_index];
                let Some(conn) = self.conns.get_mut(slot) else {
                    return;
                };
                if let Some(latest) = lane.extras.as_ref().and_then(|e| e.latest.as_ref()) {
                    conn.private_mut(&mut self.spare_private)
                        .put_publications(|out| latest.since(cursor, out));
                }
                self.go_to_head(slot, lane_index, sub.place(), head);
            }
        }
    }

    fn go_to_head(&mut self, slot: u32, lane: u32, place: u32, head: u64) {
        self.hub.lanes[lane].members[place as usize].cursor = head;
        self.make_ready(slot);
    }
}
