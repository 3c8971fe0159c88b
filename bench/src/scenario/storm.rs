//! **How soon is everybody back, and what does that cost?**
//!
//! N members are dropped at once, by reset or with a Close frame, and come back by all four steps: TCP connect, upgrade,
//! `connect`, `subscribe`. At most so many are on their way at a time; with jitter each waits a random part of it first.
//! One that is refused or cut tries again 100 ms later, and is counted.
//!
//! Proof that they are back: a publication into each channel then reaches every member once. With recovery the rooms get
//! publications while everybody is away, and each member must get those too, in order, before anything newer.
//!
//! Beside them others may be established: they stay, in a channel of their own that gets publications by timetable, and are
//! owed each of them. Their latency from the drop until everybody is back is told beside that of a calm second before.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::client::fleet::Stage;
use crate::client::payload::Body;
use crate::measure::histogram::{Spread, Times};
use crate::measure::series::Phase;
use crate::report::Report;
use crate::scenario::limit::{self, upgrade};
use crate::scenario::traffic::figures::LATE;
use crate::scenario::traffic::{Ended, Event, Group, SILENCE, Standing, Traffic};
use crate::scenario::{Load, Random, Rooms, threads};

/// How long everybody may take to be gone, or back.
const PATIENCE: Duration = Duration::from_secs(120);
/// How soon one that was refused tries again.
const AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a publication's data.
pub const SIZE: usize = 100;
/// Before each storm that somebody is established beside.
const CALM: Duration = Duration::from_secs(1);
/// Members that are dropped, or begin to come back, between two looks at what has arrived for the established.
const STEP: usize = 16;
/// The group of the established, behind the members'.
const ESTABLISHED: usize = 1;

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
    pub established: Option<Established>,
    /// Measure the bare accept-and-upgrade loop too.
    pub limit: Option<upgrade::Plan>,
}

/// Who stays.
#[derive(Clone, Copy, Debug)]
pub struct Established {
    pub members: usize,
    /// Publications a second.
    pub rate: f64,
}

impl Plan {
    /// The members', and that of the established.
    fn groups(&self) -> Vec<Group> {
        let beside = self.established.map(|established| Group {
            members: established.members,
            channels: 1,
            body: Body::Size(SIZE),
            load: Load::Open {
                rate: established.rate,
            },
        });
        [self.rooms.group()].into_iter().chain(beside).collect()
    }

    /// Members that are taken care of between two looks at what has arrived.
    fn step(&self) -> usize {
        self.established.map_or(usize::MAX, |_| STEP)
    }
}

/// The established: a thread's, or all threads'.
struct Beside {
    calm: Times,
    storm: Times,
    lateness: Times,
}

impl Beside {
    fn new() -> Self {
        Self {
            calm: Times::new(),
            storm: Times::new(),
            lateness: Times::new(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.calm.add(&other.calm);
        self.storm.add(&other.storm);
        self.lateness.add(&other.lateness);
    }

    fn tell(&self, established: Established, report: &mut Report) {
        let Established { members, rate } = established;
        report.remarks.push(format!(
            "{members} established in a channel of {rate} publications/s; what those cost in the calm is taken off the server's CPU"
        ));
        let ms = |ns: u64| ns as f64 / 1e6;
        let (calm, storm) = (self.calm.percentiles(), self.storm.percentiles());
        let late = self.lateness.percentiles();
        for (key, ns, note) in [
            ("established_p50_calm", calm.p50_ns, "before the storms"),
            ("established_p99_calm", calm.p99_ns, ""),
            (
                "established_p50",
                storm.p50_ns,
                "from a drop until all are back",
            ),
            ("established_p99", storm.p99_ns, ""),
            ("established_max", storm.max_ns, ""),
            ("own_sends_late_p99", late.p99_ns, "a part of the above"),
        ] {
            report.figure(key, ms(ns), "ms", note);
        }
        report.figure(
            "established_deliveries",
            storm.count as f64,
            "",
            "meanwhile",
        );
        if late.p99_ns > LATE {
            report.invalid.push(format!(
                "own sends to the established were late: p99 {:.2} ms",
                ms(late.p99_ns)
            ));
        }
    }
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
    beside: Beside,
    ended: Ended,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let bare = || plan.limit.as_ref().map(upgrade::measure).transpose();
    let before = bare()?;
    let rooms = &plan.rooms;
    let server = &rooms.server;
    let parts = threads::run(&rooms.cores, &server.pids, |worker| {
        let groups = plan.groups();
        storms(
            plan,
            Traffic::open(worker, server, &groups, rooms.publishers)?,
        )
    })?;
    let after = bare()?;
    let (mut rounds, mut handshakes, mut ends) = (Vec::<Round>::new(), Times::new(), Vec::new());
    let mut beside = Beside::new();
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
        beside.add(&part.beside);
        ends.push(part.ended);
    }
    let ended = Ended::of_all(ends);
    let checked = ended.deliveries;
    report.verdict(ended.faults.clone());
    report.record(ended.series());
    report.remarks.push(format!(
        "{}{}, dropped by {}, {} on their way at a time, jitter {} ms, {}; {checked} deliveries checked",
        plan.rooms.words(),
        server.manners.credentials.words(),
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
            let time = seconds.median / (bare.median * n / 1e6);
            let note = "all_back over the bare loop's CPU for as many";
            report.figure("all_back_to_bare", time, "×", note);
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
    if let Some(established) = plan.established {
        beside.tell(established, report);
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
    traffic.room.events = Some(Vec::new());
    traffic.room.offsets = Some(vec![0; traffic.room.members.len()]);
    // The first publication gives every member a position of its own.
    traffic.publish_everywhere()?;
    traffic.drain()?;
    let (mut handshakes, mut rounds, mut beside) = (Times::new(), Vec::new(), Beside::new());
    let mut random = Random::new(traffic.share.number());
    for _ in 0..plan.rounds {
        let calm_ns = match plan.established {
            Some(_) => calm(&mut traffic, &mut beside)?,
            None => 0.0,
        };
        let mut round = weather(plan, &mut traffic, &mut handshakes, &mut random)?;
        round.server_ns -= calm_ns * round.seconds;
        rounds.push(round);
        let (latency, lateness) = traffic.take_times(ESTABLISHED);
        beside.storm.add(&latency);
        beside.lateness.add(&lateness);
        traffic.publish_everywhere()?;
        traffic.drain()?;
    }
    Ok(Part {
        rounds,
        handshakes,
        beside,
        ended: traffic.conclude()?,
    })
}

/// Before the storm: the server's CPU nanoseconds a second.
fn calm(traffic: &mut Traffic<'_>, beside: &mut Beside) -> io::Result<f64> {
    traffic.enter(Phase::WarmUp)?;
    traffic.take_times(ESTABLISHED);
    traffic.begin()?;
    let before = traffic.mark()?;
    traffic.turn_until(before.at + CALM, |_| Ok(false))?;
    let after = traffic.mark()?;
    beside.calm.add(&traffic.take_times(ESTABLISHED).0);
    let ns = after.server_ns.saturating_sub(before.server_ns) as f64;
    Ok(ns / (after.at - before.at).as_secs_f64())
}

/// One storm: drop, miss, come back, catch up.
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
    let mut dropped: usize = 0;
    traffic.turn_while(PATIENCE, "dropping", |traffic| {
        let step = dropped..members.min(dropped.saturating_add(plan.step()));
        dropped = step.end;
        for index in step {
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
        Ok(dropped < members)
    })?;
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
            if index >= members {
                // One that should have stayed: a fault, and counted.
                continue;
            }
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
        for _ in 0..plan.step() {
            let is_due = due.front().is_some_and(|(when, _)| *when <= now);
            if !is_due || traffic.fleet.opening() >= at_once {
                break;
            }
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
    // And have what they missed, or nothing more comes.
    let (mut caught_up, mut since) = (0, Instant::now());
    traffic.turn_while(PATIENCE, "catching up", |traffic| {
        while caught_up < members && !traffic.room.is_owed(caught_up) {
            (caught_up, since) = (caught_up + 1, Instant::now());
        }
        Ok(caught_up < members && since.elapsed() < SILENCE)
    })?;
    traffic.meet()?;
    let (seconds, after) = (began.elapsed().as_secs_f64(), traffic.mark()?);
    traffic.drain()?;
    Ok(Round {
        seconds,
        server_ns: after.server_ns.saturating_sub(before.server_ns) as f64,
        retries,
    })
}
