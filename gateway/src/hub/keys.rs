//! Keyed hashes: which shard is home of a channel or a user, and the tables that find them. The key is random a boot, so
//! nobody can choose names that land on one shard or in one bucket.

use crate::ids::ShardId;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The node's hash key and number of shards.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Random a boot.
    pub hash: [u64; 2],
    /// Shards of the node.
    pub shards: u16,
}

impl Keys {
    /// Keyed hash of a name.
    pub fn hash(&self, name: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.hash[0], self.hash[1]);
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The home of what has this hash. Uses the high bits: tables use the low ones.
    pub fn home(&self, hash: u64) -> ShardId {
        ShardId(((u128::from(hash) * u128::from(self.shards)) >> 64) as u16)
    }

    /// The home of a name.
    pub fn home_of(&self, name: &str) -> ShardId {
        self.home(self.hash(name))
    }
}
