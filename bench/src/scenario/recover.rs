//! **What does catching up cost, against having been there?**
//!
//! Round by round: everybody is there and gets M publications published at once (fan-out of the same bytes); everybody
//! leaves and comes back having missed nothing; members leave one after another while M publications go into each
//! channel, so that they miss from a few up to M, and come back from several offsets, all at once: the server owes each
//! what it missed, in order and once. Told is the server's CPU time a recovered delivery, which is what the second
//! comeback costs beyond the first, against that of the fan-out's. The server's history must hold M.
//!
//! Each part begins and ends with the server at rest: the resets of those who leave are over before a comeback counts,
//! and the kernel's clock of a thread that sleeps is exact, where that of one that runs may be 4 ms old.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::measure::histogram::{Spread, Times};
use crate::measure::series::Phase;
use crate::report::Report;
use crate::scenario::Rooms;
use crate::scenario::traffic::{Ended, Event, Mark, SETTLE, Standing, Traffic};

const PATIENCE: Duration = Duration::from_secs(120);
/// The server is at rest when in so long …
const REST: Duration = Duration::from_millis(50);
/// … it ran for less than this, and this for the pings of each member.
const RESTING_NS: u64 = 500_000;
const PINGS_NS: u64 = 50;

/// What to measure.
pub struct Plan {
    pub rooms: Rooms,
    /// Fan-outs and comebacks, one after another.
    pub rounds: usize,
    /// The most publications of its channel that a member misses.
    pub missed: usize,
    /// From so many offsets.
    pub offsets: usize,
    /// Members on their way back at a time.
    pub at_once: usize,
}

impl Plan {
    /// Offsets that members really come back from.
    fn steps(&self) -> usize {
        self.offsets.min(self.missed)
    }
}

/// What a thread found out.
struct Part {
    rounds: Vec<Round>,
    times: Times,
    ended: Ended,
}

/// A fan-out and two comebacks. Times and CPU are the leading thread's for all, deliveries each thread's.
#[derive(Clone, Copy)]
struct Round {
    /// Server CPU of having been there, and its deliveries.
    there_ns: u64,
    there: u64,
    plain: Comeback,
    catching_up: Comeback,
    /// Deliveries that had been missed.
    recovered: u64,
}

impl Round {
    /// Adds another thread's deliveries.
    fn add(&mut self, other: &Round) {
        self.there += other.there;
        self.recovered += other.recovered;
    }

    fn ns_a_delivery(&self) -> f64 {
        self.there_ns as f64 / self.there.max(1) as f64
    }

    fn ns_a_recovered(&self) -> f64 {
        (self.catching_up.server_ns - self.plain.server_ns) / self.recovered.max(1) as f64
    }
}

#[derive(Clone, Copy)]
struct Comeback {
    seconds: f64,
    server_ns: f64,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let rooms = &plan.rooms;
    let server = &rooms.server;
    // What is lost never comes: another round would wait for it.
    let is_lost = AtomicBool::new(false);
    let parts = rooms.on_each_thread(|traffic| go_round(plan, traffic, &is_lost))?;
    let mut times = Times::new();
    parts.iter().for_each(|part| times.add(&part.times));
    let mut rounds = parts[0].rounds.clone();
    for part in &parts[1..] {
        let both = rounds.iter_mut().zip(&part.rounds);
        both.for_each(|(round, other)| round.add(other));
    }
    let ended = Ended::of_all(parts.into_iter().map(|part| part.ended));
    let (recovered, unrecovered) = (ended.recovered, ended.unrecovered);
    report.verdict(ended.faults.clone());
    report.record(ended.series());
    report.remarks.push(format!(
        "{}; missed up to {} publications from {} offsets, {} times, {}; {} deliveries checked; latency is that of a comeback, connect to joined; in the series it is that of deliveries",
        rooms.words(),
        plan.missed,
        plan.steps(),
        rounds.len(),
        server.manners.words(),
        ended.deliveries,
    ));
    report.figure(
        "recovered",
        recovered as f64,
        "",
        "deliveries that had been missed",
    );
    report.figure(
        "unrecovered",
        unrecovered as f64,
        "",
        "members told that not all is there",
    );
    let spread =
        |of: &dyn Fn(&Round) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>());
    let plain = spread(&|round| round.plain.seconds);
    report.spread("plain_back", &plain, "s", "all back, nothing missed");
    let all = spread(&|round| round.catching_up.seconds);
    report.spread("all_back", &all, "s", "all back, caught up");
    let per_second = spread(&|round| round.recovered as f64 / round.catching_up.seconds);
    report.spread("recovered_per_second", &per_second, "/s", "");
    if !server.pids.is_empty() {
        let there = spread(&Round::ns_a_delivery);
        let note = "CPU, of a member that was there when all came at once";
        report.spread("server_ns_per_delivery", &there, "ns", note);
        let n = rooms.members as f64;
        let each = spread(&|round| round.plain.server_ns / n / 1e3);
        let note = "CPU of a comeback, nothing missed";
        report.spread("server_us_per_connection", &each, "µs", note);
        let note = "CPU, what a comeback that missed nothing costs taken off";
        let extra = spread(&Round::ns_a_recovered);
        report.spread("server_ns_per_recovered", &extra, "ns", note);
        let ratio = spread(&|round| round.ns_a_recovered() / round.ns_a_delivery());
        report.spread("ratio_to_fan_out", &ratio, "×", "recovered over delivered");
    }
    report.latency(&times);
    if unrecovered > 0 {
        report
            .invalid
            .push("the server's history did not hold what was missed".to_owned());
    }
    Ok(())
}

/// Everything on one thread.
fn go_round(plan: &Plan, mut traffic: Traffic<'_>, is_lost: &AtomicBool) -> io::Result<Part> {
    let members = traffic.share.of(plan.rooms.members);
    traffic.room.events = Some(Vec::new());
    traffic.room.offsets = Some(vec![0; members]);
    traffic.rest(SETTLE)?;
    let mut times = Times::new();
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        rounds.push(round(plan, &mut traffic, &mut times)?);
        if (0..members).any(|index| traffic.room.is_owed(index)) {
            is_lost.store(true, Ordering::Relaxed);
        }
        traffic.meet()?;
        if is_lost.load(Ordering::Relaxed) {
            break;
        }
    }
    // Everybody is really back.
    traffic.publish_and_wait()?;
    traffic.drain()?;
    Ok(Part {
        rounds,
        times,
        ended: traffic.conclude()?,
    })
}

fn round(plan: &Plan, traffic: &mut Traffic<'_>, times: &mut Times) -> io::Result<Round> {
    let members = plan.rooms.members;
    // Having been there.
    let before = at_rest(plan, traffic)?;
    traffic.enter(Phase::Measure)?;
    for _ in 0..plan.missed {
        traffic.publish_everywhere()?;
    }
    traffic.drain()?;
    let after = at_rest(plan, traffic)?;
    // A comeback that missed nothing.
    away(traffic, 0..members)?;
    let plain = come_back(plan, traffic, &mut Times::new())?;
    // Catching up from several offsets.
    let steps = plan.steps();
    for step in 0..steps {
        let first = |step: usize| members * step / steps;
        away(traffic, first(step)..first(step + 1))?;
        for _ in plan.missed * step / steps..plan.missed * (step + 1) / steps {
            traffic.publish_and_wait()?;
        }
        // Each knows of all before it looks who has everything.
        traffic.meet()?;
    }
    let recovered = traffic.room.recovered;
    let catching_up = come_back(plan, traffic, times)?;
    Ok(Round {
        there_ns: after.server_ns.saturating_sub(before.server_ns),
        there: after.deliveries - before.deliveries,
        plain,
        catching_up,
        recovered: traffic.room.recovered - recovered,
    })
}

/// Waits until the server does nothing, and reads everything then.
fn at_rest(plan: &Plan, traffic: &mut Traffic<'_>) -> io::Result<Mark> {
    let (began, members) = (Instant::now(), plan.rooms.members as u64);
    traffic.rest(REST)?;
    let mut last = traffic.mark()?;
    // The leading thread sees it for all.
    while traffic.leads() {
        traffic.rest(REST)?;
        let now = traffic.mark()?;
        if now.server_ns.saturating_sub(last.server_ns) < RESTING_NS + members * PINGS_NS {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other("the server does not come to rest"));
        }
        last = now;
    }
    traffic.meet()?;
    traffic.mark()
}

/// These members of all are reset with nothing outstanding, and will be back.
fn away(traffic: &mut Traffic<'_>, members: Range<usize>) -> io::Result<()> {
    let members = traffic.share.range(members);
    traffic.turn_while(PATIENCE, "delivering", |traffic| {
        Ok(members.clone().any(|index| traffic.room.is_owed(index)))
    })?;
    for index in members {
        traffic.room.members[index].standing = Standing::Away;
        traffic.fleet.reset(index)?;
    }
    traffic.fleet.flush()?;
    traffic.meet()
}

/// Everybody comes back.
fn come_back(plan: &Plan, traffic: &mut Traffic<'_>, times: &mut Times) -> io::Result<Comeback> {
    if let Some(events) = &mut traffic.room.events {
        events.clear();
    }
    let before = at_rest(plan, traffic)?;
    traffic.enter(Phase::Measure)?;
    let began = Instant::now();
    let members = traffic.share.of(plan.rooms.members);
    let at_once = traffic.share.of(plan.at_once).max(1);
    let mut started = Vec::with_capacity(members);
    let mut back = 0;
    traffic.turn_while(PATIENCE, "coming back", |traffic| {
        for (index, event) in traffic
            .room
            .events
            .replace(Vec::new())
            .into_iter()
            .flatten()
        {
            match event {
                Event::Joined => {
                    back += 1;
                    let started: Instant = started[index];
                    times.record(started.elapsed().as_nanos() as u64);
                }
                Event::Closed(words) => {
                    let connection = traffic.share.connection(index);
                    return Err(io::Error::other(format!(
                        "connection {connection} could not come back: {words}"
                    )));
                }
                Event::Done(_) => {}
            }
        }
        while traffic.fleet.opening() < at_once && started.len() < members {
            let index = started.len();
            started.push(Instant::now());
            let since = traffic.room.position(index);
            traffic.fleet.dial(index, since)?;
        }
        Ok(back < members)
    })?;
    traffic.drain()?;
    let seconds = began.elapsed().as_secs_f64();
    let after = at_rest(plan, traffic)?;
    Ok(Comeback {
        seconds,
        server_ns: after.server_ns.saturating_sub(before.server_ns) as f64,
    })
}
