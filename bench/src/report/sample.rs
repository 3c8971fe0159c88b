//! A small report for the tests of what is written from one.

use super::{Host, Report};
use crate::measure::histogram::Times;
use crate::measure::series::{Cost, Phase, Second, Series};

/// Four seconds: ramp, warm-up, two measured. It holds text that must not reach a page as it is.
pub fn report() -> Report {
    let host = Host {
        kernel: "6.1.0-test".to_owned(),
        cpu: "A <b>CPU</b> & more".to_owned(),
        cores: 2,
        memory_bytes: 24 << 30,
        priority: "plain".to_owned(),
    };
    let mut report = Report::new("fanout", host, Some("commit \"<script>\"".to_owned()));
    report.command = "ringway-bench fanout --channel-prefix <i>'".to_owned();
    report.figure("deliveries_per_second", 20_000.0, "/s", "in the window");
    report.figure("server_ns_per_delivery", 412.5, "ns", "");
    let mut latency = Times::new();
    let mut seconds = vec![second(1.0, Phase::Ramp, None)];
    let mut warm = Times::new();
    (1..=100).for_each(|i| warm.record(i * 50_000));
    seconds.push(second(2.0, Phase::WarmUp, Some(&warm)));
    for end in [3.0, 4.0] {
        let mut times = Times::new();
        (1..=10_000u64).for_each(|i| times.record(200_000 + i * i / 50));
        latency.add(&times);
        seconds.push(second(end, Phase::Measure, Some(&times)));
    }
    report.latency(&latency);
    report.record(Series {
        began: 1_700_000_000.0,
        seconds,
        cost: Cost::default(),
    });
    report
}

fn second(end: f64, phase: Phase, times: Option<&Times>) -> Second {
    let measured = phase == Phase::Measure;
    Second {
        end,
        seconds: 1.0,
        phase,
        connections: if phase == Phase::Ramp { 500 } else { 1000 },
        deliveries_per_second: if measured { 20_000.0 } else { 0.0 },
        publications_per_second: if measured { 20.0 } else { 0.0 },
        latency: times.map(Times::percentiles),
        histogram: times.map(Times::encode),
        server_cpu: Some(if measured { 0.9 } else { 0.5 }),
        server_pss: (!measured).then_some(10 << 20),
        slab: 100 << 20,
        tcp_memory: 4096,
        tcp_in_use: 1000,
    }
}
