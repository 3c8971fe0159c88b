//! **What does the server pay for a delivery, and how late is it?**
//!
//! N subscribers in C channels, one publisher connection a few channels. Closed loop: W publications outstanding in
//! each channel, one is over when its last member has it: the most the server can do. Open loop: publications leave by
//! a timetable whatever the server does, and latency counts from when they were *due*: no coordinated omission.
//!
//! Every delivery of the whole run is checked: publisher, channel, sequence, checksum. The verdict comes first.

use std::io;

use crate::measure::histogram::Spread;
use crate::report::Report;
use crate::scenario::traffic::{Measured, Window};
use crate::scenario::{Load, Phases, Rooms, limit};

/// What to measure.
pub struct Plan {
    pub rooms: Rooms,
    pub phases: Phases,
    /// Run the bare loops before and after.
    pub limit: Option<limit::Plan>,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let before = plan.limit.as_ref().map(limit::measure).transpose()?;
    let rooms = &plan.rooms;
    let parts = rooms.on_each_thread(|traffic| traffic.run(plan.phases))?;
    let measured = Measured::of_all(parts);
    let after = plan.limit.clone().map(|limit| {
        limit::measure(&limit::Plan {
            as_served: Some(measured.window.bytes_a_delivery()).filter(|bytes| *bytes > 0),
            ..limit
        })
    });
    let after = after.transpose()?;
    let words = format!("{}; {}", rooms.load.words(), rooms.words());
    measured.tell_verdict(&rooms.server, &words, report);
    let open = matches!(rooms.load, Load::Open { .. });
    measured.window.tell(&rooms.server, open, report);
    if let (Some(before), Some(after)) = (before, after) {
        tell_ratios(plan, &measured.window, &before, &after, report);
    }
    Ok(())
}

/// What a delivery costs over the bare loops.
fn tell_ratios(
    plan: &Plan,
    window: &Window,
    before: &limit::Baselines,
    after: &limit::Baselines,
    report: &mut Report,
) {
    let delivery = window.ns_a_delivery();
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
    if let Some(after) = &after.uring_as_served {
        let note = format!(
            "bare io_uring send of {frames} frames of {} B, as the server's were, a frame; after the run only",
            window.bytes_a_delivery()
        );
        // How long those are is known only after the run.
        let none = Spread::default();
        tell(
            "limit_uring_as_served_ns",
            "ratio_to_uring_as_served",
            &none,
            after,
            frames,
            &note,
        );
    }
    if let Some(bare) = plan
        .limit
        .as_ref()
        .filter(|bare| bare.members < plan.rooms.members)
    {
        report.remarks.push(format!(
            "the bare loops ran on {} sockets: one descriptor each",
            bare.members
        ));
    }
    report.remarks.extend(before.drift(after));
}
