//! Counters of one shard: plain numbers, owned by its thread, copied out when the control thread asks.

/// Buckets of a log2 histogram: bucket `i` counts values below `2^i`.
pub const BUCKETS: usize = 40;

/// A histogram with power-of-two buckets.
#[derive(Clone, Copy, Debug)]
pub struct Log2Histogram {
    /// Counts by bucket; the last holds everything larger.
    pub counts: [u64; BUCKETS],
    /// Sum of the values.
    pub sum: u64,
}

impl Default for Log2Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum: 0,
        }
    }
}

impl Log2Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        let bucket = (64 - value.leading_zeros() as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// TLS handshakes since start, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsHandshakes {
    /// Done, with a certificate.
    pub full: u64,
    /// Done, by a ticket.
    pub resumed: u64,
    /// Failed: what the client sent or offered could not be used.
    pub failed: u64,
    /// Not done in time.
    pub timed_out: u64,
    /// Not begun: the client sent plain HTTP.
    pub plaintext: u64,
}

/// Messages given to a deflater since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflated {
    /// Compressed.
    pub messages: u64,
    /// Left plain: they would not have been smaller by an eighth.
    pub left_plain: u64,
    /// Bytes of frames before, of those that were compressed,
    pub plain_bytes: u64,
    /// and after.
    pub deflated_bytes: u64,
}

/// Compressed messages of clients since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflated {
    /// Inflated.
    pub messages: u64,
    /// Bytes of payload before, of those that were inflated,
    pub deflated_bytes: u64,
    /// and after.
    pub plain_bytes: u64,
    /// Given up: larger than a message may be.
    pub too_big: u64,
    /// Given up: they grew like a bomb.
    pub too_far: u64,
    /// Given up: not DEFLATE.
    pub invalid: u64,
}

/// Counters and gauges of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    /// Connections that are open (handshake done).
    pub connections: u64,
    /// Of these: blocked, i.e. waiting to be writable.
    pub blocked: u64,
    /// Accepted since start.
    pub opened: u64,
    /// Upgraded since start.
    pub upgraded: u64,
    /// Closed since start, by close code (0: without one).
    pub closed: Vec<(u16, u64)>,
    /// Handshakes refused, by HTTP status.
    pub refused: Vec<(u16, u64)>,
    /// TLS handshakes.
    pub tls: TlsHandshakes,
    /// Channels with members here.
    pub channels: u64,
    /// Channels this shard is home of.
    pub homes: u64,
    /// Distinct users with a connection on this node, of those this shard is home of.
    pub users: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Messages from clients.
    pub messages_received: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Publications accepted as a home.
    pub publications: u64,
    /// Ranges of logs handed to sockets: one or more publications to one member.
    pub deliveries: u64,
    /// Bytes the kernel took.
    pub bytes_sent: u64,
    /// Reply errors, by code.
    pub reply_errors: Vec<(u32, u64)>,
    /// Limits that clients have met.
    pub limits: crate::limit::Hits,
    /// Connections refused because no proxy of ours has introduced them.
    pub proxies_refused: u64,
    /// Checks of tokens that waited for a later tick.
    pub token_checks_deferred: u64,
    /// Frames that broke the WebSocket or client protocol.
    pub frames_invalid: u64,
    /// Publications compressed as a home, a rendition each.
    pub deflated_publications: Deflated,
    /// Replies, and whatever else is for one client alone, compressed.
    pub deflated_replies: Deflated,
    /// What clients sent compressed.
    pub inflated: Inflated,
    /// Bytes of log chunks.
    pub log_bytes: u64,
    /// Bytes of history records.
    pub history_bytes: u64,
    /// Cursors that fell off, by policy: disconnect, skip, latest.
    pub policy_hits: [u64; 3],
    /// Recoveries: recovered, not.
    pub recoveries: [u64; 2],
    /// Ticks.
    pub ticks: u64,
    /// Nanoseconds not spent waiting.
    pub busy_nanos: u64,
    /// Microseconds of a tick's work.
    pub tick_micros: Log2Histogram,
    /// Batches received from peers.
    pub batches: u64,
    /// The reactor's own.
    pub reactor: crate::reactor::ReactorStats,
}

/// Counts one more of a kind in a short list of kinds.
pub fn count<K: PartialEq>(counts: &mut Vec<(K, u64)>, kind: K) {
    match counts.iter_mut().find(|(k, _)| *k == kind) {
        Some((_, count)) => *count += 1,
        None => counts.push((kind, 1)),
    }
}
