//! The Centrifuge client protocol, version 2, in JSON and Protobuf. No I/O, no clock, no state.
//!
//! Commands are read in place ([`Commands`]). Replies (`reply_*`) and pushes (`push_*`) are appended as complete
//! WebSocket frames. Publications are kept as the bytes of a Protobuf `Publication` ([`publication`]) and rendered once
//! for each encoding. Each message's fields stand once, in `schema`; reading and writing go through one trait each
//! (`decode::Fields`, `encode::Put`), so that no message is described twice.

pub mod client;
mod command;
mod decode;
mod encode;
pub(crate) mod frame;
pub mod json;
mod protobuf;
pub mod publication;
mod push;
mod reply;
mod schema;
#[cfg(test)]
mod tests;

pub use command::*;
pub use decode::DecodeError;
pub use push::*;
pub use reply::*;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Text frames with JSON objects.
    Json = 0,
    /// Binary frames with Protobuf messages.
    Protobuf = 1,
}

impl Encoding {
    /// How many there are.
    pub const COUNT: usize = 2;
    /// Each, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [Self::Json, Self::Protobuf];
}

/// Bytes that are no JSON value cannot go to JSON clients (close 3506).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON")]
pub struct NotJson;

/// The frame that asks for a pong: the same for every connection.
pub const fn ping_frame(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Json => b"\x81\x02{}",
        Encoding::Protobuf => b"\x82\x01\x00",
    }
}
