//! A suite's outcome: as text, Markdown, a page.

use std::fmt::Write as _;

use super::summary::{Cell, Suite, Table};
use crate::measure::histogram::Spread;
use crate::report::html::{escape, page, table};
use crate::report::table::number;

/// For standard output.
pub fn text(suite: &Suite) -> String {
    let mut out = String::new();
    for one in &suite.tables {
        let (head, rows) = grid(one);
        let _ = writeln!(out, "{}", one.scenario);
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells
                .chain([head[column].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in [&head].into_iter().chain(&rows) {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            let _ = writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
    for remark in &suite.remarks {
        let _ = writeln!(out, "note: {remark}");
    }
    out
}

/// Tables as GitHub reads them.
pub fn markdown(suite: &Suite) -> String {
    let mut out = String::new();
    for one in &suite.tables {
        let (head, rows) = grid(one);
        let _ = writeln!(out, "## {}\n", plain(&one.scenario));
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        out += &line(&head);
        out += &line(&vec!["---".to_owned(); head.len()]);
        rows.iter().for_each(|row| out += &line(row));
        out.push('\n');
    }
    for remark in &suite.remarks {
        let _ = writeln!(out, "- {}", plain(remark));
    }
    out
}

/// What means something in Markdown means itself.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if matches!(char, '|' | '\\' | '`' | '*' | '_' | '<' | '[' | ']') {
            out.push('\\');
        }
        out.push(if char == '\n' { ' ' } else { char });
    }
    out
}

/// The page.
pub fn html(suite: &Suite) -> String {
    let mut body = format!("<h1>{}</h1>\n", escape(&suite.servers.join(" · ")));
    if let Some(host) = &suite.host {
        let _ = writeln!(
            body,
            "<p>{} rounds in turns on {} × {}, Linux {}</p>",
            suite.rounds,
            host.cores,
            escape(&host.cpu),
            escape(&host.kernel)
        );
    }
    let notes = suite
        .remarks
        .iter()
        .map(|words| format!("<li>{}</li>", escape(words)));
    let _ = writeln!(body, "<ul>{}</ul>", notes.collect::<String>());
    for one in &suite.tables {
        let (head, rows) = grid(one);
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let _ = writeln!(body, "<h2>{}</h2>", escape(&one.scenario));
        let numbers: Vec<usize> = (2..head.len() - 1).collect();
        body += &table(&head, &rows, &numbers);
    }
    body += "<h2>Runs</h2>\n";
    body += &runs(suite);
    page("ringway-bench suite", &body)
}

fn runs(suite: &Suite) -> String {
    let verdict = |code: u8| match code {
        0 => "verified, valid",
        1 => "failed",
        3 => "invalid",
        _ => "not verified",
    };
    let rows: Vec<Vec<String>> = suite
        .runs
        .iter()
        .map(|run| {
            let trips: Vec<String> = run.round_trips.iter().map(|&ns| number(ns)).collect();
            vec![
                run.round.to_string(),
                run.scenario.clone(),
                run.server.clone(),
                verdict(run.code).to_owned(),
                trips.join(" → "),
            ]
        })
        .collect();
    table(
        &[
            "round",
            "scenario",
            "server",
            "verdict",
            "cache line there and back, ns",
        ],
        &rows,
        &[0, 4],
    )
}

/// Head and rows: figure, unit, a column a server, a column a ratio, which way is better.
fn grid(one: &Table) -> (Vec<String>, Vec<Vec<String>>) {
    let mut head = vec!["figure".to_owned(), String::new()];
    head.extend(one.servers.iter().cloned());
    let first = &one.servers[0];
    let others = one.servers.iter().skip(1);
    head.extend(others.map(|name| format!("{name} / {first}")));
    head.push(String::new());
    let rows = one.lines.iter().map(|line| {
        let mut row = vec![line.key.clone(), line.unit.clone()];
        row.extend(line.cells.iter().map(|cell| shown(&cell.spread)));
        let ratio = |cell: &Cell| shown(&cell.ratio);
        row.extend(line.cells.iter().skip(1).map(ratio));
        row.push(line.direction());
        row
    });
    (head, rows.collect())
}

/// `5.000 [4.300–5.700]`.
fn shown(spread: &Option<Spread>) -> String {
    spread.as_ref().map_or_else(
        || "–".to_owned(),
        |spread| {
            let (min, max) = (number(spread.min), number(spread.max));
            format!("{} [{min}–{max}]", number(spread.median))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::summary::tests::suite;

    #[test]
    fn the_markdown_is_this() {
        let text = markdown(&suite(false));
        let lines: Vec<&str> = text.lines().take(5).collect();
        let expected = [
            "## fan \\<b>",
            "",
            "| figure |  | a | b \\<i>\\| | b \\<i>\\| / a |  |",
            "| --- | --- | --- | --- | --- | --- |",
            "| server\\_ns\\_per\\_delivery | ns | 200.0 \\[100.0–400.0\\] | 400.0 \\[200.0–600.0\\] | \
             2.500 \\[2.000–3.000\\] | lower is better |",
        ];
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn the_page_escapes_names_and_lists_each_run() {
        let page = html(&suite(false));
        assert!(!page.contains("<i>") && !page.contains("<b>") && page.contains("b &lt;i&gt;|"));
        assert_eq!(page.matches("61.00 → 61.00").count(), 6);
        assert!(page.contains("invalid"));
    }

    #[test]
    fn the_text_has_the_figures_and_the_notes() {
        let text = text(&suite(false));
        assert!(text.contains("2.500 [2.000–3.000]"), "{text}");
        assert!(text.contains("note: round 2"));
    }
}
