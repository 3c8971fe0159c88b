//! Keyed hashes: which shard is home of a channel or a user, and the tables that find them. The key is random a boot, so
//! nobody can choose names that land on one shard or in one bucket.

use crate::ids::ShardId;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;

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

    /// Keyed hash of a client's address: all of an IPv4 address, the /64 network of an IPv6 address.
    pub fn hash_address(&self, address: IpAddr) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.hash[0], self.hash[1]);
        match address.to_canonical() {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()[..8]),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_an_ipv6_client_is_one_address() {
        let keys = Keys {
            hash: [1, 2],
            shards: 4,
        };
        let hash = |text: &str| keys.hash_address(text.parse().unwrap());
        assert_eq!(hash("2001:db8:1:2::1"), hash("2001:db8:1:2:ffff::9"));
        assert_ne!(hash("2001:db8:1:2::1"), hash("2001:db8:1:3::1"));
        assert_ne!(hash("10.0.0.1"), hash("10.0.0.2"));
        assert_eq!(hash("10.0.0.1"), hash("::ffff:10.0.0.1"));
    }
}
