//! Connections and handshakes of client addresses, at each address' home.

use super::{Hits, Limit, Pace, Passing, REFUSALS_MAX, SideTable, Used, nanos};
use std::time::Duration;

/// Addresses remembered on one shard, at least, however few connections the node may hold.
const REMEMBERED: usize = 1 << 17;

/// What an address' home says to one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let in.
    Admitted,
    /// Let in, and counted until the home is told that it is over.
    Counted,
    /// Over a limit: it may try again later.
    Refused,
    /// Over a limit, and it has been told so often enough.
    Dropped,
}

#[derive(Debug, Default)]
struct Address {
    handshakes: Used,
    refusals: Used,
    connections: u32,
}

impl Passing for Address {
    fn is_past(&self, now: u64) -> bool {
        self.connections == 0 && self.handshakes.ahead(now) == 0 && self.refusals.ahead(now) == 0
    }
}

/// The addresses whose home a shard is.
#[derive(Debug)]
pub struct Addresses {
    handshakes: Pace,
    connections_max: u32,
    burst: u64,
    table: SideTable<u64, Address>,
}

impl Addresses {
    /// `connections_max` connections of an address and `handshakes` a second; 0: any number. The node holds `node_max`
    /// connections.
    pub fn new(connections_max: u32, handshakes: u32, burst: Duration, node_max: usize) -> Self {
        Self {
            handshakes: Pace::new(handshakes, burst),
            connections_max,
            burst: nanos(burst),
            table: SideTable::new(node_max.max(REMEMBERED)),
        }
    }

    /// Whether anything is limited.
    pub fn is_on(&self) -> bool {
        self.handshakes.is_on() || self.connections_max > 0
    }

    /// A connection comes from an address, known by its keyed hash.
    pub fn arrive(&mut self, address: u64, now: u64, hits: &mut Hits) -> Verdict {
        let Some(entry) = self.table.entry(address) else {
            return Verdict::Admitted;
        };
        let is_counted = self.connections_max > 0;
        let most = self.connections_max + u32::from(crate::planted!(AddressLimitOffByOne));
        for limit in [Limit::AddressConnections, Limit::AddressHandshakes] {
            let may = match limit {
                Limit::AddressConnections => !is_counted || entry.connections < most,
                _ => !self.handshakes.is_on() || self.handshakes.take(&mut entry.handshakes, now),
            };
            if may {
                continue;
            }
            // Who is refused uses nothing up: many behind one address come in at its pace, however hard they try. But
            // beyond some refusals they are not worth an answer.
            if entry.refusals.ahead(now) > self.burst && hits.closes(limit) {
                return Verdict::Dropped;
            }
            if hits.refuses(limit) {
                entry.refusals.add(self.burst / REFUSALS_MAX, now);
                return Verdict::Refused;
            }
        }
        if is_counted {
            entry.connections += 1;
            return Verdict::Counted;
        }
        Verdict::Admitted
    }

    /// A connection that was counted is over.
    pub fn leave(&mut self, address: u64) {
        if let Some(entry) = self.table.get(address) {
            debug_assert!(entry.connections > 0, "more leave than came");
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// Forgets those of whom nothing counts any more.
    pub fn sweep(&mut self, now: u64) {
        self.table.sweep(now, |_, _| {});
    }

    /// Addresses that are known.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{LimitSet, Outcome};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn connections_are_counted_until_they_leave() {
        let mut addresses = Addresses::new(2, 0, Duration::from_secs(5), 100);
        let mut hits = Hits::default();
        let mut arrive =
            |addresses: &mut Addresses, address| addresses.arrive(address, 1, &mut hits);
        assert_eq!(arrive(&mut addresses, 7), Verdict::Counted);
        assert_eq!(arrive(&mut addresses, 7), Verdict::Counted);
        assert_eq!(arrive(&mut addresses, 7), Verdict::Refused);
        assert_eq!(arrive(&mut addresses, 8), Verdict::Counted);
        addresses.leave(7);
        assert_eq!(arrive(&mut addresses, 7), Verdict::Counted);
        for address in [7, 7, 8] {
            assert_eq!(addresses.len(), 2);
            addresses.leave(address);
        }
        addresses.sweep(100 * SECOND);
        assert!(addresses.is_empty());
    }

    #[test]
    fn who_is_refused_uses_nothing_up_and_who_goes_on_is_dropped() {
        let mut addresses = Addresses::new(0, 10, Duration::from_secs(1), 100);
        let mut hits = Hits::default();
        let mut counts = [0; 4];
        for _ in 0..1000 {
            counts[addresses.arrive(7, SECOND, &mut hits) as usize] += 1;
        }
        let refused = REFUSALS_MAX as usize + 1;
        assert_eq!(counts, [10, 0, refused, 990 - refused]);
        let of = |outcome| hits.of(Limit::AddressHandshakes, outcome);
        assert_eq!(
            Outcome::ALL.map(of),
            [refused as u64, (990 - refused) as u64, 0]
        );
        // Ten a second, however many try.
        let mut admitted = 0;
        for millis in 1..=5000 {
            let now = SECOND + millis * 1_000_000;
            admitted += u64::from(addresses.arrive(7, now, &mut hits) == Verdict::Admitted);
        }
        assert_eq!(admitted, 50);
    }

    #[test]
    fn a_limit_that_is_only_tried_lets_all_in_and_counts_right() {
        let mut addresses = Addresses::new(1, 0, Duration::from_secs(1), 100);
        let mut hits = Hits::new(LimitSet::ALL);
        for _ in 0..300 {
            assert_eq!(addresses.arrive(7, 1, &mut hits), Verdict::Counted);
        }
        assert_eq!(hits.of(Limit::AddressConnections, Outcome::DryRun), 299);
        (0..300).for_each(|_| addresses.leave(7));
        addresses.sweep(100 * SECOND);
        assert!(addresses.is_empty());
    }
}
