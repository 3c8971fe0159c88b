//! What is known of those who did something lately. A hand goes round and forgets those of whom nothing counts any more.

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;
use std::hash::Hash;

/// Entries looked at in one sweep, at least.
const LOOKS: usize = 1024;
/// Sweeps that go round a large table.
const SWEEPS_A_ROUND: usize = 16;

/// Something that counts for a while.
pub trait Passing: Default {
    /// Whether nothing of it counts any more.
    fn is_past(&self, now: u64) -> bool;
}

/// Entries by key, at most so many.
#[derive(Debug)]
pub struct SideTable<K, V> {
    entries: IndexMap<K, V, DefaultHashBuilder>,
    hand: usize,
    most: usize,
}

impl<K: Copy + Eq + Hash, V: Passing> SideTable<K, V> {
    /// Empty; it will never hold more than `most`.
    pub fn new(most: usize) -> Self {
        Self {
            entries: IndexMap::default(),
            hand: 0,
            most,
        }
    }

    /// What is known under a key: of whom nothing is, nothing yet. `None`: the table is full.
    pub fn entry(&mut self, key: K) -> Option<&mut V> {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            return None;
        }
        Some(self.entries.entry(key).or_default())
    }

    /// The same, if something is known.
    pub fn get(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(&key)
    }

    /// Forgets somebody.
    pub fn remove(&mut self, key: K) {
        self.entries.swap_remove(&key);
    }

    /// Forgets some of those of whom nothing counts any more, and says whom.
    pub fn sweep(&mut self, now: u64, mut forgotten: impl FnMut(K, V)) {
        let looks = (self.entries.len() / SWEEPS_A_ROUND).max(LOOKS);
        for _ in 0..looks.min(self.entries.len()) {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            match self.entries.get_index(self.hand) {
                Some((_, value)) if value.is_past(now) => {
                    if let Some((key, value)) = self.entries.swap_remove_index(self.hand) {
                        forgotten(key, value);
                    }
                }
                _ => self.hand += 1,
            }
        }
        if self.entries.capacity() > LOOKS && self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds nobody.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Until(u64);

    impl Passing for Until {
        fn is_past(&self, now: u64) -> bool {
            self.0 <= now
        }
    }

    #[test]
    fn all_that_is_past_is_forgotten_in_a_round_and_its_room_given_back() {
        let mut table = SideTable::<u64, Until>::new(100_000);
        for key in 0..50_000u64 {
            table.entry(key).unwrap().0 = key % 3;
        }
        let mut forgotten = 0;
        // The fewer are left, the fewer are looked at.
        for _ in 0..3 * SWEEPS_A_ROUND {
            table.sweep(1, |_, _| forgotten += 1);
        }
        assert_eq!((forgotten, table.len()), (33_334, 16_666));
        for _ in 0..100 {
            table.sweep(2, |_, _| {});
        }
        assert!(table.is_empty() && table.entries.capacity() <= LOOKS);
    }

    #[test]
    fn one_that_is_full_takes_nobody_new() {
        let mut table = SideTable::<u32, Until>::new(2);
        for key in [1, 2] {
            table.entry(key).unwrap().0 = 5;
        }
        assert!(table.entry(3).is_none() && table.entry(1).is_some());
        table.sweep(5, |_, _| {});
        assert!(table.entry(3).is_some());
    }
}
