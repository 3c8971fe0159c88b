//! Numbers that scatter: the same in each run.

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    /// Those of the thread with this number.
    pub(super) fn new(thread: usize) -> Self {
        Self(0x5eed ^ (thread as u64) << 32)
    }

    /// From 0 up to and without 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((n ^ n >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }
}
