//! Handshakes a second of the whole node, held by its shards together.
//!
//! As time passes each shard makes its share of permits. What it has no use for goes, by the lease, to a pool of which any
//! shard takes that is short of its own: the one number that all share is touched once a lease, not once a handshake.
//!
//! # Invariants
//! * Together the shards make no more than the pace.
//! * No more than a burst waits in the pool, and `2 * lease - 2` at a shard. The lease is 1 so long as a burst is small: then
//!   nothing waits at a shard.

use super::nanos;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Permits moved at a time where there are many.
const LEASE_MAX: u32 = 64;
/// Leases that a burst is worth to each shard, at least, if they are of more than one permit.
const LEASES_A_SHARD: u32 = 128;

/// One shard's part.
#[derive(Debug)]
pub struct Handshakes {
    /// What no shard has; `None`: there is no limit.
    pool: Option<Arc<AtomicU32>>,
    burst: u32,
    lease: u32,
    spare: u32,
    /// In which the shard makes a permit.
    nanos_each: u64,
    /// How long before the first turn its first one was begun: not all are to come at once, where a burst is a few.
    phase: u64,
    /// Up to when it has made them.
    made_until: Option<u64>,
}

impl Handshakes {
    /// Of each shard of a node that takes `per_second` handshakes, and at once what `burst` gives, one at least; 0: any number.
    pub fn of_node(per_second: u32, burst: Duration, shards: u16) -> Vec<Self> {
        let shards = u32::from(shards.max(1));
        let at_once = u128::from(per_second) * u128::from(nanos(burst)) / 1_000_000_000;
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX).max(1);
        let pool = (per_second > 0).then(|| Arc::new(AtomicU32::new(at_once)));
        let nanos_each = u64::from(shards) * 1_000_000_000 / u64::from(per_second.max(1));
        let parts = (0..shards).map(|part| Self {
            pool: pool.clone(),
            burst: at_once,
            lease: (at_once / LEASES_A_SHARD / shards).clamp(1, LEASE_MAX),
            spare: 0,
            nanos_each,
            phase: nanos_each / u64::from(shards) * u64::from(part),
            made_until: None,
        });
        parts.collect()
    }

    /// Makes what is due. To be called now and then, whether there are handshakes here or not: others may want them.
    pub fn make(&mut self, now: u64) {
        let Some(pool) = &self.pool else { return };
        let made_until = self
            .made_until
            .get_or_insert(now.saturating_sub(self.phase));
        let due = now.saturating_sub(*made_until) / self.nanos_each.max(1);
        *made_until += due * self.nanos_each;
        self.spare = self
            .spare
            .saturating_add(u32::try_from(due).unwrap_or(u32::MAX));
        if self.spare > 2 * self.lease - 2 {
            let given = self.spare - (self.lease - 1);
            self.spare -= given;
            let burst = self.burst;
            // Relaxed: nothing but the number itself is shared.
            let _ = pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_add(given).min(burst))
            });
        }
    }

    /// For one handshake more.
    pub fn take(&mut self, now: u64) -> bool {
        self.make(now);
        let Some(pool) = &self.pool else { return true };
        if self.spare == 0 {
            let taken = pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left - left.min(self.lease))
            });
            self.spare = taken.map_or(0, |left| left.min(self.lease));
        }
        let has_one = self.spare > 0;
        self.spare -= u32::from(has_one);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn fill(part: &mut Handshakes, now: u64) -> u32 {
        std::iter::from_fn(|| part.take(now).then_some(())).count() as u32
    }

    #[test]
    fn one_shard_may_have_all_and_no_more_than_a_burst_is_ever_to_be_had() {
        for (per_second, shards) in [(1, 4), (10, 4), (1000, 1), (20_000, 4)] {
            let burst = 2 * per_second;
            let mut parts = Handshakes::of_node(per_second, Duration::from_secs(2), shards);
            assert_eq!(fill(&mut parts[0], SECOND), burst);
            assert_eq!(parts.iter_mut().map(|it| fill(it, SECOND)).sum::<u32>(), 0);
            // The others make theirs and lend it.
            let mut taken = 0;
            for step in 1..=1000 {
                let now = SECOND + step * SECOND / 100;
                parts.iter_mut().for_each(|it| it.make(now));
                taken += fill(&mut parts[0], now);
            }
            let kept: u32 = parts.iter().map(|it| it.spare).sum();
            assert!(
                taken <= 10 * per_second && taken + kept + 4 >= 10 * per_second,
                "{taken} taken and {kept} kept of {per_second} a second"
            );
            // A long silence gives no more than a burst, and what shards may keep.
            let now = 1000 * SECOND;
            parts.iter_mut().for_each(|it| it.make(now));
            let all: u32 = parts.iter_mut().map(|it| fill(it, now)).sum();
            let most = burst + u32::from(shards) * (2 * parts[0].lease - 2);
            assert!(all >= burst && all <= most, "{all} of {burst} to {most}");
        }
    }

    #[test]
    fn without_a_limit_nobody_is_refused() {
        let mut parts = Handshakes::of_node(0, Duration::from_secs(5), 2);
        assert!((0..1000).all(|_| parts[1].take(SECOND)));
    }
}
