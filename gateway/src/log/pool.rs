//! Chunks and empty logs of one shard, recycled so that the steady state allocates nothing.

use super::Log;
use std::collections::VecDeque;

/// Smallest chunk, bytes.
pub const CHUNK_MIN: usize = 512;
/// Largest pooled chunk, bytes. A larger frame gets a chunk of its own size.
pub const CHUNK_MAX: usize = 64 * 1024;
const CLASSES: usize = (CHUNK_MAX / CHUNK_MIN).trailing_zeros() as usize + 1;
/// Free bytes kept in one size class; what comes back beyond it goes to the allocator.
const FREE_BYTES_PER_CLASS: usize = 8 * 1024 * 1024;
const FREE_LOGS: usize = 4096;

/// Names one chunk for the shard's oldest-first eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkName {
    /// The lane whose log (or backfill) holds it.
    pub(crate) lane: u32,
    /// Never reused.
    pub(crate) serial: u64,
}

/// The chunk pool of one shard.
#[derive(Debug, Default)]
pub struct Pool {
    free: [Vec<Box<[u8]>>; CLASSES],
    // Boxed where they are used: a spare one is handed over, not moved.
    #[allow(clippy::vec_box)]
    logs: Vec<Box<Log>>,
    /// Bytes of chunks that are in logs.
    in_use: u64,
    chunks_in_use: usize,
    logs_in_use: usize,
    serial: u64,
    /// Chunks in the order they were taken, for eviction; entries of freed chunks are skipped when met.
    order: VecDeque<ChunkName>,
}

fn class_of(capacity: usize) -> Option<usize> {
    (capacity <= CHUNK_MAX).then(|| {
        (capacity.max(CHUNK_MIN).next_power_of_two() / CHUNK_MIN).trailing_zeros() as usize
    })
}

impl Pool {
    /// Bytes of all chunks that are in logs now.
    pub fn bytes_in_use(&self) -> u64 {
        self.in_use
    }

    /// How many chunks are in logs now.
    pub fn chunks_in_use(&self) -> usize {
        self.chunks_in_use
    }

    /// How many logs are out of the pool.
    pub fn logs_in_use(&self) -> usize {
        self.logs_in_use
    }

    pub(crate) fn take_log(&mut self) -> Box<Log> {
        self.logs_in_use += 1;
        self.logs.pop().unwrap_or_default()
    }

    pub(crate) fn give_log(&mut self, mut log: Box<Log>) {
        log.clear(self);
        self.logs_in_use -= 1;
        if self.logs.len() < FREE_LOGS {
            self.logs.push(log);
        }
    }

    pub(crate) fn take_chunk(&mut self, lane: u32, wanted: usize) -> (Box<[u8]>, u64) {
        let bytes = match class_of(wanted) {
            Some(class) => self.free[class]
                .pop()
                .unwrap_or_else(|| vec![0; CHUNK_MIN << class].into_boxed_slice()),
            None => vec![0; wanted].into_boxed_slice(),
        };
        self.in_use += bytes.len() as u64;
        self.chunks_in_use += 1;
        self.serial += 1;
        self.order.push_back(ChunkName {
            lane,
            serial: self.serial,
        });
        (bytes, self.serial)
    }

    pub(crate) fn give_chunk(&mut self, bytes: Box<[u8]>) {
        self.in_use -= bytes.len() as u64;
        self.chunks_in_use -= 1;
        if self.chunks_in_use == 0 {
            self.order.clear();
        }
        if let Some(class) = class_of(bytes.len())
            && (self.free[class].len() + 1) * bytes.len() <= FREE_BYTES_PER_CLASS
        {
            self.free[class].push(bytes);
        }
    }

    /// The oldest chunk's name, removed from the order.
    pub(crate) fn next_oldest(&mut self) -> Option<ChunkName> {
        self.order.pop_front()
    }

    /// Whether the order holds mostly names of freed chunks and should be compacted.
    pub(crate) fn order_is_stale(&self) -> bool {
        self.order.len() > 1024 + 4 * self.chunks_in_use
    }

    /// Forgets the names of freed chunks.
    pub(crate) fn compact_order(&mut self, mut lives: impl FnMut(ChunkName) -> bool) {
        self.order.retain(|name| lives(*name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_cover_every_power_of_two_from_min_to_max() {
        assert_eq!(class_of(1), Some(0));
        assert_eq!(class_of(CHUNK_MIN), Some(0));
        assert_eq!(class_of(CHUNK_MIN + 1), Some(1));
        assert_eq!(class_of(CHUNK_MAX), Some(CLASSES - 1));
        assert_eq!(class_of(CHUNK_MAX + 1), None);
    }

    #[test]
    fn a_returned_chunk_is_used_again_and_accounting_ends_at_zero() {
        let mut pool = Pool::default();
        let (chunk, _) = pool.take_chunk(1, 600);
        assert_eq!(chunk.len(), 1024);
        let address = chunk.as_ptr();
        pool.give_chunk(chunk);
        assert_eq!((pool.bytes_in_use(), pool.chunks_in_use()), (0, 0));
        let (again, _) = pool.take_chunk(1, 1000);
        assert_eq!(again.as_ptr(), address);
    }
}
