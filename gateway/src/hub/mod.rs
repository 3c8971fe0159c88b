//! Channels of one shard, free of I/O and clocks.
pub mod message;
