//! The clock of the real reactors: the one place below the binary where time is read.

use crate::ids::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since it was made, and the wall clock beside them.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The current moment. Starts at 1 ms, so that 0 can mean "never".
    pub(super) fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let elapsed = self.start.elapsed();
        Now {
            millis: elapsed.as_millis() as u64 + 1,
            nanos: elapsed.as_nanos() as u64,
            unix_millis: unix.as_millis() as u64,
        }
    }

    /// Only the monotonic half, for deadlines inside a reactor.
    pub(super) fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }
}
