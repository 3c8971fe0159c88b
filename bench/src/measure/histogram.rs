//! Latency: 1 µs to 60 s in nanoseconds, three significant digits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Times; longer ones than 60 s count as 60 s.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

/// What is told of a histogram, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub p9999_ns: u64,
    pub max_ns: u64,
}

impl Percentiles {
    /// Each with its name, in order.
    pub fn columns(&self) -> [(&'static str, u64); 6] {
        [
            ("p50", self.p50_ns),
            ("p90", self.p90_ns),
            ("p99", self.p99_ns),
            ("p99.9", self.p999_ns),
            ("p99.99", self.p9999_ns),
            ("max", self.max_ns),
        ]
    }
}

impl Times {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("constant bounds"))
    }

    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Takes over all of another.
    pub fn add(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all histograms have the same bounds");
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The histogram itself.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// V2 compressed, in base64, as HdrHistogram's tools read it.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("a vector takes everything");
        BASE64.encode(bytes)
    }

    /// What `encode` wrote.
    ///
    /// # Errors
    /// When it did not.
    pub fn decode(text: &str) -> Result<Self, String> {
        let bytes = BASE64.decode(text).map_err(|e| e.to_string())?;
        let histogram = Deserializer::new().deserialize(&mut &bytes[..]);
        Ok(Self(histogram.map_err(|e| e.to_string())?))
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Percentiles {
            count: self.0.len(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: self.0.max(),
        }
    }
}

/// Median and extremes of repeated runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub runs: Vec<f64>,
}

impl Spread {
    /// # Panics
    /// Without runs.
    pub fn of(runs: &[f64]) -> Self {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        };
        Self {
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            runs: runs.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_three_digits() {
        let mut times = Times::new();
        (1..=1000u64).for_each(|i| times.record(i * 10_000));
        let got = times.percentiles();
        assert_eq!(got.count, 1000);
        assert!(got.p50_ns.abs_diff(5_000_000) < 10_000 && got.p99_ns.abs_diff(9_900_000) < 10_000);
        times.record(u64::MAX);
        assert!(times.percentiles().max_ns >= 60_000_000_000);
    }

    #[test]
    fn what_is_encoded_reads_back_the_same() {
        let mut times = Times::new();
        (1..=1000u64).for_each(|i| times.record(i * i * 1_000));
        let text = times.encode();
        assert!(text.starts_with("HISTFAAA"), "{text}");
        assert_eq!(Times::decode(&text).unwrap().0, times.0);
        assert!(Times::decode("HISTFAAA").is_err() && Times::decode("no base64!").is_err());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of(&[7.0]).median, 7.0);
    }
}
