//! **What does a mix of everything cost, and who suffers from whom?**
//!
//! Groups of connections from a definition: each with channels, a rate and size of publications, a manner of reading, and
//! members that reconnect. All run at once; latency is told by group. Each delivery is checked; to members that read
//! slowly nothing is owed.

use std::io;

use serde::Deserialize;

use crate::client::payload::{self, Body};
use crate::report::Report;
use crate::scenario::churn::Churn;
use crate::scenario::slow::Readers;
use crate::scenario::threads::{self, Worker};
use crate::scenario::traffic::{self, Load, Measured, Phases, Publishers, Traffic};
use crate::scenario::{Server, words_of_threads};

/// The groups, as they stand in a TOML file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    #[serde(rename = "group")]
    pub groups: Vec<Group>,
}

/// Connections that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    pub connections: usize,
    /// Members are spread evenly over them.
    #[serde(default = "one")]
    pub channels: usize,
    /// Publications a second, over all channels of the group.
    #[serde(default)]
    pub rate: f64,
    /// Bytes of a publication's data.
    #[serde(default = "hundred")]
    pub size: usize,
    /// Bytes a second each member reads; everything without.
    pub reads: Option<u32>,
    /// Members that reconnect a second.
    #[serde(default)]
    pub reconnects: f64,
}

fn one() -> usize {
    1
}

fn hundred() -> usize {
    100
}

/// What to measure.
pub struct Plan {
    pub server: Server,
    pub definition: Definition,
    pub publishers: usize,
    pub phases: Phases,
    pub cores: Vec<usize>,
}

impl Definition {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it: an unknown key, a value that cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let definition: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        let smallest = payload::SMALLEST;
        for group in &definition.groups {
            let name = &group.name;
            let wrong = |words: &str| Err(format!("group {name}: {words}"));
            if group.channels == 0 || group.connections < group.channels {
                return wrong("there must be a channel, and a connection for each");
            }
            if group.size < smallest {
                return wrong(&format!("size is at least {smallest}"));
            }
            let rates = [group.rate, group.reconnects];
            if rates.iter().any(|rate| !(rate.is_finite() && *rate >= 0.0)) {
                return wrong("rate and reconnects are not negative");
            }
            if group.reads.is_some() && group.reconnects > 0.0 {
                return wrong("either reads or reconnects");
            }
        }
        match definition.groups.is_empty() {
            true => Err("there is no [[group]]".to_owned()),
            false => Ok(definition),
        }
    }
}

/// Runs it and fills the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let (server, groups) = (&plan.server, &plan.definition.groups);
    let parts = threads::run(&plan.cores, &server.pids, |worker| mix(plan, worker))?;
    let reconnects: u64 = parts.iter().map(|(_, reconnects)| reconnects).sum();
    let measured = Measured::of_all(parts.into_iter().map(|(measured, _)| measured));
    let connections: usize = groups.iter().map(|group| group.connections).sum();
    let words = format!(
        "{} groups, {connections} connections{}",
        groups.len(),
        words_of_threads(&plan.cores)
    );
    measured.tell_verdict(server, &words, report);
    measured.window.tell(server, true, report);
    for (group, times) in groups.iter().zip(&measured.window.latencies) {
        let times = times.percentiles();
        let note = format!(
            "{} deliveries; p50 {:.3} ms, max {:.3} ms",
            times.count,
            times.p50_ns as f64 / 1e6,
            times.max_ns as f64 / 1e6
        );
        report.figure(
            format!("p99_of_{}", group.name),
            times.p99_ns as f64 / 1e6,
            "ms",
            note,
        );
    }
    report.figure("reconnects", reconnects as f64, "", "answered");
    Ok(())
}

/// The mix on one thread, and how many of its members have reconnected.
fn mix(plan: &Plan, worker: Worker) -> io::Result<(Measured, u64)> {
    let share = worker.share;
    let groups: Vec<traffic::Group> = plan.definition.groups.iter().map(layout).collect();
    let publishers = Publishers::Apart(plan.publishers);
    let mut traffic = Traffic::open(worker, &plan.server, &groups, publishers)?;
    traffic.room.events = Some(Vec::new());
    let (mut churns, mut readers, mut first) = (Vec::new(), Vec::new(), 0);
    for group in &plan.definition.groups {
        let members = share.range(first..first + group.connections);
        first += group.connections;
        if group.reconnects > 0.0 {
            let rate = group.reconnects * members.len() as f64 / group.connections as f64;
            churns.push(Churn::all_inside(members.clone(), rate));
        }
        if let Some(bytes) = group.reads {
            let slow = Readers::new(members.collect(), bytes);
            slow.slow_down(&mut traffic)?;
            readers.push(slow);
        }
    }
    churns.iter_mut().for_each(Churn::start);
    let window = traffic.measure(plan.phases, |traffic| {
        let events = traffic.room.events.replace(Vec::new()).unwrap_or_default();
        let mut any = false;
        for churn in &mut churns {
            for (index, event) in &events {
                churn.hear(traffic, *index, event);
            }
            any |= churn.turn(traffic)?;
        }
        for readers in &mut readers {
            any |= readers.turn(traffic)?;
        }
        Ok(any)
    })?;
    traffic.drain()?;
    let reconnects = churns.iter().map(|churn| churn.joined).sum();
    Ok((traffic.settle(window)?, reconnects))
}

fn layout(group: &Group) -> traffic::Group {
    traffic::Group {
        members: group.connections,
        channels: group.channels,
        body: Body::Size(group.size),
        load: match group.rate {
            0.0 => Load::Silent,
            rate => Load::Open { rate },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_impossible_values_are_errors() {
        let parse = |group: &str| Definition::parse(&format!("[[group]]\n{group}"));
        let good = "name = \"a\"\nconnections = 2\n";
        assert_eq!(parse(good).unwrap().groups[0].size, 100);
        for bad in [
            "colour = 1",
            "channels = 3",
            "size = 10",
            "rate = -1",
            "reads = 5\nreconnects = 1",
        ] {
            assert!(parse(&format!("{good}{bad}")).is_err(), "{bad}");
        }
        assert!(Definition::parse("group = []").is_err());
    }
}
