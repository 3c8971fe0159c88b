//! Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write as _};

/// The `Content-Type` of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, `_sum` and `_count`.
    Histogram,
}

/// A page under construction.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// One family of a page; samples of different families never mix.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Page {
    /// Starts a family with its HELP and TYPE lines.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> Family<'_> {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.text,
            name,
        }
    }

    /// A family with one sample and no labels.
    pub fn single(&mut self, kind: Kind, name: &'static str, help: &str, value: impl Display) {
        self.family(kind, name, help).sample(&[], value);
    }

    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> &mut Self {
        self.line("", labels, value)
    }

    /// Adds one `_bucket`; `le` is the inclusive upper bound, `count` is cumulative.
    pub fn bucket(&mut self, le: impl Display, count: u64) -> &mut Self {
        self.line("_bucket", &[("le", &le)], count)
    }

    /// Ends a histogram.
    pub fn sum_and_count(&mut self, sum: impl Display, count: u64) {
        self.line("_bucket", &[("le", &"+Inf")], count)
            .line("_sum", &[], sum)
            .line("_count", &[], count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if i == 0 { '{' } else { ',' });
            for c in text.to_string().chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(
            self.text,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        );
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_families_labels_and_histograms() {
        let mut page = Page::default();
        page.family(Kind::Gauge, "x_bytes", "Bytes.")
            .sample(&[("shard", &0), ("why", &"a\"\\\nb")], 7);
        let mut family = page.family(Kind::Histogram, "y_seconds", "Time.");
        family.bucket(0.5, 1).bucket(1, 3);
        family.sum_and_count(2.25, 4);
        page.single(Kind::Counter, "z_total", "Count.", 5);
        assert_eq!(
            page.finish(),
            "# HELP x_bytes Bytes.\n# TYPE x_bytes gauge\nx_bytes{shard=\"0\",why=\"a\\\"\\\\\\nb\"} 7\n\
             # HELP y_seconds Time.\n# TYPE y_seconds histogram\ny_seconds_bucket{le=\"0.5\"} 1\n\
             y_seconds_bucket{le=\"1\"} 3\ny_seconds_bucket{le=\"+Inf\"} 4\ny_seconds_sum 2.25\ny_seconds_count 4\n\
             # HELP z_total Count.\n# TYPE z_total counter\nz_total 5\n"
        );
    }
}
