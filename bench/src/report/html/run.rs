//! The page of one run.

use std::io;

use super::plot::{Line, Plot, Scale};
use super::{escape, table};
use crate::measure::histogram::Percentiles;
use crate::measure::series::{Phase, Second, Series};
use crate::report::table::number;
use crate::report::{Report, hdr};

const MIB: f64 = 1_048_576.0;
/// The end of a phase leaves a piece of a second: rates over less than this are noise.
const SHORTEST: f64 = 0.25;

/// The page.
///
/// # Errors
/// When the report's histogram is damaged.
pub fn page(report: &Report) -> io::Result<String> {
    let body = [head(report), plots(report)?, figures(report), run(report)].concat();
    Ok(super::page(
        &format!("ringway-bench {}", report.scenario),
        &body,
    ))
}

fn head(report: &Report) -> String {
    let (class, verdict) = match (report.verified, report.invalid.is_empty()) {
        (false, _) => ("bad", report.faults.to_string()),
        (true, false) => (
            "warn",
            "invalid run: its figures must not be used".to_owned(),
        ),
        (true, true) if report.scenario == "limit" => ("good", "every byte arrived".to_owned()),
        (true, true) => ("good", report.faults.to_string()),
    };
    let mut title = format!("<h1>{}", escape(&report.scenario));
    if let Some(label) = &report.label {
        title += &format!(" · {}", escape(label));
    }
    format!(
        "{title}</h1>\n<p class=\"verdict {class}\">{}</p>\n{}{}",
        escape(&verdict),
        list(&report.invalid),
        list(&report.remarks)
    )
}

fn list(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let items = lines
        .iter()
        .map(|line| format!("<li>{}</li>", escape(line)));
    format!("<ul>{}</ul>\n", items.collect::<String>())
}

fn figures(report: &Report) -> String {
    let row = |key: &str, value: f64, unit: &str, note: &str| {
        vec![
            key.to_owned(),
            number(value),
            unit.to_owned(),
            note.to_owned(),
        ]
    };
    let mut rows: Vec<Vec<String>> = report
        .figures
        .iter()
        .map(|figure| row(&figure.key, figure.value, &figure.unit, &figure.note))
        .collect();
    for (name, times) in [
        ("latency", &report.latency),
        ("own sends late", &report.lateness),
    ] {
        for (at, ns) in times.iter().flat_map(Percentiles::columns) {
            rows.push(row(&format!("{name} {at}"), ns as f64 / 1e6, "ms", ""));
        }
    }
    format!(
        "<h2>Figures</h2>\n{}",
        table(&["figure", "value", "", ""], &rows, &[1])
    )
}

fn run(report: &Report) -> String {
    let host = &report.host;
    let memory = format!("{:.1} GiB", host.memory_bytes as f64 / MIB / 1024.0);
    let lines = [
        (
            "command",
            format!("<code>{}</code>", escape(&report.command)),
        ),
        ("label", escape(report.label.as_deref().unwrap_or("none"))),
        (
            "processor",
            format!("{} × {}", host.cores, escape(&host.cpu)),
        ),
        ("memory", memory),
        ("kernel", format!("Linux {}", escape(&host.kernel))),
        ("priority", escape(&host.priority)),
    ];
    let lines = lines.map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n"));
    format!("<h2>Run</h2>\n<dl>\n{}</dl>\n", lines.concat())
}

fn plots(report: &Report) -> io::Result<String> {
    let mut out = String::new();
    if report.latency_histogram.is_some() {
        out += &by_percentile(report)?.render();
    }
    if let Some(series) = &report.series {
        over_time(series)
            .iter()
            .for_each(|plot| out += &plot.render());
    }
    if out.is_empty() {
        return Ok(out);
    }
    Ok(format!(
        "<h2>Plots</h2>\n<div class=\"plots\">\n{out}</div>\n"
    ))
}

fn by_percentile(report: &Report) -> io::Result<Plot> {
    let times = hdr::latency(report)?;
    let count = times.histogram().len() as f64;
    let points = times
        .histogram()
        .iter_quantiles(5)
        .map(|step| {
            // The last step is 100 %; it stands where its one delivery in all has its place.
            let rest = (1.0 - step.quantile_iterated_to()).max(1.0 / count);
            Some((1.0 / rest, step.value_iterated_to() as f64 / 1e6))
        })
        .collect();
    Ok(Plot {
        title: "Latency, ms, by percentile, %",
        x: Scale::Percentile,
        y: Scale::Log,
        lines: vec![Line {
            name: "latency",
            points,
        }],
        phases: Vec::new(),
    })
}

fn over_time(series: &Series) -> Vec<Plot> {
    let phases = series.phases();
    let line = |name, value: &dyn Fn(&Second) -> Option<f64>| {
        let points = series
            .seconds
            .iter()
            .filter(|second| second.seconds >= SHORTEST)
            .map(|second| value(second).map(|y| ((second.start() + second.end) / 2.0, y)))
            .collect();
        Line { name, points }
    };
    let plot = |title, y, lines| Plot {
        title,
        x: Scale::Time,
        y,
        lines,
        phases: phases.clone(),
    };
    let milliseconds = |name, at: fn(&Percentiles) -> u64| {
        line(name, &move |second| {
            second.latency.as_ref().map(|times| at(times) as f64 / 1e6)
        })
    };
    // Before the warm-up nothing is published: a flat line at zero would say less than none.
    let rate = |name, of: fn(&Second) -> f64| {
        line(name, &move |second| {
            (!matches!(second.phase, Phase::Ramp | Phase::Settle)).then(|| of(second))
        })
    };
    // PSS is read about once a second; a second without leaves no hole when its neighbours have it.
    let mut pss = line("PSS", &|second| {
        second.server_pss.map(|bytes| bytes as f64 / MIB)
    });
    pss.points.retain(Option::is_some);
    let mut plots = vec![plot(
        "Latency each second, ms",
        Scale::Log,
        vec![
            milliseconds("p50", |times| times.p50_ns),
            milliseconds("p99", |times| times.p99_ns),
            milliseconds("max", |times| times.max_ns),
        ],
    )];
    if series.seconds.iter().any(|s| s.deliveries_per_second > 0.0) {
        plots.push(plot(
            "Deliveries a second",
            Scale::Linear,
            vec![rate("deliveries", |s| s.deliveries_per_second)],
        ));
        plots.push(plot(
            "Publications a second",
            Scale::Linear,
            vec![rate("publications", |s| s.publications_per_second)],
        ));
    }
    plots.push(plot(
        "Server CPU, cores",
        Scale::Linear,
        vec![line("CPU", &|second| second.server_cpu)],
    ));
    plots.push(plot("Server memory (PSS), MiB", Scale::Linear, vec![pss]));
    plots.push(plot(
        "Kernel memory of the machine, MiB",
        Scale::Linear,
        vec![
            line("slab", &|second| Some(second.slab as f64 / MIB)),
            line("TCP data", &|second| Some(second.tcp_memory as f64 / MIB)),
        ],
    ));
    plots.push(plot(
        "Connections open",
        Scale::Linear,
        vec![line("open", &|second| Some(second.connections as f64))],
    ));
    plots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_page_needs_nothing_and_escapes_everything() {
        let page = page(&sample::report()).unwrap();
        for foreign in [
            "http:", "https:", "<script", "url(", "@import", "<b>CPU", "<i>",
        ] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("A &lt;b&gt;CPU&lt;/b&gt; &amp; more"));
        assert!(page.contains("commit &quot;&lt;script&gt;&quot;"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for title in [
            "Latency, ms, by percentile",
            "Latency each second",
            "Deliveries",
            "Server CPU",
            "PSS",
            "slab",
        ] {
            assert!(page.contains(title), "{title}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf\""));
    }

    #[test]
    fn the_verdict_is_seen_first() {
        let mut report = sample::report();
        report.invalid.push("own sends were late".to_owned());
        let page_of = |report: &Report| page(report).unwrap();
        assert!(page_of(&report).contains("verdict warn"));
        report.faults.lost = 3;
        report.verified = false;
        let text = page_of(&report);
        assert!(text.find("NOT VERIFIED: 3 lost").unwrap() < text.find("<svg").unwrap());
    }

    #[test]
    fn a_run_without_a_series_has_figures_only() {
        let mut report = sample::report();
        (report.series, report.latency_histogram) = (None, None);
        let page = page(&report).unwrap();
        assert!(!page.contains("<svg") && page.contains("deliveries_per_second"));
    }
}
