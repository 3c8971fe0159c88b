//! Other servers in the same suite, beside Ringway.

use super::runs::{At, Runs};
use super::{markdown, short};
use crate::measure::histogram::Spread;
use crate::report::Report;

/// `scripts/peers` names them so: servers of this harness on other runtimes, then products.
const PEERS: [&str; 9] = [
    "monoio",
    "tokio-uring",
    "tokio-tungstenite",
    "axum",
    "ws",
    "uws",
    "nats",
    "nchan",
    "centrifugo",
];

/// Ringway's scenarios and, in the same order, the peers'.
const RINGWAY: [At; 3] = [
    At {
        scenario: "one in flight",
        server: "ringway",
    },
    At {
        scenario: "16 in flight",
        server: "ringway",
    },
    At {
        scenario: "idle, one room",
        server: "ringway idle",
    },
];
const SCENARIOS: [&str; 3] = ["peers, one in flight", "peers, 16 in flight", "peers, idle"];

/// uWebSockets in C++, which no registry has: measured once on such a machine in the same way (2026-11-24, medians of
/// three runs), and carried over as ratios to the bare send(2) loop.
const CARRIED: [Option<f64>; 4] = [Some(1.13), Some(0.082), Some(12.2), Some(507.0)];

/// A server's figures: a delivery unbatched and at 16 in flight over send(2), what it delivers at 16 in flight over what
/// the send(2) loop sends in that time, bytes a connection.
fn figures(runs: &Runs, [one, many, idle]: [At; 3]) -> [Option<Spread>; 4] {
    [
        runs.spread(one, "ratio_to_send"),
        runs.spread(many, "ratio_to_send"),
        runs.spread_of(many, rate_to_send),
        runs.spread(idle, "server_pss_per_connection"),
    ]
}

fn rate_to_send(report: &Report) -> Option<f64> {
    let (rate, send) = (
        report.value("deliveries_per_second")?,
        report.value("limit_send_ns")?,
    );
    Some(rate * send / 1e9)
}

/// Every peer, whether there are runs of it or not.
pub fn table(runs: &Runs) -> String {
    let ringway = figures(runs, RINGWAY);
    let base = ringway
        .clone()
        .map(|spread| spread.map(|spread| spread.median));
    let mut rows = vec![row(
        "**Ringway**",
        &ringway.map(|s| s.map(|s| words(&s))),
        &base,
        &base,
    )];
    for peer in PEERS {
        let at = SCENARIOS.map(|scenario| At {
            scenario,
            server: peer,
        });
        let got = figures(runs, at);
        let medians = got.clone().map(|spread| spread.map(|spread| spread.median));
        let name = match at.iter().map(|&at| runs.count(at)).sum::<usize>() {
            0 => format!("{peer} (**missing**: there was no run)"),
            _ => peer.to_owned(),
        };
        rows.push(row(
            &name,
            &got.map(|s| s.map(|s| words(&s))),
            &medians,
            &base,
        ));
    }
    let carried = CARRIED.map(|figure| figure.map(short));
    rows.push(row(
        "uWebSockets, C++ (carried over)",
        &carried,
        &CARRIED,
        &base,
    ));
    let head = [
        "server",
        "one in flight, × send(2)",
        "× Ringway",
        "16 in flight, × send(2)",
        "× Ringway",
        "rate at 16, × the send(2) loop's",
        "× Ringway",
        "idle, user space, B",
        "× Ringway",
    ];
    markdown(&head, &rows)
}

fn row(
    name: &str,
    cells: &[Option<String>; 4],
    own: &[Option<f64>; 4],
    base: &[Option<f64>; 4],
) -> Vec<String> {
    let none = || "–".to_owned();
    let mut row = vec![name.to_owned()];
    for at in 0..4 {
        row.push(cells[at].clone().unwrap_or_else(none));
        let ratio = own[at].zip(base[at]).map(|(own, base)| short(own / base));
        row.push(ratio.unwrap_or_else(none));
    }
    row
}

fn words(spread: &Spread) -> String {
    let (min, max) = (short(spread.min), short(spread.max));
    let runs = spread.runs.len();
    format!("{} [{min}–{max}], {runs} runs", short(spread.median))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::runs::tests::run;

    #[test]
    fn each_peer_has_a_row_and_ratios_to_ringway() {
        let nats = |scenario| At {
            scenario,
            server: "nats",
        };
        let fan = |ratio, rate| {
            [
                ("ratio_to_send", ratio),
                ("deliveries_per_second", rate),
                ("limit_send_ns", 5000.0),
            ]
        };
        let runs = Runs::new(vec![
            run(RINGWAY[0], 1, &fan(1.0, 2e5)),
            run(RINGWAY[1], 1, &fan(0.08, 2.5e6)),
            run(RINGWAY[2], 1, &[("server_pss_per_connection", 130.0)]),
            run(nats(SCENARIOS[0]), 1, &fan(2.4, 8e4)),
            run(nats(SCENARIOS[1]), 1, &fan(0.24, 8e5)),
            run(nats(SCENARIOS[1]), 2, &fan(0.26, 8e5)),
        ]);
        let table = table(&runs);
        for expected in [
            "| **Ringway** | 1.00 [1.00–1.00], 1 runs | 1.00 | 0.0800 [0.0800–0.0800], 1 runs | 1.00 | \
             12.5 [12.5–12.5], 1 runs | 1.00 | 130 [130–130], 1 runs | 1.00 |",
            "| nats | 2.40 [2.40–2.40], 1 runs | 2.40 | 0.250 [0.240–0.260], 2 runs | 3.12 | \
             4.00 [4.00–4.00], 2 runs | 0.320 | – | – |",
            "| ws (**missing**: there was no run) | – | – | – | – | – | – | – | – |",
            "| uWebSockets, C++ (carried over) | 1.13 | 1.13 | 0.0820 | 1.02 | 12.2 | 0.976 | 507 | 3.90 |",
        ] {
            assert!(table.contains(expected), "{expected}\n{table}");
        }
        assert_eq!(table.lines().count(), PEERS.len() + 4);
    }
}
