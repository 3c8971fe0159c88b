//! The runs of a suite, and which of them count.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::short;
use crate::Failure;
use crate::measure::histogram::Spread;
use crate::measure::round_trip;
use crate::report::{Mode, Place, Report};

/// A scenario and a server, by the suite's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub scenario: &'static str,
    pub server: &'static str,
}

/// All runs that were kept, by scenario, server and round.
pub struct Runs(Vec<(Place, Report)>);

/// What has become of a run.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Counts,
    /// There was none.
    Failed(String),
    /// Something was lost, duplicated, reordered, corrupted.
    NotVerified(String),
    Invalid(String),
    /// The machine changed its state while its ratios were taken.
    Changed(String),
}

impl Runs {
    /// Reads all reports of a suite in a directory; others in it are none of ours.
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        let mut reports = Vec::new();
        let name =
            |e: std::io::Error| Failure::Environment(format!("{}: {e}", directory.display()));
        for entry in std::fs::read_dir(directory).map_err(name)? {
            let path = entry.map_err(name)?.path();
            if path.extension().is_some_and(|end| end == "json") {
                reports.push(Report::load(&path)?);
            }
        }
        let runs = Self::new(reports);
        match runs.0.is_empty() {
            true => Err(Failure::Usage(format!(
                "{}: no report of a suite in it",
                directory.display()
            ))),
            false => Ok(runs),
        }
    }

    /// Those that have a place in a suite.
    pub fn new(reports: Vec<Report>) -> Self {
        let placed = reports
            .into_iter()
            .filter_map(|report| Some((report.place.clone()?, report)));
        let mut runs: Vec<(Place, Report)> = placed.collect();
        let order = |place: &Place| (place.scenario.clone(), place.server.clone(), place.round);
        runs.sort_by_key(|(place, _)| order(place));
        Self(runs)
    }

    fn at(&self, at: At) -> impl Iterator<Item = &(Place, Report)> {
        self.0
            .iter()
            .filter(move |(place, _)| place.scenario == at.scenario && place.server == at.server)
    }

    /// The runs that count.
    pub fn counted(&self, at: At) -> impl Iterator<Item = (&Place, &Report)> {
        let counts = |(place, report): &&(Place, Report)| fate(place, report) == Fate::Counts;
        self.at(at)
            .filter(counts)
            .map(|(place, report)| (place, report))
    }

    /// How many there are, whether they count or not.
    pub fn count(&self, at: At) -> usize {
        self.at(at).count()
    }

    /// How many were not verified.
    pub fn not_verified(&self, at: At) -> usize {
        let runs = self.at(at);
        runs.filter(|(place, report)| matches!(fate(place, report), Fate::NotVerified(_)))
            .count()
    }

    /// How many there was nothing of: the server did not come up, or was gone.
    pub fn failed(&self, at: At) -> usize {
        self.at(at).filter(|(place, _)| !place.ran).count()
    }

    /// A figure of the runs that count.
    pub fn spread(&self, at: At, key: &str) -> Option<Spread> {
        self.spread_of(at, |report| value(report, key))
    }

    /// What `of` makes of the runs that count.
    pub fn spread_of(&self, at: At, of: impl Fn(&Report) -> Option<f64>) -> Option<Spread> {
        spread(self.counted(at).filter_map(|(_, report)| of(report)))
    }

    /// A figure over the same of another scenario or server, round by round, of one build; `one_mode`: where both runs saw
    /// one state of the machine.
    pub fn over(&self, of: At, base: At, key: &str, one_mode: bool) -> Option<Spread> {
        let ratios = self.counted(of).filter_map(|(place, report)| {
            let pair =
                |(p, r): &(&Place, &Report)| p.round == place.round && r.label == report.label;
            let (_, other) = self.counted(base).find(pair)?;
            let trips = [report.round_trips_taken(), other.round_trips_taken()].concat();
            let (own, other) = (value(report, key)?, value(other, key)?);
            let holds = other != 0.0 && !(one_mode && round_trip::differ(&trips));
            holds.then(|| own / other)
        });
        spread(ratios)
    }

    /// Where, when and of what all this is.
    pub fn about(&self) -> String {
        let distinct = |of: &dyn Fn(&Place, &Report) -> Option<String>| {
            let all: BTreeSet<String> = self.0.iter().filter_map(|(p, r)| of(p, r)).collect();
            all.into_iter().collect::<Vec<_>>().join("; ")
        };
        let labels = distinct(&|_, report| report.label.clone());
        let hosts = distinct(&|_, report| {
            let host = &report.host;
            let memory = host.memory_bytes as f64 / (1u64 << 30) as f64;
            Some(format!(
                "{} cores {}, {memory:.0} GiB, Linux {}",
                host.cores, host.cpu, host.kernel
            ))
        });
        let rounds = self.0.iter().map(|(place, _)| place.round).max();
        let counted = self.0.iter().filter(|(p, r)| fate(p, r) == Fate::Counts);
        let labels = if labels.is_empty() {
            "no label".to_owned()
        } else {
            labels
        };
        format!(
            "{labels}. {hosts}. {} rounds, {} runs, each against a server of its own; {} of them count.\n",
            rounds.unwrap_or(0),
            self.0.len(),
            counted.count()
        )
    }

    /// Each run that does not count, and why.
    pub fn not_counted(&self) -> String {
        let mut out = String::new();
        for (place, report) in &self.0 {
            let why = match fate(place, report) {
                Fate::Counts => continue,
                Fate::Failed(words) => format!("failed: {words}"),
                Fate::NotVerified(words) => words,
                Fate::Invalid(words) => format!("invalid: {words}"),
                Fate::Changed(words) => words,
            };
            // One line each, and nothing that Markdown would take for its own.
            let why = why.replace('\n', " / ").replace(['`', '|', '<'], " ");
            let Place {
                scenario,
                server,
                round,
                ..
            } = place;
            let _ = writeln!(out, "- {scenario}, {server}, round {round}: {why}");
        }
        match out.is_empty() {
            true => "Every run counts.\n".to_owned(),
            false => out,
        }
    }
}

fn fate(place: &Place, report: &Report) -> Fate {
    let trips = report.round_trips_taken();
    if !place.ran {
        Fate::Failed(report.invalid.join("; "))
    } else if !report.verified {
        Fate::NotVerified(report.faults.to_string())
    } else if !report.invalid.is_empty() {
        Fate::Invalid(report.invalid.join("; "))
    } else if place.mode != Mode::Any && round_trip::differ(&trips) {
        let trips: Vec<String> = trips.iter().map(|&ns| short(ns)).collect();
        Fate::Changed(format!(
            "the machine changed its state, a cache line took {} ns",
            trips.join(", then ")
        ))
    } else {
        Fate::Counts
    }
}

/// A figure, or a percentile of latency as `latency_p99_ms`.
fn value(report: &Report, key: &str) -> Option<f64> {
    let values = report.values();
    let (_, value, _) = values.into_iter().find(|(name, ..)| name == key)?;
    Some(value)
}

fn spread(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| Spread::of(&values))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::sample;

    /// A report of a run with these figures.
    pub fn run(at: At, round: usize, figures: &[(&'static str, f64)]) -> Report {
        let mut report = sample::report();
        report.label = Some("commit abc".to_owned());
        report.figures.clear();
        report.place = Some(Place {
            scenario: at.scenario.to_owned(),
            server: at.server.to_owned(),
            round,
            repeat: 0,
            mode: Mode::Run,
            ran: true,
        });
        for &(key, value) in figures {
            report.figure(key, value, "", "");
        }
        report
    }

    const A: At = At {
        scenario: "s",
        server: "a",
    };
    const B: At = At {
        scenario: "s",
        server: "b",
    };

    #[test]
    fn only_what_is_verified_valid_and_of_one_state_counts_and_the_rest_is_listed() {
        let mut lossy = run(A, 2, &[("x", 50.0)]);
        lossy.verified = false;
        lossy.faults.lost = 3;
        let mut invalid = run(A, 3, &[("x", 60.0)]);
        invalid.invalid.push("late | by\na second".to_owned());
        let mut changed = run(A, 4, &[("x", 70.0)]);
        changed.round_trips(Some(60.0), Some(300.0));
        let mut failed = run(A, 5, &[]);
        failed.place.as_mut().unwrap().ran = false;
        failed.invalid.push("did not come up".to_owned());
        let mut any = changed.clone();
        any.place.as_mut().unwrap().mode = Mode::Any;
        any.place.as_mut().unwrap().round = 6;
        let mut stranger = run(A, 9, &[("x", 1e9)]);
        stranger.place = None;
        let first = run(A, 1, &[("x", 4.0)]);
        let runs = Runs::new(vec![stranger, any, failed, changed, invalid, lossy, first]);
        assert_eq!(runs.spread(A, "x").unwrap().runs, [4.0, 70.0]);
        assert_eq!(
            (runs.count(A), runs.not_verified(A), runs.count(B)),
            (6, 1, 0)
        );
        let listed = runs.not_counted();
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(lines.len(), 4, "{listed}");
        assert!(lines[0].starts_with("- s, a, round 2: NOT VERIFIED: 3 lost"));
        assert_eq!(lines[1], "- s, a, round 3: invalid: late   by / a second");
        assert!(lines[2].contains("took 60.0, then 300 ns"), "{listed}");
        assert_eq!(lines[3], "- s, a, round 5: failed: did not come up");
        assert!(runs.about().contains("6 rounds, 6 runs") && runs.about().contains("2 of them"));
    }

    #[test]
    fn ratios_are_of_one_round_and_where_asked_of_one_state() {
        let near = |at, round, x| {
            let mut report = run(at, round, &[("x", x)]);
            report.round_trips(Some(60.0), Some(61.0));
            report
        };
        let mut far = run(A, 2, &[("x", 30.0)]);
        far.round_trips(Some(300.0), Some(301.0));
        let runs = Runs::new(vec![
            near(A, 1, 3.0),
            near(B, 1, 2.0),
            far,
            near(B, 2, 2.0),
            near(A, 3, 3.0),
        ]);
        assert_eq!(runs.over(A, B, "x", true).unwrap().runs, [1.5]);
        assert_eq!(runs.over(A, B, "x", false).unwrap().runs, [1.5, 15.0]);
        assert_eq!(runs.over(A, B, "y", false), None);
    }
}
