//! What a run tells: a verdict, a table, the same as JSON.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::client::ledger::Faults;
use crate::measure::histogram::{Percentiles, Spread};

/// The machine a figure belongs to.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    /// What became of the generator's priority.
    pub priority: String,
}

impl Host {
    /// Reads it.
    pub fn read(priority: String) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.split_once(':')
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&text("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = memory
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0);
        Self {
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&text("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes * 1024,
            priority,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// A name that stays: what `compare` will look for.
    pub key: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// How it was got, or its spread.
    pub note: String,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub scenario: &'static str,
    pub command: String,
    pub label: Option<String>,
    pub host: Host,
    /// Nothing lost, duplicated, reordered, corrupted. `limit` has no deliveries and checks its bytes itself.
    pub verified: bool,
    pub faults: Faults,
    /// Why the figures must not be used, if so.
    pub invalid: Vec<String>,
    /// What a reader should know about them.
    pub remarks: Vec<String>,
    pub figures: Vec<Figure>,
    pub latency: Option<Percentiles>,
    pub lateness: Option<Percentiles>,
}

impl Report {
    /// An empty report of `scenario`.
    pub fn new(scenario: &'static str, host: Host, label: Option<String>) -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        Self {
            schema: 1,
            scenario,
            command: arguments.join(" "),
            label,
            host,
            verified: true,
            faults: Faults::default(),
            invalid: Vec::new(),
            remarks: Vec::new(),
            figures: Vec::new(),
            latency: None,
            lateness: None,
        }
    }

    /// Adds a line.
    pub fn figure(
        &mut self,
        key: &'static str,
        value: f64,
        unit: &'static str,
        note: impl Into<String>,
    ) {
        self.figures.push(Figure {
            key,
            value,
            unit,
            note: note.into(),
        });
    }

    /// Adds a line for a repeated measurement.
    pub fn spread(&mut self, key: &'static str, spread: &Spread, unit: &'static str, note: &str) {
        let note = format!(
            "[{}–{}] of {}; {note}",
            number(spread.min),
            number(spread.max),
            spread.runs.len()
        );
        self.figure(key, spread.median, unit, note);
    }

    /// Takes over what went wrong.
    pub fn verdict(&mut self, faults: Faults) {
        self.verified = faults.is_verified();
        self.faults = faults;
    }

    /// The table, verdict first.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| out.push_str(&(text + "\n"));
        line(format!(
            "ringway-bench {} on {} cores {}, Linux {}",
            self.scenario, self.host.cores, self.host.cpu, self.host.kernel
        ));
        line(format!("priority: {}", self.host.priority));
        if self.scenario != "limit" {
            line(self.faults.to_string());
        }
        self.invalid
            .iter()
            .for_each(|why| line(format!("INVALID RUN: {why}")));
        self.remarks
            .iter()
            .for_each(|remark| line(format!("note: {remark}")));
        let width = self
            .figures
            .iter()
            .map(|figure| figure.key.len())
            .max()
            .unwrap_or(0);
        for figure in &self.figures {
            let value = number(figure.value);
            line(format!(
                "  {:width$}  {value:>12} {:<6}  {}",
                figure.key, figure.unit, figure.note
            ));
        }
        for (name, times) in [
            ("latency", &self.latency),
            ("own sends late", &self.lateness),
        ] {
            if let Some(times) = times {
                let mut text = format!("  {name}, ms:");
                let columns = [
                    ("p50", times.p50_ns),
                    ("p90", times.p90_ns),
                    ("p99", times.p99_ns),
                    ("p99.9", times.p999_ns),
                    ("p99.99", times.p9999_ns),
                    ("max", times.max_ns),
                ];
                for (column, ns) in columns {
                    let _ = write!(text, " {column} {:.3}", ns as f64 / 1e6);
                }
                line(text);
            }
        }
        out
    }

    /// Writes the JSON.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(path, text + "\n")
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
    }
}

/// Four digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        1.0.. => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// A line a second on standard error.
pub struct Progress {
    next: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            next: Instant::now() + Duration::from_secs(1),
        }
    }

    pub fn tell(&mut self, words: impl FnOnce() -> String) {
        let now = Instant::now();
        if now >= self.next {
            eprintln!("{}", words());
            self.next = now + Duration::from_secs(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_stands_before_any_figure() {
        let mut report = Report::new("fanout", Host::read("plain".to_owned()), None);
        report.figure("server_ns_a_delivery", 271.0, "ns", "");
        report.verdict(Faults {
            lost: 2,
            ..Faults::default()
        });
        let text = report.render();
        assert!(
            text.find("NOT VERIFIED: 2 lost").unwrap() < text.find("server_ns_a_delivery").unwrap()
        );
        assert!(!report.verified);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["faults"]["lost"], 2);
        assert_eq!(json["figures"][0]["value"], 271.0);
    }
}
