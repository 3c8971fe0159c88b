//! The instruments: CPU by schedstat, memory by smaps and slab, latency by histogram, and all of them each second.

pub mod cpu;
pub mod histogram;
pub mod memory;
pub mod recorder;
pub mod round_trip;
pub mod series;
