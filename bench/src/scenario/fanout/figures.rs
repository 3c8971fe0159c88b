//! From readings to figures: shares, costs a delivery, ratios, and what makes a run invalid.

use std::time::Instant;

use super::{Load, Plan};
use crate::client::ledger::Faults;
use crate::measure::histogram::{Spread, Times};
use crate::measure::recorder::Recording;
use crate::report::Report;
use crate::scenario::limit;

/// Own sends later than this at p99 make a timetable a fiction.
const LATE: u64 = 1_000_000;

/// A reading at one end of the window.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: Instant,
    pub(super) server_ns: u64,
    pub(super) deliveries: u64,
    pub(super) published: u64,
    pub(super) busy_ns: u64,
    /// How long the generator had no core.
    pub(super) waited_ns: u64,
}

pub(super) struct Measured {
    pub(super) start: Mark,
    pub(super) end: Mark,
    pub(super) faults: Faults,
    pub(super) recording: Recording,
    pub(super) lateness: Times,
    pub(super) server_pss: u64,
    pub(super) published: u64,
    pub(super) deliveries: u64,
    pub(super) stalled: bool,
    pub(super) blocked: u64,
    pub(super) exhausted: u64,
}

impl Measured {
    pub(super) fn seconds(&self) -> f64 {
        (self.end.at - self.start.at).as_secs_f64()
    }

    pub(super) fn server_share(&self) -> f64 {
        self.server_ns() as f64 / 1e9 / self.seconds()
    }

    pub(super) fn generator_share(&self) -> f64 {
        (self.end.busy_ns - self.start.busy_ns) as f64 / 1e9 / self.seconds()
    }

    /// The share of the window the generator was ready to run but had no core.
    pub(super) fn waiting_share(&self) -> f64 {
        (self.end.waited_ns - self.start.waited_ns) as f64 / 1e9 / self.seconds()
    }

    pub(super) fn ns_a_delivery(&self) -> f64 {
        let deliveries = (self.end.deliveries - self.start.deliveries).max(1);
        self.server_ns() as f64 / deliveries as f64
    }

    pub(super) fn server_ns(&self) -> u64 {
        self.end.server_ns.saturating_sub(self.start.server_ns)
    }

    /// Deliveries that were owed but had not arrived.
    pub(super) fn owed(&self, plan: &Plan<'_>, mark: &Mark) -> f64 {
        mark.published as f64 * plan.members as f64 / plan.channels as f64 - mark.deliveries as f64
    }
}

pub(super) fn tell(plan: &Plan<'_>, measured: &Measured, report: &mut Report) {
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
    report.record(measured.recording.clone());
    report.lateness = Some(lateness).filter(|times| times.count > 0);
}

pub(super) fn tell_ratios(
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
