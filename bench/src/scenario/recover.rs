//! **What does catching up cost, against having been there?**
//!
//! N members leave one after another while M publications go into each channel, so that they miss from a few up to M: they
//! come back from several offsets, all at once, and the server owes each what it missed, in order and once. Told is the
//! server's CPU time a recovered delivery, less what a comeback costs that missed nothing, against that of a delivery of
//! the same bytes to a member that was there. The server's history must hold M.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::measure::histogram::Times;
use crate::measure::series::Phase;
use crate::report::Report;
use crate::scenario::Rooms;
use crate::scenario::traffic::{Ended, Event, SETTLE, Standing, Traffic};

const PATIENCE: Duration = Duration::from_secs(120);

/// What to measure.
pub struct Plan {
    pub rooms: Rooms,
    /// The most publications of its channel that a member misses.
    pub missed: usize,
    /// From so many offsets.
    pub offsets: usize,
    /// Members on their way back at a time.
    pub at_once: usize,
}

/// What a thread found out; times are the leading thread's for all.
struct Part {
    /// Server CPU of having been there, and its deliveries to this thread.
    there_ns: u64,
    there: u64,
    plain: Comeback,
    catching_up: Comeback,
    times: Times,
    ended: Ended,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let rooms = &plan.rooms;
    let server = &rooms.server;
    let steps = plan.offsets.min(plan.missed);
    let parts = rooms.on_each_thread(|traffic| leave_and_come_back(plan, steps, traffic))?;
    let deliveries: u64 = parts.iter().map(|part| part.there).sum();
    let fan_out = parts[0].there_ns as f64 / deliveries.max(1) as f64;
    let (plain, catching_up) = (parts[0].plain, parts[0].catching_up);
    let mut times = Times::new();
    parts.iter().for_each(|part| times.add(&part.times));
    let ended = Ended::of_all(parts.into_iter().map(|part| part.ended));
    let (recovered, unrecovered) = (ended.recovered, ended.unrecovered);
    let checked = ended.deliveries;
    report.verdict(ended.faults.clone());
    report.record(ended.series());
    report.remarks.push(format!(
        "{}; missed up to {} publications from {steps} offsets, {}; {checked} deliveries checked; latency is that of a comeback, connect to joined; in the series it is that of deliveries",
        rooms.words(),
        plan.missed,
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
    report.figure("plain_back", plain.seconds, "s", "all back, nothing missed");
    report.figure("all_back", catching_up.seconds, "s", "all back, caught up");
    let per_second = recovered as f64 / catching_up.seconds;
    report.figure("recovered_per_second", per_second, "/s", "");
    if !server.pids.is_empty() {
        let n = plan.rooms.members as f64;
        report.figure(
            "server_ns_per_delivery",
            fan_out,
            "ns",
            "CPU, of a member that was there",
        );
        let note = "CPU of a comeback, nothing missed";
        report.figure(
            "server_us_per_connection",
            plain.server_ns / n / 1e3,
            "µs",
            note,
        );
        let extra = (catching_up.server_ns - plain.server_ns) / (recovered.max(1)) as f64;
        let note = "CPU, what a plain comeback costs taken off";
        report.figure("server_ns_per_recovered", extra, "ns", note);
        report.figure(
            "ratio_to_fan_out",
            extra / fan_out,
            "×",
            "recovered over delivered",
        );
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
fn leave_and_come_back(plan: &Plan, steps: usize, mut traffic: Traffic<'_>) -> io::Result<Part> {
    let members = plan.rooms.members;
    traffic.room.events = Some(Vec::new());
    traffic.room.offsets = Some(vec![0; traffic.share.of(members)]);
    // Having been there.
    traffic.rest(SETTLE)?;
    traffic.enter(Phase::Measure)?;
    let before = traffic.mark()?;
    for _ in 0..plan.missed {
        traffic.publish_and_wait()?;
    }
    traffic.drain()?;
    let after = traffic.mark()?;
    // A comeback that missed nothing.
    away(&mut traffic, 0..members)?;
    let plain = come_back(plan, &mut traffic, &mut Times::new())?;
    // Catching up from several offsets.
    for step in 0..steps {
        let first = |step: usize| members * step / steps;
        away(&mut traffic, first(step)..first(step + 1))?;
        for _ in plan.missed * step / steps..plan.missed * (step + 1) / steps {
            traffic.publish_and_wait()?;
        }
        // Each knows of all before it looks who has everything.
        traffic.meet()?;
    }
    let mut times = Times::new();
    let catching_up = come_back(plan, &mut traffic, &mut times)?;
    // Everybody is really back.
    traffic.publish_and_wait()?;
    traffic.drain()?;
    Ok(Part {
        there_ns: after.server_ns.saturating_sub(before.server_ns),
        there: after.deliveries - before.deliveries,
        plain,
        catching_up,
        times,
        ended: traffic.conclude()?,
    })
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

#[derive(Clone, Copy)]
struct Comeback {
    seconds: f64,
    server_ns: f64,
}

/// Everybody comes back.
fn come_back(plan: &Plan, traffic: &mut Traffic<'_>, times: &mut Times) -> io::Result<Comeback> {
    if let Some(events) = &mut traffic.room.events {
        events.clear();
    }
    traffic.enter(Phase::Measure)?;
    let members = traffic.share.of(plan.rooms.members);
    let at_once = traffic.share.of(plan.at_once).max(1);
    let (began, before) = (Instant::now(), traffic.mark()?);
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
    let after = traffic.mark()?;
    Ok(Comeback {
        seconds: began.elapsed().as_secs_f64(),
        server_ns: after.server_ns.saturating_sub(before.server_ns) as f64,
    })
}
