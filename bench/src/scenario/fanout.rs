//! **What does the server pay for a delivery, and how late is it?**
//!
//! N subscribers in C channels, one publisher connection a few channels. Closed loop: W publications outstanding in
//! each channel, one is over when its last member has it: the most the server can do. Open loop: publications leave by
//! a timetable whatever the server does, and latency counts from when they were *due*: no coordinated omission.
//!
//! Every delivery of the whole run is checked: publisher, channel, sequence, checksum. The verdict comes first.

use std::io;
use std::time::{Duration, Instant};

mod figures;
mod room;

use crate::client::centrifuge::Encoding;
use crate::client::fleet::{Fleet, Manners, rings};
use crate::client::handshake::Target;
use crate::client::ledger::View;
use crate::client::payload::{self, Origin, Stamp};
use crate::measure::cpu;
use crate::measure::histogram::Times;
use crate::measure::memory::Memory;
use crate::measure::recorder::Recorder;
use crate::measure::series::{Counts, Phase};
use crate::report::Report;
use crate::scenario::limit;
use figures::{Mark, Measured};
use room::{Channel, Room};

/// Without a delivery for so long nothing more is coming.
const SILENCE: Duration = Duration::from_secs(3);
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
    figures::tell(plan, &measured, report);
    if let (Some(before), Some(after)) = (before, after) {
        figures::tell_ratios(plan, &measured, &before, &after, report);
    }
    Ok(())
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

fn publishers(plan: &Plan<'_>) -> usize {
    plan.publishers.min(plan.channels)
}

fn connections(plan: &Plan<'_>) -> usize {
    plan.members + publishers(plan)
}

fn drive(plan: &Plan<'_>) -> io::Result<Measured> {
    let (publishers, connections) = (publishers(plan), connections(plan));
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
    let mut recorder = Recorder::start(plan.pids, connections)?;
    fleet.open(connections, |open| {
        let now = Instant::now();
        if recorder.is_due(now) {
            let connections = open as u64;
            let counts = Counts {
                connections,
                ..Counts::default()
            };
            recorder.close(now, None, counts);
        }
    })?;
    Run {
        plan,
        room,
        fleet,
        recorder,
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
    recorder: Recorder,
    busy_ns: u64,
}

impl Run<'_> {
    fn measure(mut self) -> io::Result<Measured> {
        self.enter(Phase::WarmUp);
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
        self.enter(Phase::Measure);
        self.press.lateness = Times::new();
        let start = self.mark()?;
        stalled |= self.turn_until(start.at + self.plan.window, true)?;
        let end = self.mark()?;
        self.enter(Phase::Drain);
        let server_pss = Memory::read(self.plan.pids)?.pss;
        // Drain: what was published is owed, however late it comes.
        self.turn_until(Instant::now() + Duration::from_secs(600), false)?;
        Ok(self.settle(start, end, stalled, server_pss))
    }

    fn counts(&self) -> Counts {
        Counts {
            connections: (connections(self.plan) as u64).saturating_sub(self.fleet.faults.closed),
            deliveries: self.room.deliveries,
            publications: self.published(),
        }
    }

    fn enter(&mut self, phase: Phase) {
        let counts = self.counts();
        self.recorder
            .enter(phase, Some(&mut self.room.latency), counts);
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
            if self.recorder.is_due(began) {
                let counts = self.counts();
                self.recorder
                    .close(began, Some(&mut self.room.latency), counts);
            }
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

    fn settle(mut self, start: Mark, end: Mark, stalled: bool, server_pss: u64) -> Measured {
        let (published, counts) = (self.published(), self.counts());
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
            recording: self.recorder.finish(Some(&mut self.room.latency), counts),
            lateness: self.press.lateness,
            server_pss,
            published,
            deliveries: self.room.deliveries,
            stalled,
            blocked: self.press.blocked,
        }
    }
}
