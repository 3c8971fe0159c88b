//! The state of one connection, free of I/O and clocks: where it stands in its life, what it is subscribed to, the bytes
//! that wait for it. There is no read buffer, no write buffer, no task and no timer object: what is only needed for a
//! while is boxed and given back.

mod identity;
mod pending;
mod private;
mod sub;

pub use identity::{Extras, Identity, SubExtra};
pub use pending::{Awaited, ConnectWait, Pending, Slot, SubscribeWait, TICKETS_MAX};
pub use private::Private;
pub use sub::Sub;

use crate::protocol::centrifuge::Encoding;
use crate::protocol::websocket::Decoder;
use smallvec::SmallVec;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The upgrade request is arriving.
    Handshake,
    /// Upgraded; the first command, `connect`, is awaited or is being worked on.
    Greeted,
    /// Connected.
    Open,
    /// Its connect was answered with an error: every further command is a mistake.
    Failed,
    /// `/echo`.
    Echo,
    /// A close frame (or an HTTP refusal) is queued; nothing but the peer's answer is awaited.
    Closing,
}

/// Bits of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// A ping did not leave at once, so that its pong may be late.
    pub const PING_LATE: Flags = Flags(1);
    /// A ping has not left yet.
    pub const PING_WAITS: Flags = Flags(512);
    /// Its user's home counts it.
    pub const COUNTED: Flags = Flags(2);
    /// The client speaks WebSocket pings instead of the protocol's.
    pub const FRAME_PINGS: Flags = Flags(4);
    /// A POLLOUT is armed.
    pub const POLLS_OUT: Flags = Flags(8);
    /// The peer has sent its close frame.
    pub const PEER_CLOSED: Flags = Flags(16);
    /// A stall timer is set.
    pub const STALL_TIMED: Flags = Flags(64);
    /// A timer looks after its token's expiry.
    pub const EXPIRY_TIMED: Flags = Flags(128);
    /// It has broken the frame format: what it sends from now on cannot be read.
    pub const DEAF: Flags = Flags(256);
    /// A timer looks whether the message that is cut is whole by then.
    pub const MESSAGE_TIMED: Flags = Flags(1 << 12);
    /// No message has been whole since that timer was set.
    pub const MESSAGE_OLD: Flags = Flags(1 << 11);
    /// The home of its address has not let it in yet.
    pub const KNOCKS: Flags = Flags(1 << 15);
    /// The home of its address refuses it.
    pub const TURNED_AWAY: Flags = Flags(1 << 14);
    /// It is beyond the node's limit, which is only tried.
    pub const NO_PERMIT: Flags = Flags(1 << 13);
    /// What is queued is an HTTP refusal, not a close frame.
    pub const REFUSED: Flags = Flags(32);

    /// Whether the bit is set.
    pub fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    /// Sets or clears the bit.
    pub fn set(&mut self, flag: Flags, on: bool) {
        if on {
            self.0 |= flag.0;
        } else {
            self.0 &= !flag.0;
        }
    }
}

/// One connection. The address of the peer is not kept: nothing needs it once it is let in.
#[derive(Debug)]
pub struct Connection {
    /// This life of the slot.
    pub generation: u32,
    /// Where it stands.
    pub phase: Phase,
    /// What it speaks.
    pub encoding: Encoding,
    /// Bits.
    pub flags: Flags,
    /// permessage-deflate was agreed, and the client inflates with a window of so many bits; 0: it was not.
    pub window_bits: u8,
    /// Pings without a pong; one that waits to leave included.
    pub pings: u8,
    /// Times in a row that the kernel took nothing.
    pub refusals: u8,
    /// Frames cut by the network.
    pub decoder: Decoder,
    /// What waits to be handled: of the upgrade request what has come; after it, commands behind a token that waits for
    /// its check.
    pub held: Option<Box<Vec<u8>>>,
    /// Bytes for this connection alone that have not left.
    pub private: Option<Box<Private>>,
    /// What it reads.
    pub subs: SmallVec<[Sub; 2]>,
    /// Who it is.
    pub identity: Option<Box<Identity>>,
    /// Commands that are not answered yet.
    pub pending: Option<Box<Pending>>,
    /// Since when not a byte has left although some wait: the clock's milliseconds but for the upper half, which a stall
    /// does not live to see change twice. 0: nothing waits in vain.
    blocked_since: u32,
}

// A chunk of the slab is then 20 KiB, which is a size class of the allocator: nothing is rounded up.
const _: () = assert!(std::mem::size_of::<Option<Connection>>() <= 80);

impl Connection {
    /// A new life.
    pub fn new(generation: u32) -> Self {
        Self {
            generation,
            phase: Phase::Handshake,
            encoding: Encoding::Json,
            flags: Flags::default(),
            window_bits: 0,
            pings: 0,
            refusals: 0,
            decoder: Decoder::new(),
            held: None,
            private: None,
            subs: SmallVec::new(),
            identity: None,
            pending: None,
            blocked_since: 0,
        }
    }

    /// Whether bytes wait that the kernel does not take.
    pub fn is_blocked(&self) -> bool {
        self.blocked_since > 0
    }

    /// The kernel has taken as much as it takes.
    pub fn block(&mut self, now_millis: u64) {
        // 0 says something else: then a millisecond ago.
        self.blocked_since = match now_millis as u32 {
            0 => u32::MAX,
            millis => millis,
        };
    }

    /// Nothing waits in vain any more.
    pub fn unblock(&mut self) {
        self.blocked_since = 0;
    }

    /// For how long not a byte has left of what waits, milliseconds.
    pub fn blocked_for(&self, now_millis: u64) -> u64 {
        u64::from((now_millis as u32).wrapping_sub(self.blocked_since))
    }

    /// Where bytes for this connection alone are put: its own buffer, or a spare one that it keeps until they have left.
    #[allow(clippy::vec_box)] // a spare one is handed over, not moved
    pub fn private_mut(&mut self, spares: &mut Vec<Box<Private>>) -> &mut Private {
        self.private
            .get_or_insert_with(|| spares.pop().unwrap_or_default())
    }

    /// Private bytes that count against `queue_max_size`.
    pub fn private_bytes(&self) -> usize {
        self.private.as_ref().map_or(0, |p| p.counted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_measured_across_the_wrap_of_its_clock() {
        let mut conn = Connection::new(1);
        assert!(!conn.is_blocked());
        for start in [1, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 3 << 32] {
            conn.block(start);
            assert!(conn.is_blocked());
            // At the wrap itself a millisecond is added.
            assert!(conn.blocked_for(start) <= 1);
            assert!((25_000..=25_001).contains(&conn.blocked_for(start + 25_000)));
        }
        conn.unblock();
        assert!(!conn.is_blocked());
    }
}
