//! Publications into channels, by timetable or in a closed loop, and the proof of every delivery: publisher, channel,
//! sequence, checksum, over the whole run.
//!
//! One thread's part of it. All threads of a run go through the same phases and meet between them; a scenario calls `enter`,
//! `measure`, `drain`, `meet` and what ends a run on each of them, as often and in the same order.
//!
//! The phases of a run: ramp (connections open), settle (nobody publishes), warm-up, measure, drain (what was published
//! is owed, however late it comes).

use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) mod figures;
mod layout;
mod press;
mod room;

use super::Server;
use crate::client::fleet::{Fleet, rings};
use crate::client::payload::{Body, Stamp};
use crate::client::share::Share;
use crate::measure::cpu;
use crate::measure::histogram::Times;
use crate::measure::memory::Memory;
use crate::measure::recorder::Recorder;
use crate::measure::series::{Counts, Phase};
use crate::scenario::threads::{Barrier, Worker};
use figures::Busy;
pub(crate) use figures::{Ended, Mark, Measured, Window};
use layout::Layout;
pub use press::Load;
use press::Press;
pub(crate) use room::{Event, Room, Standing};

/// Without a delivery for so long nothing more is coming.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// The longest the answers to publications take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
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
    /// A publication's data.
    pub(crate) body: Body,
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

/// A thread's connections, what they should see, and who publishes.
pub(crate) struct Traffic<'a> {
    pub(crate) fleet: Fleet<'a>,
    pub(crate) room: Room<'a>,
    pub(crate) share: Share,
    server: &'a Server,
    press: Press,
    recorder: Recorder,
    barrier: Barrier,
    core: usize,
    busy_ns: u64,
}

impl<'a> Traffic<'a> {
    /// Opens and joins everybody. Connections are numbered group by group, publishers behind.
    pub(crate) fn open(
        worker: Worker,
        server: &'a Server,
        groups: &[Group],
        publishers: Publishers,
    ) -> io::Result<Self> {
        Self::open_partly(worker, server, groups, publishers, |_| true)
    }

    /// The same, but members at places for which `joins` is false only connect.
    pub(crate) fn open_partly(
        worker: Worker,
        server: &'a Server,
        groups: &[Group],
        publishers: Publishers,
        joins: impl Fn(usize) -> bool + 'a,
    ) -> io::Result<Self> {
        let Worker {
            share,
            core,
            epoch,
            mailbox,
            barrier,
            recorder,
        } = worker;
        let Layout {
            channels,
            channel_of,
            schedules,
            connections,
        } = layout::lay_out(server, groups, publishers, share);
        let protocol = &server.manners.protocol;
        let mut room = Room::new(protocol, share, (mailbox, epoch), channels, &channel_of);
        if groups.len() > 1 {
            room.latencies = groups.iter().map(|_| Times::new()).collect();
        }
        for index in (0..channel_of.len()).filter(|&index| !joins(index)) {
            room.members[index].standing = Standing::Aside;
        }
        let channel_of: Rc<[u32]> = channel_of.into();
        let name_of = move |index: usize| {
            let channel = channel_of.get(index).filter(|_| joins(index))?;
            Some(server.channel(*channel as usize))
        };
        let mut traffic = Self {
            fleet: Fleet::new(&server.manners, share, rings(connections)?, name_of),
            room,
            share,
            server,
            press: Press {
                schedules,
                body: Vec::new(),
                next_id: 1 << 20,
                published: 0,
                since_ns: 0,
                lateness: Times::new(),
                blocked: 0,
            },
            recorder,
            barrier,
            core,
            busy_ns: 0,
        };
        traffic.recorder.expect(connections);
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
        traffic.meet()?;
        Ok(traffic)
    }

    /// True on the thread that reads the server's counters.
    pub(crate) fn leads(&self) -> bool {
        self.share.number() == 0
    }

    /// Waits until all threads are here, and receives meanwhile; then knows all they have told.
    pub(crate) fn meet(&mut self) -> io::Result<()> {
        if self.share.is_whole() {
            return Ok(());
        }
        self.barrier.arrive();
        while !self.barrier.all_are_here()? {
            if !self.turn()? {
                thread::yield_now();
            }
            self.record(Instant::now());
        }
        self.room.hear();
        self.record(Instant::now());
        Ok(())
    }

    /// All threads end the present second here.
    fn cut(&mut self) -> io::Result<()> {
        self.meet()?;
        if self.leads() {
            self.close(Instant::now());
        }
        // The others see it on their way.
        self.meet()
    }

    /// Settles, warms up, measures, drains.
    pub(crate) fn run(mut self, phases: Phases) -> io::Result<Measured> {
        let window = self.measure(phases, |_| Ok(false))?;
        self.drain()?;
        self.settle(window)
    }

    /// Settles, warms up and measures; `each` is called every turn and tells whether it did something.
    pub(crate) fn measure(
        &mut self,
        phases: Phases,
        mut each: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<Window> {
        self.rest(phases.settle)?;
        self.enter(Phase::WarmUp)?;
        self.begin()?;
        let mut stalled = self.turn_until(Instant::now() + phases.warm_up, &mut each)?;
        self.enter(Phase::Measure)?;
        self.press.lateness = Times::new();
        self.room.latencies.iter_mut().for_each(Times::clear);
        let (start, busy_ns, waited_ns) = (self.mark()?, self.busy_ns, cpu::wait_of_this_thread());
        stalled |= self.turn_until(start.at + phases.window, &mut each)?;
        let end = self.mark()?;
        let busy = Busy {
            core: self.core,
            busy_ns: self.busy_ns - busy_ns,
            waited_ns: cpu::wait_of_this_thread() - waited_ns,
        };
        let latencies = self.room.latencies.clone();
        let lateness = std::mem::replace(&mut self.press.lateness, Times::new());
        self.enter(Phase::Drain)?;
        Ok(Window {
            start,
            end,
            stalled,
            latencies,
            lateness,
            server_pss: self.memory()?.pss,
            busy: vec![busy],
        })
    }

    /// Publishes nothing for so long.
    pub(crate) fn rest(&mut self, time: Duration) -> io::Result<()> {
        self.enter(Phase::Settle)?;
        self.turn_until(Instant::now() + time, |_| Ok(false))?;
        Ok(())
    }

    /// Ends the present phase and begins another, if it is another.
    pub(crate) fn enter(&mut self, phase: Phase) -> io::Result<()> {
        if phase != self.phase() {
            self.cut()?;
            self.recorder.begin(phase);
        }
        Ok(())
    }

    /// The present phase.
    pub(crate) fn phase(&self) -> Phase {
        self.recorder.phase()
    }

    fn counts(&self) -> Counts {
        Counts {
            connections: self.fleet.joined() as u64,
            deliveries: self.room.deliveries,
            publications: self.press.published,
        }
    }

    /// Hands over each second that is over by `now`.
    fn record(&mut self, now: Instant) {
        while self.recorder.is_due(now) {
            self.close(now);
        }
    }

    fn close(&mut self, now: Instant) {
        let counts = self.counts();
        self.recorder
            .close(now, Some(&mut self.room.latency), counts);
    }

    /// The timetables start now; closed loops get their first publications.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        self.press.since_ns = self.room.now_ns();
        let mut first = Vec::new();
        for schedule in &mut self.press.schedules {
            schedule.restart();
            for channel in schedule.own_channels() {
                first.extend((0..schedule.load.in_flight()).map(|_| channel));
            }
        }
        for channel in first {
            self.publish(channel, self.room.now_ns())?;
        }
        self.fleet.flush()
    }

    /// Turns until nothing is owed to anybody, or nothing more comes.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.enter(Phase::Drain)?;
        // Each has published all it will, and knows of the others' publications.
        self.meet()?;
        self.turn_until(Instant::now() + DRAIN_PATIENCE, |_| Ok(false))?;
        self.meet()
    }

    /// Reads everything there is to read.
    pub(crate) fn mark(&mut self) -> io::Result<Mark> {
        self.room.hear();
        Ok(Mark {
            at: Instant::now(),
            server_ns: match self.leads() {
                true => cpu::of_processes(&self.server.pids)?,
                false => 0,
            },
            deliveries: self.room.deliveries,
            received: self.fleet.received(),
            published: self.press.published,
            owed: self.room.owed,
        })
    }

    /// The latency of a group's deliveries since this was last asked, in a run with several; and how late own sends were.
    pub(crate) fn take_times(&mut self, group: usize) -> (Times, Times) {
        let latency = self.room.latencies.get_mut(group);
        (
            latency.map_or_else(Times::new, |times| std::mem::replace(times, Times::new())),
            std::mem::replace(&mut self.press.lateness, Times::new()),
        )
    }

    /// Memory now, on the leading thread; nothing on the others.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        match self.leads() {
            true => Memory::read(&self.server.pids),
            false => Ok(Memory::default()),
        }
    }

    /// Turns until `deadline`, or when draining until nothing is owed; publishes while it warms up and measures. True
    /// when nothing came for `SILENCE` though something was owed; then the other threads end it too.
    pub(crate) fn turn_until(
        &mut self,
        deadline: Instant,
        mut each: impl FnMut(&mut Self) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let phase = self.phase();
        let alone = self.share.is_whole();
        let mut last_delivery = (Instant::now(), self.room.deliveries);
        self.barrier.delivered(self.room.now_ns());
        loop {
            if !alone && self.barrier.is_stopped()? {
                return Ok(true);
            }
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
            if self.room.deliveries != last_delivery.1 {
                last_delivery = (began, self.room.deliveries);
                self.barrier.delivered(self.room.at_ns(began));
            } else if self.room.owed == 0 {
                last_delivery.0 = began;
            } else if began - last_delivery.0 > SILENCE && self.is_silent(began) {
                self.barrier.stop();
                return Ok(true);
            }
            self.record(began);
        }
    }

    /// True when no thread has had a delivery for `SILENCE`.
    fn is_silent(&self, now: Instant) -> bool {
        let last = Duration::from_nanos(self.barrier.last_delivery_ns());
        self.room.epoch + last + SILENCE < now
    }

    /// Turns while `goes_on`; publishes by timetable while it warms up and measures.
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
            self.barrier.check()?;
            self.turn()?;
            if matches!(self.phase(), Phase::WarmUp | Phase::Measure) {
                self.publish_more()?;
            }
            self.record(Instant::now());
        }
        Ok(())
    }

    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let room = &mut self.room;
        let heard = room.hear();
        let mut now = (usize::MAX, 0);
        let arrived = self.fleet.poll(|index, news, faults| {
            // Replies of one receive share one reading of the clock: they arrived together.
            if now.0 != index {
                now = (index, room.now_ns());
            }
            room.take(index, news, now.1, faults);
        })?;
        Ok(heard | arrived)
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

    /// Publishes one that was due then, into a channel of this thread; it leaves at the next flush.
    fn publish(&mut self, at: usize, due_ns: u64) -> io::Result<()> {
        let channel = &self.room.channels[at];
        let Some(publisher) = channel.publisher else {
            return Ok(());
        };
        let stamp = Stamp {
            origin: channel.origin,
            sequence: channel.published,
            due_ns,
        };
        channel.body.write(&mut self.press.body, stamp);
        let frame =
            self.room
                .protocol
                .publish_frame(self.press.next_id, &channel.name, &self.press.body);
        self.press.next_id += 1;
        self.press.published += 1;
        self.press.blocked += u64::from(self.fleet.is_blocked(publisher));
        self.room.announce(at);
        self.fleet.send(publisher, &frame)
    }

    /// Publishes one into each channel of this thread, now.
    pub(crate) fn publish_everywhere(&mut self) -> io::Result<()> {
        for channel in 0..self.room.channels.len() {
            let now = self.room.now_ns();
            self.publish(channel, now)?;
        }
        self.fleet.flush()
    }

    /// The same; returns when they are answered, hence stored.
    pub(crate) fn publish_and_wait(&mut self) -> io::Result<()> {
        self.publish_everywhere()?;
        let published = self.press.published;
        self.turn_while(ANSWER_PATIENCE, "publishing", |traffic| {
            Ok(traffic.room.answered < published)
        })
    }

    /// The end of a run: what never came is lost.
    pub(crate) fn conclude(mut self) -> io::Result<Ended> {
        self.cut()?;
        let mut faults = self.fleet.faults.clone();
        self.room.settle(&mut faults);
        Ok(Ended {
            faults,
            exhausted: self.fleet.exhausted(),
            published: self.press.published,
            deliveries: self.room.deliveries,
            recovered: self.room.recovered,
            unrecovered: self.room.unrecovered,
            ignored: self.room.ignored,
            blocked: self.press.blocked,
            recording: self.recorder.finish(),
        })
    }

    /// The same of a run with a window.
    pub(crate) fn settle(self, window: Window) -> io::Result<Measured> {
        let ended = self.conclude()?;
        Ok(Measured { window, ended })
    }
}
