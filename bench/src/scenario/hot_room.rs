//! **Does a room hold a rate, and how late is everybody in it?**
//!
//! Fan-out into one room by timetable, at a size where one server core is busy: 18,000 members, 278 publications a second
//! of 100 B, 5 million deliveries a second. Every delivery is checked; what is lost, doubled or out of order is told
//! first. The rate is *held* when the deliveries of the window are those the timetable asked for.

use std::io;

use crate::report::Report;
use crate::scenario::{Load, fanout};

/// Runs it and fills the report.
pub fn run(plan: &fanout::Plan, report: &mut Report) -> io::Result<()> {
    fanout::run(plan, report)?;
    let rooms = &plan.rooms;
    let Load::Open { rate } = rooms.load else {
        return Ok(());
    };
    let asked = rate * rooms.members as f64 / rooms.server.channels as f64;
    let got = report.value("deliveries_per_second").unwrap_or(0.0);
    report.figure(
        "rate_held",
        got / asked,
        "×",
        "deliveries over those asked for",
    );
    Ok(())
}
