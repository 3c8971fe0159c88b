//! The seconds of a run, one a line.

use std::fmt::Write as _;

use super::Report;
use crate::measure::series::Second;

const HEAD: &str = "end_s,seconds,phase,connections,deliveries_per_second,publications_per_second,\
    p50_ns,p90_ns,p99_ns,p999_ns,max_ns,server_cpu_cores,server_pss_bytes,slab_bytes,tcp_memory_bytes,tcp_in_use";

/// A line for the names, then one a second; what was not measured is left empty. A run without series has none.
pub fn seconds(report: &Report) -> String {
    let mut out = format!("{HEAD}\n");
    for second in report.series.iter().flat_map(|series| &series.seconds) {
        out.push_str(&line(second));
    }
    out
}

fn line(second: &Second) -> String {
    let mut line = format!(
        "{:.3},{:.3},{},{},{:.1},{:.1},",
        second.end,
        second.seconds,
        second.phase.name(),
        second.connections,
        second.deliveries_per_second,
        second.publications_per_second
    );
    match &second.latency {
        Some(times) => {
            let _ = write!(
                line,
                "{},{},{},{},{},",
                times.p50_ns, times.p90_ns, times.p99_ns, times.p999_ns, times.max_ns
            );
        }
        None => line.push_str(",,,,,"),
    }
    let cpu = second.server_cpu.map(|cores| format!("{cores:.4}"));
    let pss = second.server_pss.map(|bytes| bytes.to_string());
    let _ = writeln!(
        line,
        "{},{},{},{},{}",
        cpu.unwrap_or_default(),
        pss.unwrap_or_default(),
        second.slab,
        second.tcp_memory,
        second.tcp_in_use
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_line_a_second_with_as_many_fields_as_names() {
        let text = seconds(&sample::report());
        let lines: Vec<&str> = text.lines().collect();
        let series = sample::report().series.unwrap();
        assert_eq!(lines.len(), series.seconds.len() + 1);
        let fields = HEAD.split(',').count();
        assert!(lines.iter().all(|line| line.split(',').count() == fields));
        assert_eq!(
            lines[1],
            "1.000,1.000,ramp,500,0.0,0.0,,,,,,0.5000,10485760,104857600,4096,1000"
        );
        assert!(lines[3].starts_with("3.000,1.000,measure,1000,20000.0,20.0,"));
        assert!(lines[3].contains(",0.9000,,"), "{}", lines[3]);
    }
}
