//! The series of a run: each thread of the generator hands over its counters and a histogram once a second, another
//! thread does the rest.
//!
//! The first of the generator's threads says when a second ends; the others hand over theirs when they see it, and what they
//! all handed over is added up. Their loops pay one comparison a turn and, once a second, the swap of a histogram and a
//! message. Reading the server, percentiles, compression and the line on standard error are the sampling thread's; what
//! they cost is told.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// One second's worth, from a thread of the generator to the sampler.
struct Tick {
    thread: usize,
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

/// What the generator's threads and the sampler share.
#[derive(Default)]
struct Shared {
    /// Seconds that are over.
    ended: AtomicU64,
    /// Connections when all are open.
    expected: AtomicU64,
}

/// The half of one of the generator's threads.
pub struct Recorder {
    thread: usize,
    phase: Phase,
    role: Role,
    shared: Arc<Shared>,
    ticks: Sender<Tick>,
    emptied: Receiver<Times>,
}

enum Role {
    /// Says when a second ends.
    Lead {
        next: Instant,
        sampler: JoinHandle<Recording>,
    },
    /// Has handed over so many.
    Other { closed: u64 },
}

impl Recorder {
    /// Begins a run against the server's processes, in `Phase::Ramp`; one half for each of the generator's threads, the
    /// leading one first.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(pids: &[u32], threads: usize) -> io::Result<Vec<Self>> {
        let (ticks, hear) = channel();
        let (give_back, emptied): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel()).unzip();
        let began = Instant::now();
        let shared = Arc::new(Shared::default());
        let sampler = Sampler {
            pids: pids.to_vec(),
            shared: Arc::clone(&shared),
            waiting: (0..threads).map(|_| VecDeque::new()).collect(),
            latency: Times::new(),
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
        let sampler = thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || sampler.run(&hear))?;
        let lead = Role::Lead {
            next: began + SECOND,
            sampler,
        };
        let others = std::iter::repeat_with(|| Role::Other { closed: 0 });
        let roles = std::iter::once(lead).chain(others);
        let halves = roles.zip(emptied).enumerate();
        Ok(halves
            .map(|(thread, (role, emptied))| Self {
                thread,
                phase: Phase::Ramp,
                role,
                shared: Arc::clone(&shared),
                ticks: ticks.clone(),
                emptied,
            })
            .collect())
    }

    /// So many connections more will be open.
    pub fn expect(&self, connections: usize) {
        let more = connections as u64;
        self.shared.expected.fetch_add(more, Ordering::Relaxed);
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// True when a second is over and `close` should follow.
    pub fn is_due(&self, now: Instant) -> bool {
        match self.role {
            Role::Lead { next, .. } => now >= next,
            Role::Other { closed } => self.shared.ended.load(Ordering::Acquire) > closed,
        }
    }

    /// Ends the present second, and empties `latency` for the next. Threads that do not lead do it when it is due only.
    pub fn close(&mut self, now: Instant, latency: Option<&mut Times>, counts: Counts) {
        let latency = latency.map(|full| {
            // None has come back only when the thread is over a second late.
            let empty = self.emptied.try_recv().unwrap_or_else(|_| Times::new());
            std::mem::replace(full, empty)
        });
        let tick = Tick {
            thread: self.thread,
            at: now,
            phase: self.phase,
            counts,
            latency,
        };
        // A thread that has panicked is told by `finish`.
        let _ = self.ticks.send(tick);
        match &mut self.role {
            Role::Lead { next, .. } => {
                *next = now + SECOND;
                self.shared.ended.fetch_add(1, Ordering::Release);
            }
            Role::Other { closed } => *closed += 1,
        }
    }

    /// The seconds from now on are of `phase`; all threads have closed the last one before.
    pub fn begin(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Ends the run, whose last second is closed. The recording is the leading thread's, once the others have come here.
    pub fn finish(self) -> Option<Recording> {
        drop(self.ticks);
        match self.role {
            Role::Lead { sampler, .. } => Some(sampler.join().expect("the sampler does not panic")),
            Role::Other { .. } => None,
        }
    }
}

/// The thread's half.
struct Sampler {
    pids: Vec<u32>,
    shared: Arc<Shared>,
    /// What each thread has handed over of seconds that others have not yet.
    waiting: Vec<VecDeque<Tick>>,
    /// Of the second that is being added up.
    latency: Times,
    began: Instant,
    last: Instant,
    phase: Phase,
    counts: Counts,
    cpu_ns: Option<u64>,
    next_pss: Instant,
    series: Series,
    windows: Vec<Times>,
    /// To each thread.
    give_back: Vec<Sender<Times>>,
    progress: Progress,
}

impl Sampler {
    fn run(mut self, ticks: &Receiver<Tick>) -> Recording {
        // Anywhere but where the generator was pinned, if there is room; a refusal only means that it stays there.
        let _ = cpu::unpin();
        for tick in ticks {
            self.waiting[tick.thread].push_back(tick);
            while self.waiting.iter().all(|ticks| !ticks.is_empty()) {
                let ticks = self.waiting.iter_mut().filter_map(VecDeque::pop_front);
                let ticks = ticks.collect();
                self.take(ticks);
            }
        }
        self.progress.end();
        self.series.cost.cpu_ns = cpu::of_this_thread();
        Recording {
            series: self.series,
            windows: self.windows,
        }
    }

    /// Takes a second: a tick of each thread, the leading one's first.
    fn take(&mut self, ticks: Vec<Tick>) {
        let (at, phase) = (ticks[0].at, ticks[0].phase);
        let mut counts = Counts::default();
        for tick in ticks {
            counts.add(tick.counts);
            if let Some(mut times) = tick.latency {
                self.latency.add(&times);
                times.clear();
                // The generator has gone on to its end when nobody takes it.
                let _ = self.give_back[tick.thread].send(times);
            }
        }
        let seconds = (at - self.last).as_secs_f64();
        let cpu_ns = cpu_of(&self.pids);
        let kernel = memory::of_kernel().unwrap_or_default();
        let rate = |now: u64, before: u64| match seconds > 0.0 {
            true => now.saturating_sub(before) as f64 / seconds,
            false => 0.0,
        };
        let latency = Some(&self.latency).filter(|times| !times.is_empty());
        let second = Second {
            end: (at - self.began).as_secs_f64(),
            seconds,
            phase,
            connections: counts.connections,
            deliveries_per_second: rate(counts.deliveries, self.counts.deliveries),
            publications_per_second: rate(counts.publications, self.counts.publications),
            latency: latency.map(Times::percentiles),
            histogram: latency.map(Times::encode),
            server_cpu: cpu_ns
                .zip(self.cpu_ns)
                .filter(|_| seconds >= SHORTEST_CPU)
                .map(|(now, before)| rate(now, before) / 1e9),
            server_pss: self.read_pss(),
            slab: kernel.slab,
            tcp_memory: kernel.tcp_pages * memory::PAGE,
            tcp_in_use: kernel.tcp_in_use,
        };
        (self.last, self.counts, self.cpu_ns) = (at, counts, cpu_ns);
        let expected = self.shared.expected.load(Ordering::Relaxed);
        self.progress.show(|| second.line(expected));
        self.series.seconds.push(second);
        if phase == Phase::Measure && self.phase != Phase::Measure {
            self.windows.push(Times::new());
        }
        self.phase = phase;
        if let (Phase::Measure, Some(window)) = (phase, self.windows.last_mut()) {
            window.add(&self.latency);
        }
        self.latency.clear();
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

    fn start(threads: usize) -> Vec<Recorder> {
        Recorder::start(&[std::process::id()], threads).unwrap()
    }

    #[test]
    fn a_second_is_over_when_the_lead_says_so_and_is_the_sum_of_all_threads() {
        let mut halves = start(2);
        let (mut other, mut lead) = (halves.remove(1), halves.remove(0));
        let (mut of_lead, mut of_other) = (Times::new(), Times::new());
        assert!(!other.is_due(Instant::now() + 10 * SECOND));
        // Two seconds of the lead's, before the other comes to it.
        for ns in [1_000_000, 3_000_000] {
            of_lead.record(ns);
            lead.close(Instant::now(), Some(&mut of_lead), counts(10));
        }
        for ns in [5_000_000, 2_000_000] {
            of_other.record(ns);
            assert!(other.is_due(Instant::now()));
            other.close(Instant::now(), Some(&mut of_other), counts(100));
        }
        assert!(!other.is_due(Instant::now()));
        assert!(other.finish().is_none());
        let seconds = lead.finish().unwrap().series.seconds;
        let told = seconds.iter().map(|second| {
            let latency = second.latency.unwrap();
            (
                second.connections,
                latency.count,
                latency.max_ns / 1_000_000,
            )
        });
        assert_eq!(told.collect::<Vec<_>>(), [(6, 2, 5), (6, 2, 3)]);
        let deliveries: f64 = seconds
            .iter()
            .map(|second| second.deliveries_per_second * second.seconds)
            .sum();
        assert!((deliveries - 110.0).abs() < 1e-6, "{deliveries}");
    }

    #[test]
    fn a_phase_ends_a_second_and_each_window_counts_for_itself() {
        let mut recorder = start(1).remove(0);
        let mut latency = Times::new();
        let mut enter = |recorder: &mut Recorder, phase, ns, count| {
            latency.record(ns);
            recorder.close(Instant::now(), Some(&mut latency), counts(count));
            assert!(latency.is_empty(), "it is handed over");
            recorder.begin(phase);
        };
        enter(&mut recorder, Phase::WarmUp, 7_000_000, 0);
        enter(&mut recorder, Phase::Measure, 9_000_000, 1);
        let now = Instant::now();
        assert!(!recorder.is_due(now) && recorder.is_due(now + SECOND));
        enter(&mut recorder, Phase::Measure, 2_000_000, 2);
        enter(&mut recorder, Phase::Drain, 4_000_000, 3);
        enter(&mut recorder, Phase::Measure, 8_000_000, 4);
        enter(&mut recorder, Phase::Measure, 1_000_000, 5);
        let recording = recorder.finish().unwrap();

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
        assert!(seconds[1].deliveries_per_second > 0.0);
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
        let mut recorder = Recorder::start(&[child.id()], 1).unwrap().remove(0);
        recorder.close(Instant::now(), None, Counts::default());
        let recording = recorder.finish().unwrap();
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
