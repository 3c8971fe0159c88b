//! What happened in each second of a run.

use serde::{Deserialize, Serialize};

use super::histogram::Percentiles;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Connections are opened.
    Ramp,
    /// The server comes to rest.
    Settle,
    /// Load that is not measured yet.
    WarmUp,
    /// The window.
    Measure,
    /// What is owed still comes in.
    Drain,
}

impl Phase {
    /// As a reader calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Settle => "settle",
            Self::WarmUp => "warm-up",
            Self::Measure => "measure",
            Self::Drain => "drain",
        }
    }
}

/// What the generator has counted since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open now.
    pub connections: u64,
    pub deliveries: u64,
    pub publications: u64,
}

impl Counts {
    /// Connections, before anything is published.
    pub fn of_connections(count: usize) -> Self {
        Self {
            connections: count as u64,
            ..Self::default()
        }
    }

    /// Adds what another thread has counted.
    pub fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.deliveries += other.deliveries;
        self.publications += other.publications;
    }
}

/// A second, or what was left of it when its phase ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its end, in seconds since the run began.
    pub end: f64,
    /// Its length.
    pub seconds: f64,
    pub phase: Phase,
    pub connections: u64,
    pub deliveries_per_second: f64,
    pub publications_per_second: f64,
    /// Of the deliveries of this second.
    pub latency: Option<Percentiles>,
    /// The same whole: an HdrHistogram, V2 compressed, base64.
    pub histogram: Option<String>,
    /// Cores' worth of CPU; none when a process was gone.
    pub server_cpu: Option<f64>,
    /// Bytes; none when it was not read in this second, or a process was gone.
    pub server_pss: Option<u64>,
    /// Bytes of kernel objects of the whole machine.
    pub slab: u64,
    /// Bytes TCP has accounted for data.
    pub tcp_memory: u64,
    /// TCP sockets in use on the machine.
    pub tcp_in_use: u64,
}

impl Second {
    /// Its beginning, in seconds since the run began.
    pub fn start(&self) -> f64 {
        self.end - self.seconds
    }
}

/// What the samples themselves took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU of the sampling thread.
    pub cpu_ns: u64,
    pub pss_reads: u64,
    /// All readings of PSS together, by the clock.
    pub pss_ns: u64,
    pub pss_longest_ns: u64,
}

/// A run, second by second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Unix time the run began at.
    pub began: f64,
    pub seconds: Vec<Second>,
    pub cost: Cost,
}

impl Series {
    /// Each phase with its beginning and end, in order.
    pub fn phases(&self) -> Vec<(Phase, f64, f64)> {
        let mut phases: Vec<(Phase, f64, f64)> = Vec::new();
        for second in &self.seconds {
            match phases.last_mut() {
                Some((phase, _, end)) if *phase == second.phase => *end = second.end,
                _ => phases.push((second.phase, second.start(), second.end)),
            }
        }
        phases
    }
}
