//! Slabs: many values of one type under dense `u32` keys, in chunks that never move.
//!
//! [`Slab`] chooses the keys and reuses the last freed first; [`Table`] takes keys chosen by someone else, as a connection's
//! slot is by the reactor. Both grow by chunks of [`CHUNK`] entries: no copy, no moment at which old and new stand side by
//! side, and memory is touched only as far as it is used. Chunks are kept when they empty.
//!
//! An entry of a `T` with spare bit patterns (a `Box`, a reference count, an enum) and four bytes beside them costs
//! `size_of::<T>()`; any other costs one alignment more. Insert, remove and lookup take constant time.
//!
//! A key says nothing about which value lives there now: who keeps keys across a removal keeps a generation beside them.

use std::ops::{Index, IndexMut};

/// Entries in a chunk.
pub const CHUNK: usize = 256;

/// Fixed-size chunks, filled in order; the memory behind a chunk is taken when its first entry is written.
#[derive(Debug)]
struct Chunks<E>(Vec<Vec<E>>);

impl<E> Chunks<E> {
    fn get(&self, key: u32) -> Option<&E> {
        self.0.get(key as usize / CHUNK)?.get(key as usize % CHUNK)
    }

    fn get_mut(&mut self, key: u32) -> Option<&mut E> {
        self.0
            .get_mut(key as usize / CHUNK)?
            .get_mut(key as usize % CHUNK)
    }

    /// The entry of `key`; it and those before it in its chunk are made if need be.
    fn make(&mut self, key: u32, mut empty: impl FnMut() -> E) -> &mut E {
        let (chunk, place) = (key as usize / CHUNK, key as usize % CHUNK);
        if chunk >= self.0.len() {
            self.0.resize_with(chunk + 1, Vec::new);
        }
        let entries = &mut self.0[chunk];
        if place >= entries.len() {
            entries.reserve_exact(CHUNK - entries.len());
            entries.resize_with(place + 1, &mut empty);
        }
        &mut entries[place]
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &E)> {
        let chunks = self.0.iter().enumerate();
        chunks.flat_map(|(chunk, entries)| {
            entries
                .iter()
                .enumerate()
                .map(move |(place, entry)| ((chunk * CHUNK + place) as u32, entry))
        })
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut E)> {
        let chunks = self.0.iter_mut().enumerate();
        chunks.flat_map(|(chunk, entries)| {
            entries
                .iter_mut()
                .enumerate()
                .map(move |(place, entry)| ((chunk * CHUNK + place) as u32, entry))
        })
    }
}

/// Ends the free list; also one more than the largest key.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    Occupied(T),
    /// Free; the next free entry.
    Vacant(u32),
}

/// A slab that chooses its keys.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Chunks<Entry<T>>,
    /// Head of the list of freed entries.
    free: u32,
    /// Entries ever used: the first key never given out.
    used: u32,
    len: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    /// Empty; allocates nothing.
    pub const fn new() -> Self {
        Self {
            chunks: Chunks(Vec::new()),
            free: NONE,
            used: 0,
            len: 0,
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the largest key ever given out.
    pub fn slots(&self) -> u32 {
        self.used
    }

    /// The key that the next [`insert`](Self::insert) gives.
    pub fn next_key(&self) -> u32 {
        if self.free == NONE {
            self.used
        } else {
            self.free
        }
    }

    /// Stores a value and gives its key.
    ///
    /// # Panics
    /// With 2^32 - 1 values in it.
    pub fn insert(&mut self, value: T) -> u32 {
        let key = self.next_key();
        assert!(key != NONE, "a slab holds at most 2^32 - 1 values");
        if key == self.used {
            *self.chunks.make(key, || Entry::Vacant(NONE)) = Entry::Occupied(value);
            self.used += 1;
        } else {
            let entry = self.chunks.get_mut(key).expect("a freed key is in a chunk");
            let Entry::Vacant(next) = std::mem::replace(entry, Entry::Occupied(value)) else {
                unreachable!("the free list holds vacant entries only");
            };
            self.free = next;
        }
        self.len += 1;
        key
    }

    /// Takes a value out; its key may be given to another.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let free = self.free;
        let entry = self.chunks.get_mut(key)?;
        if matches!(entry, Entry::Vacant(_)) {
            return None;
        }
        let Entry::Occupied(value) = std::mem::replace(entry, Entry::Vacant(free)) else {
            unreachable!("seen occupied");
        };
        self.free = key;
        self.len -= 1;
        Some(value)
    }

    /// Whether a value lives under `key`.
    pub fn contains(&self, key: u32) -> bool {
        self.get(key).is_some()
    }

    /// The value under `key`.
    pub fn get(&self, key: u32) -> Option<&T> {
        match self.chunks.get(key)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    /// The value under `key`, to be changed.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        match self.chunks.get_mut(key)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    /// All values, by rising key.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().filter_map(|(key, entry)| match entry {
            Entry::Occupied(value) => Some((key, value)),
            Entry::Vacant(_) => None,
        })
    }

    /// All values, by rising key, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.chunks
            .iter_mut()
            .filter_map(|(key, entry)| match entry {
                Entry::Occupied(value) => Some((key, value)),
                Entry::Vacant(_) => None,
            })
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        self.get(key).expect("a value lives under this key")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.get_mut(key).expect("a value lives under this key")
    }
}

/// A slab whose keys are chosen by the caller, dense or nearly so: memory goes by the chunks that were ever used.
#[derive(Debug)]
pub struct Table<T> {
    chunks: Chunks<Option<T>>,
    slots: u32,
    len: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    /// Empty; allocates nothing.
    pub const fn new() -> Self {
        Self {
            chunks: Chunks(Vec::new()),
            slots: 0,
            len: 0,
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One more than the largest key ever used.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Stores a value under `key`, and gives back what lived there.
    ///
    /// # Panics
    /// For key `u32::MAX`, which is nobody's.
    pub fn insert_at(&mut self, key: u32, value: T) -> Option<T> {
        assert!(key != NONE, "the largest key is nobody's");
        let old = self.chunks.make(key, || None).replace(value);
        self.slots = self.slots.max(key + 1);
        self.len += u32::from(old.is_none());
        old
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let value = self.chunks.get_mut(key)?.take()?;
        self.len -= 1;
        Some(value)
    }

    /// Whether a value lives under `key`.
    pub fn contains(&self, key: u32) -> bool {
        self.get(key).is_some()
    }

    /// The value under `key`.
    pub fn get(&self, key: u32) -> Option<&T> {
        self.chunks.get(key)?.as_ref()
    }

    /// The value under `key`, to be changed.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.chunks.get_mut(key)?.as_mut()
    }

    /// All values, by rising key.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks
            .iter()
            .filter_map(|(key, entry)| Some((key, entry.as_ref()?)))
    }

    /// All values, by rising key, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.chunks
            .iter_mut()
            .filter_map(|(key, entry)| Some((key, entry.as_mut()?)))
    }
}

impl<T> Index<u32> for Table<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        self.get(key).expect("a value lives under this key")
    }
}

impl<T> IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.get_mut(key).expect("a value lives under this key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeMap;
    use std::mem::size_of;

    #[test]
    fn an_entry_with_a_niche_costs_nothing() {
        struct Connection {
            _handshake: Option<Box<u64>>,
            _cursors: Vec<u64>,
            _flags: u32,
        }
        assert_eq!(size_of::<Entry<Connection>>(), size_of::<Connection>());
        assert_eq!(size_of::<Option<Connection>>(), size_of::<Connection>());
        assert_eq!(size_of::<Entry<[u64; 4]>>(), 40);
        assert_eq!(size_of::<Entry<[u32; 4]>>(), 20);
    }

    #[test]
    fn keys_are_dense_and_the_last_freed_comes_back_first() {
        let mut slab = Slab::new();
        assert_eq!(
            (0..5).map(|value| slab.insert(value)).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(slab.remove(1), Some(1));
        assert_eq!(slab.remove(3), Some(3));
        assert_eq!(slab.remove(3), None);
        assert_eq!(slab.next_key(), 3);
        assert_eq!(slab.insert(30), 3);
        assert_eq!(slab.insert(10), 1);
        assert_eq!(slab.insert(50), 5);
        assert_eq!(slab.slots(), 6);
        assert_eq!(slab.len(), 6);
    }

    #[test]
    fn values_do_not_move_when_the_slab_grows() {
        let mut slab = Slab::new();
        let key = slab.insert(7u64);
        let before = std::ptr::from_ref(&slab[key]);
        for value in 0..10 * CHUNK as u64 {
            slab.insert(value);
        }
        assert_eq!(std::ptr::from_ref(&slab[key]), before);
        assert!(slab.chunks.0.iter().all(|chunk| chunk.capacity() == CHUNK));
    }

    #[test]
    fn behaves_as_a_map() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut slab, mut shadow) = (Slab::new(), BTreeMap::new());
            let grow = rng.random_range(0.3..0.7);
            for value in 0..5000u32 {
                if rng.random_bool(grow) {
                    let key = slab.insert(value);
                    assert!(
                        shadow.insert(key, value).is_none(),
                        "key {key} was given out twice"
                    );
                } else {
                    let key = rng.random_range(0..slab.slots() + 2);
                    assert_eq!(slab.contains(key), shadow.contains_key(&key));
                    assert_eq!(slab.remove(key), shadow.remove(&key));
                }
                assert_eq!(slab.len(), shadow.len());
            }
            assert!(
                slab.iter()
                    .map(|(key, value)| (key, *value))
                    .eq(shadow.iter().map(|(&key, &value)| (key, value)))
            );
            slab.iter_mut().for_each(|(_, value)| *value += 1);
            assert!(shadow.iter().all(|(&key, &value)| slab[key] == value + 1));
        }
    }

    #[test]
    fn a_table_behaves_as_a_map_under_foreign_keys() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut table, mut shadow) = (Table::new(), BTreeMap::new());
            for value in 0..5000u32 {
                let key = rng.random_range(0..2000);
                if rng.random_bool(0.5) {
                    assert_eq!(table.insert_at(key, value), shadow.insert(key, value));
                } else {
                    assert_eq!(table.remove(key), shadow.remove(&key));
                }
                assert_eq!(table.get(key), shadow.get(&key));
                assert_eq!(table.len(), shadow.len());
            }
            assert!(
                table
                    .iter()
                    .map(|(key, value)| (key, *value))
                    .eq(shadow.iter().map(|(&key, &value)| (key, value)))
            );
            table.iter_mut().for_each(|(_, value)| *value += 1);
            assert!(shadow.iter().all(|(&key, &value)| table[key] == value + 1));
        }
    }

    #[test]
    fn a_table_takes_memory_only_for_chunks_in_use() {
        let mut table = Table::new();
        table.insert_at(100_000, 1u64);
        assert_eq!(table.slots(), 100_001);
        let in_use = table
            .chunks
            .0
            .iter()
            .filter(|chunk| chunk.capacity() > 0)
            .count();
        assert_eq!(in_use, 1);
        assert_eq!(table.get(99_999), None);
        assert_eq!(table.get(5), None);
        assert_eq!(table.get(u32::MAX), None);
    }
}
