//! From readings to figures: shares, costs a delivery, and what makes a run invalid.

use std::time::Instant;

use crate::client::ledger::Faults;
use crate::measure::histogram::{Percentiles, Times};
use crate::measure::recorder::Recording;
use crate::measure::series::Series;
use crate::report::Report;
use crate::scenario::Server;

/// Own sends later than this at p99, nanoseconds, make a timetable a fiction.
pub(crate) const LATE: u64 = 1_000_000;

/// A reading at one end of a window. Times are the leading thread's, and of several threads' counts the sum is taken.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    /// Read by the leading thread.
    pub(crate) server_ns: u64,
    pub(crate) deliveries: u64,
    /// Bytes.
    pub(super) received: u64,
    pub(super) published: u64,
    pub(super) owed: u64,
}

impl Mark {
    fn add(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.received += other.received;
        self.published += other.published;
        self.owed += other.owed;
    }
}

/// How busy a thread of the generator was in a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Busy {
    pub(super) core: usize,
    /// In turns that had something to do.
    pub(super) busy_ns: u64,
    /// Ready to run, but the core was somebody else's.
    pub(super) waited_ns: u64,
}

/// What one measured window told: a thread, or all of them.
pub(crate) struct Window {
    pub(crate) start: Mark,
    pub(crate) end: Mark,
    pub(crate) stalled: bool,
    /// By group, when there are several.
    pub(crate) latencies: Vec<Times>,
    pub(crate) lateness: Times,
    pub(crate) server_pss: u64,
    /// A thread each.
    pub(crate) busy: Vec<Busy>,
}

impl Window {
    /// The window of all threads, the leading one first.
    pub(crate) fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        let all = parts.into_iter().reduce(|mut all, part| {
            all.start.add(part.start);
            all.end.add(part.end);
            all.stalled |= part.stalled;
            for (times, more) in all.latencies.iter_mut().zip(&part.latencies) {
                times.add(more);
            }
            all.lateness.add(&part.lateness);
            all.busy.extend(part.busy);
            all
        });
        all.expect("a run has a thread")
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.end.at - self.start.at).as_secs_f64()
    }

    /// The server's CPU time in it.
    pub(crate) fn server_ns(&self) -> u64 {
        self.end.server_ns.saturating_sub(self.start.server_ns)
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.end.deliveries - self.start.deliveries
    }

    pub(crate) fn ns_a_delivery(&self) -> f64 {
        self.server_ns() as f64 / self.deliveries().max(1) as f64
    }

    /// What the server sent for a delivery: data and envelope, rounded; 0 without deliveries.
    pub(crate) fn bytes_a_delivery(&self) -> usize {
        let bytes = self.end.received - self.start.received;
        (bytes as f64 / self.deliveries().max(1) as f64).round() as usize
    }

    /// A time in it as a share of one core.
    fn share(&self, ns: u64) -> f64 {
        ns as f64 / 1e9 / self.seconds()
    }

    /// The share of the window in which the busiest thread of the generator had something to do.
    fn busiest(&self) -> f64 {
        let busy = self.busy.iter().map(|busy| self.share(busy.busy_ns));
        busy.fold(0.0, f64::max)
    }

    /// What makes it invalid, and what disturbed it. `open` is when a timetable says what is published.
    pub(crate) fn judge(&self, open: bool, report: &mut Report) {
        if self.stalled {
            report
                .invalid
                .push("deliveries stopped though some were owed".to_owned());
        }
        let lateness = self.lateness.percentiles();
        if lateness.p99_ns > LATE {
            report.invalid.push(format!(
                "own sends were late: p99 {:.2} ms",
                lateness.p99_ns as f64 / 1e6
            ));
        }
        let second = self.deliveries() as f64 / self.seconds();
        let growth = self.end.owed.saturating_sub(self.start.owed) as f64;
        if open && growth > second {
            match self.busiest() > 0.97 {
                true => report.invalid.push(
                    "the generator's receive backlog grew by over a second's worth".to_owned(),
                ),
                false => report
                    .remarks
                    .push("the server fell behind by over a second's worth".to_owned()),
            }
        }
        for busy in &self.busy {
            let waiting = self.share(busy.waited_ns);
            if waiting > 0.01 {
                report.remarks.push(format!(
                    "other work took {:.1} % of the generator's core {}: latency is too high by it",
                    waiting * 100.0,
                    busy.core
                ));
            }
        }
    }

    /// Puts it into the report: figures, lateness, and what makes it invalid.
    pub(crate) fn tell(&self, server: &Server, open: bool, report: &mut Report) {
        self.judge(open, report);
        let second = self.deliveries() as f64 / self.seconds();
        let (busy, cpu) = (self.busiest(), self.share(self.server_ns()));
        let known = !server.pids.is_empty();
        if known && busy > 0.97 && cpu < 0.97 {
            report.remarks.push(format!(
                "the generator was the bottleneck ({:.0} % busy, server {:.0} %): CPU figures stand, rates do not",
                busy * 100.0,
                cpu * 100.0
            ));
        }
        report.figure("deliveries_per_second", second, "/s", "in the window");
        let published = (self.end.published - self.start.published) as f64 / self.seconds();
        report.figure("publications_per_second", published, "/s", "in the window");
        let bytes = self.bytes_a_delivery() as f64;
        let note = "received by members, frames and envelope included";
        report.figure("bytes_per_delivery", bytes, "B", note);
        if known {
            let note = "CPU, all threads of the server";
            report.figure("server_ns_per_delivery", self.ns_a_delivery(), "ns", note);
            report.figure("server_cpu", cpu, "cores", "");
            let pss = self.server_pss as f64 / 1048576.0;
            report.figure("server_pss", pss, "MiB", "at the window's end");
        }
        let all = self.busy.iter().map(|busy| busy.busy_ns).sum();
        let mut note = "time in turns that had something to do".to_owned();
        if self.busy.len() > 1 {
            let each = self.busy.iter().map(|busy| {
                let share = self.share(busy.busy_ns);
                format!("core {}: {share:.2}", busy.core)
            });
            note = format!("{note}; {}", each.collect::<Vec<_>>().join(", "));
        }
        report.figure("generator_cpu", self.share(all), "cores", note);
        report.lateness = Some(self.lateness.percentiles()).filter(|times| times.count > 0);
    }
}

/// What is left when a run is over: a thread's, or all threads'.
pub(crate) struct Ended {
    pub(crate) faults: Faults,
    pub(super) published: u64,
    pub(crate) deliveries: u64,
    /// What members had missed and were owed when they came back.
    pub(crate) recovered: u64,
    /// Members that came back and were told that not all is there.
    pub(crate) unrecovered: u64,
    pub(super) ignored: u64,
    pub(super) blocked: u64,
    pub(super) exhausted: u64,
    /// The leading thread has it for all.
    pub(super) recording: Option<Recording>,
}

impl Ended {
    /// What is left of all threads, the leading one first.
    pub(crate) fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        let all = parts.into_iter().reduce(|mut all, part| {
            all.faults.add(part.faults);
            all.published += part.published;
            all.deliveries += part.deliveries;
            all.recovered += part.recovered;
            all.unrecovered += part.unrecovered;
            all.ignored += part.ignored;
            all.blocked += part.blocked;
            all.exhausted += part.exhausted;
            all
        });
        all.expect("a run has a thread")
    }

    /// The run, second by second.
    pub(crate) fn series(&self) -> Series {
        let recording = self.recording.as_ref();
        recording.map_or_else(Series::default, |recording| recording.series.clone())
    }

    /// The latency of each window, in order.
    fn windows(&self) -> &[Times] {
        let recording = self.recording.as_ref();
        recording.map_or(&[], |recording| &recording.windows)
    }
}

/// A whole run with a window: a thread's, or all threads'.
pub(crate) struct Measured {
    pub(crate) window: Window,
    pub(crate) ended: Ended,
}

impl Measured {
    /// That of all threads, the leading one first.
    pub(crate) fn of_all(parts: impl IntoIterator<Item = Self>) -> Self {
        let (windows, ends): (Vec<_>, Vec<_>) = parts
            .into_iter()
            .map(|part| (part.window, part.ended))
            .unzip();
        Self {
            window: Window::of_all(windows),
            ended: Ended::of_all(ends),
        }
    }

    /// Deliveries that never came.
    pub(crate) fn lost(&self) -> u64 {
        self.ended.faults.lost
    }

    /// The latency of a run's first window and its last: without what the scenario is about, and with it.
    pub(crate) fn without_and_with(&self) -> (Percentiles, Percentiles) {
        let windows = self.ended.windows();
        let of = |window: Option<&Times>| window.map(Times::percentiles).unwrap_or_default();
        (of(windows.first()), of(windows.last()))
    }

    /// The verdict, what happened in each second, and what a reader should know. `words` say what was run.
    pub(crate) fn tell_verdict(&self, server: &Server, words: &str, report: &mut Report) {
        let ended = &self.ended;
        report.verdict(ended.faults.clone());
        report.record(ended.series());
        if let Some(window) = ended.windows().last() {
            report.latency(window);
        }
        report.remarks.push(format!(
            "{words}, {}; {} publications and {} deliveries checked in all",
            server.manners.words(),
            ended.published,
            ended.deliveries
        ));
        let counts = [
            (ended.blocked, "publications waited for the server to read"),
            (ended.ignored, "messages did not match and were passed over"),
            (ended.exhausted, "times the receive buffers ran out"),
        ];
        for (count, words) in counts.into_iter().filter(|(count, _)| *count > 0) {
            report.remarks.push(format!("{count} {words}"));
        }
    }
}
