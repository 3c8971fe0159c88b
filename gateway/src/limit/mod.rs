//! How much clients may do: the limits by name, and who has used how much of them. Free of I/O and clocks: whoever asks says
//! what time it is.
//!
//! What is used is kept beside the connections and only while it counts (see [`SideTable`]): an idle client has no entry.
//! Who owns what:
//!
//! * a *connection's* commands, publications and bytes: its shard ([`Meters`]);
//! * a *user's*: each shard measures by the user's whole pace and tells the user's home a quarter of a burst at a time; the home
//!   adds up what all shards tell and answers with the sum ([`Meters`]);
//! * an *address*' connections and handshakes: its home, which is asked for each ([`Addresses`]);
//! * the *node's* handshakes: all shards, by shares that they lend each other ([`Handshakes`]).
//!
//! # Invariants
//! * Every table is bounded. In one that is full, whoever is new is let through unmeasured.
//! * A limit of 0 is none and costs nothing.

mod addresses;
mod meters;
mod node;
mod pace;
mod side_table;

pub use addresses::{Addresses, Verdict};
pub use meters::{Meters, Report, Ruling, Who};
pub use node::Handshakes;
pub use pace::{Pace, Used};
pub use side_table::{Passing, SideTable};

use std::time::Duration;

/// Refusals within a burst after which somebody is not refused any more but closed or dropped. Whoever backs off as an SDK
/// does comes nowhere near.
pub const REFUSALS_MAX: u64 = 100;

/// Nanoseconds of a duration, as the clocks of paces count.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// A limit on clients. Its name is its key in the configuration, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // see the names
pub enum Limit {
    Connections,
    Handshakes,
    UserConnections,
    Channels,
    AddressConnections,
    AddressHandshakes,
    ConnectionCommands,
    ConnectionPublications,
    ConnectionBytes,
    UserCommands,
    UserPublications,
    UserBytes,
}

impl Limit {
    /// How many there are.
    pub const COUNT: usize = 12;

    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connections,
        Self::Handshakes,
        Self::UserConnections,
        Self::Channels,
        Self::AddressConnections,
        Self::AddressHandshakes,
        Self::ConnectionCommands,
        Self::ConnectionPublications,
        Self::ConnectionBytes,
        Self::UserCommands,
        Self::UserPublications,
        Self::UserBytes,
    ];

    /// The key that sets it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "client.connection_limit",
            Self::Handshakes => "client.connection_rate_limit",
            Self::UserConnections => "client.user_connection_limit",
            Self::Channels => "client.channel_limit",
            Self::AddressConnections => "limits.address.connections",
            Self::AddressHandshakes => "limits.address.handshakes",
            Self::ConnectionCommands => "limits.connection.commands",
            Self::ConnectionPublications => "limits.connection.publications",
            Self::ConnectionBytes => "limits.connection.bytes",
            Self::UserCommands => "limits.user.commands",
            Self::UserPublications => "limits.user.publications",
            Self::UserBytes => "limits.user.bytes",
        }
    }
}

/// A set of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSet(u16);

impl LimitSet {
    /// Every limit.
    pub const ALL: Self = Self((1 << Limit::COUNT) - 1);

    /// Adds one.
    pub fn insert(&mut self, limit: Limit) {
        self.0 |= 1 << limit as u16;
    }

    /// Whether it is in.
    pub fn has(self, limit: Limit) -> bool {
        self.0 & (1 << limit as u16) != 0
    }
}

/// What came of meeting a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Refused, and told so.
    Refused,
    /// Closed or dropped, having gone on.
    Closed,
    /// Let through: the limit is only tried.
    DryRun,
}

impl Outcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Closed, Self::DryRun];

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::DryRun => "dry_run",
        }
    }
}

/// How often limits were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    counts: [[u64; Outcome::ALL.len()]; Limit::COUNT],
    dry_run: LimitSet,
}

impl Hits {
    /// None yet. Limits in `dry_run` are only tried.
    pub fn new(dry_run: LimitSet) -> Self {
        Self {
            dry_run,
            ..Self::default()
        }
    }

    /// A limit was met; `false`: it is only tried, so go on as if it had not been.
    pub fn refuses(&mut self, limit: Limit) -> bool {
        let refuses = !self.dry_run.has(limit);
        let outcome = if refuses {
            Outcome::Refused
        } else {
            Outcome::DryRun
        };
        self.count(limit, outcome);
        refuses
    }

    /// The same by somebody who has gone on for too long.
    pub fn closes(&mut self, limit: Limit) -> bool {
        let closes = !self.dry_run.has(limit);
        if closes {
            self.count(limit, Outcome::Closed);
        }
        closes
    }

    fn count(&mut self, limit: Limit, outcome: Outcome) {
        self.counts[limit as usize][outcome as usize] += 1;
    }

    /// How often this came of that limit.
    pub fn of(&self, limit: Limit, outcome: Outcome) -> u64 {
        self.counts[limit as usize][outcome as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
            assert!(LimitSet::ALL.has(limit));
        }
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }

    #[test]
    fn what_is_only_tried_is_counted_and_let_through() {
        let mut tried = LimitSet::default();
        tried.insert(Limit::Channels);
        let mut hits = Hits::new(tried);
        assert!(!hits.refuses(Limit::Channels) && !hits.closes(Limit::Channels));
        assert!(hits.refuses(Limit::Handshakes) && hits.closes(Limit::Handshakes));
        let of = |limit| Outcome::ALL.map(|outcome| hits.of(limit, outcome));
        assert_eq!(
            (of(Limit::Channels), of(Limit::Handshakes)),
            ([0, 0, 1], [1, 1, 0])
        );
    }
}
