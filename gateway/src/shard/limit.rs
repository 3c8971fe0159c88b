//! The limit of the node's connections, held by its shards together.
//!
//! A shard takes permits from the node's pool by the lease and gives a lease back when it has nearly two of its own, so that
//! the one number that the shards share is touched once a lease, not once a connection.
//!
//! # Invariants
//! * Permits are never made nor lost: the pool, what the shards have spare and the open connections add up to the limit.
//! * A shard has at most `2 * lease - 2` spare. So long as the limit is small, the lease is 1: then nothing is ever spare,
//!   and a connection is refused only at the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Permits taken at a time where the limit is large.
const LEASE_MAX: u32 = 64;
/// Leases that the limit is worth to each shard, at least, if they are of more than one permit.
const LEASES_A_SHARD: u32 = 128;

/// One shard's permits for connections.
#[derive(Debug)]
pub struct Permits {
    /// What no shard has taken; `None`: there is no limit.
    pool: Option<Arc<AtomicU32>>,
    lease: u32,
    spare: u32,
}

impl Permits {
    /// Of each shard of a node that takes `limit` connections; 0: any number.
    pub fn of_node(limit: u32, shards: u16) -> Vec<Self> {
        let pool = (limit > 0).then(|| Arc::new(AtomicU32::new(limit)));
        let lease = (limit / LEASES_A_SHARD / u32::from(shards.max(1))).clamp(1, LEASE_MAX);
        let permits = (0..shards).map(|_| Self {
            pool: pool.clone(),
            lease,
            spare: 0,
        });
        permits.collect()
    }

    /// For one connection more; `false`: the node is full, but for what other shards have spare.
    pub(super) fn take(&mut self) -> bool {
        let Some(pool) = &self.pool else { return true };
        if self.spare == 0 {
            // Relaxed: nothing but the number itself is shared.
            let taken = pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left - left.min(self.lease))
            });
            self.spare = taken.map_or(0, |left| left.min(self.lease));
        }
        let has_one = self.spare > 0;
        self.spare -= u32::from(has_one);
        has_one
    }

    /// A connection that had a permit is over.
    pub(super) fn give_back(&mut self) {
        let Some(pool) = &self.pool else { return };
        self.spare += 1;
        if self.spare > 2 * self.lease - 2 {
            self.spare -= self.lease;
            pool.fetch_add(self.lease, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng::Rng;

    /// Takes until it is refused; how many.
    fn fill(permits: &mut Permits) -> u32 {
        std::iter::from_fn(|| permits.take().then_some(())).count() as u32
    }

    #[test]
    fn one_shard_may_have_all_however_small_the_limit() {
        for limit in [1, 2, 100, 1000, 100_000] {
            let mut shards = Permits::of_node(limit, 4);
            assert_eq!(fill(&mut shards[2]), limit);
            assert!(shards.iter_mut().all(|permits| !permits.take()));
        }
    }

    #[test]
    fn what_one_shard_gives_back_another_can_take() {
        let mut shards = Permits::of_node(100, 2);
        fill(&mut shards[0]);
        assert!(!shards[1].take());
        shards[0].give_back();
        assert!(shards[1].take() && !shards[1].take() && !shards[0].take());
    }

    #[test]
    fn the_limit_holds_and_little_of_it_is_spare() {
        for (limit, lease) in [(1000, 1), (10_000, 19), (1_000_000, 64)] {
            let (mut rng, mut shards) = (Rng::new(7), Permits::of_node(limit, 4));
            assert_eq!(shards[0].lease, lease);
            // Nearly full, so that what comes and goes is at the edge.
            let mut open = [0; 4];
            while open.iter().sum::<u32>() < limit - 500 && shards[0].take() {
                open[0] += 1;
            }
            let mut refused = 0;
            for _ in 0..20_000 {
                let shard = rng.index(4);
                if rng.chance(520) {
                    let all: u32 = open.iter().sum();
                    if shards[shard].take() {
                        open[shard] += 1;
                        assert!(all < limit);
                    } else {
                        refused += 1;
                        assert!(all + 3 * (2 * lease - 2) >= limit, "{all} of {limit}");
                    }
                } else if open[shard] > 0 {
                    open[shard] -= 1;
                    shards[shard].give_back();
                }
            }
            assert!(refused > 0);
        }
    }

    #[test]
    fn without_a_limit_nobody_is_refused() {
        let mut shards = Permits::of_node(0, 1);
        assert!((0..1000).all(|_| shards[0].take()));
        shards[0].give_back();
    }
}
