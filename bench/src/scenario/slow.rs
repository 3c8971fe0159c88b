//! **Do members that read slowly hurt those that do not?**
//!
//! N members get publications by timetable. After a window in which all read, k % of them read so many bytes a second, or
//! nothing at all, and the same window runs again: told are loss, order and latency of the healthy ones with and without,
//! the server's memory, and how many slow ones it cut. Nothing is owed to a slow one, but what it reads must be in order
//! and come once.
//!
//! Small receive buffers and segments show a server sooner that somebody does not read: loopback hides megabytes a socket.

use std::io;
use std::time::{Duration, Instant};

use crate::client::fleet::Stage;
use crate::measure::memory::Memory;
use crate::report::Report;
use crate::scenario::traffic::{Measured, Traffic, Window};
use crate::scenario::{Phases, Rooms};

/// How often a slow member reads.
const TICK: Duration = Duration::from_millis(100);
/// How long the slow ones are read at the window's end, to see which have been cut.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What to measure.
pub struct Plan {
    pub rooms: Rooms,
    /// Members that read slowly.
    pub slow: usize,
    /// Bytes a second each of them reads.
    pub reads: u32,
    pub phases: Phases,
    /// How long the window takes in which all read.
    pub quiet: Duration,
}

/// What a thread found out.
struct Part {
    without: Window,
    with: Measured,
    /// Before and after the second window.
    memory: (Memory, Memory),
    cut: usize,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let rooms = &plan.rooms;
    let server = &rooms.server;
    let parts = rooms.on_each_thread(|traffic| slow_some_down(plan, traffic))?;
    // The leading thread has read it for all.
    let (memory, after) = parts[0].memory;
    let cut: usize = parts.iter().map(|part| part.cut).sum();
    let (quiet, loud): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .map(|part| (part.without, part.with))
        .unzip();
    let (without, measured) = (Window::of_all(quiet), Measured::of_all(loud));
    let words = format!(
        "{}; {}; {} of them read {} B/s",
        rooms.load.words(),
        rooms.words(),
        plan.slow,
        plan.reads
    );
    measured.tell_verdict(server, &words, report);
    without.judge(true, report);
    measured.window.tell(server, true, report);
    let ms = |ns: u64| ns as f64 / 1e6;
    let (quiet, loud) = measured.without_and_with();
    report.figure("healthy_p99_without", ms(quiet.p99_ns), "ms", "all read");
    report.figure("healthy_p99_with", ms(loud.p99_ns), "ms", "some do not");
    let ratio = loud.p99_ns as f64 / quiet.p99_ns as f64;
    report.figure("healthy_p99_ratio", ratio, "×", "with over without");
    report.figure("healthy_lost", measured.lost() as f64, "", "deliveries");
    report.figure("slow_cut", cut as f64, "", "slow members the server cut");
    let seconds = report.series.iter().flat_map(|series| &series.seconds);
    if let Some(most) = seconds.filter_map(|second| second.server_pss).max() {
        let note = "at most, read once a second";
        report.figure(
            "server_pss_most",
            most as f64 / f64::from(1 << 20),
            "MiB",
            note,
        );
    }
    if !server.pids.is_empty() {
        let each = (after.pss as f64 - memory.pss as f64) / plan.slow.max(1) as f64;
        let note = "growth of the server's PSS a slow member";
        report.figure("server_pss_per_slow", each, "B", note);
    }
    let pages = (after.tcp_pages as f64 - memory.tcp_pages as f64) * 4096.0;
    let note = "growth of TCP's memory a slow member, both ends";
    report.figure(
        "tcp_memory_per_slow",
        pages / plan.slow.max(1) as f64,
        "B",
        note,
    );
    Ok(())
}

/// Both windows on one thread.
fn slow_some_down(plan: &Plan, mut traffic: Traffic<'_>) -> io::Result<Part> {
    let members = plan.rooms.members;
    let quiet = Phases {
        window: plan.quiet,
        ..plan.phases
    };
    let without = traffic.measure(quiet, |_| Ok(false))?;
    traffic.drain()?;
    let before = traffic.memory()?;
    // The last ones: each channel has some.
    let slow: Vec<usize> = traffic.share.range(members - plan.slow..members).collect();
    let mut readers = Readers::new(slow.clone(), plan.reads);
    readers.slow_down(&mut traffic)?;
    let with = traffic.measure(plan.phases, |traffic| readers.turn(traffic))?;
    let after = traffic.memory()?;
    // Before the drain: who is cut only later was not cut by the window's end.
    let cut = count_cut(&mut traffic, &slow)?;
    traffic.drain()?;
    Ok(Part {
        without,
        with: traffic.settle(with)?,
        memory: (before, after),
        cut,
    })
}

/// How many of the slow ones have been cut: they read again, since the end of a connection lies behind what it was sent.
fn count_cut(traffic: &mut Traffic<'_>, slow: &[usize]) -> io::Result<usize> {
    for &index in slow {
        traffic.fleet.resume_reading(index)?;
    }
    let last_look = Instant::now();
    // It ends by itself, late where the machine is busy.
    traffic.turn_while(60 * LAST_LOOK, "a last look", |_| {
        Ok(last_look.elapsed() < LAST_LOOK)
    })?;
    let closed = |&&index: &&usize| traffic.fleet.stage(index) == Stage::Closed;
    Ok(slow.iter().filter(closed).count())
}

/// A thread's members that read little.
pub(super) struct Readers {
    members: Vec<usize>,
    bytes_a_tick: u32,
    next: Instant,
}

impl Readers {
    pub(super) fn new(members: Vec<usize>, bytes_a_second: u32) -> Self {
        let ticks = 1.0 / TICK.as_secs_f64();
        Self {
            members,
            bytes_a_tick: (f64::from(bytes_a_second) / ticks).ceil() as u32,
            next: Instant::now(),
        }
    }

    /// From now on they read no more than that.
    pub(super) fn slow_down(&self, traffic: &mut Traffic<'_>) -> io::Result<()> {
        for &index in &self.members {
            traffic
                .room
                .expect_leftovers(index, &mut traffic.fleet.faults);
            traffic.fleet.make_expendable(index);
            traffic.fleet.stop_reading(index)?;
        }
        traffic.fleet.flush()
    }

    /// Reads what is due.
    pub(super) fn turn(&mut self, traffic: &mut Traffic<'_>) -> io::Result<bool> {
        if self.bytes_a_tick == 0 || Instant::now() < self.next {
            return Ok(false);
        }
        self.next = Instant::now() + TICK;
        for &index in &self.members {
            traffic.fleet.read_some(index, self.bytes_a_tick)?;
        }
        traffic.fleet.flush()?;
        Ok(true)
    }
}
