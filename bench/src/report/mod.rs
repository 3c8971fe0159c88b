//! What a run tells: a verdict, a table, the same as JSON.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

mod csv;
mod hdr;
pub mod html;
pub mod output;
pub mod progress;
#[cfg(test)]
pub mod sample;
pub mod table;

use crate::client::ledger::Faults;
use crate::measure::histogram::{Percentiles, Spread, Times};
use crate::measure::round_trip;
use crate::measure::series::Series;
use table::number;

/// A word that is a constant when written and owned when read back.
pub type Word = Cow<'static, str>;

/// The sampling thread may take this share of one core before the table says so.
const SAMPLING_SHARE: f64 = 0.01;

/// The machine a figure belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// What has to be of one state of the machine for a run to count: its cores next to each other, or apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All runs of a round: they are compared with each other.
    #[default]
    Round,
    /// Each run for itself: its ratios are taken within it.
    Run,
    /// Nothing: bytes do not depend on it.
    Any,
}

/// Which run of a suite a report is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The suite's names.
    pub scenario: String,
    pub server: String,
    /// From 1.
    pub round: usize,
    /// How often the round, or the run, was repeated for another state of the machine.
    pub repeat: usize,
    pub mode: Mode,
    /// False when there was no run: `invalid` says why.
    pub ran: bool,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// A name that stays: what `compare` looks for.
    pub key: Word,
    pub value: f64,
    pub unit: Word,
    /// How it was got, or its spread.
    pub note: String,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub scenario: Word,
    pub command: String,
    pub label: Option<String>,
    /// None outside a suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
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
    /// What `latency` was taken from: an HdrHistogram in nanoseconds, V2 compressed, base64.
    #[serde(default)]
    pub latency_histogram: Option<String>,
    #[serde(default)]
    pub series: Option<Series>,
}

/// What was typed. Where the program lies is nobody's business: reports are published.
fn command_line(arguments: impl IntoIterator<Item = String>) -> String {
    let mut words: Vec<String> = arguments.into_iter().collect();
    if let Some(program) = words.first_mut()
        && let Some((_, name)) = program.rsplit_once('/')
    {
        *program = name.to_owned();
    }
    words.join(" ")
}

impl Report {
    /// An empty report of `scenario`.
    pub fn new(scenario: &'static str, host: Host, label: Option<String>) -> Self {
        Self {
            schema: 1,
            scenario: scenario.into(),
            command: command_line(std::env::args()),
            label,
            place: None,
            host,
            verified: true,
            faults: Faults::default(),
            invalid: Vec::new(),
            remarks: Vec::new(),
            figures: Vec::new(),
            latency: None,
            lateness: None,
            latency_histogram: None,
            series: None,
        }
    }

    /// Adds a line. A ratio to nothing is no number, and JSON has none for it: a remark says so in its place.
    pub fn figure(
        &mut self,
        key: impl Into<Word>,
        value: f64,
        unit: &'static str,
        note: impl Into<String>,
    ) {
        let key = key.into();
        if !value.is_finite() {
            return self
                .remarks
                .push(format!("{key}: no figure, it came out as {value}"));
        }
        self.figures.push(Figure {
            key,
            value,
            unit: unit.into(),
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

    /// Takes over the latency of the run, if there is any.
    pub fn latency(&mut self, times: &Times) {
        if !times.is_empty() {
            self.latency = Some(times.percentiles());
            self.latency_histogram = Some(times.encode());
        }
    }

    /// Takes over the run's seconds.
    pub fn record(&mut self, series: Series) {
        let length = series.seconds.last().map_or(0.0, |second| second.end);
        let cost = series.cost;
        if cost.cpu_ns as f64 > SAMPLING_SHARE * length * 1e9 {
            self.remarks.push(format!(
                "sampling took {:.1} % of a core, {:.1} ms at most for one reading of PSS",
                cost.cpu_ns as f64 / length / 1e7,
                cost.pss_longest_ns as f64 / 1e6
            ));
        }
        self.series = Some(series);
    }

    /// Takes over the round trip of a cache line before and after the run, where there are two cores for it.
    pub fn round_trips(&mut self, before: Option<f64>, after: Option<f64>) {
        let (Some(before), Some(after)) = (before, after) else {
            return;
        };
        self.figure(
            round_trip::BEFORE,
            before,
            "ns",
            "a cache line there and back, before the run",
        );
        self.figure(round_trip::AFTER, after, "ns", "after it");
        if round_trip::differ(&[before, after]) {
            self.remarks.push(format!(
                "the cores moved apart or together: a cache line took {before:.0} ns before the run, {after:.0} ns after"
            ));
        }
    }

    /// The value of a figure.
    pub fn value(&self, key: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.key == key)?;
        Some(figure.value)
    }

    /// All that can be compared, each with its unit: the figures, and latency as figures.
    pub fn values(&self) -> Vec<(String, f64, String)> {
        let figures = self.figures.iter();
        let mut values: Vec<_> = figures
            .map(|figure| {
                (
                    figure.key.to_string(),
                    figure.value,
                    figure.unit.to_string(),
                )
            })
            .collect();
        for (at, ns) in self.latency.iter().flat_map(Percentiles::columns) {
            let key = format!("latency_{}_ms", at.replace('.', ""));
            values.push((key, ns as f64 / 1e6, "ms".to_owned()));
        }
        values
    }

    /// The round trips of a cache line that were taken, before and after.
    pub fn round_trips_taken(&self) -> Vec<f64> {
        let keys = [round_trip::BEFORE, round_trip::AFTER];
        keys.iter().filter_map(|key| self.value(key)).collect()
    }

    /// Leaves out the histograms, which are most of a report and which its percentiles sum up.
    pub fn without_histograms(mut self) -> Self {
        self.latency_histogram = None;
        for second in self
            .series
            .iter_mut()
            .flat_map(|series| &mut series.seconds)
        {
            second.histogram = None;
        }
        self
    }

    /// Reads what `--json` wrote.
    ///
    /// # Errors
    /// When the file cannot be read, or is something else.
    pub fn load(path: &Path) -> io::Result<Self> {
        let name = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = fs::read_to_string(path).map_err(|e| io::Error::new(e.kind(), name(&e)))?;
        serde_json::from_str(&text).map_err(|e| io::Error::other(name(&e)))
    }

    /// Takes over what went wrong.
    pub fn verdict(&mut self, faults: Faults) {
        self.verified = faults.is_verified();
        self.faults = faults;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_the_program_without_where_it_lies() {
        let arguments = [
            "/home/somebody/target/ringway-bench",
            "idle",
            "--json",
            "a/b",
        ];
        let line = command_line(arguments.map(str::to_owned));
        assert_eq!(line, "ringway-bench idle --json a/b");
    }

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

    #[test]
    fn what_is_no_number_is_a_remark_and_the_file_reads_back() {
        let mut report = Report::new("idle", Host::read("plain".to_owned()), None);
        report.figure("ratio_to_bare", 1.0 / 0.0, "×", "");
        assert_eq!(report.remarks.len(), 1);
        let text = output::to_json(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
