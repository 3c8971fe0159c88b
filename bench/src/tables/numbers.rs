//! What Ringway is held to: a bar and an aim for each row, and whether the runs meet them.

use super::runs::{At, Runs};
use super::{markdown, short, spread_words};
use crate::measure::histogram::Spread;

/// What a median has to be.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

use Bound::{AtLeast, AtMost, Below};

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            AtMost(bound) => value <= bound,
            AtLeast(bound) => value >= bound,
            Below(bound) => value < bound,
        }
    }

    fn words(self) -> String {
        match self {
            AtMost(bound) => format!("≤ {bound}"),
            AtLeast(bound) => format!("≥ {bound}"),
            Below(bound) => format!("< {bound}"),
        }
    }
}

/// Where a row's figure comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Figure(At, &'static str),
    /// Over the same figure elsewhere, round by round; true: where both saw one state of the machine.
    Over(At, At, &'static str, bool),
}

use Source::{Figure, Over};

impl Source {
    fn spread(self, runs: &Runs) -> Option<Spread> {
        match self {
            Figure(at, key) => runs.spread(at, key),
            Over(of, base, key, one_mode) => runs.over(of, base, key, one_mode),
        }
    }

    fn places(self) -> Vec<At> {
        match self {
            Figure(at, _) => vec![at],
            Over(of, base, ..) => vec![of, base],
        }
    }
}

/// A figure beside the one that counts: its key, a factor, the unit after it.
type Beside = (&'static str, f64, &'static str);

struct Row {
    what: &'static str,
    elsewhere: &'static str,
    unit: &'static str,
    bar: Option<Bound>,
    aim: Option<Bound>,
    source: Source,
    beside: &'static [Beside],
}

const fn at(scenario: &'static str, server: &'static str) -> At {
    At { scenario, server }
}

/// The suite's names (bench/numbers.toml).
const ONE_ROOM: At = at("idle, one room", "ringway idle");
const MANY: At = at("idle, 100,000", "ringway idle 8 shards");
const ROOMS: At = at("idle, rooms of 10", "ringway idle 16 shards");
const W1: At = at("one in flight", "ringway");
const W16: At = at("16 in flight", "ringway");
const TWO_SHARDS: At = at("16 in flight", "ringway 2 shards");
const PROTOBUF: At = at("16 in flight, Protobuf", "ringway");
const W32: At = at("32 in flight", "ringway");
const W64: At = at("64 in flight", "ringway");
const W128: At = at("128 in flight", "ringway");
const MEMBERS: At = at("10,000 members", "ringway");
const AT_10_000: At = at("growth", "ringway 10,000 members");
const AT_100_000: At = at("growth", "ringway 100,000 members");
const HOT: At = at("hot room", "ringway");
const HOTTER: At = at("hot room, 15 M/s", "ringway");
const SLOW: At = at("slow", "ringway lag 8 MiB");
const ALONE: At = at("slow, the 900 alone", "ringway lag 8 MiB");
const ECHO: At = at("echo", "ringway echo");
const STORM: At = at("storm", "ringway");
const RECOVER: At = at("recover", "ringway");

const DELIVERY: Beside = ("server_ns_per_delivery", 1e-3, "µs");
const RATE: Beside = ("deliveries_per_second", 1e-6, "M/s");
const TO_SEND: Beside = ("ratio_to_send", 1.0, "× send(2)");

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { what: "idle connection, 15,000 in one room, 1 shard, user space", elsewhere: "uWebSockets 507; Nchan 10,400; Centrifugo 27,000 (its own figure)",
        unit: "B", bar: Some(AtMost(256.0)), aim: Some(AtMost(128.0)), source: Figure(ONE_ROOM, "server_pss_per_connection"), beside: &[] },
    Row { what: "the same, user and kernel, one end", elsewhere: "a bare accepted socket: 1",
        unit: "× bare", bar: Some(AtMost(1.15)), aim: Some(AtMost(1.10)), source: Figure(ONE_ROOM, "ratio_to_bare"),
        beside: &[("server_user_and_kernel", 1.0, "B"), ("bare_socket", 1.0, "B bare")] },
    Row { what: "100,000 idle in 10,000 rooms of 10, 16 shards, user space", elsewhere: "",
        unit: "B", bar: Some(AtMost(352.0)), aim: Some(AtMost(256.0)), source: Figure(ROOMS, "server_pss_per_connection"), beside: &[] },
    Row { what: "idle CPU a connection, 100,000 in one room, 8 shards, 25 s pings", elsewhere: "Centrifugo 4,700 (its own figure)",
        unit: "ns/s", bar: Some(AtMost(600.0)), aim: Some(AtMost(400.0)), source: Figure(MANY, "server_cpu_per_connection"), beside: &[] },
    Row { what: "one message, one send a member, 1,000 members, 100 B", elsewhere: "uWebSockets 1.13 × send(2); bare io_uring 0.86 × send(2)",
        unit: "× bare io_uring", bar: Some(AtMost(1.05)), aim: Some(AtMost(1.02)), source: Figure(W1, "ratio_to_uring"), beside: &[DELIVERY, TO_SEND] },
    Row { what: "the same over bare sends as long as the server's", elsewhere: "",
        unit: "× bare io_uring", bar: None, aim: None, source: Figure(W1, "ratio_to_uring_as_served"), beside: &[] },
    Row { what: "16 in flight, 1,000 members, 100 B, JSON", elsewhere: "uWebSockets 0.082",
        unit: "× send(2)", bar: Some(AtMost(0.075)), aim: Some(AtMost(0.06)), source: Figure(W16, "ratio_to_send"), beside: &[DELIVERY, RATE] },
    Row { what: "the same over bare sends as long as the server's", elsewhere: "",
        unit: "× bare io_uring", bar: None, aim: None, source: Figure(W16, "ratio_to_uring_as_served"), beside: &[] },
    Row { what: "16 in flight, 1,000 members, 100 B, Protobuf", elsewhere: "uWebSockets 0.082",
        unit: "× send(2)", bar: Some(AtMost(0.075)), aim: Some(AtMost(0.06)), source: Figure(PROTOBUF, "ratio_to_send"), beside: &[DELIVERY, RATE] },
    Row { what: "32 in flight: a delivery over one at 16", elsewhere: "uWebSockets 0.7 (3.4 M/s)",
        unit: "×", bar: Some(AtMost(1.0)), aim: Some(Below(1.0)), source: Over(W32, W16, "ratio_to_send", false), beside: &[TO_SEND, RATE] },
    Row { what: "64 in flight: over one at 32", elsewhere: "uWebSockets 12.7 (0.27 M/s)",
        unit: "×", bar: Some(AtMost(1.0)), aim: Some(Below(1.0)), source: Over(W64, W32, "ratio_to_send", false), beside: &[TO_SEND, RATE] },
    Row { what: "128 in flight: over one at 64", elsewhere: "uWebSockets 1.3 (0.20 M/s)",
        unit: "×", bar: Some(AtMost(1.0)), aim: Some(Below(1.0)), source: Over(W128, W64, "ratio_to_send", false), beside: &[TO_SEND, RATE] },
    Row { what: "10,000 members, 16 in flight", elsewhere: "uWebSockets 0.067 (1.9 M/s)",
        unit: "× send(2)", bar: Some(AtMost(0.067)), aim: Some(AtMost(0.06)), source: Figure(MEMBERS, "ratio_to_send"), beside: &[DELIVERY, RATE] },
    Row { what: "hot room, 18,000 members × 278/s × 100 B: deliveries over those asked for", elsewhere: "",
        unit: "×", bar: Some(AtLeast(0.99)), aim: None, source: Figure(HOT, "rate_held"), beside: &[DELIVERY, RATE] },
    Row { what: "the same: p99", elsewhere: "",
        unit: "ms", bar: Some(AtMost(300.0)), aim: Some(AtMost(200.0)), source: Figure(HOT, "latency_p99_ms"), beside: &[] },
    Row { what: "hot room at 833/s (15 M/s): deliveries over those asked for", elsewhere: "",
        unit: "×", bar: None, aim: Some(AtLeast(0.99)), source: Figure(HOTTER, "rate_held"), beside: &[DELIVERY, RATE] },
    Row { what: "900 beside 100 that never read, 1 KiB × 2,000/s, 30 s, receive buffers of 256 KiB: lost by the 900", elsewhere: "20 s after the end uWebSockets owes 37 %, ws 21 %; axum loses 91 %",
        unit: "deliveries", bar: Some(AtMost(0.0)), aim: None, source: Figure(SLOW, "healthy_lost"),
        beside: &[RATE, ("publications_per_second", 1.0, "publications/s"), ("slow_cut", 1.0, "cut")] },
    Row { what: "the same: p99 of the 900 over that of 900 alone", elsewhere: "",
        unit: "×", bar: Some(AtMost(1.1)), aim: None, source: Over(SLOW, ALONE, "latency_p99_ms", true),
        beside: &[("latency_p99_ms", 1.0, "ms"), ("healthy_p99_without", 1.0, "ms while all 1,000 read")] },
    Row { what: "the same: the server's memory at most (PSS), `limits.log_bytes` 256 MiB", elsewhere: "nats-server 2,000",
        unit: "MiB", bar: Some(AtMost(256.0)), aim: None, source: Figure(SLOW, "server_pss_most"), beside: &[] },
    Row { what: "echo, 1,000 connections", elsewhere: "uWebSockets 1.48 (7.4 µs); tuned axum 8.2 µs; raw io_uring 7.7 to 8.0 µs",
        unit: "× send(2)", bar: Some(AtMost(1.48)), aim: Some(AtMost(1.35)), source: Figure(ECHO, "ratio_to_send"),
        beside: &[DELIVERY, ("echoes_per_second", 1e-3, "k/s")] },
    Row { what: "9,000 back: end, accept, upgrade, connect, subscribe", elsewhere: "uWebSockets 24 µs for accept, upgrade and join",
        unit: "× bare accept and upgrade", bar: Some(AtMost(1.5)), aim: Some(AtMost(1.2)), source: Figure(STORM, "ratio_to_bare"),
        beside: &[("server_us_per_connection", 1.0, "µs"), ("all_back", 1.0, "s")] },
    // 0.8 of the speed.
    Row { what: "recover, 10,000 clients × 100 missed: a recovered delivery over one of the same bytes to a member that was there", elsewhere: "",
        unit: "×", bar: Some(AtMost(1.25)), aim: None, source: Figure(RECOVER, "ratio_to_fan_out"),
        beside: &[("server_ns_per_recovered", 1.0, "ns"), ("recovered_per_second", 1e-6, "M/s")] },
    // The aim is "flat".
    Row { what: "growth: CPU a delivery at 100,000 members over 10,000, 16 in flight, 8 shards", elsewhere: "",
        unit: "×", bar: Some(AtMost(1.2)), aim: Some(AtMost(1.02)), source: Over(AT_100_000, AT_10_000, "server_ns_per_delivery", true), beside: &[DELIVERY] },
    // As many a shard: what a shard has of its own would else count eight times on one side.
    Row { what: "growth: user space a connection, 100,000 on 8 shards over 15,000 on one", elsewhere: "",
        unit: "×", bar: Some(AtMost(1.05)), aim: Some(AtMost(1.02)), source: Over(MANY, ONE_ROOM, "server_pss_per_connection", false),
        beside: &[("server_pss_per_connection", 1.0, "B")] },
    Row { what: "2 shards over 1, both on core 0: CPU a delivery, 16 in flight", elsewhere: "",
        unit: "×", bar: Some(AtMost(1.15)), aim: None, source: Over(TWO_SHARDS, W16, "server_ns_per_delivery", true), beside: &[DELIVERY] },
];

/// Every row with its bar, whether there are runs of it or not.
pub fn table(runs: &Runs) -> String {
    let head = [
        "what",
        "elsewhere",
        "bar",
        "aim",
        "median",
        "spread",
        "beside it",
        "verdict",
    ];
    let rows: Vec<Vec<String>> = ROWS.iter().map(|row| row.cells(runs)).collect();
    markdown(&head, &rows)
}

impl Row {
    fn cells(&self, runs: &Runs) -> Vec<String> {
        let bound = |bound: Option<Bound>| match bound {
            Some(bound) => format!("{} {}", bound.words(), self.unit),
            None => "–".to_owned(),
        };
        let spread = self.source.spread(runs);
        let (median, range) = match &spread {
            Some(spread) => (
                format!("{} {}", short(spread.median), self.unit),
                spread_words(spread),
            ),
            None => ("–".to_owned(), "–".to_owned()),
        };
        vec![
            self.what.to_owned(),
            self.elsewhere.to_owned(),
            bound(self.bar),
            bound(self.aim),
            median,
            range,
            beside(runs, self.source.places()[0], self.beside),
            self.verdict(runs, spread.map(|spread| spread.median)),
        ]
    }

    /// Something lost is worse than anything slow: it decides, although the run does not count.
    fn verdict(&self, runs: &Runs, median: Option<f64>) -> String {
        let places = self.source.places();
        let sum = |of: &dyn Fn(At) -> usize| places.iter().map(|&at| of(at)).sum::<usize>();
        let (all, lossy) = (sum(&|at| runs.count(at)), sum(&|at| runs.not_verified(at)));
        if lossy > 0 {
            return format!("**missed**: {lossy} of {all} runs were not verified");
        }
        let failed = sum(&|at| runs.failed(at));
        if failed > 0 {
            return format!("**missed**: {failed} of {all} runs failed");
        }
        let Some(median) = median else {
            return match all {
                0 => "**missing**: there was no run".to_owned(),
                _ => format!("**missing**: none of {all} runs counts"),
            };
        };
        let holds = |bound: Option<Bound>| bound.map(|bound| bound.holds(median));
        let word = match (holds(self.bar), holds(self.aim)) {
            (Some(false), _) => "**missed**",
            (_, Some(true)) => "met, the aim too",
            (Some(true), _) => "met",
            (None, Some(false)) => "aim missed",
            (None, None) => "–",
        };
        let counted = sum(&|at| runs.counted(at).count());
        match counted < all {
            true => format!("{word}; {counted} of {all} runs count"),
            false => word.to_owned(),
        }
    }
}

fn beside(runs: &Runs, at: At, figures: &[Beside]) -> String {
    let words = figures.iter().filter_map(|(key, factor, unit)| {
        let spread = runs.spread(at, key)?;
        Some(format!("{} {unit}", short(spread.median * factor)))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What has no bar.
struct Further(&'static str, At, &'static str, f64, &'static str);

const CHURN: At = at("churn", "ringway");
const MISSED: At = at("storm with recovery", "ringway");
const DEV: At = at("idle, history and presence", "ringway");

#[rustfmt::skip]
const FURTHER: &[Further] = &[
    Further("500 joins and leaves a second beside 1,000 members: CPU of a join and a leave", CHURN, "server_us_per_pair", 1.0, "µs"),
    Further("the same: a join until its answer, p99", CHURN, "join_p99", 1.0, "ms"),
    Further("9,000 dropped by reset and back, 50 missed publications each", MISSED, "all_back", 1.0, "s"),
    Further("10,000 back, 100 missed publications each", RECOVER, "all_back", 1.0, "s"),
    Further("15,000 idle with history and presence, user space", DEV, "server_pss_per_connection", 1.0, "B"),
    Further("15,000 idle, one room, kernel, one end", ONE_ROOM, "server_kernel", 1.0, "B"),
    Further("100,000 opened, one room: accept, upgrade, connect, subscribe", MANY, "open_cpu_per_connection", 1.0, "µs"),
];

/// The figures without a bar.
pub fn further(runs: &Runs) -> String {
    let rows = FURTHER.iter().map(|&Further(what, at, key, factor, unit)| {
        let scaled = runs.spread(at, key).map(|spread| {
            let runs: Vec<f64> = spread.runs.iter().map(|run| run * factor).collect();
            Spread::of(&runs)
        });
        let (median, range) = match scaled {
            Some(spread) => (
                format!("{} {unit}", short(spread.median)),
                spread_words(&spread),
            ),
            None => ("**missing**".to_owned(), format!("{} runs", runs.count(at))),
        };
        vec![what.to_owned(), median, range]
    });
    markdown(&["what", "median", "spread"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::runs::tests::run;

    /// The cells of the row of this name.
    fn cells(table: &str, what: &str) -> Vec<String> {
        let line = table
            .lines()
            .find(|line| line.starts_with(&format!("| {what} |")))
            .unwrap_or_else(|| panic!("no {what} in {table}"));
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn known_runs_give_the_known_row() {
        let figures = |ratio: f64| {
            [
                ("ratio_to_send", ratio),
                ("server_ns_per_delivery", 250.0),
                ("deliveries_per_second", 2_900_000.0),
            ]
        };
        let runs = [0.08, 0.07, 0.074].iter().zip(1..);
        let runs = Runs::new(
            runs.map(|(&x, round)| run(W16, round, &figures(x)))
                .collect(),
        );
        let table = table(&runs);
        let expected = "| 16 in flight, 1,000 members, 100 B, JSON | uWebSockets 0.082 | ≤ 0.075 × send(2) | \
                        ≤ 0.06 × send(2) | 0.0740 × send(2) | 0.0700–0.0800, 3 runs | 0.250 µs, 2.90 M/s | met |";
        assert!(table.contains(expected), "{table}");
        let head = "| what | elsewhere | bar | aim | median | spread | beside it | verdict |\n| --- | --- |";
        assert!(table.starts_with(head), "{table}");
    }

    #[test]
    fn bars_and_aims_are_judged_by_the_median() {
        let verdict = |ratio: f64| {
            let runs = Runs::new(vec![run(ECHO, 1, &[("ratio_to_send", ratio)])]);
            cells(&table(&runs), "echo, 1,000 connections")[8].clone()
        };
        assert_eq!(verdict(1.35), "met, the aim too");
        assert_eq!(verdict(1.48), "met");
        assert_eq!(verdict(1.481), "**missed**");
    }

    #[test]
    fn what_was_not_run_or_does_not_count_is_told_in_every_row() {
        let mut invalid = run(HOT, 1, &[("rate_held", 1.0), ("latency_p99_ms", 10.0)]);
        invalid.invalid.push("late".to_owned());
        let table = table(&Runs::new(vec![invalid]));
        assert_eq!(table.lines().count(), ROWS.len() + 2);
        assert_eq!(
            cells(&table, "the same: p99")[8],
            "**missing**: none of 1 runs counts"
        );
        let echo = cells(&table, "echo, 1,000 connections");
        assert_eq!(echo[5..9], ["–", "–", "", "**missing**: there was no run"]);
        let further = further(&Runs::new(Vec::new()));
        assert_eq!(further.matches("**missing**").count(), FURTHER.len());
    }

    #[test]
    fn a_run_that_lost_something_misses_the_bar_whatever_the_others_are() {
        let mut lossy = run(ECHO, 1, &[("ratio_to_send", 0.1)]);
        lossy.verified = false;
        let runs = Runs::new(vec![lossy, run(ECHO, 2, &[("ratio_to_send", 1.3)])]);
        let echo = cells(&table(&runs), "echo, 1,000 connections");
        assert_eq!(echo[5], "1.30 × send(2)");
        assert_eq!(echo[8], "**missed**: 1 of 2 runs were not verified");
    }

    #[test]
    fn growth_is_told_round_by_round() {
        let figure = |at, ns| run(at, 1, &[("server_ns_per_delivery", ns)]);
        let runs = Runs::new(vec![figure(AT_100_000, 330.0), figure(AT_10_000, 300.0)]);
        let what = "growth: CPU a delivery at 100,000 members over 10,000, 16 in flight, 8 shards";
        let growth = cells(&table(&runs), what);
        assert_eq!((growth[5].as_str(), growth[8].as_str()), ("1.10 ×", "met"));
    }
}
