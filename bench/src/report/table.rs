//! The table on standard output.

use std::fmt::Write as _;

use super::Report;

impl Report {
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
                for (column, ns) in times.columns() {
                    let _ = write!(text, " {column} {:.3}", ns as f64 / 1e6);
                }
                line(text);
            }
        }
        out
    }
}

/// Four digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        10.0.. => format!("{value:.2}"),
        1.0.. => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}
