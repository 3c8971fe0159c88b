//! Commands, publications and bytes a second, of connections and of users.
//!
//! A user may be on several shards. Each measures by the user's whole pace, which is exact for all who are on one, and tells the
//! user's home whenever a quarter of a burst is used. The home adds up and answers with the sum, to which the shard raises what
//! it knows. So on `n` shards a user gets its pace and a burst, and at most `n - 1` quarters of a burst more; and who stays
//! well below costs a message every few bursts.

use super::{Hits, Limit, Pace, Passing, REFUSALS_MAX, SideTable, Used, nanos};
use crate::config::{ClientLimits, Rates};

/// Commands, publications, bytes.
const KINDS: usize = 3;
const BYTES: usize = 2;

/// Users that are measured on one shard at a time, at most.
const USERS_MAX: usize = 1 << 17;

/// Of a user's burst, what a shard uses before it tells the user's home.
const REPORTS_A_BURST: u64 = 4;

const OF_CONNECTION: [Limit; KINDS] = [
    Limit::ConnectionCommands,
    Limit::ConnectionPublications,
    Limit::ConnectionBytes,
];
const OF_USER: [Limit; KINDS] = [
    Limit::UserCommands,
    Limit::UserPublications,
    Limit::UserBytes,
];

/// What may become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is within the limits.
    Goes,
    /// It is to be refused.
    Refused,
    /// Its connection has gone on for too long, and is to be closed.
    Closed,
}

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its connection's slot.
    pub slot: u32,
    /// The keyed hash of its user; `None`: it is anonymous, or users are not measured.
    pub user: Option<u64>,
}

/// For the home of a user: what was used since the last report, in nanoseconds of each pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The keyed hash of the user.
    pub user: u64,
    /// Of commands, publications and bytes.
    pub spent: [u64; KINDS],
}

#[derive(Debug, Default)]
struct OfConnection {
    used: [Used; KINDS],
    refusals: Used,
}

#[derive(Debug, Default)]
struct OfUser {
    used: [Used; KINDS],
    untold: [u64; KINDS],
}

#[derive(Debug, Default)]
struct AtHome([Used; KINDS]);

impl Passing for OfConnection {
    fn is_past(&self, now: u64) -> bool {
        self.refusals.ahead(now) == 0 && self.used.iter().all(|used| used.ahead(now) == 0)
    }
}

impl Passing for OfUser {
    fn is_past(&self, now: u64) -> bool {
        self.used.iter().all(|used| used.ahead(now) == 0)
    }
}

impl Passing for AtHome {
    fn is_past(&self, now: u64) -> bool {
        self.0.iter().all(|used| used.ahead(now) == 0)
    }
}

/// What the connections of a shard, their users, and the users whose home it is have used.
#[derive(Debug)]
pub struct Meters {
    connection: [Pace; KINDS],
    user: [Pace; KINDS],
    burst: u64,
    connections: SideTable<u32, OfConnection>,
    users: SideTable<u64, OfUser>,
    homes: SideTable<u64, AtHome>,
    reports: Vec<Report>,
}

impl Meters {
    /// For `slots` connections.
    pub fn new(limits: &ClientLimits, slots: usize) -> Self {
        let paces = |rates: &Rates| {
            [rates.commands, rates.publications, rates.bytes]
                .map(|per_second| Pace::new(per_second, limits.burst))
        };
        Self {
            connection: paces(&limits.connection),
            user: paces(&limits.user),
            burst: nanos(limits.burst),
            connections: SideTable::new(slots),
            users: SideTable::new(USERS_MAX),
            homes: SideTable::new(USERS_MAX),
            reports: Vec::new(),
        }
    }

    /// Whether anything is measured.
    pub fn is_on(&self) -> bool {
        self.connection.iter().any(|pace| pace.is_on()) || self.measures_users()
    }

    /// Whether users are measured.
    pub fn measures_users(&self) -> bool {
        self.user.iter().any(|pace| pace.is_on())
    }

    /// Bytes have come. They are here, so they count in any case; commands are refused for them, and in the end the connection
    /// is closed, whether they are of commands or not. Never [`Ruling::Refused`].
    pub fn received(&mut self, who: Who, bytes: u32, now: u64, hits: &mut Hits) -> Ruling {
        let mut exceeded = None;
        let pace = self.connection[BYTES];
        if pace.is_on()
            && let Some(it) = self.connections.entry(who.slot)
        {
            it.used[BYTES].add(pace.cost(bytes), now);
            if pace.is_exceeded_twice(it.used[BYTES], now) {
                exceeded = Some(Limit::ConnectionBytes);
            }
        }
        let pace = self.user[BYTES];
        if pace.is_on()
            && let Some(user) = who.user
            && let Some(it) = self.users.entry(user)
        {
            it.used[BYTES].add(pace.cost(bytes), now);
            if pace.is_exceeded_twice(it.used[BYTES], now) {
                exceeded = exceeded.or(Some(Limit::UserBytes));
            }
            self.spend(user, BYTES, pace.cost(bytes));
        }
        match exceeded {
            Some(limit) if hits.closes(limit) => Ruling::Closed,
            _ => Ruling::Goes,
        }
    }

    /// A command (or what costs as much) comes. What is refused uses up nothing of what refuses it.
    pub fn command(&mut self, who: Who, publishes: bool, now: u64, hits: &mut Hits) -> Ruling {
        let kinds = [true, publishes, true];
        for kind in (0..KINDS).filter(|&kind| kinds[kind]) {
            let met = if !self.connection_may(who.slot, kind, now) {
                OF_CONNECTION[kind]
            } else if !self.user_may(who.user, kind, now) {
                OF_USER[kind]
            } else {
                continue;
            };
            if !hits.refuses(met) {
                continue;
            }
            let Some(it) = self.connections.entry(who.slot) else {
                return Ruling::Refused;
            };
            it.refusals.add(self.burst / REFUSALS_MAX, now);
            return match it.refusals.ahead(now) > self.burst && hits.closes(met) {
                true => Ruling::Closed,
                false => Ruling::Refused,
            };
        }
        Ruling::Goes
    }

    fn connection_may(&mut self, slot: u32, kind: usize, now: u64) -> bool {
        let pace = self.connection[kind];
        if !pace.is_on() {
            return true;
        }
        let Some(it) = self.connections.entry(slot) else {
            return true;
        };
        match kind {
            BYTES => !pace.is_exceeded(it.used[BYTES], now),
            kind => pace.take(&mut it.used[kind], now),
        }
    }

    fn user_may(&mut self, user: Option<u64>, kind: usize, now: u64) -> bool {
        let pace = self.user[kind];
        let Some(user) = user.filter(|_| pace.is_on()) else {
            return true;
        };
        let Some(it) = self.users.entry(user) else {
            return true;
        };
        if kind == BYTES {
            return !pace.is_exceeded(it.used[BYTES], now);
        }
        let may = pace.take(&mut it.used[kind], now);
        if may {
            self.spend(user, kind, pace.cost(1));
        }
        may
    }

    /// Remembers what a user's home has to be told, and tells it in time.
    fn spend(&mut self, user: u64, kind: usize, cost: u64) {
        let Some(it) = self.users.get(user) else {
            return;
        };
        it.untold[kind] = it.untold[kind].saturating_add(cost);
        if it.untold[kind] >= self.burst / REPORTS_A_BURST {
            let spent = std::mem::take(&mut it.untold);
            self.reports.push(Report { user, spent });
        }
    }

    /// What the homes of users are to be told.
    pub fn reports(&mut self) -> impl Iterator<Item = Report> + '_ {
        self.reports.drain(..)
    }

    /// Whether they are to be told something.
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// At a user's home: a shard reports. For how long what all have used counts, in nanoseconds.
    pub fn reported(&mut self, report: Report, now: u64) -> [u64; KINDS] {
        let Some(AtHome(used)) = self.homes.entry(report.user) else {
            return [0; KINDS];
        };
        for (used, spent) in used.iter_mut().zip(report.spent) {
            used.add(spent, now);
        }
        used.map(|used| used.ahead(now))
    }

    /// A user's home has answered.
    pub fn raise(&mut self, user: u64, ahead: [u64; KINDS], now: u64) {
        let Some(it) = self.users.entry(user) else {
            return;
        };
        for (used, ahead) in it.used.iter_mut().zip(ahead) {
            used.raise(ahead, now);
        }
    }

    /// A connection is over.
    pub fn forget(&mut self, slot: u32) {
        self.connections.remove(slot);
    }

    /// Forgets those of whom nothing counts any more. What a user's home was not told yet, it is told then.
    pub fn sweep(&mut self, now: u64) {
        self.connections.sweep(now, |_, _| {});
        self.homes.sweep(now, |_, _| {});
        let reports = &mut self.reports;
        self.users.sweep(now, |user, OfUser { untold: spent, .. }| {
            if spent != [0; KINDS] {
                reports.push(Report { user, spent });
            }
        });
    }

    /// Entries of all tables.
    pub fn len(&self) -> usize {
        self.connections.len() + self.users.len() + self.homes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{LimitSet, Outcome};
    use crate::testing::rng::Rng;
    use std::collections::VecDeque;
    use std::time::Duration;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;
    const ME: Who = Who {
        slot: 3,
        user: Some(77),
    };

    fn meters(connection: Rates, user: Rates) -> Meters {
        let limits = ClientLimits {
            burst: Duration::from_secs(2),
            connection,
            user,
            ..ClientLimits::default()
        };
        Meters::new(&limits, 1000)
    }

    fn rates(commands: u32, publications: u32, bytes: u32) -> Rates {
        Rates {
            commands,
            publications,
            bytes,
        }
    }

    fn going(meters: &mut Meters, who: Who, publishes: bool, now: u64, tries: u32) -> u32 {
        let mut hits = Hits::default();
        let rulings = (0..tries).map(|_| meters.command(who, publishes, now, &mut hits));
        rulings.filter(|ruling| *ruling == Ruling::Goes).count() as u32
    }

    #[test]
    fn each_kind_has_its_own_limit() {
        let mut m = meters(rates(10, 2, 0), Rates::default());
        assert_eq!(going(&mut m, ME, true, SECOND, 9), 4);
        // Those refused as publications were commands all the same.
        assert_eq!(going(&mut m, ME, false, SECOND, 50), 11);
        let other = Who { slot: 4, ..ME };
        assert_eq!(going(&mut m, other, false, SECOND, 50), 20);
        m.forget(3);
        assert_eq!(going(&mut m, ME, false, SECOND, 50), 20);
    }

    #[test]
    fn who_goes_on_after_the_refusals_is_closed() {
        let mut m = meters(rates(1, 0, 0), Rates::default());
        let mut hits = Hits::default();
        let mut rulings = (0..200).map(|_| m.command(ME, false, SECOND, &mut hits));
        assert_eq!(
            rulings.by_ref().take_while(|r| *r == Ruling::Goes).count(),
            2
        );
        let refused = rulings.take_while(|r| *r == Ruling::Refused).count() as u64;
        // One was seen above.
        assert_eq!(refused + 1, REFUSALS_MAX);
        // Who waits in between is not.
        let mut m = meters(rates(1, 0, 0), Rates::default());
        for turn in 1..1000 {
            let ruling = m.command(ME, false, turn * SECOND / 40, &mut hits);
            assert_ne!(ruling, Ruling::Closed, "turn {turn}");
        }
    }

    #[test]
    fn bytes_refuse_commands_and_then_close() {
        let mut m = meters(rates(0, 0, 1000), Rates::default());
        let mut hits = Hits::default();
        assert_eq!(m.received(ME, 2000, SECOND, &mut hits), Ruling::Goes);
        assert_eq!(m.command(ME, false, SECOND, &mut hits), Ruling::Goes);
        assert_eq!(m.received(ME, 1, SECOND, &mut hits), Ruling::Goes);
        assert_eq!(m.command(ME, false, SECOND, &mut hits), Ruling::Refused);
        assert_eq!(m.received(ME, 1999, SECOND, &mut hits), Ruling::Goes);
        assert_eq!(m.received(ME, 1, SECOND, &mut hits), Ruling::Closed);
        let later = SECOND * 4;
        assert_eq!(m.command(ME, false, later, &mut hits), Ruling::Goes);
    }

    #[test]
    fn limits_that_are_only_tried_refuse_nobody() {
        let mut m = meters(rates(1, 1, 1), rates(1, 1, 1));
        let mut hits = Hits::new(LimitSet::ALL);
        for _ in 0..500 {
            assert_eq!(m.received(ME, 100, SECOND, &mut hits), Ruling::Goes);
            assert_eq!(m.command(ME, true, SECOND, &mut hits), Ruling::Goes);
        }
        for limit in OF_CONNECTION.into_iter() {
            assert!(hits.of(limit, Outcome::DryRun) > 400, "{limit:?}");
            assert_eq!(hits.of(limit, Outcome::Refused), 0);
        }
    }

    #[test]
    fn an_idle_client_has_no_entry() {
        let mut m = meters(rates(10, 0, 10_000), rates(10, 0, 10_000));
        let mut hits = Hits::default();
        m.received(ME, 100, SECOND, &mut hits);
        m.command(ME, false, SECOND, &mut hits);
        assert_eq!(m.len(), 2);
        m.sweep(2 * SECOND);
        assert!(m.is_empty());
        // What the home was not told before, it is told now.
        let report = m.reports().next().expect("a report");
        assert_eq!(report.spent, [SECOND / 10, 0, SECOND / 100]);
        m.reported(report, 2 * SECOND);
        assert_eq!(m.len(), 1);
        m.sweep(3 * SECOND);
        assert!(m.is_empty());
    }

    /// A user on several shards, with messages that take a while: never more than its pace, a burst, what shards do not tell
    /// at once and what is under way; and alone on one shard all of its pace.
    #[test]
    fn a_user_on_many_shards_has_one_pace() {
        const RATE: u64 = 20;
        const BURST: u64 = 2 * RATE;
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            let shards = rng.range(1, 4);
            let latency = rng.range(0, 10);
            let mut parts: Vec<_> = (0..shards)
                .map(|_| meters(Rates::default(), rates(RATE as u32, 0, 0)))
                .collect();
            let mut home = meters(Rates::default(), rates(RATE as u32, 0, 0));
            // When, at which shard, and the report or its answer.
            let mut mail: VecDeque<(u64, usize, Result<Report, [u64; KINDS]>)> = VecDeque::new();
            let (mut gone, mut tried, seconds) = (0, 0, 60);
            for millis in 0..seconds * 1000 {
                let now = SECOND + millis * MILLI;
                while mail.front().is_some_and(|(at, ..)| *at <= now) {
                    let Some((_, shard, what)) = mail.pop_front() else {
                        break;
                    };
                    match what {
                        Ok(report) => {
                            let ahead = home.reported(report, now);
                            mail.push_back((now + latency * MILLI, shard, Err(ahead)));
                        }
                        Err(ahead) => parts[shard].raise(77, ahead, now),
                    }
                }
                let shard = rng.index(parts.len());
                // Twice its pace, in silences and in bursts.
                if millis / 5000 % 3 < 2 {
                    for _ in 0..rng.below(2) * rng.below(3) {
                        tried += 1;
                        gone += u64::from(going(&mut parts[shard], ME, false, now, 1));
                    }
                }
                for (shard, part) in parts.iter_mut().enumerate() {
                    part.sweep(now);
                    let reports: Vec<_> = part.reports().collect();
                    for report in reports {
                        mail.push_back((now + latency * MILLI, shard, Ok(report)));
                    }
                }
                // At most two a millisecond come while a report and its answer are under way.
                let under_way = shards * (BURST / 4 + 1) + 4 * latency + 2;
                let most = BURST + RATE * millis / 1000 + under_way;
                assert!(
                    gone <= most,
                    "seed {seed}: {gone} after {millis} ms on {shards} shards"
                );
            }
            assert!(tried > 10_000, "seed {seed}: {tried}");
            if shards == 1 {
                // 40 of 60 seconds, and a burst after each silence.
                assert!(gone >= 40 * RATE + BURST, "seed {seed}: {gone}");
            }
        }
    }
}
