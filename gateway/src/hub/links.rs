//! The way out: a staged batch for every peer, one of them this shard itself.

use super::message::{Message, Span};
use crate::ids::ShardId;
use crate::mailbox::{Batch, Inbox, Outbox};

/// What the simulation's clients can ask for in one tick, see [`Links::check_bounds`].
const SLACK_BYTES: usize = 256 * 1024;

/// How far a peer may fall behind.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Staged bytes above which client commands that need the peer are answered "too many requests".
    pub intake_bytes: usize,
    /// Staged bytes above which the peer is lost: it is given neither frames nor large answers until it has caught up.
    pub lost_bytes: usize,
    /// Bytes staged for a peer, or for this shard itself, above which presences and histories are refused.
    pub answers_bytes: usize,
    /// So long without taking anything, and it is lost, too.
    pub lost_millis: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            intake_bytes: 1 << 20,
            lost_bytes: 64 << 20,
            answers_bytes: 8 << 20,
            lost_millis: 5000,
        }
    }
}

/// The way to one peer.
struct Way {
    outbox: Outbox<Message>,
    /// Since when its ring, being full, takes nothing; milliseconds.
    stuck_since: Option<u64>,
    /// For too long.
    is_late: bool,
}

/// The batches of one tick. Nothing here blocks: what a peer's ring does not take stays staged.
pub struct Links {
    me: ShardId,
    bounds: Bounds,
    /// By peer; `None` for this shard. The last one is the control thread.
    ways: Vec<Option<Way>>,
    inboxes: Vec<Option<Inbox<Message>>>,
    /// What this shard tells itself: handled in the same tick.
    local: Box<Batch<Message>>,
    spare: Option<Box<Batch<Message>>>,
}

impl Links {
    /// Links of shard `me`. Both vectors are indexed by peer, the control thread being the last; entries of `me` are
    /// `None`.
    pub fn new(
        me: ShardId,
        outboxes: Vec<Option<Outbox<Message>>>,
        inboxes: Vec<Option<Inbox<Message>>>,
    ) -> Self {
        let way = |outbox| Way {
            outbox,
            stuck_since: None,
            is_late: false,
        };
        Self {
            me,
            bounds: Bounds::default(),
            ways: outboxes.into_iter().map(|o| o.map(way)).collect(),
            inboxes,
            local: Box::default(),
            spare: None,
        }
    }

    /// The same with other bounds.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// This shard.
    pub fn me(&self) -> ShardId {
        self.me
    }

    /// The control thread as a peer.
    pub fn control(&self) -> ShardId {
        ShardId(self.ways.len() as u16 - 1)
    }

    /// The staged batch for a peer.
    pub fn to(&mut self, peer: ShardId) -> &mut Batch<Message> {
        match self.ways.get_mut(peer.index()) {
            Some(Some(way)) => way.outbox.batch(),
            _ => &mut self.local,
        }
    }

    fn way(&self, peer: ShardId) -> Option<&Way> {
        self.ways.get(peer.index())?.as_ref()
    }

    /// Whether a command that needs this peer should be refused for now.
    pub fn is_congested(&self, peer: ShardId) -> bool {
        self.way(peer)
            .is_some_and(|way| way.is_late || way.outbox.backlog_bytes() > self.bounds.intake_bytes)
    }

    /// Whether a peer is so far behind that whatever can be had again later is not staged for it.
    pub fn is_lost(&self, peer: ShardId) -> bool {
        self.way(peer)
            .is_some_and(|way| way.is_late || way.outbox.backlog_bytes() > self.bounds.lost_bytes)
    }

    /// Whether so much is staged for a peer, this shard included, that records for its views have to wait: a tick full of
    /// small questions must not make more of them than its memory is meant for.
    pub fn is_full(&self, peer: ShardId) -> bool {
        self.has_staged(peer, self.bounds.lost_bytes)
    }

    /// The same for presences and histories, which are refused then: what clients ask for leaves room for recovery.
    pub fn is_full_of_answers(&self, peer: ShardId) -> bool {
        self.has_staged(peer, self.bounds.answers_bytes)
    }

    fn has_staged(&self, peer: ShardId, bytes: usize) -> bool {
        let staged = match self.way(peer) {
            Some(way) if way.is_late => return true,
            Some(way) => way.outbox.staged_bytes(),
            None => self.local.size(),
        };
        staged > bytes
    }

    /// Hands every staged batch over that its ring takes. Returns whether some are still staged.
    pub fn publish(&mut self, now_millis: u64) -> bool {
        let mut left = false;
        for way in self.ways.iter_mut().flatten() {
            left |= !way.outbox.publish();
            way.stuck_since = way
                .outbox
                .is_stuck()
                .then(|| way.stuck_since.unwrap_or(now_millis));
            way.is_late = way
                .stuck_since
                .is_some_and(|since| since + self.bounds.lost_millis <= now_millis);
        }
        left
    }

    /// Asserts that no shard's backlog has grown beyond its bound, but for what came in the tick in which its ring was found
    /// full, and for what is small. For tests.
    pub fn check_bounds(&self) {
        let shards = &self.ways[..self.ways.len() - 1];
        for way in shards.iter().flatten() {
            let backlog = way.outbox.backlog_bytes();
            assert!(
                backlog <= self.bounds.lost_bytes + SLACK_BYTES,
                "{backlog} bytes wait for a peer that may be {} behind",
                self.bounds.lost_bytes
            );
        }
    }

    /// Whether this shard has told itself nothing.
    pub fn is_local_empty(&self) -> bool {
        self.local.is_empty()
    }

    /// Takes what this shard told itself, or `None`. Give it back with [`Links::recycle_local`].
    pub fn take_local(&mut self) -> Option<Box<Batch<Message>>> {
        if self.local.is_empty() {
            return None;
        }
        let fresh = self.spare.take().unwrap_or_default();
        Some(std::mem::replace(&mut self.local, fresh))
    }

    /// Gives a batch of [`Links::take_local`] back.
    pub fn recycle_local(&mut self, mut batch: Box<Batch<Message>>) {
        batch.recycle();
        self.spare = Some(batch);
    }

    /// Number of peers, the control thread and this shard included.
    pub fn peers(&self) -> u16 {
        self.ways.len() as u16
    }

    /// The next batch of a peer.
    pub fn take_from(&mut self, peer: ShardId) -> Option<Box<Batch<Message>>> {
        self.inboxes[peer.index()].as_mut()?.take()
    }

    /// Gives a batch of [`Links::take_from`] back to its sender.
    pub fn recycle(&mut self, peer: ShardId, batch: Box<Batch<Message>>) {
        if let Some(inbox) = &mut self.inboxes[peer.index()] {
            inbox.recycle(batch);
        }
    }

    /// Whether no batch waits, from a peer or from this shard itself.
    pub fn is_quiet(&self) -> bool {
        self.local.is_empty() && self.inboxes.iter().flatten().all(Inbox::is_empty)
    }
}

/// Copies bytes into a batch.
pub fn put(batch: &mut Batch<Message>, bytes: &[u8]) -> Span {
    let (start, len) = batch.push_bytes(bytes);
    Span { start, len }
}

/// What was appended to a batch since it was `start` bytes long.
pub fn span_from(batch: &Batch<Message>, start: usize) -> Span {
    Span {
        start: start as u32,
        len: (batch.bytes.len() - start) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Waker, pair};

    #[test]
    fn a_peer_that_takes_nothing_for_long_is_lost_until_it_takes_something() {
        let (outbox, mut inbox) = pair(1, Waker::none());
        let ways = [None, Some(outbox), None].into_iter().collect();
        let mut links = Links::new(ShardId(0), ways, Vec::new()).with_bounds(Bounds {
            lost_millis: 100,
            ..Bounds::default()
        });
        let peer = ShardId(1);
        for now in [0, 10] {
            put(links.to(peer), b"x");
            links.publish(now);
        }
        // Whether time has passed is seen when it could have taken something.
        for (now, is_lost) in [(109, false), (110, true), (5000, true)] {
            links.publish(now);
            assert_eq!(links.is_lost(peer), is_lost, "at {now}");
        }
        assert!(inbox.take().is_some());
        assert!(!links.publish(5001) && !links.is_lost(peer));
        put(links.to(peer), b"x");
        assert!(links.publish(9000) && !links.is_lost(peer));
    }

    #[test]
    fn a_peer_is_refused_for_and_then_lost_by_what_waits_for_it() {
        let (outbox, _inbox) = pair(1, Waker::none());
        let ways = [None, Some(outbox), None].into_iter().collect();
        let mut links = Links::new(ShardId(0), ways, Vec::new()).with_bounds(Bounds {
            intake_bytes: 10,
            lost_bytes: 20,
            ..Bounds::default()
        });
        let peer = ShardId(1);
        put(links.to(peer), &[0; 100]);
        assert!(!links.publish(0) && !links.is_congested(peer));
        for (congested, lost) in [(false, false), (true, false), (true, true)] {
            put(links.to(peer), &[0; 7]);
            links.publish(0);
            let is = (links.is_congested(peer), links.is_lost(peer));
            assert_eq!(is, (congested, lost));
        }
        assert!(!links.is_lost(ShardId(0)), "a shard never loses itself");
    }

    #[test]
    fn large_answers_of_one_tick_fill_a_peer_that_is_not_behind_and_this_shard_too() {
        let (outbox, _inbox) = pair(1, Waker::none());
        let ways = [None, Some(outbox), None].into_iter().collect();
        let mut links = Links::new(ShardId(0), ways, Vec::new()).with_bounds(Bounds {
            answers_bytes: 20,
            lost_bytes: 40,
            ..Bounds::default()
        });
        for peer in [ShardId(0), ShardId(1)] {
            let is = |links: &Links| (links.is_full_of_answers(peer), links.is_full(peer));
            for expected in [(false, false), (true, false), (true, true)] {
                assert_eq!(is(&links), expected);
                put(links.to(peer), &[0; 21]);
            }
            assert!(!links.is_lost(peer));
        }
    }
}
