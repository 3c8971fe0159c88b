//! The client's half of the protocol, for the simulation and the load generator: commands written, replies read. Payloads
//! only: clients mask their frames, so framing is theirs.

mod read;
mod write;

pub use read::*;
pub use write::*;
