//! **Does a room hold a rate, and how late is everybody in it?**
//!
//! Fan-out into one room by timetable, at a size where one server core is busy: 18,000 members, 278 publications a second
//! of 100 B, 5 million deliveries a second. Every delivery is checked; what is lost, doubled or out of order is told
//! first. The rate is *held* when the deliveries of the window are those the timetable asked for.

use std::io;

use crate::report::Report;
use crate::scenario::{Load, fanout};

/// The defaults.
pub const MEMBERS: usize = 18_000;
pub const RATE: f64 = 278.0;
pub const SIZE: usize = 100;

/// Runs it and fills the report.
pub fn run(plan: &fanout::Plan<'_>, report: &mut Report) -> io::Result<()> {
    fanout::run(plan, report)?;
    let Load::Open { rate } = plan.load else {
        return Ok(());
    };
    let asked = rate * plan.members as f64 / plan.server.channels as f64;
    let got = report.value("deliveries_per_second").unwrap_or(0.0);
    report.figure(
        "rate_held",
        got / asked,
        "×",
        "deliveries over those asked for",
    );
    Ok(())
}
