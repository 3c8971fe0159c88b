//! The instruments: CPU by schedstat, memory by smaps and slab, latency by histogram.

pub mod cpu;
pub mod histogram;
pub mod memory;
