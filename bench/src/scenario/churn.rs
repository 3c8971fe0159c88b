//! **What do joins and leaves cost beside a fan-out?**
//!
//! N members stay and get publications by timetable. Beside them members come and go, so many joins and as many leaves a
//! second by timetable: by subscribe and unsubscribe on connections that stay, or as whole connections (connect, upgrade,
//! join; reset). The same window runs first without them: told are the latency of the fan-out with and without, the
//! latency of a join, and the server's CPU time a pair, which is the difference of the two windows less the deliveries'.
//!
//! Who comes is owed everything published after its join was answered, until it leaves.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::Instant;

use crate::measure::histogram::Times;
use crate::measure::series::Phase;
use crate::report::Report;
use crate::scenario::threads::Worker;
use crate::scenario::traffic::{Event, Group, Measured, Traffic, Window};
use crate::scenario::{Phases, Rooms, threads};

/// The first id of a command of ours: behind those of joining.
const FIRST_ID: u64 = 100;

/// What to measure.
pub struct Plan {
    /// With the members that stay.
    pub rooms: Rooms,
    /// Members that come and go.
    pub comers: usize,
    /// Joins a second, and as many leaves.
    pub joins: f64,
    /// Whole connections come and go.
    pub connections: bool,
    pub phases: Phases,
}

/// What a thread found out.
struct Part {
    without: Window,
    with: Measured,
    joined: u64,
    behind: u64,
    joins: Times,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let rooms = &plan.rooms;
    let server = &rooms.server;
    let parts = threads::run(&rooms.cores, &server.pids, |worker| {
        come_and_go(plan, worker)
    })?;
    let (mut pairs, mut behind, mut joins) = (0, 0, Times::new());
    for part in &parts {
        pairs += part.joined;
        behind += part.behind;
        joins.add(&part.joins);
    }
    let (quiet, loud): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .map(|part| (part.without, part.with))
        .unzip();
    let (without, measured) = (Window::of_all(quiet), Measured::of_all(loud));
    let with = &measured.window;
    let kind = match plan.connections {
        true => "whole connections",
        false => "subscriptions",
    };
    let words = format!(
        "{}; {}; {} joins and leaves a second ({kind}, {} of them)",
        rooms.load.words(),
        rooms.words(),
        plan.joins,
        plan.comers
    );
    measured.tell_verdict(server, &words, report);
    without.judge(true, report);
    with.tell(server, true, report);
    let per_second = pairs as f64 / with.seconds();
    report.figure(
        "joins_per_second",
        per_second,
        "/s",
        "answered in the window",
    );
    report.figure(
        "joins_behind",
        behind as f64,
        "",
        "had nobody to come or go",
    );
    let ms = |ns: u64| ns as f64 / 1e6;
    let (quiet, loud) = measured.without_and_with();
    report.figure("p99_without", ms(quiet.p99_ns), "ms", "the fan-out alone");
    report.figure("p99_with", ms(loud.p99_ns), "ms", "with joins and leaves");
    let join = joins.percentiles();
    report.figure(
        "join_p50",
        ms(join.p50_ns),
        "ms",
        "a join, until its answer",
    );
    report.figure("join_p99", ms(join.p99_ns), "ms", "");
    if !server.pids.is_empty() && pairs > 0 {
        let fan_out = without.ns_a_delivery() * with.deliveries() as f64;
        let rest = with.server_ns() as f64 - fan_out;
        let note = "CPU of a join and a leave, what a delivery costs alone taken off";
        report.figure("server_us_per_pair", rest / pairs as f64 / 1e3, "µs", note);
    }
    Ok(())
}

/// Both windows on one thread.
fn come_and_go(plan: &Plan, worker: Worker) -> io::Result<Part> {
    let rooms = &plan.rooms;
    let (members, all) = (rooms.members, rooms.members + plan.comers);
    let comers = worker.share.range(members..all);
    let group = Group {
        members: all,
        ..rooms.group()
    };
    let (first, subscribing) = (comers.start, !plan.connections);
    let joins = move |place: usize| place < first || !subscribing;
    let mut traffic =
        Traffic::open_partly(worker, &rooms.server, &[group], rooms.publishers, joins)?;
    let rate = plan.joins * comers.len() as f64 / plan.comers as f64;
    let mut churn = Churn::new(comers.clone(), rate, plan.connections);
    if plan.connections {
        // They begin outside, as those that only subscribe do.
        for index in comers {
            churn.leave(&mut traffic, index)?;
        }
    }
    let without = traffic.measure(plan.phases, |_| Ok(false))?;
    traffic.drain()?;
    traffic.room.events = Some(Vec::new());
    churn.start();
    let mut counting = false;
    let with = traffic.measure(plan.phases, |traffic| {
        if traffic.phase() == Phase::Measure && !counting {
            counting = true;
            churn.begin_window();
        }
        let events = traffic.room.events.replace(Vec::new()).unwrap_or_default();
        for (index, event) in &events {
            churn.hear(traffic, *index, event);
        }
        churn.turn(traffic)
    })?;
    let (joined, behind) = (churn.joined, churn.behind);
    traffic.drain()?;
    Ok(Part {
        without,
        with: traffic.settle(with)?,
        joined,
        behind,
        joins: churn.latency,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Inside,
    Leaving,
    Outside,
    Joining,
}

/// A thread's members that come and go by timetable.
pub(super) struct Churn {
    comers: Range<usize>,
    rate: f64,
    connections: bool,
    sides: Vec<(Side, Instant)>,
    inside: VecDeque<usize>,
    outside: VecDeque<usize>,
    began: Instant,
    scheduled: u64,
    next_id: u64,
    pub(super) joined: u64,
    /// Times there was nobody to send in or out.
    pub(super) behind: u64,
    pub(super) latency: Times,
}

impl Churn {
    /// All `comers` outside.
    pub(super) fn new(comers: Range<usize>, rate: f64, connections: bool) -> Self {
        let now = Instant::now();
        Self {
            sides: vec![(Side::Outside, now); comers.len()],
            inside: VecDeque::new(),
            outside: comers.clone().collect(),
            comers,
            rate,
            connections,
            began: now,
            scheduled: 0,
            next_id: FIRST_ID,
            joined: 0,
            behind: 0,
            latency: Times::new(),
        }
    }

    /// The same with all of them inside.
    pub(super) fn all_inside(comers: Range<usize>, rate: f64) -> Self {
        let mut churn = Self::new(comers, rate, true);
        churn.inside = std::mem::take(&mut churn.outside);
        churn
            .sides
            .iter_mut()
            .for_each(|side| side.0 = Side::Inside);
        churn
    }

    /// The timetable starts now.
    pub(super) fn start(&mut self) {
        self.began = Instant::now();
        self.scheduled = 0;
    }

    /// What is counted is counted from now on.
    pub(super) fn begin_window(&mut self) {
        (self.joined, self.behind) = (0, 0);
        self.latency = Times::new();
    }

    /// Does what is due; true when there was something.
    pub(super) fn turn(&mut self, traffic: &mut Traffic<'_>) -> io::Result<bool> {
        let mut any = false;
        let due = (self.began.elapsed().as_secs_f64() * self.rate) as u64;
        while self.scheduled < due {
            self.scheduled += 1;
            any = true;
            match self.outside.pop_front() {
                Some(index) => self.join(traffic, index)?,
                None => self.behind += 1,
            }
            // Half of them are inside once it has settled.
            if self.inside.len() > self.comers.len() / 2 || self.outside.is_empty() {
                match self.inside.pop_front() {
                    Some(index) => self.leave(traffic, index)?,
                    None => self.behind += 1,
                }
            }
        }
        if any {
            traffic.fleet.flush()?;
        }
        Ok(any)
    }

    fn join(&mut self, traffic: &mut Traffic<'_>, index: usize) -> io::Result<()> {
        self.sides[index - self.comers.start] = (Side::Joining, Instant::now());
        if self.connections {
            return traffic.fleet.dial(index, None);
        }
        self.next_id += 1;
        let channel = traffic.room.members[index].channel as usize;
        let name = &traffic.room.channels[channel].name;
        traffic.fleet.subscribe(index, self.next_id, name)
    }

    fn leave(&mut self, traffic: &mut Traffic<'_>, index: usize) -> io::Result<()> {
        traffic.room.leave(index, &mut traffic.fleet.faults);
        if self.connections {
            self.sides[index - self.comers.start].0 = Side::Outside;
            if !self.outside.contains(&index) {
                self.outside.push_back(index);
            }
            return traffic.fleet.reset(index);
        }
        self.sides[index - self.comers.start].0 = Side::Leaving;
        self.next_id += 1;
        let channel = traffic.room.members[index].channel as usize;
        let name = &traffic.room.channels[channel].name;
        traffic.fleet.unsubscribe(index, self.next_id, name)
    }

    /// Takes what became of a member, if it is one of these.
    pub(super) fn hear(&mut self, traffic: &mut Traffic<'_>, index: usize, event: &Event) {
        if !self.comers.contains(&index) {
            return;
        }
        let side = &mut self.sides[index - self.comers.start];
        match (event, side.0) {
            (Event::Joined | Event::Done(_), Side::Joining) => {
                self.joined += 1;
                self.latency.record(side.1.elapsed().as_nanos() as u64);
                side.0 = Side::Inside;
                self.inside.push_back(index);
                if matches!(event, Event::Done(_)) {
                    traffic.room.join(index, &[], &mut traffic.fleet.faults);
                }
            }
            (Event::Done(_), Side::Leaving) => {
                side.0 = Side::Outside;
                self.outside.push_back(index);
            }
            (Event::Closed(_), was) if self.connections => {
                side.0 = Side::Outside;
                self.inside.retain(|&inside| inside != index);
                if was != Side::Outside {
                    self.outside.push_back(index);
                }
            }
            _ => {}
        }
    }
}
