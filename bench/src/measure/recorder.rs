//! The series of a run: the generator hands over its counters and a histogram once a second, a thread does the rest.
//!
//! The generator's loop pays one comparison a turn and, once a second, the swap of a histogram and a message. Reading
//! the server, percentiles, compression and the line on standard error are the thread's; what they cost is told.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::cpu;
use super::histogram::Times;
use super::memory::{self, Memory};
use super::series::{Cost, Counts, Phase, Second, Series};
use crate::report::progress::Progress;

const SECOND: Duration = Duration::from_secs(1);
/// Reading PSS walks the server's page tables under its lock: at most one part in so many of the time goes to it.
const PSS_SHARE: u32 = 200;

/// CPU time is brought up to date each tick of 4 ms: over less than this it would be noise.
const SHORTEST_CPU: f64 = 0.1;

/// One second's worth, from the generator to the thread.
struct Tick {
    at: Instant,
    phase: Phase,
    counts: Counts,
    latency: Option<Times>,
}

/// What is left of a run's samples.
#[derive(Clone, Debug)]
pub struct Recording {
    pub series: Series,
    /// The latency of each `Phase::Measure`, in order.
    pub windows: Vec<Times>,
}

/// The generator's half.
pub struct Recorder {
    phase: Phase,
    next: Instant,
    ticks: Sender<Tick>,
    emptied: Receiver<Times>,
    thread: JoinHandle<Recording>,
}

impl Recorder {
    /// Begins a run against the server's processes, in `Phase::Ramp`.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(pids: &[u32], connections: usize) -> io::Result<Self> {
        let (ticks, hear) = channel();
        let (give_back, emptied) = channel();
        let began = Instant::now();
        let sampler = Sampler {
            pids: pids.to_vec(),
            expected: connections as u64,
            began,
            last: began,
            phase: Phase::Ramp,
            counts: Counts::default(),
            cpu_ns: cpu_of(pids),
            next_pss: began,
            series: Series {
                began: unix_now(),
                ..Series::default()
            },
            windows: Vec::new(),
            give_back,
            progress: Progress::to_standard_error(),
        };
        let thread = thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sampler.run(&hear))?;
        Ok(Self {
            phase: Phase::Ramp,
            next: began + SECOND,
            ticks,
            emptied,
            thread,
        })
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// True when a second is over and `close` should follow.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Ends the present second, and empties `latency` for the next.
    pub fn close(&mut self, now: Instant, latency: Option<&mut Times>, counts: Counts) {
        let latency = latency.map(|full| {
            // None has come back only when the thread is over a second late.
            let empty = self.emptied.try_recv().unwrap_or_else(|_| Times::new());
            std::mem::replace(full, empty)
        });
        let tick = Tick {
            at: now,
            phase: self.phase,
            counts,
            latency,
        };
        // A thread that has panicked is told by `finish`.
        let _ = self.ticks.send(tick);
        self.next = now + SECOND;
    }

    /// Ends the present second and phase, and begins `phase`.
    pub fn enter(&mut self, phase: Phase, latency: Option<&mut Times>, counts: Counts) {
        self.close(Instant::now(), latency, counts);
        self.phase = phase;
    }

    /// Ends the last second and the run.
    pub fn finish(mut self, latency: Option<&mut Times>, counts: Counts) -> Recording {
        self.close(Instant::now(), latency, counts);
        drop(self.ticks);
        self.thread.join().expect("the sampler does not panic")
    }
}

/// The thread's half.
struct Sampler {
    pids: Vec<u32>,
    /// Connections when all are open.
    expected: u64,
    began: Instant,
    last: Instant,
    phase: Phase,
    counts: Counts,
    cpu_ns: Option<u64>,
    next_pss: Instant,
    series: Series,
    windows: Vec<Times>,
    give_back: Sender<Times>,
    progress: Progress,
}

impl Sampler {
    fn run(mut self, ticks: &Receiver<Tick>) -> Recording {
        // Anywhere but where the generator was pinned, if there is room; a refusal only means that it stays there.
        let _ = cpu::unpin();
        for tick in ticks {
            self.take(tick);
        }
        self.progress.end();
        self.series.cost.cpu_ns = cpu::of_this_thread();
        Recording {
            series: self.series,
            windows: self.windows,
        }
    }

    fn take(&mut self, tick: Tick) {
        let seconds = (tick.at - self.last).as_secs_f64();
        let cpu_ns = cpu_of(&self.pids);
        let kernel = memory::of_kernel().unwrap_or_default();
        let rate = |now: u64, before: u64| match seconds > 0.0 {
            true => now.saturating_sub(before) as f64 / seconds,
            false => 0.0,
        };
        let latency = tick.latency.filter(|times| !times.is_empty());
        let second = Second {
            end: (tick.at - self.began).as_secs_f64(),
            seconds,
            phase: tick.phase,
            connections: tick.counts.connections,
            deliveries_per_second: rate(tick.counts.deliveries, self.counts.deliveries),
            publications_per_second: rate(tick.counts.publications, self.counts.publications),
            latency: latency.as_ref().map(Times::percentiles),
            histogram: latency.as_ref().map(Times::encode),
            server_cpu: cpu_ns
                .zip(self.cpu_ns)
                .filter(|_| seconds >= SHORTEST_CPU)
                .map(|(now, before)| rate(now, before) / 1e9),
            server_pss: self.read_pss(),
            slab: kernel.slab,
            tcp_memory: kernel.tcp_pages * memory::PAGE,
            tcp_in_use: kernel.tcp_in_use,
        };
        (self.last, self.counts, self.cpu_ns) = (tick.at, tick.counts, cpu_ns);
        self.progress.show(|| second.line(self.expected));
        self.series.seconds.push(second);
        if tick.phase == Phase::Measure && self.phase != Phase::Measure {
            self.windows.push(Times::new());
        }
        self.phase = tick.phase;
        if let Some(mut times) = latency {
            if let (Phase::Measure, Some(window)) = (tick.phase, self.windows.last_mut()) {
                window.add(&times);
            }
            times.clear();
            // The generator has gone on to its end when nobody takes it.
            let _ = self.give_back.send(times);
        }
    }

    fn read_pss(&mut self) -> Option<u64> {
        let start = Instant::now();
        if self.pids.is_empty() || start < self.next_pss {
            return None;
        }
        let pss = Memory::read_pss(&self.pids).ok();
        let took = start.elapsed();
        let cost: &mut Cost = &mut self.series.cost;
        cost.pss_reads += 1;
        cost.pss_ns += took.as_nanos() as u64;
        cost.pss_longest_ns = cost.pss_longest_ns.max(took.as_nanos() as u64);
        // A little under a second, so that a cheap reading comes with every tick but never twice with one.
        self.next_pss = start + (took * PSS_SHARE).max(SECOND * 9 / 10);
        pss
    }
}

impl Second {
    /// The line on standard error.
    fn line(&self, expected: u64) -> String {
        let mut line = format!(
            "{:>5.0} s  {:<7}  {}/{expected} open",
            self.end,
            self.phase.name(),
            self.connections
        );
        if self.deliveries_per_second > 0.0 || self.publications_per_second > 0.0 {
            line += &format!(
                "  {} deliveries/s  {} publications/s",
                short(self.deliveries_per_second),
                short(self.publications_per_second)
            );
        }
        if let Some(times) = &self.latency {
            line += &format!(
                "  p50 {:.3} ms  p99 {:.3} ms",
                times.p50_ns as f64 / 1e6,
                times.p99_ns as f64 / 1e6
            );
        }
        if let Some(cores) = self.server_cpu {
            line += &format!("  server {:.0} %", cores * 100.0);
        }
        if let Some(pss) = self.server_pss {
            line += &format!("  {:.1} MiB", pss as f64 / 1_048_576.0);
        }
        line
    }
}

/// None without a process, or when one is gone.
fn cpu_of(pids: &[u32]) -> Option<u64> {
    match pids {
        [] => None,
        _ => cpu::of_processes(pids).ok(),
    }
}

/// Three digits and a unit.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

fn unix_now() -> f64 {
    // A clock before 1970 is nobody's; the series then begins there.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(deliveries: u64) -> Counts {
        Counts {
            connections: 3,
            deliveries,
            publications: deliveries / 2,
        }
    }

    #[test]
    fn a_phase_ends_a_second_and_each_window_counts_for_itself() {
        let mut recorder = Recorder::start(&[std::process::id()], 3).unwrap();
        let mut latency = Times::new();
        recorder.enter(Phase::WarmUp, Some(&mut latency), counts(0));
        latency.record(9_000_000);
        recorder.enter(Phase::Measure, Some(&mut latency), counts(1));
        assert!(latency.is_empty(), "the warm-up is handed over");
        latency.record(2_000_000);
        let now = Instant::now();
        assert!(!recorder.is_due(now) && recorder.is_due(now + SECOND));
        recorder.close(now, Some(&mut latency), counts(2));
        latency.record(4_000_000);
        recorder.enter(Phase::Drain, Some(&mut latency), counts(3));
        latency.record(8_000_000);
        recorder.enter(Phase::Measure, Some(&mut latency), counts(4));
        latency.record(1_000_000);
        let recording = recorder.finish(Some(&mut latency), counts(5));

        let of = |window: &Times| {
            (
                window.percentiles().count,
                window.percentiles().max_ns / 1_000_000,
            )
        };
        let windows: Vec<_> = recording.windows.iter().map(of).collect();
        assert_eq!(windows, [(2, 4), (1, 1)]);
        let names: Vec<_> = recording.series.phases().iter().map(|p| p.0).collect();
        assert_eq!(
            names,
            [
                Phase::Ramp,
                Phase::WarmUp,
                Phase::Measure,
                Phase::Drain,
                Phase::Measure
            ]
        );
        let seconds = &recording.series.seconds;
        assert_eq!(seconds.len(), 6);
        for pair in seconds.windows(2) {
            assert!((pair[1].start() - pair[0].end).abs() < 1e-9);
        }
        assert!(seconds[1].deliveries_per_second > 0.0 && seconds[0].latency.is_none());
        // All of this took far less than a second, so PSS was read once.
        assert!(seconds[0].server_pss.is_some_and(|bytes| bytes > 0));
        assert_eq!(recording.series.cost.pss_reads, 1);
        assert!(
            seconds.iter().all(|second| second.server_cpu.is_none()),
            "over less than a tick it is noise"
        );
    }

    #[test]
    fn a_server_that_is_gone_leaves_holes() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let recorder = Recorder::start(&[child.id()], 0).unwrap();
        let recording = recorder.finish(None, Counts::default());
        let last = &recording.series.seconds[0];
        assert_eq!((last.server_pss, last.server_cpu), (None, None));
        assert!(last.slab > 0);
    }

    #[test]
    fn the_line_has_what_there_is() {
        let second = Second {
            end: 12.0,
            seconds: 1.0,
            phase: Phase::Measure,
            connections: 1001,
            deliveries_per_second: 2_310_000.0,
            publications_per_second: 2310.0,
            latency: None,
            histogram: None,
            server_cpu: Some(0.982),
            server_pss: Some(3 << 20),
            slab: 0,
            tcp_memory: 0,
            tcp_in_use: 0,
        };
        assert_eq!(
            second.line(1001),
            "   12 s  measure  1001/1001 open  2.31 M deliveries/s  2310 publications/s  server 98 %  3.0 MiB"
        );
    }
}
