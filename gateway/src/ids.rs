//! Names for the things a node counts: shards, slots, generations.

/// A shard's number on this node, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The number as an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Names one life of a connection slot. The slot is reused, the generation is not (it wraps after 2^32 lives of one slot),
/// so an event that was under way when the slot changed hands is recognised and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The slot, which is also the index in the reactor's file table and in the shard's slab.
    pub slot: u32,
    /// The slot's life.
    pub generation: u32,
}

/// A moment: milliseconds since the reactor started, and the wall clock beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; starts above zero.
    pub millis: u64,
    /// Milliseconds since 1970 (may step when the wall clock is set).
    pub unix_millis: u64,
}

impl Now {
    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> u64 {
        self.unix_millis / 1000
    }
}
