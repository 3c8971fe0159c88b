//! The WebSocket codec (RFC 6455), free of I/O.
//!
//! [`Decoder`] turns the bytes of one client into [`Message`]s: a whole frame is unmasked where it lies and lent out,
//! whatever is cut waits in a boxed assembly that exists only while something is cut. Writing is a handful of functions
//! that append to a `Vec<u8>`. [`client`] holds the other side, for tests and the load generator.
//!
//! What it never does: answer a ping or a close, decide between text and binary, or whether to compress. Those are the
//! connection's business.
//!
//! Invariants: an idle [`Decoder`] is 8 bytes and owns nothing; an assembly grows with the bytes that arrived, never with
//! what a header claims; the same bytes give the same events and the same error, however they were cut.

pub mod client;
mod close;
mod decode;
mod deflate;
mod error;
mod extension;
mod frame;
mod mask;
mod utf8;

pub use close::{REASON_MAX, close_frame, is_valid_close_code};
pub use decode::{Decoder, Limits, Message};
pub use deflate::{Deflater, Inflater, WINDOW_BITS_MAX};
pub use error::WsError;
pub use extension::DeflateOffer;
pub use frame::{
    CONTROL_MAX, FrameMark, Opcode, begin_frame, end_frame, frame_header_len, frame_len,
    header_len, write_frame,
};
pub use mask::{apply_mask, rotate_mask};
pub use utf8::{InvalidUtf8, is_utf8, utf8_valid_up_to};
