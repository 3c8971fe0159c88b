//! The byte log of a channel on one shard.
