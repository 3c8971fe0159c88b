//! **What does the server pay for a delivery, and how late is it?**
//!
//! N subscribers in C channels, one publisher connection a few channels. Closed loop: W publications outstanding in
//! each channel, one is over when its last member has it: the most the server can do. Open loop: publications leave by
//! a timetable whatever the server does, and latency counts from when they were *due*: no coordinated omission.
//!
//! Every delivery of the whole run is checked: publisher, channel, sequence, checksum. The verdict comes first.

use std::io;
use std::time::{Duration, Instant};

use crate::client::centrifuge::{Encoding, Reply};
use crate::client::fleet::{Fleet, Manners, rings};
use crate::client::handshake::Target;
use crate::client::ledger::{Faults, Seen, View};
use crate::client::payload::{self, Origin, Stamp};
use crate::measure::cpu;
use crate::measure::histogram::{Percentiles, Spread, Times};
use crate::measure::memory::Memory;
use crate::report::Report;
use crate::scenario::limit;

/// Without a delivery for so long nothing more is coming.
const SILENCE: Duration = Duration::from_secs(3);
/// Own sends later than this at p99 make a timetable a fiction.
const LATE: u64 = 1_000_000;

/// Publications that may leave in one turn when the timetable asks for more.
const LATE_AT_ONCE: usize = 64;

/// When publications leave.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many outstanding in each channel.
    Closed { in_flight: usize },
    /// So many a second, over all channels, by timetable.
    Open { rate: f64 },
}

/// What to measure.
pub struct Plan<'a> {
    pub target: &'a Target,
    pub encoding: Encoding,
    pub token: Option<&'a str>,
    pub pids: &'a [u32],
    /// Subscribers in all.
    pub members: usize,
    pub channels: usize,
    pub publishers: usize,
    pub channel_prefix: &'a str,
    /// Bytes of a publication's data.
    pub size: usize,
    pub load: Load,
    pub warm_up: Duration,
    pub window: Duration,
    /// Run the bare loops before and after.
    pub limit: Option<limit::Plan>,
    /// The generator's own cores, to go back to after the bare loops.
    pub cores: &'a [usize],
}

/// Runs it and fills the report.
pub fn run(plan: &Plan<'_>, report: &mut Report) -> io::Result<()> {
    let before = plan.limit.as_ref().map(limit::measure).transpose()?;
    cpu::pin(plan.cores)?;
    let measured = drive(plan)?;
    let after = plan.limit.as_ref().map(limit::measure).transpose()?;
    tell(plan, &measured, report);
    if let (Some(before), Some(after)) = (before, after) {
        tell_ratios(plan, &measured, &before, &after, report);
    }
    Ok(())
}

/// A reading at one end of the window.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    server_ns: u64,
    deliveries: u64,
    published: u64,
    busy_ns: u64,
    /// How long the generator had no core.
    waited_ns: u64,
}

struct Measured {
    start: Mark,
    end: Mark,
    faults: Faults,
    latency: Times,
    lateness: Times,
    server_pss: u64,
    published: u64,
    deliveries: u64,
    stalled: bool,
    blocked: u64,
    exhausted: u64,
}

impl Measured {
    fn seconds(&self) -> f64 {
        (self.end.at - self.start.at).as_secs_f64()
    }

    fn server_share(&self) -> f64 {
        self.server_ns() as f64 / 1e9 / self.seconds()
    }

    fn generator_share(&self) -> f64 {
        (self.end.busy_ns - self.start.busy_ns) as f64 / 1e9 / self.seconds()
    }

    /// The share of the window the generator was ready to run but had no core.
    fn waiting_share(&self) -> f64 {
        (self.end.waited_ns - self.start.waited_ns) as f64 / 1e9 / self.seconds()
    }

    fn ns_a_delivery(&self) -> f64 {
        let deliveries = (self.end.deliveries - self.start.deliveries).max(1);
        self.server_ns() as f64 / deliveries as f64
    }

    fn server_ns(&self) -> u64 {
        self.end.server_ns.saturating_sub(self.start.server_ns)
    }

    /// Deliveries that were owed but had not arrived.
    fn owed(&self, plan: &Plan<'_>, mark: &Mark) -> f64 {
        mark.published as f64 * plan.members as f64 / plan.channels as f64 - mark.deliveries as f64
    }
}

/// One channel's state.
struct Channel {
    name: String,
    origin: Origin,
    publisher: usize,
    /// Where the body stood in the last reply.
    hint: usize,
    published: u32,
    members: u32,
    /// Closed loop: members that still lack publication `sequence % lacking.len()`. Empty in an open loop.
    lacking: Vec<u32>,
}

impl Channel {
    fn lacking(&mut self, sequence: u32) -> Option<&mut u32> {
        let at = (sequence as usize).checked_rem(self.lacking.len())?;
        self.lacking.get_mut(at)
    }

    fn count_down(&mut self, sequence: u32, completed: impl FnOnce()) {
        // Zero: the slot's publication was given up for a later one, so the run is about to stall anyway.
        let Some(lacking) = self.lacking(sequence).filter(|lacking| **lacking > 0) else {
            return;
        };
        *lacking -= 1;
        if *lacking == 0 {
            completed();
        }
    }
}

/// What a delivery changes: apart from the fleet, which lends its buffers meanwhile.
struct Room {
    encoding: Encoding,
    size: usize,
    members: usize,
    channels: Vec<Channel>,
    views: Vec<View>,
    /// Channels with a publication that has just reached its last member.
    completed: Vec<usize>,
    deliveries: u64,
    latency: Times,
    recording: bool,
    epoch: Instant,
}

impl Room {
    fn take(&mut self, index: usize, reply: &[u8], now_ns: u64, faults: &mut Faults) {
        if index >= self.members {
            return self.take_answer(index, reply, faults);
        }
        let at = index % self.channels.len();
        let channel = &mut self.channels[at];
        let Some(start) = payload::find(reply, channel.hint) else {
            return self.take_answer(index, reply, faults);
        };
        channel.hint = start;
        let Some(stamp) = payload::read(&reply[start..], self.size) else {
            faults.corrupted += 1;
            return faults.explain(|| format!("subscriber {index}: a wrong checksum"));
        };
        if stamp.origin != channel.origin || stamp.sequence >= channel.published {
            faults.misrouted += 1;
            return faults
                .explain(|| format!("subscriber {index}: {stamp:?} is not of {}", channel.name));
        }
        match self.views[index].observe(stamp.sequence) {
            Seen::InOrder | Seen::AfterGap => {}
            Seen::Late => {
                faults.reordered += 1;
                faults.explain(|| {
                    format!(
                        "subscriber {index}: publication {} came late",
                        stamp.sequence
                    )
                });
            }
            Seen::Duplicate => {
                faults.duplicated += 1;
                return faults.explain(|| {
                    format!(
                        "subscriber {index}: publication {} came twice",
                        stamp.sequence
                    )
                });
            }
        }
        self.deliveries += 1;
        if self.recording {
            self.latency.record(now_ns.saturating_sub(stamp.due_ns));
        }
        channel.count_down(stamp.sequence, || self.completed.push(at));
    }

    /// Answers to publishers, and whatever else a subscriber is told.
    fn take_answer(&self, index: usize, reply: &[u8], faults: &mut Faults) {
        match self.encoding.read_reply(reply) {
            Reply::Done(_) => {}
            Reply::Refused(id, code, message) => {
                faults.refused += 1;
                faults.explain(|| {
                    format!("command {id} of connection {index}: error {code} {message}")
                });
            }
            Reply::Push if !self.is_publication(reply) => {}
            Reply::Push => {
                faults.corrupted += 1;
                faults.explain(|| format!("subscriber {index}: a publication without our marker"));
            }
            Reply::Garbage => {
                faults.malformed += 1;
                faults
                    .explain(|| format!("connection {index}: {}", String::from_utf8_lossy(reply)));
            }
        }
    }

    fn is_publication(&self, reply: &[u8]) -> bool {
        // In Protobuf a push that is as long as a body can only be a publication of this run.
        match self.encoding {
            Encoding::Json => memchr::memmem::find(reply, b"\"pub\":").is_some(),
            Encoding::Protobuf => reply.len() > self.size,
        }
    }

    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

/// The publishing half.
struct Press {
    body: Vec<u8>,
    next_id: u64,
    /// The open loop: publications so far, and where the timetable starts.
    scheduled: u64,
    timetable_ns: u64,
    lateness: Times,
    blocked: u64,
}

fn drive(plan: &Plan<'_>) -> io::Result<Measured> {
    let publishers = plan.publishers.min(plan.channels);
    let connections = plan.members + publishers;
    let run_number = std::process::id() << 16;
    let room = Room {
        encoding: plan.encoding,
        size: plan.size,
        members: plan.members,
        channels: (0..plan.channels)
            .map(|number| Channel {
                name: format!("{}{number}", plan.channel_prefix),
                origin: Origin::new(run_number | (number % publishers) as u32, number as u32),
                publisher: plan.members + number % publishers,
                hint: 0,
                published: 0,
                members: (plan.members / plan.channels
                    + usize::from(number < plan.members % plan.channels))
                    as u32,
                lacking: match plan.load {
                    // Room for publications that complete before earlier ones.
                    Load::Closed { in_flight } => vec![0; (4 * in_flight).next_power_of_two()],
                    Load::Open { .. } => Vec::new(),
                },
            })
            .collect(),
        views: (0..plan.members).map(|_| View::default()).collect(),
        completed: Vec::new(),
        deliveries: 0,
        latency: Times::new(),
        recording: false,
        epoch: Instant::now(),
    };
    let manners = Manners {
        target: plan.target,
        encoding: plan.encoding,
        token: plan.token,
    };
    let channel_of = |index: usize| {
        (index < plan.members).then(|| format!("{}{}", plan.channel_prefix, index % plan.channels))
    };
    let mut fleet = Fleet::new(manners, rings(connections)?, channel_of);
    let mut progress = Progress::new();
    fleet.open(connections, |open| {
        progress.tell(|| format!("{open}/{connections} connections"))
    })?;
    Run {
        plan,
        room,
        fleet,
        progress,
        busy_ns: 0,
        press: Press::new(),
    }
    .measure()
}

impl Press {
    fn new() -> Self {
        Self {
            body: Vec::new(),
            next_id: 2,
            scheduled: 0,
            timetable_ns: 0,
            lateness: Times::new(),
            blocked: 0,
        }
    }
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    room: Room,
    fleet: Fleet<'a>,
    press: Press,
    progress: Progress,
    busy_ns: u64,
}

impl Run<'_> {
    fn measure(mut self) -> io::Result<Measured> {
        self.press.timetable_ns = self.room.now_ns();
        if let Load::Closed { in_flight } = self.plan.load {
            for channel in 0..self.room.channels.len() {
                for _ in 0..in_flight {
                    let now = self.room.now_ns();
                    self.publish(channel, now)?;
                }
            }
        }
        let mut stalled = self.turn_until(Instant::now() + self.plan.warm_up, true)?;
        self.room.recording = true;
        self.press.lateness = Times::new();
        let start = self.mark()?;
        stalled |= self.turn_until(start.at + self.plan.window, true)?;
        let end = self.mark()?;
        self.room.recording = false;
        let server_pss = Memory::read(self.plan.pids)?.pss;
        // Drain: what was published is owed, however late it comes.
        self.turn_until(Instant::now() + Duration::from_secs(600), false)?;
        Ok(self.settle(start, end, stalled, server_pss))
    }

    fn mark(&self) -> io::Result<Mark> {
        Ok(Mark {
            at: Instant::now(),
            server_ns: cpu::of_processes(self.plan.pids)?,
            deliveries: self.room.deliveries,
            published: self.published(),
            busy_ns: self.busy_ns,
            waited_ns: cpu::wait_of_this_thread(),
        })
    }

    fn published(&self) -> u64 {
        self.room
            .channels
            .iter()
            .map(|channel| u64::from(channel.published))
            .sum()
    }

    fn owed(&self) -> u64 {
        let owed = |channel: &Channel| u64::from(channel.published) * u64::from(channel.members);
        self.room.channels.iter().map(owed).sum::<u64>() - self.room.deliveries
    }

    /// Turns until `deadline`, or while draining until nothing is owed. True when nothing came for `SILENCE` though
    /// something was owed.
    fn turn_until(&mut self, deadline: Instant, publishing: bool) -> io::Result<bool> {
        let mut last_delivery = (Instant::now(), self.room.deliveries);
        loop {
            let began = Instant::now();
            if began >= deadline || (!publishing && self.owed() == 0) {
                return Ok(false);
            }
            let mut worked = self.turn()?;
            if publishing {
                worked |= self.publish_more()?;
            } else {
                self.room.completed.clear();
            }
            if worked {
                self.busy_ns += began.elapsed().as_nanos() as u64;
            } else {
                std::hint::spin_loop();
            }
            if self.room.deliveries != last_delivery.1 {
                last_delivery = (began, self.room.deliveries);
            } else if began - last_delivery.0 > SILENCE && self.owed() > 0 {
                return Ok(true);
            }
            let deliveries = self.room.deliveries;
            self.progress.tell(|| format!("{deliveries} deliveries"));
        }
    }

    fn turn(&mut self) -> io::Result<bool> {
        let room = &mut self.room;
        let mut now = (usize::MAX, 0);
        self.fleet.poll(|index, reply, faults| {
            // Replies of one receive share one reading of the clock: they arrived together.
            if now.0 != index {
                now = (index, room.now_ns());
            }
            room.take(index, reply, now.1, faults);
        })
    }

    fn publish_more(&mut self) -> io::Result<bool> {
        match self.plan.load {
            Load::Closed { .. } => {
                let completed = std::mem::take(&mut self.room.completed);
                for &channel in &completed {
                    let now = self.room.now_ns();
                    self.publish(channel, now)?;
                }
                let any = !completed.is_empty();
                self.room.completed = completed;
                self.room.completed.clear();
                if any {
                    self.fleet.flush()?;
                }
                Ok(any)
            }
            Load::Open { rate } => {
                self.room.completed.clear();
                let mut any = false;
                // Bounded, so that a generator that cannot keep up still receives, and ends.
                for _ in 0..LATE_AT_ONCE {
                    let due =
                        self.press.timetable_ns + (self.press.scheduled as f64 / rate * 1e9) as u64;
                    if self.room.now_ns() < due {
                        return Ok(any);
                    }
                    let channel = (self.press.scheduled % self.room.channels.len() as u64) as usize;
                    self.press.scheduled += 1;
                    self.publish(channel, due)?;
                    self.fleet.flush()?;
                    self.press.lateness.record(self.room.now_ns() - due);
                    any = true;
                }
                Ok(any)
            }
        }
    }

    fn publish(&mut self, at: usize, due_ns: u64) -> io::Result<()> {
        let channel = &mut self.room.channels[at];
        let stamp = Stamp {
            origin: channel.origin,
            sequence: channel.published,
            due_ns,
        };
        payload::write(&mut self.press.body, self.plan.size, stamp);
        let members = channel.members;
        if let Some(lacking) = channel.lacking(channel.published) {
            *lacking = members;
        }
        channel.published += 1;
        let frame =
            self.plan
                .encoding
                .publish_frame(self.press.next_id, &channel.name, &self.press.body);
        self.press.next_id += 1;
        self.press.blocked += u64::from(self.fleet.is_blocked(channel.publisher));
        self.fleet.send(channel.publisher, &frame)
    }

    fn settle(self, start: Mark, end: Mark, stalled: bool, server_pss: u64) -> Measured {
        let published = self.published();
        let mut faults = self.fleet.faults.clone();
        for (index, view) in self.room.views.iter().enumerate() {
            let channel = &self.room.channels[index % self.room.channels.len()];
            let lost = view.lost(channel.published);
            if lost > 0 {
                faults.lost += lost;
                faults.explain(|| {
                    format!("subscriber {index} misses {lost} of {}", channel.published)
                });
            }
        }
        Measured {
            start,
            end,
            faults,
            exhausted: self.fleet.exhausted(),
            latency: self.room.latency,
            lateness: self.press.lateness,
            server_pss,
            published,
            deliveries: self.room.deliveries,
            stalled,
            blocked: self.press.blocked,
        }
    }
}

fn tell(plan: &Plan<'_>, measured: &Measured, report: &mut Report) {
    report.verdict(measured.faults.clone());
    let seconds = measured.seconds();
    let (server, generator) = (measured.server_share(), measured.generator_share());
    let load = match plan.load {
        Load::Closed { in_flight } => format!("closed loop, {in_flight} in flight a channel"),
        Load::Open { rate } => format!("open loop, {rate} publications/s by timetable"),
    };
    report.remarks.push(format!(
        "{load}; {} members in {} channels, {} B, {:?}; {} publications and {} deliveries checked in all",
        plan.members, plan.channels, plan.size, plan.encoding, measured.published, measured.deliveries
    ));
    if measured.stalled {
        report
            .invalid
            .push("deliveries stopped though some were owed".to_owned());
    }
    let lateness = measured.lateness.percentiles();
    if lateness.p99_ns > LATE {
        report.invalid.push(format!(
            "own sends were late: p99 {:.2} ms",
            lateness.p99_ns as f64 / 1e6
        ));
    }
    let growth = measured.owed(plan, &measured.end) - measured.owed(plan, &measured.start);
    let second = measured
        .end
        .deliveries
        .saturating_sub(measured.start.deliveries) as f64
        / seconds;
    if matches!(plan.load, Load::Open { .. }) && growth > second {
        match generator > 0.97 {
            true => report
                .invalid
                .push("the generator's receive backlog grew by over a second's worth".to_owned()),
            false => report
                .remarks
                .push("the server fell behind by over a second's worth".to_owned()),
        }
    }
    if generator > 0.97 && server < 0.97 {
        report.remarks.push(format!(
            "the generator was the bottleneck ({:.0} % busy, server {:.0} %): CPU figures stand, rates do not",
            generator * 100.0,
            server * 100.0
        ));
    }
    if measured.waiting_share() > 0.01 {
        let share = measured.waiting_share() * 100.0;
        report.remarks.push(format!(
            "other work took {share:.1} % of the generator's core: latency is too high by it"
        ));
    }
    if measured.blocked > 0 {
        report.remarks.push(format!(
            "{} publications waited for the server to read",
            measured.blocked
        ));
    }
    if measured.exhausted > 0 {
        report.remarks.push(format!(
            "receive buffers ran out {} times",
            measured.exhausted
        ));
    }
    report.figure("deliveries_per_second", second, "/s", "in the window");
    let published = (measured.end.published - measured.start.published) as f64 / seconds;
    report.figure("publications_per_second", published, "/s", "in the window");
    report.figure(
        "server_ns_per_delivery",
        measured.ns_a_delivery(),
        "ns",
        "CPU, all threads of the server",
    );
    report.figure("server_cpu", server, "cores", "");
    report.figure(
        "generator_cpu",
        generator,
        "cores",
        "time in turns that had something to do",
    );
    report.figure(
        "server_pss",
        measured.server_pss as f64 / 1048576.0,
        "MiB",
        "at the window's end",
    );
    report.latency =
        Some(measured.latency.percentiles()).filter(|times: &Percentiles| times.count > 0);
    report.lateness = Some(lateness).filter(|times| times.count > 0);
}

fn tell_ratios(
    plan: &Plan<'_>,
    measured: &Measured,
    before: &limit::Baselines,
    after: &limit::Baselines,
    report: &mut Report,
) {
    let delivery = measured.ns_a_delivery();
    let frames = plan.limit.as_ref().map_or(1, |limit| limit.in_flight) as f64;
    let mut tell = |key, ratio_key, before: &Spread, after: &Spread, frames: f64, note: &str| {
        let runs: Vec<f64> = before
            .runs
            .iter()
            .chain(&after.runs)
            .map(|ns| ns / frames)
            .collect();
        let both = Spread::of(&runs);
        report.spread(key, &both, "ns", note);
        report.figure(
            ratio_key,
            delivery / both.median,
            "×",
            "server_ns_per_delivery over it",
        );
    };
    tell(
        "limit_send_ns",
        "ratio_to_send",
        &before.send,
        &after.send,
        1.0,
        "bare send(2) of one frame",
    );
    tell(
        "limit_uring_ns",
        "ratio_to_uring",
        &before.uring,
        &after.uring,
        1.0,
        "bare io_uring send of one frame",
    );
    if let (Some(before), Some(after)) = (&before.uring_many, &after.uring_many) {
        let note = format!("bare io_uring send of {frames} frames, a frame");
        tell(
            "limit_uring_many_frame_ns",
            "ratio_to_uring_many",
            before,
            after,
            frames,
            &note,
        );
    }
    if let Some(bare) = plan
        .limit
        .as_ref()
        .filter(|bare| bare.members < plan.members)
    {
        report.remarks.push(format!(
            "the bare loops ran on {} sockets: one descriptor each",
            bare.members
        ));
    }
    let drift = after.send.median / before.send.median;
    if !(0.9..=1.1).contains(&drift) {
        report.remarks.push(format!(
            "the bare send(2) loop drifted to {drift:.2} × during the run"
        ));
    }
}

/// A line a second on standard error.
pub struct Progress {
    next: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            next: Instant::now() + Duration::from_secs(1),
        }
    }

    pub fn tell(&mut self, words: impl FnOnce() -> String) {
        let now = Instant::now();
        if now >= self.next {
            eprintln!("{}", words());
            self.next = now + Duration::from_secs(1);
        }
    }
}
