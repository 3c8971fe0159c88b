//! **How soon is everybody back, and what does that cost?**
//!
//! N members are dropped at once, by reset or with a Close frame, and come back by all four steps: TCP connect, upgrade,
//! `connect`, `subscribe`. At most so many are on their way at a time; with jitter each waits a random part of it first.
//! One that is refused or cut tries again 100 ms later, and is counted.
//!
//! Proof that they are back: a publication into each channel then reaches every member once. With recovery the rooms get
//! publications while everybody is away, and each member must get those too, in order, before anything newer.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::client::fleet::Stage;
use crate::measure::histogram::{Spread, Times};
use crate::measure::series::Phase;
use crate::report::Report;
use crate::scenario::limit::{self, upgrade};
use crate::scenario::traffic::{Ended, Event, Standing, Traffic};
use crate::scenario::{Random, Rooms};

/// How long everybody may take to be gone, or back.
const PATIENCE: Duration = Duration::from_secs(120);
/// How soon one that was refused tries again.
const AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a publication's data.
pub const SIZE: usize = 100;

/// What to measure.
pub struct Plan {
    pub rooms: Rooms,
    /// Storms, one after another.
    pub rounds: usize,
    /// A Close frame first, in place of a reset.
    pub close: bool,
    pub jitter: Duration,
    /// Members on their way back at a time.
    pub at_once: usize,
    /// Publications into each channel that everybody misses and recovers.
    pub missed: usize,
    /// Measure the bare accept-and-upgrade loop too.
    pub limit: Option<upgrade::Plan>,
}

/// One storm: a thread's, or all threads'.
struct Round {
    /// By the leading thread, as `server_ns`.
    seconds: f64,
    server_ns: f64,
    retries: u64,
}

/// What a thread found out.
struct Part {
    rounds: Vec<Round>,
    handshakes: Times,
    ended: Ended,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let bare = || plan.limit.as_ref().map(upgrade::measure).transpose();
    let before = bare()?;
    let rooms = &plan.rooms;
    let server = &rooms.server;
    let parts = rooms.on_each_thread(|traffic| storms(plan, traffic))?;
    let after = bare()?;
    let (mut rounds, mut handshakes, mut ends) = (Vec::<Round>::new(), Times::new(), Vec::new());
    for part in parts {
        match rounds.is_empty() {
            true => rounds = part.rounds,
            false => {
                for (round, other) in rounds.iter_mut().zip(part.rounds) {
                    round.retries += other.retries;
                }
            }
        }
        handshakes.add(&part.handshakes);
        ends.push(part.ended);
    }
    let ended = Ended::of_all(ends);
    let checked = ended.deliveries;
    report.verdict(ended.faults.clone());
    report.record(ended.series());
    report.remarks.push(format!(
        "{}, dropped by {}, {} on their way at a time, jitter {} ms, {}; {checked} deliveries checked",
        plan.rooms.words(),
        if plan.close { "Close frame" } else { "reset" },
        plan.at_once,
        plan.jitter.as_millis(),
        server.manners.words(),
    ));
    let spread = |of: fn(&Round) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>());
    let n = plan.rooms.members as f64;
    let seconds = spread(|round| round.seconds);
    report.spread(
        "all_back",
        &seconds,
        "s",
        "from the drop until the last has joined, and caught up",
    );
    report.figure("connects_per_second", n / seconds.median, "/s", "");
    let retries: u64 = rounds.iter().map(|round| round.retries).sum();
    report.figure("retries", retries as f64, "", "refused or cut, tried again");
    if !server.pids.is_empty() {
        let each = Spread::of(
            &rounds
                .iter()
                .map(|round| round.server_ns / n / 1e3)
                .collect::<Vec<_>>(),
        );
        let note = "CPU of the server a connection: end, accept, upgrade, join";
        report.spread("server_us_per_connection", &each, "µs", note);
        if let (Some(before), Some(after)) = (&before, &after) {
            report
                .remarks
                .extend(limit::drift("accept-and-upgrade", before, after));
            let bare = Spread::of(&[&before.runs[..], &after.runs].concat());
            report.spread(
                "bare_us_per_connection",
                &bare,
                "µs",
                "accept, read, answer, close",
            );
            let ratio = each.median / bare.median;
            report.figure("ratio_to_bare", ratio, "×", "server over the bare loop");
        }
    }
    if plan.missed > 0 {
        let note = "deliveries that had been missed";
        report.figure("recovered", ended.recovered as f64, "", note);
        report.figure(
            "unrecovered",
            ended.unrecovered as f64,
            "",
            "members told that not all is there",
        );
    }
    report.latency(&handshakes);
    report.remarks.push(
        "latency is that of a comeback, connect to joined; in the series it is that of deliveries"
            .to_owned(),
    );
    Ok(())
}

/// All storms on one thread.
fn storms(plan: &Plan, mut traffic: Traffic<'_>) -> io::Result<Part> {
    let members = traffic.share.of(plan.rooms.members);
    traffic.room.events = Some(Vec::new());
    traffic.room.offsets = Some(vec![0; members]);
    // The first publication gives every member a position of its own.
    traffic.publish_everywhere()?;
    traffic.drain()?;
    let (mut handshakes, mut rounds) = (Times::new(), Vec::new());
    let mut random = Random::new(traffic.share.number());
    for _ in 0..plan.rounds {
        rounds.push(weather(plan, &mut traffic, &mut handshakes, &mut random)?);
    }
    Ok(Part {
        rounds,
        handshakes,
        ended: traffic.conclude()?,
    })
}

/// One storm: drop, miss, come back, prove it.
fn weather(
    plan: &Plan,
    traffic: &mut Traffic<'_>,
    handshakes: &mut Times,
    random: &mut Random,
) -> io::Result<Round> {
    traffic.enter(Phase::Measure)?;
    let members = traffic.share.of(plan.rooms.members);
    let at_once = traffic.share.of(plan.at_once).max(1);
    let (began, before) = (Instant::now(), traffic.mark()?);
    for index in 0..members {
        traffic.fleet.make_expendable(index);
        if plan.missed > 0 {
            traffic.room.members[index].standing = Standing::Away;
        } else {
            traffic.room.leave(index, &mut traffic.fleet.faults);
        }
        match plan.close {
            true => traffic.fleet.close(index)?,
            false => traffic.fleet.reset(index)?,
        }
    }
    traffic.turn_while(PATIENCE, "closing", |traffic| {
        Ok((0..members).any(|index| traffic.fleet.stage(index) != Stage::Closed))
    })?;
    // Everybody is away before anything is published, and nobody is back before all is.
    traffic.meet()?;
    for _ in 0..plan.missed {
        // Each is stored before the next is sent.
        traffic.publish_and_wait()?;
    }
    traffic.meet()?;
    if let Some(events) = &mut traffic.room.events {
        events.clear();
    }
    let mut due: Vec<(Instant, usize)> = (0..members)
        .map(|index| (began + plan.jitter.mul_f64(random.unit()), index))
        .collect();
    due.sort();
    let mut due = VecDeque::from(due);
    let mut started = vec![began; members];
    let (mut back, mut retries) = (0, 0);
    traffic.turn_while(PATIENCE + plan.jitter, "coming back", |traffic| {
        for (index, event) in traffic.room.events.take().into_iter().flatten() {
            match event {
                Event::Joined => {
                    back += 1;
                    handshakes.record(started[index].elapsed().as_nanos() as u64);
                }
                Event::Closed(_) => {
                    retries += 1;
                    due.push_back((Instant::now() + AGAIN, index));
                }
                Event::Done(_) => {}
            }
        }
        traffic.room.events = Some(Vec::new());
        let now = Instant::now();
        while traffic.fleet.opening() < at_once && due.front().is_some_and(|(when, _)| *when <= now)
        {
            let Some((_, index)) = due.pop_front() else {
                break;
            };
            let since = match plan.missed {
                0 => None,
                _ => traffic.room.position(index),
            };
            started[index] = Instant::now();
            traffic.fleet.dial(index, since)?;
        }
        Ok(back < members)
    })?;
    // And have what they missed.
    traffic.drain()?;
    let (seconds, after) = (began.elapsed().as_secs_f64(), traffic.mark()?);
    traffic.publish_everywhere()?;
    traffic.drain()?;
    Ok(Round {
        seconds,
        server_ns: after.server_ns.saturating_sub(before.server_ns) as f64,
        retries,
    })
}
