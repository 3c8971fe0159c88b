//! From runs to medians, spreads and ratios.

use serde::Serialize;

use super::file::Plan;
use crate::compare::direction::Direction;
use crate::measure::histogram::Spread;
use crate::report::{Host, Mode, Place, Report};

/// One run of one server.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: usize,
    pub scenario: String,
    pub server: String,
    /// The exit code of a run of its own.
    /// 1 when there was none.
    pub code: u8,
    /// The round trip of a cache line before and after.
    pub round_trips: Vec<f64>,
    /// True when all that had to see one state of the machine did.
    pub same_mode: bool,
    /// What was odd about it.
    pub remarks: Vec<String>,
    pub values: Vec<(String, f64, String)>,
    #[serde(skip)]
    host: Host,
}

impl Run {
    /// The essence of a report.
    pub fn new(place: &Place, code: u8, report: Report, mut remarks: Vec<String>) -> Self {
        if !report.verified {
            remarks.push(report.faults.to_string());
        }
        let kind = if place.ran { "invalid" } else { "failed" };
        remarks.extend(report.invalid.iter().map(|why| format!("{kind}: {why}")));
        Self {
            round: place.round,
            scenario: place.scenario.clone(),
            server: place.server.clone(),
            code,
            round_trips: report.round_trips_taken(),
            same_mode: true,
            remarks,
            values: report.values(),
            host: report.host,
        }
    }

    fn value(&self, key: &str) -> Option<f64> {
        let value = self.values.iter().find(|(name, ..)| name == key)?;
        Some(value.1)
    }
}

/// A server's part of a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    pub server: String,
    /// None when no run of it counts.
    pub spread: Option<Spread>,
    /// Over the first server, round by round; none for the first itself.
    pub ratio: Option<Spread>,
}

/// A figure of all servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub key: String,
    pub unit: String,
    pub cells: Vec<Cell>,
}

impl Line {
    /// Which way it is better, in words.
    pub fn direction(&self) -> String {
        Direction::of(&self.key).map_or_else(String::new, |direction| direction.to_string())
    }
}

/// A scenario's table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    pub scenario: String,
    /// The first is what the others are measured by.
    pub servers: Vec<String>,
    pub lines: Vec<Line>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Suite {
    pub schema: u32,
    pub host: Option<Host>,
    pub rounds: usize,
    pub same_mode: bool,
    pub servers: Vec<String>,
    pub remarks: Vec<String>,
    pub tables: Vec<Table>,
    pub runs: Vec<Run>,
}

impl Suite {
    /// Sums up. What is not verified or not valid does not count, nor does a round in which the machine changed its
    /// state when that was asked for.
    pub fn new(plan: &Plan, same_mode: bool, runs: Vec<Run>) -> Self {
        let servers: Vec<String> = plan.server.iter().map(|s| s.name.clone()).collect();
        let counts = |run: &&Run| run.code == 0 && (run.same_mode || !same_mode);
        let tables = plan.scenario.iter().map(|scenario| {
            let of_scenario = runs.iter().filter(|run| run.scenario == scenario.name);
            let counted: Vec<&Run> = of_scenario.filter(counts).collect();
            let servers: Vec<String> = servers
                .iter()
                .filter(|name| scenario.is_for(name))
                .cloned()
                .collect();
            Table {
                scenario: scenario.name.clone(),
                lines: lines(&servers, &counted),
                servers,
            }
        });
        let tables: Vec<Table> = tables.collect();
        let mut remarks = Vec::new();
        for run in &runs {
            let name = format!("round {}, {}, {}", run.round, run.scenario, run.server);
            let fate = if counts(&run) {
                ""
            } else {
                " (does not count)"
            };
            remarks.extend(
                run.remarks
                    .iter()
                    .map(|words| format!("{name}{fate}: {words}")),
            );
            // Once a round, at its first server; or each run that stands for itself.
            let scenario = plan.scenario.iter().find(|s| s.name == run.scenario);
            let alone = scenario.is_some_and(|s| s.mode != Mode::Round);
            let first = tables
                .iter()
                .any(|t: &Table| t.scenario == run.scenario && t.servers[0] == run.server);
            if !run.same_mode && (alone || first) {
                let fate = if same_mode {
                    "does not count"
                } else {
                    "counts all the same"
                };
                remarks.push(format!(
                    "round {}, {}: the machine changed its state, {fate}",
                    run.round, run.scenario
                ));
            }
        }
        Self {
            schema: 1,
            host: runs.first().map(|run| run.host.clone()),
            rounds: plan.rounds,
            same_mode,
            servers,
            remarks,
            tables,
            runs,
        }
    }
}

fn lines(servers: &[String], runs: &[&Run]) -> Vec<Line> {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for (key, _, unit) in runs.iter().flat_map(|run| &run.values) {
        if keys.iter().all(|(known, _)| known != key) {
            keys.push((key, unit));
        }
    }
    let value = |server: &str, round: usize, key: &str| {
        let run = runs
            .iter()
            .find(|run| run.server == server && run.round == round)?;
        run.value(key)
    };
    let mut rounds: Vec<usize> = runs.iter().map(|run| run.round).collect();
    rounds.sort_unstable();
    rounds.dedup();
    let cell = |key: &str, server: &String| {
        let values: Vec<f64> = rounds
            .iter()
            .filter_map(|&r| value(server, r, key))
            .collect();
        let ratio = |&round: &usize| {
            let (own, first) = (value(server, round, key)?, value(&servers[0], round, key)?);
            (first != 0.0).then(|| own / first)
        };
        let ratios: Vec<f64> = match *server == servers[0] {
            true => Vec::new(),
            false => rounds.iter().filter_map(ratio).collect(),
        };
        let spread = |values: Vec<f64>| (!values.is_empty()).then(|| Spread::of(&values));
        Cell {
            server: server.clone(),
            spread: spread(values),
            ratio: spread(ratios),
        }
    };
    keys.iter()
        .map(|(key, unit)| Line {
            key: (*key).to_owned(),
            unit: (*unit).to_owned(),
            cells: servers.iter().map(|server| cell(key, server)).collect(),
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::report::sample;
    use crate::suite::file::{ScenarioPlan, ServerPlan};

    pub fn suite(same_mode: bool) -> Suite {
        let server = |name: &str| ServerPlan {
            name: name.to_owned(),
            command: vec!["x".to_owned()],
            environment: Default::default(),
            ready: ([127, 0, 0, 1], 1).into(),
            ready_seconds: 1,
            stop_seconds: 1,
            arguments: Vec::new(),
        };
        let plan = Plan {
            rounds: 3,
            server: vec![server("a"), server("b <i>|")],
            scenario: vec![ScenarioPlan {
                name: "fan <b>".to_owned(),
                arguments: Vec::new(),
                servers: Vec::new(),
                mode: Mode::Round,
                rounds: None,
            }],
        };
        let run = |round: usize, server: &str, code, factor: f64| {
            let mut report = sample::report();
            report.figures.retain(|f| f.key == "server_ns_per_delivery");
            report.figures[0].value = 100.0 * factor;
            report.round_trips(Some(61.0), Some(61.0));
            let place = Place {
                scenario: "fan <b>".to_owned(),
                server: server.to_owned(),
                round,
                repeat: 0,
                mode: Mode::Round,
                ran: true,
            };
            let mut run = Run::new(&place, code, report, Vec::new());
            run.same_mode = round != 2;
            run
        };
        let b = "b <i>|";
        let runs = vec![
            run(1, "a", 0, 1.0),
            run(1, b, 0, 2.0),
            run(2, b, 0, 6.0),
            run(2, "a", 0, 2.0),
            run(3, "a", 0, 4.0),
            run(3, b, 3, 80.0),
        ];
        Suite::new(&plan, same_mode, runs)
    }

    #[test]
    fn ratios_are_of_one_round_and_what_is_invalid_does_not_count() {
        let suite = suite(false);
        let cells = &suite.tables[0].lines[0].cells;
        let runs = |spread: &Option<Spread>| spread.as_ref().map(|spread| spread.runs.clone());
        assert_eq!(runs(&cells[0].spread), Some(vec![100.0, 200.0, 400.0]));
        assert_eq!(runs(&cells[1].spread), Some(vec![200.0, 600.0]));
        assert_eq!(runs(&cells[1].ratio), Some(vec![2.0, 3.0]));
        assert_eq!(cells[0].ratio, None);
        assert!(
            suite
                .remarks
                .iter()
                .any(|r| r.contains("round 2") && r.contains("all the same"))
        );
    }

    #[test]
    fn asked_for_one_state_other_rounds_do_not_count() {
        let suite = suite(true);
        let cells = &suite.tables[0].lines[0].cells;
        assert_eq!(cells[1].ratio.as_ref().unwrap().runs, [2.0]);
        assert_eq!(cells[0].spread.as_ref().unwrap().runs, [100.0, 400.0]);
    }
}
