//! What a peer can do wrong in frames, and the close code it earns.

use crate::protocol::codes::Disconnect;

/// A violation of RFC 6455, or of a limit, by the peer. The connection is over: nothing after it can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// A reserved bit is set that no agreed extension gives a meaning here (section 5.2; RFC 7692 section 6).
    #[error("a reserved bit is set")]
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 have no meaning (section 5.2).
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    /// A client must mask (section 5.1).
    #[error("a frame from a client is not masked")]
    Unmasked,
    /// A server must not mask (section 5.1). Only seen by clients.
    #[error("a frame from a server is masked")]
    Masked,
    /// Control frames cannot be fragmented (section 5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// Control frames carry at most 125 bytes (section 5.5).
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A length must use the shortest form (section 5.2).
    #[error("a length is not in its shortest form")]
    NonMinimalLength,
    /// The top bit of a 64-bit length must be 0 (section 5.2).
    #[error("a length has its top bit set")]
    LengthOverflow,
    /// A continuation without a message to continue (section 5.4).
    #[error("a continuation without a message")]
    UnexpectedContinuation,
    /// A new message before the last one ended (section 5.4).
    #[error("a new message inside a fragmented one")]
    InterruptedMessage,
    /// A close frame of one byte (section 5.5.1).
    #[error("a close frame of one byte")]
    TruncatedCloseCode,
    /// A close code that must not be on the wire (section 7.4).
    #[error("close code {0} is not valid")]
    InvalidCloseCode(u16),
    /// Text, or the reason of a close, that is not UTF-8 (section 8.1).
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// A message over [`Limits::message_bytes`](super::Limits::message_bytes).
    #[error("a message is over the size limit")]
    MessageTooBig,
    /// A message in more than [`Limits::fragments`](super::Limits::fragments) frames.
    #[error("a message has too many fragments")]
    TooManyFragments,
    /// A compressed message that is none (RFC 7692 section 7.2.2).
    #[error("a compressed message is not DEFLATE")]
    InvalidDeflate,
    /// A compressed message that grows far more than text does.
    #[error("a compressed message inflates too far")]
    InflatesTooFar,
}

impl WsError {
    /// The close that answers it: 1002, 1007 or 1009.
    pub fn disconnect(self) -> Disconnect {
        match self {
            Self::InvalidUtf8 => Disconnect::WS_INVALID_UTF8,
            Self::InvalidDeflate => Disconnect::WS_INVALID_DEFLATE,
            Self::MessageTooBig | Self::TooManyFragments | Self::InflatesTooFar => {
                Disconnect::WS_TOO_BIG
            }
            Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::Unmasked
            | Self::Masked
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::NonMinimalLength
            | Self::LengthOverflow
            | Self::UnexpectedContinuation
            | Self::InterruptedMessage
            | Self::TruncatedCloseCode
            | Self::InvalidCloseCode(_) => Disconnect::WS_PROTOCOL,
        }
    }
}
