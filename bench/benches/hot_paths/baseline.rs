//! The recorded counts, and what a rise over them means.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::process::Command;

/// A rise of more than this many per cent fails.
pub const RISE_MAX: f64 = 10.0;

/// Beside this file: a commit that renews it says why.
const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/hot_paths/baseline.toml"
);
const HEAD: &str = "# Instructions an operation. Renew with `cargo bench -p ringway-bench -- --renew`, and say why in the commit.\n\n";

/// What decides counts besides the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// Generates the code.
    pub rustc: String,
    /// Tells the program what processor it is on: the same one everywhere, but for AVX2.
    pub valgrind: String,
    /// Copies and compares bytes.
    pub libc: String,
    /// Whether copies, searches and UTF-8 checks use it.
    pub avx2: bool,
}

impl Toolchain {
    /// Asks each for its version.
    pub fn observe() -> Result<Self, String> {
        Ok(Self {
            rustc: line_of("rustc", "--version")?,
            valgrind: line_of("valgrind", "--version")?,
            libc: line_of("getconf", "GNU_LIBC_VERSION")?,
            avx2: std::is_x86_feature_detected!("avx2"),
        })
    }
}

fn line_of(program: &str, argument: &str) -> Result<String, String> {
    let output = Command::new(program).arg(argument).output();
    let output = output.map_err(|e| format!("{program} {argument}: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// With what it was counted.
    pub toolchain: Toolchain,
    /// By name.
    pub instructions: BTreeMap<String, f64>,
}

impl Baseline {
    /// Reads the file; one that does not exist is empty.
    pub fn read() -> Result<Self, String> {
        match std::fs::read_to_string(FILE) {
            Ok(text) => toml::from_str(&text).map_err(|e| format!("{FILE}: {e}")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(format!("{FILE}: {e}")),
        }
    }

    /// Writes the file.
    pub fn write(&self) -> Result<(), String> {
        let text = toml::to_string(self).map_err(|e| e.to_string())?;
        std::fs::write(FILE, format!("{HEAD}{text}")).map_err(|e| format!("{FILE}: {e}"))
    }

    /// With these counts. `is_whole`: they are all there are.
    ///
    /// # Errors
    /// When counts of two toolchains would stand side by side.
    pub fn renewed(
        self,
        toolchain: Toolchain,
        counts: BTreeMap<String, f64>,
        is_whole: bool,
    ) -> Result<Self, String> {
        let mut instructions = BTreeMap::new();
        if !is_whole {
            if toolchain != self.toolchain {
                return Err("the toolchain is another one: renew all, without a filter".into());
            }
            instructions = self.instructions;
        }
        instructions.extend(counts);
        Ok(Self {
            toolchain,
            instructions,
        })
    }

    /// Holds counts against the baseline. `is_whole`: they are all there are, so that a name missing from them is gone.
    pub fn compare(
        &self,
        toolchain: &Toolchain,
        counts: &BTreeMap<String, f64>,
        is_whole: bool,
    ) -> Verdict {
        let row = |(name, now): (&String, &f64)| Row {
            name: name.clone(),
            before: self.instructions.get(name).copied(),
            now: Some(*now),
        };
        let gone = self
            .instructions
            .iter()
            .filter(|(name, _)| is_whole && !counts.contains_key(*name));
        let gone = gone.map(|(name, before)| Row {
            name: name.clone(),
            before: Some(*before),
            now: None,
        });
        Verdict {
            rows: counts.iter().map(row).chain(gone).collect(),
            other_toolchain: (*toolchain != self.toolchain)
                .then(|| (self.toolchain.clone(), toolchain.clone())),
        }
    }
}

/// One count beside the recorded one.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Of the bench.
    pub name: String,
    /// As recorded.
    pub before: Option<f64>,
    /// As counted.
    pub now: Option<f64>,
}

impl Row {
    /// Per cent over the recorded count.
    fn rise(&self) -> Option<f64> {
        let (before, now) = self.before.zip(self.now)?;
        Some((now - before) * 100.0 / before)
    }

    /// Over the limit, or without a count to be held against.
    fn fails(&self) -> bool {
        self.rise().is_none_or(|rise| rise > RISE_MAX)
    }
}

/// The table, and what follows from it.
#[derive(Clone, Debug)]
pub struct Verdict {
    rows: Vec<Row>,
    /// That of the baseline, and this one, if they differ.
    other_toolchain: Option<(Toolchain, Toolchain)>,
}

impl Verdict {
    /// Counts by another toolchain say nothing about the code, so they fail nothing.
    pub fn has_failed(&self) -> bool {
        self.other_toolchain.is_none() && self.rows.iter().any(Row::fails)
    }

    /// What to do about it; empty when there is nothing.
    pub fn advice(&self) -> String {
        match &self.other_toolchain {
            Some((of_baseline, this)) => format!(
                "\nWARNING: NOTHING IS GUARDED. The baseline was counted with\n  {of_baseline:?}\nand this is\n  {this:?}\n\
                 Counts of two toolchains cannot be compared. To guard again: count the commit that renewed the baseline with\n\
                 this one, see that the code is not to blame, and renew: `cargo bench -p ringway-bench -- --renew`.\n"
            ),
            None if self.has_failed() => format!(
                "\nFAILED: over {RISE_MAX} % above the baseline, or not in both. `callgrind_annotate` tells where, of the\n\
                 profiles in target/tmp/hot_paths. If it is meant: `cargo bench -p ringway-bench -- --renew`, and the commit\n\
                 says why.\n"
            ),
            None => String::new(),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let head = ("instructions an op", "baseline", "now", "change");
        writeln!(
            f,
            "{:<28} {:>12} {:>12} {:>8}",
            head.0, head.1, head.2, head.3
        )?;
        let number = |count: Option<f64>| count.map_or("–".into(), |count| format!("{count:.1}"));
        for row in &self.rows {
            let change = row
                .rise()
                .map_or("–".into(), |rise| format!("{rise:+.1} %"));
            let word = match (row.before, row.now) {
                (None, _) => "  NOT IN THE BASELINE",
                (_, None) => "  GONE",
                _ if row.fails() => "  RISEN",
                _ if row.rise().is_some_and(|rise| rise < -RISE_MAX) => {
                    "  fallen: renew the baseline to keep it"
                }
                _ => "",
            };
            let (before, now) = (number(row.before), number(row.now));
            writeln!(
                f,
                "{:<28} {before:>12} {now:>12} {change:>8}{word}",
                row.name
            )?;
        }
        Ok(())
    }
}
