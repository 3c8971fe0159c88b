//! A backfill: records that a view did not have any more, as frames, for members that recover.
//!
//! One fetch serves all who wait on the shard; the same bytes then serve everybody who comes within [`KEEP_MILLIS`]. It
//! has positions of its own. When a member reaches its end, it either goes on in the lane's log (if the end is where the
//! log still begins or lies within it) or the backfill is extended by another piece.

use crate::log::{Log, Pool};
use std::collections::VecDeque;

/// How long a backfill is kept after it was last of use.
pub const KEEP_MILLIS: u64 = 30_000;

/// Frames of the offsets `(from, upto]`.
#[derive(Debug)]
pub struct Backfill {
    /// Everything after this offset is in it, or was.
    pub from: u64,
    /// The newest offset in it.
    pub upto: u64,
    /// The frames.
    pub log: Log,
    /// Where the next frame goes.
    pub head: u64,
    /// Offset of each frame and the position behind it.
    index: VecDeque<(u64, u64)>,
    /// The position in the lane's log that follows `upto`, if it was known when the last piece came and no frame was
    /// skipped since.
    pub joined: Option<u64>,
    /// The last piece was not all that there was then: another will be fetched when a reader gets there.
    pub is_partial: bool,
    /// Members that read it.
    pub readers: u32,
    /// When it was last of use, milliseconds.
    pub used_millis: u64,
}

/// Where a recovering member starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is nothing after the member's offset in it (it may be extended).
    End,
    /// The first missed frame, to be shown in the reply, and the position behind it.
    Frame {
        /// Position of the first missed frame.
        start: u64,
        /// Behind it.
        end: u64,
    },
}

impl Backfill {
    /// An empty one.
    pub fn new(from: u64, now_millis: u64) -> Self {
        Self {
            from,
            upto: from,
            log: Log::default(),
            head: 1,
            index: VecDeque::new(),
            joined: None,
            is_partial: false,
            readers: 0,
            used_millis: now_millis,
        }
    }

    /// Whether a member at `offset` can start here.
    pub fn covers(&self, offset: u64) -> bool {
        self.from <= offset && offset <= self.upto
    }

    /// Adds one frame.
    pub fn push(&mut self, pool: &mut Pool, lane: u32, offset: u64, frame: &[u8], now_millis: u64) {
        debug_assert!(offset > self.upto);
        self.head = self.log.append(pool, lane, self.head, frame, now_millis);
        self.index.push_back((offset, self.head));
        self.upto = offset;
    }

    /// Where a member that has everything up to `offset` starts.
    pub fn start(&self, offset: u64) -> Start {
        debug_assert!(self.covers(offset));
        let at = self.index.partition_point(|(o, _)| *o <= offset);
        match self.index.get(at) {
            None => Start::End,
            Some((_, end)) => {
                let start = match at.checked_sub(1) {
                    Some(before) => self.index[before].1,
                    None => self.log.base().unwrap_or(self.head),
                };
                Start::Frame { start, end: *end }
            }
        }
    }

    /// Drops the front until at most `bytes` are held. Readers that were there fall off.
    pub fn bound(&mut self, pool: &mut Pool, bytes: u64) {
        if self.log.len() > bytes {
            self.log.trim(pool, self.head - bytes);
            self.forget_below_base();
        }
    }

    /// Evicts the named chunk if it is the front.
    pub(crate) fn evict(&mut self, pool: &mut Pool, serial: u64) -> bool {
        let evicted = self.log.evict(pool, serial);
        if evicted {
            self.forget_below_base();
        }
        evicted
    }

    fn forget_below_base(&mut self) {
        let base = self.log.base().unwrap_or(self.head);
        while let Some((offset, end)) = self.index.front().copied() {
            if end > base {
                break;
            }
            self.from = offset;
            self.index.pop_front();
        }
    }
}
