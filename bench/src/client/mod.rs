//! The load generator's side of a connection: dial, upgrade, frames, what is spoken above them, the proof.
//!
//! Written apart from the gateway's codec on purpose: a bug shared by both ends would hide itself.

pub mod centrifuge;
pub mod credentials;
pub mod fleet;
pub mod frames;
pub mod handshake;
pub mod inflate;
pub mod ledger;
pub mod payload;
pub mod protocol;
pub mod raw;
pub mod ring;
pub mod share;
pub mod tls;
