//! Nanoseconds an operation. They are this machine's, now: only the counts are held against anything.

use super::work::{Bench, warm_up};
use std::time::{Duration, Instant};

/// Each sample is the mean of as many runs as this takes.
const SAMPLE: Duration = Duration::from_millis(10);
const SAMPLES: usize = 31;

/// Prints the median of the samples, and their range.
pub fn time(benches: &[&Bench]) {
    println!(
        "{:<28} {:>10}   [min – max], {SAMPLES} samples",
        "", "ns an op"
    );
    for bench in benches {
        let mut work = bench.1();
        warm_up(&mut *work);
        let mut samples: Vec<f64> = (0..SAMPLES)
            .map(|_| {
                let (mut runs, mut inside) = (0, Duration::ZERO);
                while inside < SAMPLE {
                    work.prepare();
                    let begin = Instant::now();
                    work.run();
                    inside += begin.elapsed();
                    runs += 1;
                }
                inside.as_nanos() as f64 / f64::from(runs * work.operations())
            })
            .collect();
        work.check();
        samples.sort_by(f64::total_cmp);
        let (median, least, most) = (samples[SAMPLES / 2], samples[0], samples[SAMPLES - 1]);
        println!("{:<28} {median:>10.1}   [{least:.1} – {most:.1}]", bench.0);
    }
}
