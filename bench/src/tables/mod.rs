//! From the runs of a suite to the tables of a document.
//!
//! Every row is told, measured or not, and whether its bar is met is decided here, from the data. What does not count is
//! listed. Only what stands between a table's markers is replaced.

use std::fs;
use std::path::PathBuf;

mod numbers;
mod peers;
mod runs;
mod splice;

use crate::Failure;
use crate::measure::histogram::Spread;
use crate::report::output::save;
use runs::Runs;

/// Which runs, and where the tables go.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where `suite --keep` has left its reports.
    directory: PathBuf,
    /// Renew the tables of this document, each between `<!-- table NAME -->` and `<!-- end of table NAME -->`.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Prints the tables, and writes them where that was asked for.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runs = Runs::load(&args.directory)?;
    let tables = all(&runs);
    for (name, text) in &tables {
        println!("{name}\n\n{text}");
    }
    let Some(path) = &args.write else {
        return Ok(());
    };
    let name = |words: &dyn std::fmt::Display| {
        Failure::Environment(format!("{}: {words}", path.display()))
    };
    let document = fs::read_to_string(path).map_err(|e| name(&e))?;
    let renewed = splice::splice(&document, &tables).map_err(|words| name(&words))?;
    Ok(save(path, &renewed)?)
}

/// Each table by its name.
fn all(runs: &Runs) -> Vec<(&'static str, String)> {
    vec![
        ("measured", runs.about()),
        ("numbers", numbers::table(runs)),
        ("peers", peers::table(runs)),
        ("further", numbers::further(runs)),
        ("not counted", runs.not_counted()),
    ]
}

/// A table as GitHub reads it.
fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<&str> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut out = line(&mut head.iter().copied());
    out += &line(&mut head.iter().map(|_| "---"));
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        0.1.. => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// `[4.30–5.70], 5 runs`.
fn spread_words(spread: &Spread) -> String {
    let runs = spread.runs.len();
    format!(
        "{}–{}, {runs} run{}",
        short(spread.min),
        short(spread.max),
        if runs == 1 { "" } else { "s" }
    )
}
