//! So many a second, and how much of it somebody has used: a token bucket kept as one moment (the generic cell rate algorithm).

use super::nanos;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// What somebody has used of a pace: the moment, in nanoseconds of its owner's clock, from which on it counts no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used(u64);

impl Used {
    /// Nanoseconds for which it still counts.
    pub fn ahead(self, now: u64) -> u64 {
        self.0.saturating_sub(now)
    }

    /// It counts for `ahead` nanoseconds at least.
    pub fn raise(&mut self, ahead: u64, now: u64) {
        self.0 = self.0.max(now.saturating_add(ahead));
    }

    /// Uses `nanos` more, whatever is allowed.
    pub fn add(&mut self, nanos: u64, now: u64) {
        self.0 = self.0.max(now).saturating_add(nanos);
    }
}

/// So many a second, and at once what a *burst*, a time, gives of them; one at least.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: u32,
    burst: u64,
}

impl Pace {
    /// 0 a second: no limit.
    pub fn new(per_second: u32, burst: Duration) -> Self {
        Self {
            per_second,
            burst: nanos(burst),
        }
    }

    /// Whether it limits anything.
    pub fn is_on(self) -> bool {
        self.per_second > 0
    }

    /// What `count` of them use, in nanoseconds.
    pub fn cost(self, count: u32) -> u64 {
        match u64::from(self.per_second) {
            0 => 0,
            rate => u64::from(count) * SECOND / rate,
        }
    }

    /// One more, if it is allowed.
    pub fn take(self, used: &mut Used, now: u64) -> bool {
        let (ahead, cost) = (used.ahead(now), self.cost(1));
        if ahead > 0 && ahead + cost > self.burst {
            return false;
        }
        used.add(cost, now);
        true
    }

    /// Whether more is used than a burst gives.
    pub fn is_exceeded(self, used: Used, now: u64) -> bool {
        self.is_on() && used.ahead(now) > self.burst
    }

    /// Whether twice as much is used.
    pub fn is_exceeded_twice(self, used: Used, now: u64) -> bool {
        self.is_on() && used.ahead(now) > 2 * self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(pace: Pace, used: &mut Used, now: u64) -> u32 {
        (0..1000).take_while(|_| pace.take(used, now)).count() as u32
    }

    #[test]
    fn a_burst_at_once_and_then_the_pace() {
        let pace = Pace::new(10, Duration::from_secs(2));
        let mut used = Used::default();
        let start = 77 * SECOND;
        assert_eq!(taken(pace, &mut used, start), 20);
        assert_eq!(taken(pace, &mut used, start + SECOND / 10 - 1), 0);
        assert_eq!(taken(pace, &mut used, start + SECOND / 10), 1);
        assert_eq!(taken(pace, &mut used, start + SECOND), 9);
        assert_eq!(used.ahead(start + 3 * SECOND), 0);
        assert_eq!(taken(pace, &mut used, start + 100 * SECOND), 20);
    }

    #[test]
    fn a_burst_too_short_for_one_gives_one() {
        let pace = Pace::new(1, Duration::from_millis(10));
        let mut used = Used::default();
        assert_eq!(taken(pace, &mut used, SECOND), 1);
        assert_eq!(taken(pace, &mut used, 2 * SECOND - 1), 0);
        assert_eq!(taken(pace, &mut used, 2 * SECOND), 1);
    }

    #[test]
    fn what_is_added_counts_beyond_the_burst() {
        let pace = Pace::new(1000, Duration::from_secs(1));
        let mut used = Used::default();
        used.add(pace.cost(1000), SECOND);
        assert!(!pace.is_exceeded(used, SECOND));
        used.add(pace.cost(1000), SECOND);
        assert!(pace.is_exceeded(used, SECOND) && !pace.is_exceeded_twice(used, SECOND));
        used.add(pace.cost(1), SECOND);
        assert!(pace.is_exceeded_twice(used, SECOND));
        assert!(!Pace::new(0, Duration::ZERO).is_exceeded_twice(used, 0));
    }
}
