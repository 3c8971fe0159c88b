//! Publications into channels, by timetable or in a closed loop, and the proof of every delivery: publisher, channel,
//! sequence, checksum, over the whole run.
//!
//! The phases of a run: ramp (connections open), settle (nobody publishes), warm-up, measure, drain (what was published
//! is owed, however late it comes).

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

mod figures;
mod press;
mod room;

use super::Server;
use crate::client::fleet::{Fleet, rings};
use crate::client::ledger::Faults;
use crate::client::payload::{self, Origin, Stamp};
use crate::measure::cpu;
use crate::measure::histogram::Times;
use crate::measure::memory::Memory;
use crate::measure::recorder::Recorder;
use crate::measure::series::{Counts, Phase, Series};
pub(crate) use figures::{Mark, Measured};
pub use press::Load;
use press::{Press, Schedule};
use room::Channel;
pub(crate) use room::{Event, Room, Standing};

/// Without a delivery for so long nothing more is coming.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// The longest a drain takes.
const DRAIN_PATIENCE: Duration = Duration::from_secs(600);
/// How long everybody rests between joining and the first publication.
///
/// A connection that has just sent and been answered is interactive to its kernel: it delays acknowledgements, to let
/// them ride on what it sends next, until its timer of 40 ms has fired once. Publications that begin before keep it
/// there for the whole run, since each receive restarts the timer; every other send of the server then pays for an
/// acknowledgement of its own on the server's core, 9 to 15 % of a delivery's CPU at 16 in flight. Clients that have
/// been connected for a while left that state long ago.
pub const SETTLE: Duration = Duration::from_millis(300);
/// Publications that may leave in one turn when the timetable asks for more.
const LATE_AT_ONCE: usize = 64;

/// Connections that are alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) members: usize,
    /// Members are spread evenly over them.
    pub(crate) channels: usize,
    /// Bytes of a publication's data.
    pub(crate) size: usize,
    pub(crate) load: Load,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishers {
    /// So many connections of their own; each channel has one.
    Apart(usize),
    /// The channel's first member.
    Members,
}

/// How long the phases of a run take.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    pub settle: Duration,
    pub warm_up: Duration,
    pub window: Duration,
}

/// The connections, what they should see, and who publishes.
pub(crate) struct Traffic<'a> {
    pub(crate) fleet: Fleet<'a>,
    pub(crate) room: Room<'a>,
    server: &'a Server,
    press: Press,
    recorder: Recorder,
    busy_ns: u64,
}

impl<'a> Traffic<'a> {
    /// Opens and joins everybody. Connections are numbered group by group, publishers behind.
    pub(crate) fn open(
        server: &'a Server,
        groups: &[Group],
        publishers: Publishers,
    ) -> io::Result<Self> {
        Self::open_partly(server, groups, publishers, |_| true)
    }

    /// The same, but members for which `joins` is false only connect.
    pub(crate) fn open_partly(
        server: &'a Server,
        groups: &[Group],
        publishers: Publishers,
        joins: impl Fn(usize) -> bool + 'a,
    ) -> io::Result<Self> {
        let (channels, channel_of, schedules) = lay_out(server, groups, publishers);
        let members = channel_of.len();
        let connections = members
            + match publishers {
                Publishers::Apart(count) => count.min(channels.len()),
                Publishers::Members => 0,
            };
        let mut room = Room::new(&server.manners.protocol, channels, &channel_of);
        if groups.len() > 1 {
            room.latencies = groups.iter().map(|_| Times::new()).collect();
        }
        for index in (0..members).filter(|&index| !joins(index)) {
            room.members[index].standing = Standing::Aside;
        }
        let channel_of: Rc<[u32]> = channel_of.into();
        let name_of = move |index: usize| {
            let channel = channel_of.get(index).filter(|_| joins(index))?;
            Some(server.channel(*channel as usize))
        };
        let mut traffic = Self {
            fleet: Fleet::new(&server.manners, rings(connections)?, name_of),
            room,
            server,
            press: Press {
                schedules,
                body: Vec::new(),
                next_id: 1 << 20,
                since_ns: 0,
                lateness: Times::new(),
                blocked: 0,
            },
            recorder: Recorder::start(&server.pids, connections)?,
            busy_ns: 0,
        };
        let (fleet, room) = (&mut traffic.fleet, &mut traffic.room);
        fleet.open(
            connections,
            |index, news, faults| room.take(index, news, 0, faults),
            |joined| {
                let now = Instant::now();
                if traffic.recorder.is_due(now) {
                    traffic
                        .recorder
                        .close(now, None, Counts::of_connections(joined));
                }
            },
        )?;
        Ok(traffic)
    }

    /// Settles, warms up, measures, drains.
    pub(crate) fn run(mut self, phases: Phases) -> io::Result<Measured> {
        let window = self.measure(phases, |_| Ok(false))?;
        self.drain()?;
        Ok(self.settle(window))
    }

    /// Settles, warms up and measures; `each` is called every turn and tells whether it did something.
    pub(crate) fn measure(
        &mut self,
        phases: Phases,
        mut each: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<Window> {
        self.rest(phases.settle)?;
        self.enter(Phase::WarmUp);
        self.begin()?;
        let mut stalled = self.turn_until(Instant::now() + phases.warm_up, &mut each)?;
        self.enter(Phase::Measure);
        self.press.lateness = Times::new();
        self.room.latencies.iter_mut().for_each(Times::clear);
        let start = self.mark()?;
        stalled |= self.turn_until(start.at + phases.window, &mut each)?;
        let end = self.mark()?;
        self.enter(Phase::Drain);
        Ok(Window {
            start,
            end,
            stalled,
            latencies: self.room.latencies.clone(),
            lateness: std::mem::replace(&mut self.press.lateness, Times::new()),
            server_pss: Memory::read(&self.server.pids)?.pss,
        })
    }

    /// Publishes nothing for so long.
    pub(crate) fn rest(&mut self, time: Duration) -> io::Result<()> {
        self.enter(Phase::Settle);
        self.turn_until(Instant::now() + time, |_| Ok(false))?;
        Ok(())
    }

    /// Ends the present phase and begins another, if it is another.
    pub(crate) fn enter(&mut self, phase: Phase) {
        if phase == self.phase() {
            return;
        }
        let counts = self.counts();
        self.recorder
            .enter(phase, Some(&mut self.room.latency), counts);
    }

    /// The present phase.
    pub(crate) fn phase(&self) -> Phase {
        self.recorder.phase()
    }

    fn counts(&self) -> Counts {
        Counts {
            connections: self.fleet.joined() as u64,
            deliveries: self.room.deliveries,
            publications: self.published(),
        }
    }

    /// Hands over the second that is over by `now`, if one is.
    fn record(&mut self, now: Instant) {
        if self.recorder.is_due(now) {
            let counts = self.counts();
            self.recorder
                .close(now, Some(&mut self.room.latency), counts);
        }
    }

    /// The timetables start now; closed loops get their first publications.
    fn begin(&mut self) -> io::Result<()> {
        self.press.since_ns = self.room.now_ns();
        let mut first = Vec::new();
        for schedule in &mut self.press.schedules {
            schedule.restart();
            for channel in schedule.channels.clone() {
                first.extend((0..schedule.load.in_flight()).map(|_| channel));
            }
        }
        for channel in first {
            self.publish(channel, self.room.now_ns())?;
        }
        self.fleet.flush()
    }

    /// Turns until nothing is owed, or nothing more comes.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.enter(Phase::Drain);
        self.turn_until(Instant::now() + DRAIN_PATIENCE, |_| Ok(false))?;
        Ok(())
    }

    /// Reads everything there is to read.
    pub(crate) fn mark(&self) -> io::Result<Mark> {
        Ok(Mark {
            at: Instant::now(),
            server_ns: cpu::of_processes(&self.server.pids)?,
            deliveries: self.room.deliveries,
            received: self.fleet.received(),
            published: self.published(),
            owed: self.room.owed,
            busy_ns: self.busy_ns,
            waited_ns: cpu::wait_of_this_thread(),
        })
    }

    pub(crate) fn published(&self) -> u64 {
        let published = |channel: &Channel| u64::from(channel.published);
        self.room.channels.iter().map(published).sum()
    }

    /// Turns until `deadline`, or when draining until nothing is owed; publishes while it warms up and measures. True
    /// when nothing came for `SILENCE` though something was owed.
    fn turn_until(
        &mut self,
        deadline: Instant,
        mut each: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let phase = self.phase();
        let mut last_delivery = (Instant::now(), self.room.deliveries);
        loop {
            let began = Instant::now();
            if began >= deadline || (phase == Phase::Drain && self.room.owed == 0) {
                return Ok(false);
            }
            let mut worked = self.turn()?;
            if matches!(phase, Phase::WarmUp | Phase::Measure) {
                worked |= self.publish_more()?;
            } else {
                self.room.completed.clear();
            }
            worked |= each(self)?;
            if worked {
                self.busy_ns += began.elapsed().as_nanos() as u64;
            } else {
                std::hint::spin_loop();
            }
            if self.room.deliveries != last_delivery.1 || self.room.owed == 0 {
                last_delivery = (began, self.room.deliveries);
            } else if began - last_delivery.0 > SILENCE {
                return Ok(true);
            }
            self.record(began);
        }
    }

    /// Turns until `done`.
    ///
    /// # Errors
    /// When that does not come within `patience`.
    pub(crate) fn turn_while(
        &mut self,
        patience: Duration,
        what: &str,
        mut goes_on: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<()> {
        let began = Instant::now();
        while goes_on(self)? {
            if began.elapsed() > patience {
                let words = self.fleet.faults.first.as_deref().unwrap_or("nothing");
                return Err(io::Error::other(format!(
                    "{what}: not within {} s; first fault: {words}",
                    patience.as_secs()
                )));
            }
            self.turn()?;
            self.record(Instant::now());
        }
        Ok(())
    }

    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let room = &mut self.room;
        let mut now = (usize::MAX, 0);
        self.fleet.poll(|index, news, faults| {
            // Replies of one receive share one reading of the clock: they arrived together.
            if now.0 != index {
                now = (index, room.now_ns());
            }
            room.take(index, news, now.1, faults);
        })
    }

    fn publish_more(&mut self) -> io::Result<bool> {
        let completed = std::mem::take(&mut self.room.completed);
        for &channel in &completed {
            let now = self.room.now_ns();
            self.publish(channel, now)?;
        }
        let mut any = !completed.is_empty();
        self.room.completed = completed;
        self.room.completed.clear();
        if any {
            self.fleet.flush()?;
        }
        for at in 0..self.press.schedules.len() {
            // Bounded, so that a generator that cannot keep up still receives, and ends.
            for _ in 0..LATE_AT_ONCE {
                let now = self.room.now_ns();
                let Some((channel, due)) =
                    self.press.schedules[at].next_due(self.press.since_ns, now)
                else {
                    break;
                };
                self.publish(channel, due)?;
                self.fleet.flush()?;
                self.press.lateness.record(self.room.now_ns() - due);
                any = true;
            }
        }
        Ok(any)
    }

    /// Publishes one that was due then; it leaves at the next flush.
    pub(crate) fn publish(&mut self, at: usize, due_ns: u64) -> io::Result<()> {
        let channel = &mut self.room.channels[at];
        let stamp = Stamp {
            origin: channel.origin,
            sequence: channel.published,
            due_ns,
        };
        payload::write(&mut self.press.body, channel.size, stamp);
        let members = channel.members;
        if let Some(lacking) = channel.lacking(channel.published) {
            *lacking = members;
        }
        self.room.owed += u64::from(members);
        channel.published += 1;
        let frame =
            self.room
                .protocol
                .publish_frame(self.press.next_id, &channel.name, &self.press.body);
        self.press.next_id += 1;
        self.press.blocked += u64::from(self.fleet.is_blocked(channel.publisher));
        self.fleet.send(channel.publisher, &frame)
    }

    /// Publishes one into each channel, now.
    pub(crate) fn publish_everywhere(&mut self) -> io::Result<()> {
        for channel in 0..self.room.channels.len() {
            let now = self.room.now_ns();
            self.publish(channel, now)?;
        }
        self.fleet.flush()
    }

    /// The end of a run without a window: faults, the deliveries checked, and the run's seconds.
    pub(crate) fn conclude(mut self) -> (Faults, u64, Series) {
        let counts = self.counts();
        let mut faults = self.fleet.faults.clone();
        self.room.settle(&mut faults);
        let recording = self.recorder.finish(Some(&mut self.room.latency), counts);
        (faults, self.room.deliveries, recording.series)
    }

    /// The end of a run: what never came is lost.
    pub(crate) fn settle(mut self, window: Window) -> Measured {
        let (published, counts) = (self.published(), self.counts());
        let mut faults = self.fleet.faults.clone();
        self.room.settle(&mut faults);
        Measured {
            window,
            faults,
            exhausted: self.fleet.exhausted(),
            published,
            deliveries: self.room.deliveries,
            ignored: self.room.ignored,
            blocked: self.press.blocked,
            recording: self.recorder.finish(Some(&mut self.room.latency), counts),
        }
    }
}

/// What one measured window told.
pub(crate) struct Window {
    pub(crate) start: Mark,
    pub(crate) end: Mark,
    pub(crate) stalled: bool,
    /// By group, when there are several.
    pub(crate) latencies: Vec<Times>,
    pub(crate) lateness: Times,
    pub(crate) server_pss: u64,
}

/// Channels, the channel of each member, timetables.
fn lay_out(
    server: &Server,
    groups: &[Group],
    publishers: Publishers,
) -> (Vec<Channel>, Vec<u32>, Vec<Schedule>) {
    let members: usize = groups.iter().map(|group| group.members).sum();
    let run_number = std::process::id() << 16;
    let (mut channels, mut channel_of, mut schedules) = (Vec::new(), Vec::new(), Vec::new());
    for (at, group) in groups.iter().enumerate() {
        let (first_member, first) = (channel_of.len(), channels.len());
        let range: Range<usize> = first..first + group.channels;
        for number in range.clone() {
            let publisher = match publishers {
                Publishers::Apart(count) => {
                    let count = count.min(groups.iter().map(|group| group.channels).sum());
                    members + number % count
                }
                Publishers::Members => first_member + (number - first),
            };
            channels.push(Channel::new(
                server.channel(number),
                Origin::new(run_number | (publisher & 0xffff) as u32, number as u32),
                publisher,
                group.size,
                group.load.in_flight(),
                at,
            ));
        }
        channel_of.extend((0..group.members).map(|index| (first + index % group.channels) as u32));
        schedules.push(Schedule::new(range, group.load));
    }
    (channels, channel_of, schedules)
}
