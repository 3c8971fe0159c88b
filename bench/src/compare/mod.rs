//! Two reports, figure by figure: what got better, what worse, and whether that is too much.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

pub mod direction;

use crate::Failure;
use crate::report::Report;
use crate::report::table::number;
use direction::Direction;

/// What to compare, and how much worse is allowed.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The report to measure by.
    a: PathBuf,
    /// The report to judge.
    b: PathBuf,
    /// How much worse one figure may be: KEY=PERCENT; may be given again.
    #[arg(long, value_name = "KEY=PERCENT", value_parser = threshold)]
    threshold: Vec<(String, f64)>,
    /// How much worse each other figure may be.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_regression: Option<f64>,
    /// Compare runs of different scenarios or schemas.
    #[arg(long)]
    force: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text}: no number"))?;
    match value >= 0.0 {
        true => Ok(value),
        false => Err(format!("{text}: below 0")),
    }
}

fn threshold(text: &str) -> Result<(String, f64), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text}: not KEY=PERCENT"))?;
    match Direction::of(key) {
        None => Err(format!("{key}: no such figure")),
        Some(Direction::Neither) => Err(format!("{key}: it is neither better nor worse")),
        Some(_) => Ok((key.to_owned(), percent(value)?)),
    }
}

/// Prints the table; true when something is worse than allowed.
pub fn run(args: &Args) -> Result<bool, Failure> {
    let (a, b) = (Report::load(&args.a)?, Report::load(&args.b)?);
    for (what, same, of_a, of_b) in [
        (
            "scenarios",
            a.scenario == b.scenario,
            a.scenario.to_string(),
            b.scenario.to_string(),
        ),
        (
            "schemas",
            a.schema == b.schema,
            a.schema.to_string(),
            b.schema.to_string(),
        ),
    ] {
        if !same && !args.force {
            let words = format!("different {what}: {of_a} and {of_b}; --force compares them");
            return Err(Failure::Usage(words));
        }
    }
    let allowed: BTreeMap<&str, f64> = args
        .threshold
        .iter()
        .map(|(key, percent)| (key.as_str(), *percent))
        .collect();
    let rows = rows(&a, &b, &allowed, args.max_regression);
    if let Some(key) = allowed
        .keys()
        .find(|key| rows.iter().all(|row| row.key != **key))
    {
        let words = format!("{key}: not a figure of both reports");
        return Err(Failure::Usage(words));
    }
    print!("{}", render(&a, &b, &rows));
    Ok(rows.iter().any(|row| row.regressed))
}

/// One figure of both.
struct Row {
    key: String,
    unit: String,
    a: f64,
    b: f64,
    /// In percent.
    worse: Option<f64>,
    regressed: bool,
}

fn rows(a: &Report, b: &Report, allowed: &BTreeMap<&str, f64>, most: Option<f64>) -> Vec<Row> {
    let of_b = b.values();
    let both = a.values().into_iter().filter_map(|(key, value, unit)| {
        let (_, other, _) = of_b.iter().find(|(name, ..)| *name == key)?;
        Some((key, value, *other, unit))
    });
    both.map(|(key, a, b, unit)| {
        let worse = Direction::of(&key).and_then(|direction| direction.worsening(a, b));
        let limit = allowed.get(key.as_str()).copied().or(most);
        let regressed = worse.zip(limit).is_some_and(|(worse, limit)| worse > limit);
        Row {
            key,
            unit,
            a,
            b,
            worse,
            regressed,
        }
    })
    .collect()
}

fn render(a: &Report, b: &Report, rows: &[Row]) -> String {
    let mut out = String::new();
    for (name, report) in [("A", a), ("B", b)] {
        let label = report.label.as_deref().unwrap_or("no label");
        let _ = writeln!(out, "{name}: {}, {label}", report.scenario);
    }
    for warning in warnings(a, b) {
        let _ = writeln!(out, "WARNING: {warning}");
    }
    let width = rows.iter().map(|row| row.key.len()).max().unwrap_or(0);
    let _ = writeln!(
        out,
        "  {:width$}  {:>12} {:>12} {:<6} {:>8}",
        "figure", "A", "B", "", "B / A"
    );
    for row in rows {
        let ratio = match row.a == 0.0 {
            true => "–".to_owned(),
            false => format!("{:.3}", row.b / row.a),
        };
        let verdict = match row.worse {
            None => String::new(),
            Some(worse) if worse > 0.0 => format!("{} worse", change(worse)),
            Some(worse) if worse < 0.0 => format!("{} better", change(-worse)),
            Some(_) => "same".to_owned(),
        };
        let line = format!(
            "  {:width$}  {:>12} {:>12} {:<6} {ratio:>8}  {verdict}{}",
            row.key,
            number(row.a),
            number(row.b),
            row.unit,
            if row.regressed { "  REGRESSION" } else { "" }
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn change(percent: f64) -> String {
    match percent.is_finite() {
        true => format!("{percent:.1} %"),
        false => "from nothing:".to_owned(),
    }
}

fn warnings(a: &Report, b: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            warnings.push(format!("different {what}: {a} and {b}"));
        }
    };
    differ("scenarios", &a.scenario, &b.scenario);
    differ("kernels", &a.host.kernel, &b.host.kernel);
    let machine = |report: &Report| {
        let host = &report.host;
        let memory = host.memory_bytes >> 20;
        format!("{} × {}, {memory} MiB", host.cores, host.cpu)
    };
    differ("machines", &machine(a), &machine(b));
    for (name, report) in [("A", a), ("B", b)] {
        if !report.verified {
            warnings.push(format!("{name} is not verified: {}", report.faults));
        }
        for why in &report.invalid {
            warnings.push(format!("{name} is invalid: {why}"));
        }
    }
    let unknown = a
        .values()
        .into_iter()
        .filter(|v| Direction::of(&v.0).is_none());
    warnings.extend(unknown.map(|(key, ..)| format!("{key}: which way is better is not known")));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn slower() -> Report {
        let mut report = sample::report();
        for figure in &mut report.figures {
            match figure.key.as_ref() {
                "deliveries_per_second" => figure.value *= 0.9,
                "server_ns_per_delivery" => figure.value *= 0.5,
                _ => {}
            }
        }
        report
    }

    #[test]
    fn the_table_says_what_is_better_and_what_is_too_bad() {
        let (a, b) = (sample::report(), slower());
        let text = render(&a, &b, &rows(&a, &b, &BTreeMap::new(), Some(5.0)));
        let lines: Vec<&str> = text.lines().skip(2).take(3).collect();
        let expected = [
            "  figure                             A            B           B / A",
            "  deliveries_per_second          20000        18000 /s        0.900  10.0 % worse  REGRESSION",
            "  server_ns_per_delivery         412.5        206.2 ns        0.500  50.0 % better",
        ];
        assert_eq!(lines, expected, "{text}");
        assert!(text.contains("latency_p99_ms") && text.contains("same"));
    }

    #[test]
    fn a_threshold_of_its_own_goes_before_the_common_one() {
        let (a, b) = (sample::report(), slower());
        let regressed = |allowed: &[(&'static str, f64)], most| {
            let allowed = allowed.iter().copied().collect();
            rows(&a, &b, &allowed, most).iter().any(|row| row.regressed)
        };
        assert!(!regressed(&[], None));
        assert!(regressed(&[], Some(9.9)) && !regressed(&[], Some(10.1)));
        assert!(!regressed(&[("deliveries_per_second", 20.0)], Some(5.0)));
        assert!(regressed(&[("deliveries_per_second", 5.0)], None));
    }

    #[test]
    fn what_makes_a_comparison_doubtful_is_told() {
        let (a, mut b) = (sample::report(), sample::report());
        assert!(warnings(&a, &b).is_empty());
        b.host.kernel = "7".to_owned();
        b.host.cores = 9;
        b.verified = false;
        b.invalid.push("late".to_owned());
        let warnings = warnings(&a, &b);
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }
}
