//! `info`: the node in numbers.

use super::super::{Control, lock, metrics};
use super::{Outcome, to_json};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How long `info` waits for a slow shard before it counts without it.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
pub(super) struct Params {}

#[derive(Serialize)]
struct InfoResult<'a> {
    nodes: [Node<'a>; 1],
}

#[derive(Serialize)]
struct Node<'a> {
    uid: &'a str,
    name: &'a str,
    version: &'static str,
    num_clients: u64,
    num_users: u64,
    num_subs: u64,
    num_channels: u64,
    /// Seconds.
    uptime: u64,
    process: Process,
}

#[derive(Serialize)]
struct Process {
    /// Percent of one core since the last look.
    cpu: f64,
    /// Bytes.
    rss: u64,
}

pub(super) async fn info(control: &Control, Params {}: Params) -> Outcome {
    let shards = metrics::gather(control, PATIENCE).await;
    let sum = |value: fn(&crate::stats::ShardStats) -> u64| {
        shards.iter().flatten().map(|stats| value(stats)).sum()
    };
    let usage = metrics::process::Usage::read();
    let cpu = lock(&control.0.cpu).percent(Instant::now(), usage.cpu_seconds);
    to_json(&InfoResult {
        nodes: [Node {
            uid: &control.0.options.node_uid,
            name: &control.config().node_name,
            version: env!("CARGO_PKG_VERSION"),
            num_clients: sum(|stats| stats.connections),
            num_users: sum(|stats| stats.users),
            num_subs: sum(|stats| stats.subscriptions),
            num_channels: sum(|stats| stats.homes),
            uptime: control.0.started.elapsed().as_secs(),
            process: Process {
                cpu,
                rss: usage.resident_bytes,
            },
        }],
    })
}
