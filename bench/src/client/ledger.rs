//! The proof: what each subscriber should have seen, and what it did see.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Everything that went wrong in a run. A run without faults is *verified*.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that came after a later one.
    pub reordered: u64,
    /// Bodies whose checksum was wrong, or pushes without a body of ours.
    pub corrupted: u64,
    /// Right bodies of another channel or run.
    pub misrouted: u64,
    /// Commands the server answered with an error.
    pub refused: u64,
    /// Connections that ended before the run did.
    pub closed: u64,
    /// Frames and replies that are against the protocol.
    pub malformed: u64,
    /// The first words said about any of it.
    pub first: Option<String>,
}

impl Faults {
    /// True when nothing at all went wrong.
    pub fn is_verified(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over all of another thread's.
    pub fn add(&mut self, other: Self) {
        let Self {
            lost,
            duplicated,
            reordered,
            corrupted,
            misrouted,
            refused,
            closed,
            malformed,
            first,
        } = other;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.corrupted += corrupted;
        self.misrouted += misrouted;
        self.refused += refused;
        self.closed += closed;
        self.malformed += malformed;
        self.first = self.first.take().or(first);
    }

    /// Keeps the first explanation.
    pub fn explain(&mut self, words: impl FnOnce() -> String) {
        if self.first.is_none() {
            self.first = Some(words());
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_verified() {
            return write!(
                f,
                "verified: order kept, nothing lost, duplicated or corrupted"
            );
        }
        write!(f, "NOT VERIFIED:")?;
        let counts = [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("misrouted", self.misrouted),
            ("refused", self.refused),
            ("connections closed", self.closed),
            ("malformed", self.malformed),
        ];
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, " {count} {name};")?;
        }
        match &self.first {
            Some(words) => write!(f, " first: {words}"),
            None => Ok(()),
        }
    }
}

/// What the arrival of a sequence number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    InOrder,
    /// It came, and some before it have not.
    AfterGap,
    /// Published before it was sure that the member had joined; so many more of those must follow it.
    Early(u32),
    /// It had been missing.
    Late,
    Duplicate,
}

/// One subscriber's view of one publisher in one channel. Sequences start at 0.
#[derive(Debug, Default)]
pub struct View {
    next: u32,
    /// What is owed begins here, at the latest.
    from: u32,
    // Boxed: a healthy subscriber has none, and there are very many of them.
    #[expect(clippy::box_collection)]
    missing: Option<Box<Vec<Range<u32>>>>,
}

impl View {
    /// The view of a member that joins when `published` have been published: the next one is owed, those shortly before
    /// may come.
    pub fn joining_at(published: u32) -> Self {
        Self {
            next: published,
            from: published,
            missing: None,
        }
    }

    /// Takes note of a delivery.
    pub fn observe(&mut self, sequence: u32) -> Seen {
        if sequence == self.next {
            self.next += 1;
            return Seen::InOrder;
        }
        if sequence > self.next {
            self.missing
                .get_or_insert_default()
                .push(self.next..sequence);
            self.next = sequence + 1;
            return Seen::AfterGap;
        }
        let Some(missing) = &mut self.missing else {
            if self.next == self.from {
                let more = self.from - sequence - 1;
                (self.from, self.next) = (sequence, sequence + 1);
                return Seen::Early(more);
            }
            return Seen::Duplicate;
        };
        let Some(at) = missing.iter().position(|gap| gap.contains(&sequence)) else {
            return Seen::Duplicate;
        };
        let gap = missing.swap_remove(at);
        let parts = [gap.start..sequence, sequence + 1..gap.end];
        missing.extend(parts.into_iter().filter(|part| !part.is_empty()));
        Seen::Late
    }

    /// How many of the first `published` never came.
    pub fn lost(&self, published: u32) -> u64 {
        self.skipped() + u64::from(published.saturating_sub(self.next))
    }

    /// How many never came though a later one did.
    pub fn skipped(&self) -> u64 {
        let gaps = self.missing.iter().flat_map(|missing| missing.iter());
        gaps.map(|gap| gap.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sequences: &[u32]) -> (Vec<Seen>, View) {
        let mut view = View::default();
        (
            sequences
                .iter()
                .map(|&sequence| view.observe(sequence))
                .collect(),
            view,
        )
    }

    #[test]
    fn order_is_no_fault() {
        let (seen, view) = seen(&[0, 1, 2, 3]);
        assert!(seen.iter().all(|&seen| seen == Seen::InOrder));
        assert_eq!(view.lost(4), 0);
    }

    #[test]
    fn a_gap_and_a_missing_end_are_losses() {
        let (seen, view) = seen(&[0, 3, 4]);
        assert_eq!(seen, [Seen::InOrder, Seen::AfterGap, Seen::InOrder]);
        assert_eq!(view.lost(5), 2);
        assert_eq!(view.lost(8), 5);
    }

    #[test]
    fn late_ones_are_reordered_not_lost_and_twice_is_a_duplicate() {
        let (seen, view) = seen(&[0, 4, 2, 2, 1, 3, 4]);
        let expected = [
            Seen::InOrder,
            Seen::AfterGap,
            Seen::Late,
            Seen::Duplicate,
            Seen::Late,
            Seen::Late,
            Seen::Duplicate,
        ];
        assert_eq!(seen, expected);
        assert_eq!(view.lost(5), 0);
    }

    #[test]
    fn a_member_that_joins_amid_publications_is_owed_those_after_its_join() {
        let mut view = View::joining_at(10);
        assert_eq!(view.lost(12), 2);
        assert_eq!(view.observe(8), Seen::Early(1));
        assert_eq!(view.observe(9), Seen::InOrder);
        assert_eq!(view.observe(9), Seen::Duplicate);
        assert_eq!(view.observe(10), Seen::InOrder);
        assert_eq!(view.observe(7), Seen::Duplicate);
        assert_eq!(view.lost(12), 1);
        let mut view = View::joining_at(10);
        assert_eq!(view.observe(12), Seen::AfterGap);
        assert_eq!(view.observe(9), Seen::Duplicate);
        assert_eq!(view.lost(13), 2);
    }

    #[test]
    fn faults_are_told_with_their_number() {
        let mut faults = Faults::default();
        assert!(faults.to_string().starts_with("verified"));
        faults.lost = 3;
        faults.explain(|| "subscriber 7 misses 2".to_owned());
        assert_eq!(
            faults.to_string(),
            "NOT VERIFIED: 3 lost; first: subscriber 7 misses 2"
        );
    }
}
