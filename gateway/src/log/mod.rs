//! The byte log of a channel on one shard: frames, already framed for the wire, in chunks from the shard's [`Pool`].
//!
//! A position counts bytes since the log's birth; a cursor is a position at a frame boundary. A frame never spans two
//! chunks, so the end of a chunk is a frame boundary too. The log knows nothing of members: who may drop what is the
//! sweep's business.
//!
//! Invariants: chunks are contiguous in positions; only the last one grows; `base ≤ head`.

mod pool;

use crate::protocol::websocket::frame_len;
pub use pool::{CHUNK_MAX, CHUNK_MIN, Pool};
use std::collections::VecDeque;

/// A chunk takes frames for at most this long, so that "all of it is older than `lag.time`" is true to within it.
const CHUNK_SPAN_MILLIS: u64 = 1000;
/// So many bytes of a burst lie in one chunk, if its frames do.
const PIECE_MAX: usize = 16 * 1024;

/// Where one lane's sweep stands. Lives in the log because a lane without bytes has nothing to sweep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// Next member to visit.
    pub(crate) hand: u32,
    /// Visits left until every member has been seen since the last append, addition or move.
    pub(crate) owed: u32,
    /// Smallest cursor gathered in this lap.
    pub(crate) passed: u64,
    /// The same of the lap before.
    pub(crate) passed_before: u64,
    /// Smallest cursor of a member that took all it was given and could not be given all.
    pub(crate) unfinished: u64,
    /// Smallest cursor that stayed behind in this lap: blocked, cut or moved.
    pub(crate) stuck: u64,
    /// The same of the lap before.
    pub(crate) stuck_before: u64,
}

impl Sweep {
    /// Nothing seen, nothing owed.
    pub(crate) fn fresh() -> Self {
        Self {
            hand: 0,
            owed: 0,
            passed: u64::MAX,
            passed_before: u64::MAX,
            unfinished: u64::MAX,
            stuck: u64::MAX,
            stuck_before: u64::MAX,
        }
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Self::fresh()
    }
}

#[derive(Debug)]
struct Chunk {
    start: u64,
    used: u32,
    serial: u64,
    born_millis: u64,
    last_millis: u64,
    bytes: Box<[u8]>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + u64::from(self.used)
    }
}

/// Frames between a base and a head.
#[derive(Debug, Default)]
pub struct Log {
    chunks: VecDeque<Chunk>,
    pub(crate) sweep: Sweep,
}

impl Log {
    /// Appends one whole frame at position `head`, and returns the new head.
    pub fn append(
        &mut self,
        pool: &mut Pool,
        lane: u32,
        head: u64,
        frame: &[u8],
        now_millis: u64,
    ) -> u64 {
        debug_assert_eq!(
            frame_len(frame),
            Some(frame.len()),
            "a log holds whole frames"
        );
        self.make_room(pool, lane, head, frame.len(), now_millis);
        let chunk = self.chunks.back_mut().expect("one was just made sure of");
        let at = chunk.used as usize;
        chunk.bytes[at..at + frame.len()].copy_from_slice(frame);
        chunk.used += frame.len() as u32;
        chunk.last_millis = now_millis;
        chunk.end()
    }

    /// The last chunk has room for a frame of `len` bytes afterwards. Each new one is twice as large as the one that was full
    /// within a second, so that a quiet channel's are 512 B and a hot one's 64 KiB. At first the full one is moved into the new one: then a
    /// burst lies in one piece, and goes to every member as it lies, at the price of one copy a shard.
    fn make_room(&mut self, pool: &mut Pool, lane: u32, head: u64, len: usize, now_millis: u64) {
        let Some(last) = self.chunks.back_mut() else {
            return self.open_chunk(pool, lane, head, CHUNK_MIN.max(len), now_millis);
        };
        debug_assert_eq!(last.end(), head);
        let used = last.used as usize;
        let doubled = (last.bytes.len() * 2).min(CHUNK_MAX);
        let is_young = now_millis < last.born_millis + CHUNK_SPAN_MILLIS;
        if is_young && last.bytes.len() - used >= len {
            return;
        }
        if is_young && used + len <= PIECE_MAX {
            let (mut bytes, serial) = pool.take_chunk(lane, doubled.max(used + len));
            bytes[..used].copy_from_slice(&last.bytes[..used]);
            last.serial = serial;
            pool.give_chunk(std::mem::replace(&mut last.bytes, bytes));
            return;
        }
        let wanted = if is_young { doubled } else { CHUNK_MIN };
        self.open_chunk(pool, lane, head, wanted.max(len), now_millis);
    }

    fn open_chunk(&mut self, pool: &mut Pool, lane: u32, start: u64, wanted: usize, now: u64) {
        let (bytes, serial) = pool.take_chunk(lane, wanted);
        self.chunks.push_back(Chunk {
            start,
            used: 0,
            serial,
            born_millis: now,
            last_millis: now,
            bytes,
        });
    }

    /// Whether no byte is held.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The first position held, or `None` when nothing is.
    pub fn base(&self) -> Option<u64> {
        self.chunks.front().map(|c| c.start)
    }

    /// Bytes between base and head.
    pub fn len(&self) -> u64 {
        match (self.chunks.front(), self.chunks.back()) {
            (Some(first), Some(last)) => last.end() - first.start,
            _ => 0,
        }
    }

    /// The bytes from `position` to the end of its chunk.
    pub fn slice_at(&self, position: u64) -> &[u8] {
        let chunk = self.chunk_at(position);
        &chunk.bytes[(position - chunk.start) as usize..chunk.used as usize]
    }

    /// The bytes of a range that lies in one chunk.
    pub fn range(&self, start: u64, end: u64) -> &[u8] {
        &self.slice_at(start)[..(end - start) as usize]
    }

    /// Copies a range that may span chunks.
    pub fn copy_range(&self, start: u64, end: u64, out: &mut Vec<u8>) {
        let mut at = start;
        while at < end {
            let slice = self.slice_at(at);
            let take = slice.len().min((end - at) as usize);
            out.extend_from_slice(&slice[..take]);
            at += take as u64;
        }
    }

    fn chunk_at(&self, position: u64) -> &Chunk {
        // The newest chunk is nearly always the one.
        let last = self
            .chunks
            .back()
            .expect("a cursor below the head implies bytes");
        if position >= last.start {
            return last;
        }
        let index = self.chunks.partition_point(|c| c.end() <= position);
        &self.chunks[index]
    }

    /// The furthest frame boundary that one send of at most `cap` bytes from `cursor` can reach (always at least one
    /// frame), and whether the range lies in one chunk.
    pub fn reach(&self, cursor: u64, head: u64, cap: usize) -> (u64, bool) {
        let rest = self.slice_at(cursor);
        let in_chunk = cursor + rest.len() as u64;
        if rest.len() > cap {
            return (cursor + self.whole_frames(rest, cap) as u64, true);
        }
        // What is left of a chunk goes out as it is when it is a good part of a send: no copy.
        if in_chunk == head || rest.len() * 4 >= cap {
            return (in_chunk, true);
        }
        let mut end = in_chunk;
        let mut room = cap - rest.len();
        while end < head {
            let next = self.slice_at(end);
            if next.len() > room {
                end += self.fitting_frames(next, room) as u64;
                break;
            }
            end += next.len() as u64;
            room -= next.len();
        }
        (end, end == in_chunk)
    }

    /// Bytes of the leading frames that fit in `cap`, at least one frame.
    fn whole_frames(&self, bytes: &[u8], cap: usize) -> usize {
        match self.fitting_frames(bytes, cap) {
            0 => frame_len(bytes).expect("a log holds whole frames"),
            fitting => fitting,
        }
    }

    fn fitting_frames(&self, bytes: &[u8], cap: usize) -> usize {
        let mut end = 0;
        while end < bytes.len() {
            let len = frame_len(&bytes[end..]).expect("a log holds whole frames");
            if end + len > cap {
                break;
            }
            end += len;
        }
        end
    }

    /// Given that a send of `[cursor, …)` was cut at `cut`, the boundary behind the cut frame; `cut` itself when it is a
    /// boundary.
    pub fn boundary_at_or_after(&self, cursor: u64, cut: u64) -> u64 {
        let mut at = cursor;
        while at < cut {
            let slice = self.slice_at(at);
            if at + slice.len() as u64 <= cut {
                at += slice.len() as u64;
                continue;
            }
            at += frame_len(slice).expect("a log holds whole frames") as u64;
        }
        at
    }

    /// Drops the chunks that lie wholly below `keep_from`.
    pub(crate) fn trim(&mut self, pool: &mut Pool, keep_from: u64) {
        while self.chunks.front().is_some_and(|c| c.end() <= keep_from) {
            self.drop_front(pool);
        }
    }

    /// Drops chunks that are further than `lag_bytes` behind the head or whose newest frame is older than `lag_millis`.
    /// Nothing at or above `healthy` goes. Returns whether any went.
    pub(crate) fn enforce_lag(
        &mut self,
        pool: &mut Pool,
        (head, healthy): (u64, u64),
        lag_bytes: u64,
        now: u64,
        lag_millis: u64,
    ) -> bool {
        let before = self.chunks.len();
        while self.chunks.front().is_some_and(|c| {
            let lags =
                head - c.end() >= lag_bytes || now.saturating_sub(c.last_millis) > lag_millis;
            lags && c.end() <= healthy
        }) {
            self.drop_front(pool);
        }
        self.chunks.len() != before
    }

    /// Drops the front chunk if it is the one named.
    pub(crate) fn evict(&mut self, pool: &mut Pool, serial: u64) -> bool {
        let is_front = self.chunks.front().is_some_and(|c| c.serial == serial);
        if is_front {
            self.drop_front(pool);
        }
        is_front
    }

    /// Whether the named chunk is held.
    pub(crate) fn holds(&self, serial: u64) -> bool {
        self.chunks
            .binary_search_by_key(&serial, |c| c.serial)
            .is_ok()
    }

    fn drop_front(&mut self, pool: &mut Pool) {
        if let Some(chunk) = self.chunks.pop_front() {
            pool.give_chunk(chunk.bytes);
        }
    }

    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        while !self.chunks.is_empty() {
            self.drop_front(pool);
        }
        self.sweep = Sweep::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::websocket::{Opcode, write_frame};

    fn frame(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, Opcode::Binary, &vec![7; len]);
        out
    }

    fn filled(sizes: &[usize]) -> (Pool, Log, u64, Vec<u64>) {
        let (mut pool, mut log, mut head, mut ends) =
            (Pool::default(), Log::default(), 0, Vec::new());
        for size in sizes {
            head = log.append(&mut pool, 0, head, &frame(*size), 1);
            ends.push(head);
        }
        (pool, log, head, ends)
    }

    #[test]
    fn a_burst_lies_in_one_chunk_that_doubles_from_512_bytes_and_a_big_frame_gets_its_own() {
        let (mut pool, mut log, mut head, _) = filled(&[400]);
        assert_eq!(log.chunks[0].bytes.len(), 512);
        for (size, wanted) in [
            (400, &[1024][..]),
            (400, &[2048]),
            (100_000, &[2048, 100_010]),
            (10, &[2048, 100_010, CHUNK_MAX]),
        ] {
            head = log.append(&mut pool, 0, head, &frame(size), 1);
            let sizes: Vec<_> = log.chunks.iter().map(|c| c.bytes.len()).collect();
            assert_eq!(sizes, wanted);
            assert_eq!(pool.bytes_in_use(), sizes.iter().sum::<usize>() as u64);
        }
        let small = frame(400).repeat(3);
        assert_eq!(log.range(0, small.len() as u64), small);
        assert!(log.holds(log.chunks[0].serial));
        log.clear(&mut pool);
        assert_eq!(pool.bytes_in_use(), 0);
    }

    #[test]
    fn a_chunk_that_is_a_second_old_is_followed_by_another() {
        let (mut pool, mut log, head, _) = filled(&[10]);
        log.append(&mut pool, 0, head, &frame(10), 1 + CHUNK_SPAN_MILLIS);
        let sizes: Vec<_> = log.chunks.iter().map(|c| c.bytes.len()).collect();
        assert_eq!(sizes, [512, 512]);
    }

    #[test]
    fn a_send_reaches_the_last_boundary_within_the_cap_and_at_least_one_frame() {
        let (_pool, log, head, ends) = filled(&[100; 10]);
        assert_eq!(log.reach(0, head, 1 << 16).0, head);
        assert_eq!(log.reach(0, head, 250).0, ends[1]);
        assert_eq!(log.reach(0, head, 10).0, ends[0]);
        let (_, log, head, ends) = filled(&[100, 100_000, 100]);
        assert_eq!(log.reach(ends[0], head, 16 * 1024), (ends[1], true));
    }

    #[test]
    fn a_cut_is_followed_to_the_end_of_its_frame() {
        let (_pool, log, head, ends) = filled(&[100; 30]);
        for cut in 0..=head {
            let expected = if cut == 0 {
                0
            } else {
                *ends.iter().find(|e| **e >= cut).unwrap()
            };
            assert_eq!(log.boundary_at_or_after(0, cut), expected, "cut {cut}");
        }
    }

    #[test]
    fn copies_of_ranges_across_chunks_equal_the_frames() {
        let (_pool, log, head, _) = filled(&[100, 300, 500, 700, 900, 60_000, 60_000]);
        let mut expected = Vec::new();
        for size in [100, 300, 500, 700, 900, 60_000, 60_000] {
            expected.extend(frame(size));
        }
        let mut out = Vec::new();
        log.copy_range(0, head, &mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn lag_drops_by_bytes_and_by_age_of_the_newest_frame_of_a_chunk() {
        let (mut pool, mut log, head, _) = filled(&[4000; 12]);
        assert!(!log.enforce_lag(&mut pool, (head, head), head, 1, 1000));
        assert!(log.enforce_lag(&mut pool, (head, head), 2000, 1, 1000));
        assert!(head - log.base().unwrap() < 2000 + CHUNK_MAX as u64);
        assert!(log.enforce_lag(&mut pool, (head, head), 1 << 30, 5000, 1000));
        assert!(log.is_empty());
    }
}
