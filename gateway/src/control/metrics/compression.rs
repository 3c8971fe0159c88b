//! What permessage-deflate did.

use super::exposition::{Kind, Page};
use crate::stats::ShardStats;

/// permessage-deflate, both ways, summed over the shards.
pub(super) fn families(page: &mut Page, live: &[(usize, &ShardStats)]) {
    let sum = |value: fn(&ShardStats) -> u64| live.iter().map(|(_, s)| value(s)).sum::<u64>();
    let mut family = page.family(
        Kind::Counter,
        "ringway_deflate_messages_total",
        "Messages given to a compressor: publications once for all their readers, replies for one client.",
    );
    for (kind, result, count) in [
        (
            "publication",
            "deflated",
            sum(|s| s.deflated_publications.messages),
        ),
        (
            "publication",
            "left_plain",
            sum(|s| s.deflated_publications.left_plain),
        ),
        ("reply", "deflated", sum(|s| s.deflated_replies.messages)),
        (
            "reply",
            "left_plain",
            sum(|s| s.deflated_replies.left_plain),
        ),
    ] {
        family.sample(&[("kind", &kind), ("result", &result)], count);
    }
    let mut family = page.family(
        Kind::Counter,
        "ringway_deflate_bytes_total",
        "Bytes of the messages that were compressed, before (in) and after (out).",
    );
    for (kind, side, bytes) in [
        (
            "publication",
            "in",
            sum(|s| s.deflated_publications.plain_bytes),
        ),
        (
            "publication",
            "out",
            sum(|s| s.deflated_publications.deflated_bytes),
        ),
        ("reply", "in", sum(|s| s.deflated_replies.plain_bytes)),
        ("reply", "out", sum(|s| s.deflated_replies.deflated_bytes)),
    ] {
        family.sample(&[("kind", &kind), ("side", &side)], bytes);
    }
    let mut family = page.family(
        Kind::Counter,
        "ringway_inflate_messages_total",
        "Compressed messages of clients, by what came of them; all but `inflated` close the connection.",
    );
    for (result, count) in [
        ("inflated", sum(|s| s.inflated.messages)),
        ("too_big", sum(|s| s.inflated.too_big)),
        ("too_far", sum(|s| s.inflated.too_far)),
        ("invalid", sum(|s| s.inflated.invalid)),
    ] {
        family.sample(&[("result", &result)], count);
    }
    let mut family = page.family(
        Kind::Counter,
        "ringway_inflate_bytes_total",
        "Bytes of the messages of clients that were inflated, before (in) and after (out).",
    );
    for (side, bytes) in [
        ("in", sum(|s| s.inflated.deflated_bytes)),
        ("out", sum(|s| s.inflated.plain_bytes)),
    ] {
        family.sample(&[("side", &side)], bytes);
    }
}
