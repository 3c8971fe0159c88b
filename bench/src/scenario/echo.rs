//! **What does a round trip cost, and how long does it take?**
//!
//! N connections to a path that sends back what it gets. Closed loop: so many outstanding on each connection, the next
//! leaves when one is back: the most the server can do, and whether it is fair (p99 against p50). Open loop: messages
//! leave by timetable over all connections in turn, and latency counts from when each was due.
//!
//! Each connection's messages carry its own number, sequence and checksum: echoes that are lost, doubled, swapped or
//! changed are faults.
//!
//! With the bare loops, which run before and after on as many sockets, a round trip has a ratio to one send(2).

use std::io;

use crate::measure::histogram::Spread;
use crate::report::Report;
use crate::scenario::traffic::Measured;
use crate::scenario::{Load, Phases, Rooms, limit, words_of_threads};

/// What to measure.
pub struct Plan {
    /// One channel a connection, its member publishes.
    pub rooms: Rooms,
    pub phases: Phases,
    /// Run the bare loops before and after.
    pub limit: Option<limit::Plan>,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let rooms = &plan.rooms;
    let bare = || plan.limit.as_ref().map(limit::measure).transpose();
    let before = bare()?;
    let parts = rooms.on_each_thread(|traffic| traffic.run(plan.phases))?;
    let measured = Measured::of_all(parts);
    let after = bare()?;
    let words = match rooms.load {
        Load::Closed { in_flight } => format!("closed loop, {in_flight} in flight a connection"),
        load => load.words(),
    };
    let words = format!(
        "{words}; {} connections, {}{}",
        rooms.members,
        rooms.body.words(),
        words_of_threads(&rooms.cores)
    );
    measured.tell_verdict(&rooms.server, &words, report);
    let open = matches!(rooms.load, Load::Open { .. });
    measured.window.tell(&rooms.server, open, report);
    let echoes = measured.window.deliveries() as f64 / measured.window.seconds();
    report.figure(
        "echoes_per_second",
        echoes,
        "/s",
        "round trips in the window",
    );
    if let (Some(before), Some(after)) = (before, after) {
        let send = Spread::of(&[&before.send.runs[..], &after.send.runs].concat());
        report.spread("limit_send_ns", &send, "ns", "bare send(2) of a message");
        let ratio = measured.window.ns_a_delivery() / send.median;
        let note = "server_ns_per_delivery over it";
        report.figure("ratio_to_send", ratio, "×", note);
        report.remarks.extend(before.drift(&after));
    }
    Ok(())
}
