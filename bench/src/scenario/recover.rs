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
use std::time::{Duration, Instant};

use crate::measure::cpu;
use crate::measure::histogram::{Spread, Times};
use crate::measure::series::Phase;
use crate::report::Report;
use crate::scenario::Server;
use crate::scenario::traffic::{Event, Group, Load, Mark, Publishers, SETTLE, Standing, Traffic};

const PATIENCE: Duration = Duration::from_secs(120);
/// The server is at rest when in so long …
const REST: Duration = Duration::from_millis(50);
/// … it ran for less than this.
const RESTING_NS: u64 = 500_000;

/// What to measure.
pub struct Plan<'a> {
    pub server: &'a Server,
    pub members: usize,
    /// Fan-outs and comebacks, one after another.
    pub rounds: usize,
    /// The most publications of its channel that a member misses.
    pub missed: usize,
    /// From so many offsets.
    pub offsets: usize,
    pub size: usize,
    /// Members on their way back at a time.
    pub at_once: usize,
    pub cores: &'a [usize],
}

/// Runs it and fills the report.
pub fn run(plan: &Plan<'_>, report: &mut Report) -> io::Result<()> {
    cpu::pin(plan.cores)?;
    let server = plan.server;
    let group = Group {
        members: plan.members,
        channels: server.channels,
        size: plan.size,
        load: Load::Silent,
    };
    let mut traffic = Traffic::open(server, &[group], Publishers::Apart(1))?;
    traffic.room.events = Some(Vec::new());
    traffic.room.offsets = Some(vec![0; plan.members]);
    traffic.rest(SETTLE)?;
    let mut times = Times::new();
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        rounds.push(round(plan, &mut traffic, &mut times)?);
        // What is lost never comes: another round would wait for it.
        if (0..plan.members).any(|index| traffic.room.is_owed(index)) {
            break;
        }
    }
    let (recovered, unrecovered) = (traffic.room.recovered, traffic.room.unrecovered);
    // Everybody is really back.
    publish_and_wait(&mut traffic)?;
    traffic.drain()?;
    let (faults, checked, series) = traffic.conclude();
    report.verdict(faults);
    report.record(series);
    report.remarks.push(format!(
        "{} members in {} channels missed up to {} publications of {} B from {} offsets, {} times, {}; {checked} deliveries checked; latency is that of a comeback, connect to joined; in the series it is that of deliveries",
        plan.members,
        server.channels,
        plan.missed,
        plan.size,
        plan.steps(),
        plan.rounds,
        server.manners.protocol.name()
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
        let there = spread(&|round| round.fan_out);
        let note = "CPU, of a member that was there when all came at once";
        report.spread("server_ns_per_delivery", &there, "ns", note);
        let n = plan.members as f64;
        let each = spread(&|round| round.plain.server_ns / n / 1e3);
        let note = "CPU of a comeback, nothing missed";
        report.spread("server_us_per_connection", &each, "µs", note);
        let note = "CPU, what a comeback that missed nothing costs taken off";
        let extra = spread(&Round::ns_a_recovered);
        report.spread("server_ns_per_recovered", &extra, "ns", note);
        let ratio = spread(&|round| round.ns_a_recovered() / round.fan_out);
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

impl Plan<'_> {
    /// Offsets that members really come back from.
    fn steps(&self) -> usize {
        self.offsets.min(self.missed)
    }
}

/// A fan-out and two comebacks.
struct Round {
    /// CPU nanoseconds a delivery.
    fan_out: f64,
    plain: Comeback,
    catching_up: Comeback,
    /// Deliveries that had been missed.
    recovered: u64,
}

impl Round {
    fn ns_a_recovered(&self) -> f64 {
        (self.catching_up.server_ns - self.plain.server_ns) / self.recovered.max(1) as f64
    }
}

fn round(plan: &Plan<'_>, traffic: &mut Traffic<'_>, times: &mut Times) -> io::Result<Round> {
    // Having been there.
    let before = at_rest(traffic)?;
    traffic.enter(Phase::Measure);
    for _ in 0..plan.missed {
        traffic.publish_everywhere()?;
    }
    traffic.drain()?;
    let after = at_rest(traffic)?;
    let server_ns = after.server_ns.saturating_sub(before.server_ns) as f64;
    let fan_out = server_ns / (after.deliveries - before.deliveries).max(1) as f64;
    // A comeback that missed nothing.
    away(traffic, 0..plan.members)?;
    let plain = come_back(plan, traffic, &mut Times::new())?;
    // Catching up from several offsets.
    let steps = plan.steps();
    for step in 0..steps {
        let share = |step: usize| plan.members * step / steps;
        away(traffic, share(step)..share(step + 1))?;
        for _ in plan.missed * step / steps..plan.missed * (step + 1) / steps {
            publish_and_wait(traffic)?;
        }
    }
    let recovered = traffic.room.recovered;
    let catching_up = come_back(plan, traffic, times)?;
    Ok(Round {
        fan_out,
        plain,
        catching_up,
        recovered: traffic.room.recovered - recovered,
    })
}

/// Waits until the server does nothing, and reads everything then.
fn at_rest(traffic: &mut Traffic<'_>) -> io::Result<Mark> {
    let (began, mut last) = (Instant::now(), traffic.mark()?);
    while began.elapsed() < PATIENCE {
        traffic.rest(REST)?;
        let now = traffic.mark()?;
        if now.server_ns.saturating_sub(last.server_ns) < RESTING_NS {
            return Ok(now);
        }
        last = now;
    }
    Err(io::Error::other("the server does not come to rest"))
}

fn publish_and_wait(traffic: &mut Traffic<'_>) -> io::Result<()> {
    traffic.publish_everywhere()?;
    let published = traffic.published();
    traffic.turn_while(PATIENCE, "publishing", |traffic| {
        Ok(traffic.room.answered < published)
    })
}

/// They are reset with nothing outstanding, and will be back.
fn away(traffic: &mut Traffic<'_>, members: std::ops::Range<usize>) -> io::Result<()> {
    traffic.turn_while(PATIENCE, "delivering", |traffic| {
        Ok(members.clone().any(|index| traffic.room.is_owed(index)))
    })?;
    for index in members {
        traffic.room.members[index].standing = Standing::Away;
        traffic.fleet.reset(index)?;
    }
    traffic.fleet.flush()
}

struct Comeback {
    seconds: f64,
    server_ns: f64,
}

/// Everybody comes back.
fn come_back(
    plan: &Plan<'_>,
    traffic: &mut Traffic<'_>,
    times: &mut Times,
) -> io::Result<Comeback> {
    if let Some(events) = &mut traffic.room.events {
        events.clear();
    }
    let before = at_rest(traffic)?;
    traffic.enter(Phase::Measure);
    let began = Instant::now();
    let mut started = Vec::with_capacity(plan.members);
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
                    return Err(io::Error::other(format!(
                        "connection {index} could not come back: {words}"
                    )));
                }
                Event::Done(_) => {}
            }
        }
        while traffic.fleet.opening() < plan.at_once && started.len() < plan.members {
            let index = started.len();
            started.push(Instant::now());
            let since = traffic.room.position(index);
            traffic.fleet.dial(index, since)?;
        }
        Ok(back < plan.members)
    })?;
    traffic.drain()?;
    let seconds = began.elapsed().as_secs_f64();
    let after = at_rest(traffic)?;
    Ok(Comeback {
        seconds,
        server_ns: after.server_ns.saturating_sub(before.server_ns) as f64,
    })
}
