//! From readings to figures: shares, costs a delivery, and what makes a run invalid.

use std::time::Instant;

use super::Window;
use crate::client::ledger::Faults;
use crate::measure::histogram::{Percentiles, Times};
use crate::measure::recorder::Recording;
use crate::report::Report;
use crate::scenario::Server;

/// Own sends later than this at p99 make a timetable a fiction.
const LATE: u64 = 1_000_000;

/// A reading at one end of the window.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) server_ns: u64,
    pub(crate) deliveries: u64,
    /// Bytes.
    pub(super) received: u64,
    pub(super) published: u64,
    pub(super) owed: u64,
    pub(super) busy_ns: u64,
    /// How long the generator had no core.
    pub(super) waited_ns: u64,
}

impl Window {
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

    /// The share of the window the generator had something to do.
    fn busy(&self) -> f64 {
        self.share(self.end.busy_ns - self.start.busy_ns)
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
            match self.busy() > 0.97 {
                true => report.invalid.push(
                    "the generator's receive backlog grew by over a second's worth".to_owned(),
                ),
                false => report
                    .remarks
                    .push("the server fell behind by over a second's worth".to_owned()),
            }
        }
        let waiting = self.share(self.end.waited_ns - self.start.waited_ns);
        if waiting > 0.01 {
            report.remarks.push(format!(
                "other work took {:.1} % of the generator's core: latency is too high by it",
                waiting * 100.0
            ));
        }
    }

    /// Puts it into the report: figures, lateness, and what makes it invalid.
    pub(crate) fn tell(&self, server: &Server, open: bool, report: &mut Report) {
        self.judge(open, report);
        let second = self.deliveries() as f64 / self.seconds();
        let (busy, cpu) = (self.busy(), self.share(self.server_ns()));
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
        if known {
            let note = "CPU, all threads of the server";
            report.figure("server_ns_per_delivery", self.ns_a_delivery(), "ns", note);
            report.figure("server_cpu", cpu, "cores", "");
            let pss = self.server_pss as f64 / 1048576.0;
            report.figure("server_pss", pss, "MiB", "at the window's end");
        }
        let note = "time in turns that had something to do";
        report.figure("generator_cpu", busy, "cores", note);
        report.lateness = Some(self.lateness.percentiles()).filter(|times| times.count > 0);
    }
}

/// A whole run.
pub(crate) struct Measured {
    pub(crate) window: Window,
    pub(super) faults: Faults,
    pub(super) published: u64,
    pub(super) deliveries: u64,
    pub(super) ignored: u64,
    pub(super) blocked: u64,
    pub(super) exhausted: u64,
    pub(super) recording: Recording,
}

impl Measured {
    /// Deliveries that never came.
    pub(crate) fn lost(&self) -> u64 {
        self.faults.lost
    }

    /// The latency of a run's first window and its last: without what the scenario is about, and with it.
    pub(crate) fn without_and_with(&self) -> (Percentiles, Percentiles) {
        let windows = &self.recording.windows;
        let of = |window: Option<&Times>| window.map(Times::percentiles).unwrap_or_default();
        (of(windows.first()), of(windows.last()))
    }

    /// The verdict, what happened in each second, and what a reader should know. `words` say what was run.
    pub(crate) fn tell_verdict(&self, server: &Server, words: &str, report: &mut Report) {
        report.verdict(self.faults.clone());
        report.record(self.recording.series.clone());
        if let Some(window) = self.recording.windows.last() {
            report.latency(window);
        }
        report.remarks.push(format!(
            "{words}, {}; {} publications and {} deliveries checked in all",
            server.manners.protocol.name(),
            self.published,
            self.deliveries
        ));
        let counts = [
            (self.blocked, "publications waited for the server to read"),
            (self.ignored, "messages did not match and were passed over"),
            (self.exhausted, "times the receive buffers ran out"),
        ];
        for (count, words) in counts.into_iter().filter(|(count, _)| *count > 0) {
            report.remarks.push(format!("{count} {words}"));
        }
    }
}
