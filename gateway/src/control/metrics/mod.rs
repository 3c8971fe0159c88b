//! `GET /metrics`: the shards' counters, summed nowhere but here, as Prometheus text.

mod compression;
pub mod exposition;
pub mod process;

use super::{Control, Phase, lock};
use crate::backplane::{Backplane, Condition};
use crate::hub::message::{Request, Response};
use crate::limit::{Limit, Outcome};
use crate::stats::{BUCKETS, Log2Histogram, ShardStats};
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use exposition::{Kind, Page};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// How long a scrape waits for a slow shard; after that the page goes out without it, and says so.
const PATIENCE: Duration = Duration::from_secs(5);

/// Server API requests by method and error code (0: none).
pub type Requests = BTreeMap<(&'static str, u32), u64>;

pub(super) fn router() -> Router<Control> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(control): State<Control>) -> impl IntoResponse {
    let shards = gather(&control, PATIENCE).await;
    let requests = lock(&control.0.requests).clone();
    let fetches = *lock(&control.0.key_fetches);
    let text = render(
        &shards,
        &requests,
        fetches,
        control.phase(),
        control.shards().backplane().map(Backplane::condition),
        &process::Usage::read(),
    );
    ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text)
}

/// The counters of every shard, by its number; `None` for one that did not answer.
pub(super) async fn gather(control: &Control, patience: Duration) -> Vec<Option<Box<ShardStats>>> {
    let answers = control
        .shards()
        .ask_all_within(&Request::Stats, patience)
        .await;
    answers
        .into_iter()
        .map(|answer| {
            if let Response::Stats(stats) = answer {
                Some(stats)
            } else {
                None
            }
        })
        .collect()
}

/// A family with one sample a shard.
struct PerShard {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    value: fn(&ShardStats) -> u64,
}

const fn counter(
    name: &'static str,
    help: &'static str,
    value: fn(&ShardStats) -> u64,
) -> PerShard {
    PerShard {
        kind: Kind::Counter,
        name,
        help,
        value,
    }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&ShardStats) -> u64) -> PerShard {
    PerShard {
        kind: Kind::Gauge,
        name,
        help,
        value,
    }
}

const PER_SHARD: &[PerShard] = &[
    gauge("ringway_connections", "Open client connections.", |s| {
        s.connections
    }),
    gauge(
        "ringway_blocked_connections",
        "Connections that wait until their socket takes more bytes.",
        |s| s.blocked,
    ),
    counter(
        "ringway_connections_opened_total",
        "Client connections accepted.",
        |s| s.opened,
    ),
    gauge(
        "ringway_users",
        "Distinct users with a connection, counted at the user's home shard.",
        |s| s.users,
    ),
    gauge(
        "ringway_channels",
        "Channels, counted at their home shard.",
        |s| s.homes,
    ),
    gauge(
        "ringway_attached_channels",
        "Channels with members on the shard.",
        |s| s.channels,
    ),
    gauge("ringway_subscriptions", "Subscriptions.", |s| {
        s.subscriptions
    }),
    counter(
        "ringway_messages_received_total",
        "Messages received from clients.",
        |s| s.messages_received,
    ),
    counter(
        "ringway_bytes_received_total",
        "Bytes received from clients.",
        |s| s.bytes_received,
    ),
    counter(
        "ringway_publications_total",
        "Publications accepted, counted at the channel's home shard.",
        |s| s.publications,
    ),
    counter(
        "ringway_messages_sent_total",
        "Messages handed to client sockets.",
        |s| s.deliveries,
    ),
    counter(
        "ringway_bytes_sent_total",
        "Bytes that client sockets took.",
        |s| s.bytes_sent,
    ),
    counter(
        "ringway_frames_invalid_total",
        "Frames that broke the WebSocket or the client protocol.",
        |s| s.frames_invalid,
    ),
    gauge("ringway_log_bytes", "Bytes held in channel logs.", |s| {
        s.log_bytes
    }),
    gauge(
        "ringway_history_bytes",
        "Bytes held in history records.",
        |s| s.history_bytes,
    ),
    counter(
        "ringway_shard_ticks_total",
        "Turns of the shard's loop.",
        |s| s.ticks,
    ),
    counter(
        "ringway_shard_batches_total",
        "Batches received from other threads.",
        |s| s.batches,
    ),
    counter(
        "ringway_reactor_enters_total",
        "Calls into the kernel that submit or wait.",
        |s| s.reactor.enters,
    ),
    counter(
        "ringway_sends_total",
        "Sends submitted to the kernel.",
        |s| s.reactor.sends,
    ),
    counter(
        "ringway_send_short_total",
        "Sends that the kernel did not take whole.",
        |s| s.reactor.short_sends,
    ),
    counter(
        "ringway_pbuf_exhausted_total",
        "Receives that found no provided buffer.",
        |s| s.reactor.buffers_exhausted,
    ),
    counter(
        "ringway_cq_overflows_total",
        "Completion queue overflows.",
        |s| s.reactor.cq_overflows,
    ),
    counter(
        "ringway_multishot_rearms_total",
        "Multishot operations that had to be armed again.",
        |s| s.reactor.rearms,
    ),
    counter(
        "ringway_proxies_refused_total",
        "Connections without a good PROXY header, or not from the networks that may send one.",
        |s| s.proxies_refused,
    ),
    counter(
        "ringway_token_checks_deferred_total",
        "Checks of tokens that waited for a later turn of the shard's loop.",
        |s| s.token_checks_deferred,
    ),
    counter(
        "ringway_accepts_paused_total",
        "Times accepting was paused because the file table was full.",
        |s| s.reactor.accepts_paused,
    ),
];

fn render(
    shards: &[Option<Box<ShardStats>>],
    requests: &Requests,
    key_fetches: [u64; 2],
    phase: Phase,
    broker: Option<Condition>,
    usage: &process::Usage,
) -> String {
    let mut page = Page::default();
    page.family(
        Kind::Gauge,
        "ringway_build_info",
        "The version, as a label.",
    )
    .sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
    let draining = u8::from(phase == Phase::Draining);
    page.single(
        Kind::Gauge,
        "ringway_draining",
        "1 while the node drains, else 0.",
        draining,
    );
    let mut family = page.family(
        Kind::Gauge,
        "ringway_shard_up",
        "1 when the shard answered this scrape, else 0; its other samples are absent.",
    );
    for (shard, stats) in shards.iter().enumerate() {
        family.sample(&[("shard", &shard)], u8::from(stats.is_some()));
    }
    let live: Vec<(usize, &ShardStats)> = shards
        .iter()
        .enumerate()
        .filter_map(|(shard, stats)| Some((shard, stats.as_deref()?)))
        .collect();
    for &PerShard {
        kind,
        name,
        help,
        value,
    } in PER_SHARD
    {
        let mut family = page.family(kind, name, help);
        for (shard, stats) in &live {
            family.sample(&[("shard", shard)], value(stats));
        }
    }
    let mut family = page.family(
        Kind::Counter,
        "ringway_shard_busy_seconds_total",
        "Seconds the shard did not wait.",
    );
    for (shard, stats) in &live {
        family.sample(&[("shard", shard)], stats.busy_nanos as f64 / 1e9);
    }
    let closed = live.iter().flat_map(|(_, s)| s.closed.iter().copied());
    by_label(
        &mut page,
        "ringway_connections_closed_total",
        "Client connections closed, by close code (0: none).",
        "code",
        closed,
    );
    let upgraded = live.iter().map(|(_, s)| (101, s.upgraded));
    let refused = live.iter().flat_map(|(_, s)| s.refused.iter().copied());
    by_label(
        &mut page,
        "ringway_handshakes_total",
        "Handshakes, by HTTP status.",
        "result",
        upgraded.chain(refused),
    );
    let handshakes = live.iter().flat_map(|(_, s)| {
        [
            ("full", s.tls.full),
            ("resumed", s.tls.resumed),
            ("failed", s.tls.failed),
            ("timed_out", s.tls.timed_out),
            ("plaintext", s.tls.plaintext),
        ]
    });
    by_label(
        &mut page,
        "ringway_tls_handshakes_total",
        "TLS handshakes, by what came of them.",
        "result",
        handshakes,
    );
    let errors = live
        .iter()
        .flat_map(|(_, s)| s.reply_errors.iter().copied());
    by_label(
        &mut page,
        "ringway_reply_errors_total",
        "Error replies to client commands, by code.",
        "code",
        errors,
    );
    let mut family = page.family(
        Kind::Counter,
        "ringway_limit_hits_total",
        "Times that clients met a limit, by its key and what came of it.",
    );
    for limit in Limit::ALL {
        for outcome in Outcome::ALL {
            let hits: u64 = live.iter().map(|(_, s)| s.limits.of(limit, outcome)).sum();
            let labels: [(&str, &dyn Display); 2] =
                [("limit", &limit.key()), ("outcome", &outcome.name())];
            family.sample(&labels, hits);
        }
    }
    let policies = ["disconnect", "skip", "latest"];
    let hits = live
        .iter()
        .flat_map(|(_, s)| policies.into_iter().zip(s.policy_hits));
    by_label(
        &mut page,
        "ringway_policy_hits_total",
        "Members that fell off a log, by what happened to them.",
        "policy",
        hits,
    );
    let outcomes = ["recovered", "not_recovered"];
    let resumes = live
        .iter()
        .flat_map(|(_, s)| outcomes.into_iter().zip(s.recoveries));
    by_label(
        &mut page,
        "ringway_resumes_total",
        "Subscriptions that asked to recover, by outcome.",
        "result",
        resumes,
    );
    compression::families(&mut page, &live);
    tick_duration(&mut page, live.iter().map(|(_, s)| &s.tick_micros));
    let mut family = page.family(
        Kind::Counter,
        "ringway_api_requests_total",
        "Server API requests, by method and error code (0: none).",
    );
    for ((method, code), count) in requests {
        family.sample(&[("method", method), ("code", code)], count);
    }
    by_label(
        &mut page,
        "ringway_key_fetches_total",
        "Fetches of the public keys of tokens, by outcome.",
        "result",
        ["ok", "error"].into_iter().zip(key_fetches),
    );
    if let Some(broker) = broker {
        broker_families(&mut page, &broker);
    }
    process_families(&mut page, usage);
    page.finish()
}

/// A counter that shards keep by a label, summed over them.
fn by_label<L: Display + Ord>(
    page: &mut Page,
    name: &'static str,
    help: &str,
    label: &str,
    samples: impl Iterator<Item = (L, u64)>,
) {
    let mut sums = BTreeMap::new();
    for (value, count) in samples {
        *sums.entry(value).or_insert(0) += count;
    }
    let mut family = page.family(Kind::Counter, name, help);
    for (value, count) in &sums {
        family.sample(&[(label, value)], count);
    }
}

/// Ticks longer than the last bucket shown (67 s) are in `+Inf` only.
const TICK_BUCKETS: usize = 27;

fn tick_duration<'a>(page: &mut Page, shards: impl Iterator<Item = &'a Log2Histogram>) {
    let mut total = Log2Histogram::default();
    for histogram in shards {
        for bucket in 0..BUCKETS {
            total.counts[bucket] += histogram.counts[bucket];
        }
        total.sum += histogram.sum;
    }
    let mut family = page.family(
        Kind::Histogram,
        "ringway_tick_duration_seconds",
        "Work of one turn of a shard's loop.",
    );
    let mut cumulative = 0;
    for (bucket, count) in total.counts.iter().enumerate().take(TICK_BUCKETS) {
        cumulative += count;
        family.bucket((1u64 << bucket) as f64 / 1e6, cumulative);
    }
    family.sum_and_count(total.sum as f64 / 1e6, total.count());
}

/// What links this node to others.
fn broker_families(page: &mut Page, broker: &Condition) {
    use Kind::{Counter, Gauge};
    page.single(
        Gauge,
        "ringway_broker_connected",
        "1 while a server of the backplane is connected, else 0.",
        u8::from(broker.is_connected),
    );
    page.single(
        Gauge,
        "ringway_broker_delivers",
        "1 while what is sent to the backplane comes back, else 0.",
        u8::from(broker.delivers),
    );
    page.single(
        Gauge,
        "ringway_broker_rtt_seconds",
        "How long the last message took to the backplane and back.",
        broker.rtt.as_secs_f64(),
    );
    page.single(
        Counter,
        "ringway_broker_reconnects_total",
        "Times the backplane was connected again.",
        broker.reconnects,
    );
    page.single(
        Gauge,
        "ringway_broker_channels",
        "Channels that are followed on the backplane.",
        broker.followed,
    );
    let mut family = page.family(
        Counter,
        "ringway_broker_messages_total",
        "Publications handed to the backplane and come from it.",
    );
    family.sample(&[("direction", &"sent")], broker.sent);
    family.sample(&[("direction", &"received")], broker.received);
    let mut family = page.family(
        Counter,
        "ringway_broker_lost_total",
        "Messages from the backplane that reached no channel: malformed ones, and ones that nobody could take in time or \
         wanted any more.",
    );
    family.sample(&[("reason", &"malformed")], broker.malformed);
    family.sample(&[("reason", &"not_taken")], broker.lost);
}

fn process_families(page: &mut Page, usage: &process::Usage) {
    use Kind::{Counter, Gauge};
    page.single(
        Counter,
        "process_cpu_seconds_total",
        "User and system time.",
        usage.cpu_seconds,
    );
    page.single(
        Gauge,
        "process_resident_memory_bytes",
        "Resident memory.",
        usage.resident_bytes,
    );
    page.single(
        Gauge,
        "process_virtual_memory_bytes",
        "Address space.",
        usage.virtual_bytes,
    );
    page.single(Gauge, "process_threads", "Threads.", usage.threads);
    page.single(
        Gauge,
        "process_open_fds",
        "Open file descriptors, without those in the rings' own tables.",
        usage.open_fds,
    );
    page.single(
        Gauge,
        "process_max_fds",
        "Limit of open file descriptors.",
        usage.max_fds,
    );
    page.single(
        Gauge,
        "process_start_time_seconds",
        "Start, in seconds since 1970.",
        usage.start_seconds,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn stats(n: u64) -> Option<Box<ShardStats>> {
        let mut stats = ShardStats {
            connections: n,
            opened: 11 * n,
            upgraded: 10 * n,
            ..ShardStats::default()
        };
        stats.closed = vec![(3001, n), (1000, 1)];
        stats.refused = vec![(403, 2)];
        stats.reply_errors = vec![(103, n)];
        stats.policy_hits = [n, 0, 1];
        stats.deflated_publications.messages = n;
        stats.deflated_replies.left_plain = 5 * n;
        stats.deflated_publications.plain_bytes = 300 * n;
        stats.deflated_replies.deflated_bytes = 1;
        stats.inflated.too_far = n;
        stats.inflated.plain_bytes = 1000 * n;
        stats.busy_nanos = 1_500_000_000;
        stats.tick_micros.record(0);
        stats.tick_micros.record(3);
        stats.tick_micros.record(u64::from(u32::MAX));
        Some(Box::new(stats))
    }

    fn page() -> String {
        let requests = Requests::from([(("publish", 0), 3), (("publish", 107), 1)]);
        render(
            &[stats(1), None, stats(2)],
            &requests,
            [5, 1],
            Phase::Draining,
            Some(Condition {
                is_connected: true,
                delivers: true,
                rtt: Duration::from_millis(2),
                reconnects: 1,
                sent: 2,
                received: 3,
                malformed: 4,
                lost: 5,
                followed: 6,
            }),
            &process::Usage::read(),
        )
    }

    /// A scraper's view of one sample: name, labels as text, value.
    fn parse(line: &str) -> (&str, &str, f64) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| {
            (name, rest.strip_suffix('}').expect("closed labels"))
        });
        assert!(
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            "{line}"
        );
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').expect("key=value");
            assert!(
                key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            assert!(
                value.len() >= 2 && value.starts_with('"') && value.ends_with('"'),
                "{line}"
            );
        }
        (name, labels, value.parse().expect("a number"))
    }

    #[test]
    fn every_line_parses_and_follows_the_naming_rules() {
        let page = page();
        assert!(page.ends_with('\n'));
        let (mut families, mut series) = (HashSet::new(), HashSet::new());
        let mut current = ("", "");
        let mut help = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').expect("a help text");
                assert!(text.ends_with('.'), "{line}");
                help = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split_once(' ').expect("a type");
                assert_eq!(help, current.0, "HELP comes before TYPE");
                assert!(families.insert(current.0), "{line}: twice");
                assert_eq!(
                    current.1 == "counter",
                    current.0.ends_with("_total"),
                    "{line}"
                );
                assert!(
                    current.0.starts_with("ringway_") || current.0.starts_with("process_"),
                    "{line}"
                );
            } else {
                let (name, labels, value) = parse(line);
                let base = if current.1 == "histogram" {
                    ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| name.strip_suffix(suffix))
                        .unwrap_or(name)
                } else {
                    name
                };
                assert_eq!(base, current.0, "samples stand under their family");
                assert!(series.insert((name, labels)), "{line}: twice");
                assert!(value >= 0.0);
            }
        }
    }

    #[test]
    fn sums_by_label_and_leaves_out_the_silent_shard() {
        let page = page();
        for line in [
            "ringway_draining 1",
            "ringway_shard_up{shard=\"1\"} 0",
            "ringway_connections{shard=\"0\"} 1",
            "ringway_connections{shard=\"2\"} 2",
            "ringway_connections_closed_total{code=\"1000\"} 2",
            "ringway_connections_closed_total{code=\"3001\"} 3",
            "ringway_handshakes_total{result=\"101\"} 30",
            "ringway_handshakes_total{result=\"403\"} 4",
            "ringway_broker_lost_total{reason=\"malformed\"} 4",
            "ringway_broker_rtt_seconds 0.002",
            "ringway_policy_hits_total{policy=\"disconnect\"} 3",
            "ringway_policy_hits_total{policy=\"latest\"} 2",
            "ringway_resumes_total{result=\"recovered\"} 0",
            "ringway_deflate_messages_total{kind=\"publication\",result=\"deflated\"} 3",
            "ringway_deflate_messages_total{kind=\"reply\",result=\"left_plain\"} 15",
            "ringway_deflate_bytes_total{kind=\"publication\",side=\"in\"} 900",
            "ringway_deflate_bytes_total{kind=\"reply\",side=\"out\"} 2",
            "ringway_inflate_messages_total{result=\"too_far\"} 3",
            "ringway_inflate_bytes_total{side=\"out\"} 3000",
            "ringway_shard_busy_seconds_total{shard=\"2\"} 1.5",
            "ringway_api_requests_total{method=\"publish\",code=\"107\"} 1",
            "ringway_tick_duration_seconds_bucket{le=\"0.000001\"} 2",
            "ringway_tick_duration_seconds_bucket{le=\"0.000004\"} 4",
            "ringway_tick_duration_seconds_bucket{le=\"+Inf\"} 6",
            "ringway_tick_duration_seconds_count 6",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("ringway_connections{shard=\"1\"}"));
    }
}
