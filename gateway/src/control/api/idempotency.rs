//! Which publications were already made: a publish that is sent again with the same idempotency key within five minutes
//! gets the answer of the first, and nothing is published.
//!
//! Names are kept as 128-bit keyed hashes, so an entry has a fixed size whatever the client sent.

use crate::protocol::codes::ReplyError;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long an answer is remembered.
pub const REMEMBER: Duration = Duration::from_secs(300);
/// Most answers remembered; beyond it the oldest goes first.
pub const ENTRIES_MAX: usize = 100_000;

/// What a publish led to: the position in channels with history, or why it was refused.
pub type Published = Result<Option<(u64, Arc<str>)>, ReplyError>;

/// The name of one idempotent publish: channel and key together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name(u128);

/// What is known about a name.
pub enum Claim {
    /// New: the caller publishes and then calls [`Memory::settle`] with this life.
    Mine {
        /// Tells this life of the name from a later one.
        life: u64,
        /// Where the answer goes.
        answer: watch::Sender<Option<Published>>,
        /// Where it can be waited for.
        waiter: watch::Receiver<Option<Published>>,
    },
    /// Published before, or being published: the answer is or will be here.
    Other(watch::Receiver<Option<Published>>),
}

struct Entry {
    life: u64,
    answer: watch::Receiver<Option<Published>>,
}

/// The bounded memory.
pub struct Memory {
    entries: HashMap<Name, Entry>,
    /// Oldest first; an entry is gone when its life in `entries` is another.
    order: VecDeque<(Instant, Name, u64)>,
    lives: u64,
    hash_key: [u8; 16],
    entries_max: usize,
}

impl Memory {
    /// An empty memory of at most `entries_max` answers. `hash_key` is random.
    pub fn new(entries_max: usize, hash_key: [u8; 16]) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            lives: 0,
            hash_key,
            entries_max,
        }
    }

    /// The name of `key` in `channel`.
    pub fn name(&self, channel: &str, key: &str) -> Name {
        let mut hasher = SipHasher24::new_with_key(&self.hash_key);
        hasher.write_usize(channel.len());
        hasher.write(channel.as_bytes());
        hasher.write(key.as_bytes());
        Name(hasher.finish128().as_u128())
    }

    /// Takes the name, or tells who has it.
    pub fn claim(&mut self, name: Name, now: Instant) -> Claim {
        self.forget(now);
        if let Some(entry) = self.entries.get(&name) {
            return Claim::Other(entry.answer.clone());
        }
        if self.order.len() >= self.entries_max {
            self.forget_oldest();
        }
        self.lives += 1;
        let (answer, waiter) = watch::channel(None);
        self.entries.insert(
            name,
            Entry {
                life: self.lives,
                answer: waiter.clone(),
            },
        );
        self.order.push_back((now, name, self.lives));
        Claim::Mine {
            life: self.lives,
            answer,
            waiter,
        }
    }

    /// The publish is over. One that failed is forgotten, so that it may be tried again.
    pub fn settle(&mut self, name: Name, life: u64, published: &Published) {
        if published.is_err()
            && self
                .entries
                .get(&name)
                .is_some_and(|entry| entry.life == life)
        {
            self.entries.remove(&name);
        }
    }

    fn forget(&mut self, now: Instant) {
        while self
            .order
            .front()
            .is_some_and(|(made, ..)| now.duration_since(*made) >= REMEMBER)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, name, life)) = self.order.pop_front()
            && self
                .entries
                .get(&name)
                .is_some_and(|entry| entry.life == life)
        {
            self.entries.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(memory: &mut Memory, key: &str, now: Instant) -> Option<(Name, u64)> {
        let name = memory.name("news", key);
        match memory.claim(name, now) {
            Claim::Mine { life, .. } => Some((name, life)),
            Claim::Other(_) => None,
        }
    }

    #[test]
    fn remembers_for_five_minutes() {
        let mut memory = Memory::new(10, [1; 16]);
        let start = Instant::now();
        assert!(claim(&mut memory, "k", start).is_some());
        assert!(
            claim(
                &mut memory,
                "k",
                start + REMEMBER - Duration::from_millis(1)
            )
            .is_none()
        );
        assert!(claim(&mut memory, "k", start + REMEMBER).is_some());
    }

    #[test]
    fn forgets_a_failure_but_not_a_success() {
        let mut memory = Memory::new(10, [1; 16]);
        let now = Instant::now();
        let (name, life) = claim(&mut memory, "k", now).unwrap();
        memory.settle(name, life, &Ok(None));
        assert!(claim(&mut memory, "k", now).is_none());
        let (name, life) = claim(&mut memory, "other", now).unwrap();
        memory.settle(name, life, &Err(ReplyError::INTERNAL));
        assert!(claim(&mut memory, "other", now).is_some());
    }

    #[test]
    fn a_late_failure_does_not_remove_a_later_life() {
        let mut memory = Memory::new(10, [1; 16]);
        let start = Instant::now();
        let (name, first) = claim(&mut memory, "k", start).unwrap();
        assert!(claim(&mut memory, "k", start + REMEMBER).is_some());
        memory.settle(name, first, &Err(ReplyError::INTERNAL));
        assert!(claim(&mut memory, "k", start + REMEMBER).is_none());
    }

    #[test]
    fn is_bounded_and_drops_the_oldest() {
        let mut memory = Memory::new(3, [1; 16]);
        let now = Instant::now();
        for key in ["a", "b", "c", "d"] {
            assert!(claim(&mut memory, key, now).is_some());
        }
        assert_eq!(memory.entries.len(), 3);
        assert!(claim(&mut memory, "d", now).is_none());
        assert!(claim(&mut memory, "a", now).is_some());
    }

    #[test]
    fn channel_and_key_are_kept_apart() {
        let memory = Memory::new(3, [1; 16]);
        assert_ne!(memory.name("ab", "c"), memory.name("a", "bc"));
    }
}
