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

use crate::measure::cpu;
use crate::measure::histogram::Spread;
use crate::report::Report;
use crate::scenario::traffic::{Group, Load, Phases, Publishers, Traffic};
use crate::scenario::{Server, limit};

/// What to measure.
pub struct Plan<'a> {
    /// One channel a connection.
    pub server: &'a Server,
    pub connections: usize,
    /// Bytes of a message's data.
    pub size: usize,
    pub load: Load,
    pub phases: Phases,
    /// Run the bare loops before and after.
    pub limit: Option<limit::Plan>,
    pub cores: &'a [usize],
}

/// Runs it and fills the report.
pub fn run(plan: &Plan<'_>, report: &mut Report) -> io::Result<()> {
    let bare = || plan.limit.as_ref().map(limit::measure).transpose();
    let before = bare()?;
    cpu::pin(plan.cores)?;
    let group = Group {
        members: plan.connections,
        channels: plan.connections,
        size: plan.size,
        load: plan.load,
    };
    let measured = Traffic::open(plan.server, &[group], Publishers::Members)?.run(plan.phases)?;
    let after = bare()?;
    let words = match plan.load {
        Load::Closed { in_flight } => format!("closed loop, {in_flight} in flight a connection"),
        load => load.words(),
    };
    let words = format!("{words}; {} connections, {} B", plan.connections, plan.size);
    measured.tell_verdict(plan.server, &words, report);
    let open = matches!(plan.load, Load::Open { .. });
    measured.window.tell(plan.server, open, report);
    let echoes = measured.window.deliveries() as f64 / measured.window.seconds();
    report.figure(
        "echoes_per_second",
        echoes,
        "/s",
        "round trips in the window",
    );
    if let (Some(before), Some(after)) = (before, after) {
        let send = Spread::of(&[before.send.runs, after.send.runs].concat());
        report.spread("limit_send_ns", &send, "ns", "bare send(2) of a message");
        let ratio = measured.window.ns_a_delivery() / send.median;
        let note = "server_ns_per_delivery over it";
        report.figure("ratio_to_send", ratio, "×", note);
    }
    Ok(())
}
