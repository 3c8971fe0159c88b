//! HdrHistogram's own formats: the percentile table that its plotters take, and the interval log.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Report;
use crate::measure::histogram::Times;

/// Files are in milliseconds, histograms in nanoseconds.
const MILLISECOND: f64 = 1e6;
/// Steps for each halving of the distance to 100 %: the usual number.
const TICKS_A_HALVING: u32 = 5;

/// The latency of a run's window.
///
/// # Errors
/// When there is none.
pub fn latency(report: &Report) -> io::Result<Times> {
    let text = report
        .latency_histogram
        .as_ref()
        .ok_or_else(|| io::Error::other(format!("{} has no latency", report.scenario)))?;
    Times::decode(text).map_err(io::Error::other)
}

/// The `.hgrm` table: value in milliseconds, percentile, how many up to it, one over the rest.
///
/// # Errors
/// When the run has no latency.
pub fn percentiles(report: &Report) -> io::Result<String> {
    let times = latency(report)?;
    let histogram = times.histogram();
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_A_HALVING) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / MILLISECOND;
        let quantile = step.quantile_iterated_to();
        let _ = write!(out, "{value:12.3} {quantile:.12} {count:10}");
        let _ = match quantile < 1.0 {
            true => writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(out),
        };
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        histogram.mean() / MILLISECOND,
        histogram.stdev() / MILLISECOND
    );
    let _ = writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        histogram.max() as f64 / MILLISECOND,
        histogram.len()
    );
    let _ = writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        2048
    );
    Ok(out)
}

/// The interval log: one histogram a second, its phase as tag.
///
/// # Errors
/// When the run has no series.
pub fn log(report: &Report) -> io::Result<String> {
    let series = report
        .series
        .as_ref()
        .ok_or_else(|| io::Error::other(format!("{} has no series", report.scenario)))?;
    let began = moment(series.began);
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("ringway-bench {}, latency in ns", report.scenario))
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(MILLISECOND)
        .begin_log_with(&mut out, &mut serializer)?;
    for second in &series.seconds {
        let Some(text) = &second.histogram else {
            continue;
        };
        let times = Times::decode(text).map_err(io::Error::other)?;
        writer
            .write_histogram(
                times.histogram(),
                Duration::from_secs_f64(second.start().max(0.0)),
                Duration::from_secs_f64(second.seconds),
                Tag::new(second.phase.name()),
            )
            .map_err(|e| io::Error::other(format!("{e:?}")))?;
    }
    drop(writer);
    String::from_utf8(out).map_err(io::Error::other)
}

fn moment(unix: f64) -> SystemTime {
    UNIX_EPOCH + Duration::try_from_secs_f64(unix).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_percentile_table_reads_back() {
        let report = sample::report();
        let text = percentiles(&report).unwrap();
        let times = latency(&report).unwrap();
        let (mut last, mut rows) = ((0.0, 0.0, 0), 0);
        for line in text.lines().skip(2).filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let row: (f64, f64, u64) = (
                words[0].parse().unwrap(),
                words[1].parse().unwrap(),
                words[2].parse().unwrap(),
            );
            assert!(
                row.0 >= last.0 && row.1 >= last.1 && row.2 >= last.2,
                "{line}"
            );
            assert_eq!(words.len(), if row.1 < 1.0 { 4 } else { 3 }, "{line}");
            (last, rows) = (row, rows + 1);
        }
        assert!(rows > 20, "{text}");
        assert_eq!(last.2, times.histogram().len());
        assert!((last.0 * MILLISECOND - times.histogram().max() as f64).abs() < 1e3);
    }

    #[test]
    fn the_log_reads_back_with_its_phases() {
        let report = sample::report();
        let text = log(&report).unwrap();
        assert!(
            text.starts_with("#[Histogram log format version 1.3]\n"),
            "{text}"
        );
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            match entry.unwrap() {
                LogEntry::Interval(interval) => {
                    let bytes = base64::engine::general_purpose::STANDARD
                        .decode(interval.encoded_histogram())
                        .unwrap();
                    let histogram: hdrhistogram::Histogram<u64> =
                        Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    seen.push((tag, interval.start_timestamp().as_secs(), histogram.len()));
                }
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                    assert_eq!(at.as_secs(), 1_700_000_000);
                }
            }
        }
        let measured = latency(&report).unwrap().histogram().len();
        let warm = ("warm-up".to_owned(), 1, 100);
        let each = |start| ("measure".to_owned(), start, measured / 2);
        assert_eq!(seen, [warm, each(2), each(3)]);
    }

    #[test]
    fn a_run_without_latency_says_so() {
        let mut report = sample::report();
        (report.latency_histogram, report.series) = (None, None);
        assert!(percentiles(&report).is_err() && log(&report).is_err());
    }
}
