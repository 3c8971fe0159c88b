//! Recovering: what a view does not have any more is fetched from the home, read as a backfill, and left for the log.
//!
//! Invariant: an answer to "everything after X" holds a frame after X, or says that there is none ([`Recovery::UpToDate`]),
//! that it is gone, or that it is not JSON. So whoever waits moves with every answer.

use super::backfill::{Backfill, Start};
use super::lane::{LaneKind, Rendition};
use super::links::{Links, put};
use super::message::{ChannelRef, Message};
use super::view::Hub;
use crate::config::Config;
use crate::ids::Token;
use crate::log::Pool;

/// A backfill may hold four times this, or four times `lag.bytes`, before its front goes.
const BACKFILL_BYTES: u64 = 256 * 1024;

/// Where a recovering subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It has missed nothing: start at the head.
    UpToDate,
    /// Start here; the first missed frame is `[start, end)` of the backfill and goes into the reply.
    From {
        /// Number of the backfill.
        backfill: u16,
        /// Position of the first missed frame.
        start: u64,
        /// Behind it: the member's cursor.
        end: u64,
    },
    /// The home has been asked, or will be at the end of the tick.
    Waiting,
    /// What it missed is gone.
    Lost,
    /// What it missed holds something that is not JSON.
    NotJson,
}

/// What becomes of a member at the end of its backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// It is live, or the next piece is asked for.
    GoesOn,
    /// What it would need next is gone.
    Gone,
    /// What it would need next is not JSON.
    NotJson,
}

impl Hub {
    /// Where a subscription that has everything up to `offset` starts, in a view that is attached. On `Waiting` the caller
    /// also [`Hub::wait`]s.
    ///
    /// `ahead` is the subscription's own note: the answer of the home that must have come before a position above the
    /// view's is taken for a false one. (A client that was on another shard a moment ago may be ahead of this one.)
    pub fn recover(
        &mut self,
        view: u32,
        kind: LaneKind,
        offset: u64,
        ahead: &mut Option<u32>,
        now_millis: u64,
    ) -> Recovery {
        let top = self.views[view].top;
        if offset == top {
            return Recovery::UpToDate;
        }
        let index = self.lane(view, kind);
        if offset > top {
            let extras = self.lanes[index].extras.get_or_insert_default();
            let needed = *ahead.get_or_insert_with(|| {
                // One that is under way may have been answered before the client was served elsewhere.
                extras.fetching_from = None;
                extras.asked.wrapping_add(1)
            });
            // Compared in the ring of u32: answers never run ahead of what was asked.
            if extras.answers.wrapping_sub(needed) < u32::MAX / 2 {
                return Recovery::Lost;
            }
            self.want(index, offset);
            return Recovery::Waiting;
        }
        let base = self.lanes[index].base();
        let extras = self.lanes[index].extras.get_or_insert_default();
        if offset < extras.floor {
            return Recovery::Lost;
        }
        for (number, backfill) in extras.backfills.iter_mut().enumerate() {
            let Some(backfill) = backfill.as_mut().filter(|b| b.covers(offset)) else {
                continue;
            };
            // One that no longer reaches the log is extended first: what comes after it may be gone, and then nothing of
            // it should be called recovered.
            let reaches =
                backfill.is_partial || backfill.joined.is_some_and(|position| position >= base);
            if !reaches && backfill.upto < top {
                let upto = backfill.upto;
                if upto < extras.floor {
                    return Recovery::Lost;
                }
                self.want(index, upto);
                return Recovery::Waiting;
            }
            match backfill.start(offset) {
                Start::Frame { start, end } => {
                    backfill.used_millis = now_millis;
                    return Recovery::From {
                        backfill: number as u16,
                        start,
                        end,
                    };
                }
                Start::End if backfill.upto == top => return Recovery::UpToDate,
                Start::End => {}
            }
        }
        if extras.not_json.is_some_and(|at| offset < at) {
            return Recovery::NotJson;
        }
        self.want(index, offset);
        Recovery::Waiting
    }

    /// Everything after `from` is to be fetched at the end of the tick, unless that is under way.
    fn want(&mut self, index: u32, from: u64) {
        let extras = self.lanes[index].extras.get_or_insert_default();
        if extras.fetching_from.is_some_and(|f| f <= from) {
            return;
        }
        if extras.wanted.is_none() {
            self.to_fetch.push(index);
        }
        extras.wanted = Some(extras.wanted.map_or(from, |w| w.min(from)));
    }

    /// Sends one fetch for each lane that wants one.
    pub fn send_fetches(&mut self, links: &mut Links) {
        while let Some(index) = self.to_fetch.pop() {
            let Some(lane) = self.lanes.get_mut(index) else {
                continue;
            };
            let (Some(extras), LaneKind::Publications(rendition)) = (&mut lane.extras, lane.kind)
            else {
                continue;
            };
            let Some(from) = extras.wanted.take() else {
                continue;
            };
            extras.fetching_from = Some(extras.fetching_from.map_or(from, |f| f.min(from)));
            extras.asked = extras.asked.wrapping_add(1);
            let view = &self.views[lane.view];
            let batch = links.to(self.keys.home(view.hash));
            let name = put(batch, view.name.as_bytes());
            batch.messages.push(Message::Fetch {
                channel: ChannelRef {
                    hash: view.hash,
                    name,
                    namespace: view.namespace,
                },
                view: lane.view,
                generation: view.generation,
                rendition,
                from,
                limit_bytes: piece_bytes(&self.config, view.namespace),
            });
        }
    }

    /// A channel's history has been removed: whoever comes back with an older position gets nothing of it, although a
    /// backfill may still hold it (or be under way). Who reads one already has been told that it was recovered.
    pub fn forget_history(&mut self, channel: &str, hash: u64, upto: u64) {
        let Some(view) = self.find(channel, hash) else {
            return;
        };
        let lanes: Vec<u32> = self.lanes_of(view).collect();
        for index in lanes {
            if let Some(extras) = &mut self.lanes[index].extras {
                extras.floor = extras.floor.max(upto);
            }
        }
    }

    /// Records arrive. `waiters` and the connections in `ready` are to be looked at again.
    pub fn on_fetched(
        &mut self,
        piece: &Piece<'_>,
        now_millis: u64,
        waiters: &mut Vec<Token>,
        ready: &mut Vec<u32>,
    ) {
        let Some(view) = self.current(piece.view, piece.generation) else {
            return;
        };
        waiters.extend(view.waiting.take().into_iter().flat_map(|w| *w));
        let (namespace, top) = (view.namespace, view.top);
        let kind = LaneKind::Publications(piece.rendition);
        // Else it has missed what the home has dropped, and its next top is not known yet.
        let is_attached = self.is_attached(piece.view, kind.mask());
        debug_assert!(
            !piece.complete || !is_attached || piece.upto == top,
            "the home is ahead of what it has sent"
        );
        let index = self.lane(piece.view, kind);
        let lane = &mut self.lanes[index];
        // Messages of the home are in order, so what it has sent of the channel so far is what the log has had.
        let joined = (piece.complete && is_attached).then_some(lane.head);
        let extras = lane.extras.get_or_insert_default();
        extras.fetching_from = None;
        extras.floor = extras.floor.max(piece.floor);
        extras.answers = extras.answers.wrapping_add(1);
        if piece.not_json {
            extras.not_json = Some(piece.upto + 1);
        } else if extras.not_json.is_some_and(|at| at <= piece.floor) {
            extras.not_json = None;
        }
        ready.append(&mut extras.stalled);
        for backfill in extras.backfills.iter_mut().flatten() {
            if (piece.from..=piece.upto).contains(&backfill.upto) {
                piece.push_into(backfill, &mut self.pool, index, now_millis);
                backfill.joined = joined.or(backfill.joined.filter(|_| piece.frames.is_empty()));
                backfill.is_partial = !piece.complete;
                backfill.used_millis = now_millis;
            }
        }
        let covered = extras
            .backfills
            .iter()
            .flatten()
            .any(|b| b.covers(piece.from) && b.upto >= piece.upto);
        if !covered && !piece.frames.is_empty() {
            let mut backfill = Backfill::new(piece.from, now_millis);
            piece.push_into(&mut backfill, &mut self.pool, index, now_millis);
            backfill.joined = joined;
            backfill.is_partial = !piece.complete;
            match extras.backfills.iter_mut().find(|b| b.is_none()) {
                Some(free) => *free = Some(backfill),
                None => extras.backfills.push(Some(backfill)),
            }
        }
        let lag = u64::from(self.config.channels.options(namespace).lag_bytes);
        let bound = 4 * lag.max(BACKFILL_BYTES);
        for backfill in extras.backfills.iter_mut().flatten() {
            backfill.bound(&mut self.pool, bound);
        }
        if !lane.is_held {
            lane.is_held = true;
            self.held.push(index);
        }
        self.enforce_budget();
    }

    /// The first missed frame of a recovery.
    pub fn frame(&self, lane: u32, backfill: u16, start: u64, end: u64) -> &[u8] {
        self.lanes[lane].backfill(backfill).log.range(start, end)
    }

    /// A recovering member has reached the end of its backfill: it goes live, or the next piece is asked for.
    pub(crate) fn at_end_of_backfill(&mut self, index: u32, place: u32) -> AtEnd {
        let lane = &mut self.lanes[index];
        let base = lane.base();
        let member = lane.members[place as usize];
        let Some(number) = member.backfill() else {
            return AtEnd::GoesOn;
        };
        let (head, top) = (lane.head, self.views[lane.view].top);
        let backfill = lane.backfill_mut(number);
        if backfill.upto == top {
            // Nothing came after it.
            backfill.joined = Some(head);
        }
        if let Some(position) = backfill.joined.filter(|position| *position >= base) {
            backfill.readers -= 1;
            lane.members[place as usize].go_live(position);
            if position < lane.head {
                self.owe_lap(index);
                // Its place may be one that the hand has passed in this lap.
                self.is_still_behind(index, position, false);
            }
            return AtEnd::GoesOn;
        }
        let upto = backfill.upto;
        let extras = lane.extras.get_or_insert_default();
        if upto < top {
            if upto < extras.floor {
                return AtEnd::Gone;
            }
            if extras.not_json.is_some_and(|at| upto < at) {
                return AtEnd::NotJson;
            }
        }
        extras.stalled.push(member.slot);
        self.want(index, upto);
        AtEnd::GoesOn
    }
}

/// Bytes of one piece of a recovery: a good deal less than the shard's budget, which would else evict it at once.
fn piece_bytes(config: &Config, namespace: u16) -> u32 {
    let lag = config.channels.options(namespace).lag_bytes;
    u64::from(lag).min(config.limits.log_bytes / 4) as u32
}

/// Records as frames, as they arrive: see [`Message::Fetched`].
#[allow(missing_docs)]
pub struct Piece<'a> {
    pub view: u32,
    pub generation: u32,
    pub rendition: Rendition,
    pub from: u64,
    pub upto: u64,
    pub floor: u64,
    pub complete: bool,
    pub frames: &'a [u8],
    pub index: &'a [u8],
    pub not_json: bool,
}

/// Bytes of one entry of a piece's index.
pub(crate) const INDEX_ENTRY: usize = 12;

impl Piece<'_> {
    fn push_into(&self, backfill: &mut Backfill, pool: &mut Pool, lane: u32, now_millis: u64) {
        let mut at = 0;
        for entry in self.index.chunks_exact(INDEX_ENTRY) {
            let offset = u64::from_le_bytes(entry[..8].try_into().expect("eight bytes"));
            let len = u32::from_le_bytes(entry[8..].try_into().expect("four bytes")) as usize;
            if offset > backfill.upto {
                backfill.push(pool, lane, offset, &self.frames[at..at + len], now_millis);
            }
            at += len;
        }
        // Offsets may be sparse: up to here nothing is missing.
        backfill.upto = backfill.upto.max(self.upto);
    }
}
