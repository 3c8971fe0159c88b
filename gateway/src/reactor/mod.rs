//! The shard's only window on the outside: sockets, time and waking.
//!
//! A [`Reactor`] owns the listener and the file table. Slot = index in its table = index in the shard's slab. It never
//! holds the caller's memory between calls: [`Reactor::flush`] is synchronous. `uring/` and `epoll/` are the real ones; the
//! simulation has its own.
//!
//! # Life of a slot
//! `Accepted{slot}` → the shard answers [`Reactor::open`] with the token of this life (reads are armed) → events carry that
//! token → [`Reactor::close`] (every operation of the slot is cancelled, the last completion awaited, then the file closed)
//! → `Closed{slot}`: only now may the slot be accepted into again. After `close` no event of the slot but `Closed` is
//! emitted; a shard must still check the generation of every token.

use crate::ids::{Now, Token};
use std::net::SocketAddr;
use std::time::Duration;

/// The most sends one [`Reactor::flush`] takes.
pub const FLUSH_MAX: usize = 256;

/// One send: the whole of what one connection gets in this flush. At most one a connection a flush.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// The connection's slot.
    pub slot: u32,
    /// Bytes, never empty.
    pub bytes: &'a [u8],
}

/// What became of a send that the kernel did not take whole. Sends without a `Short` went out in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Index into the slice given to `flush`.
    pub index: u32,
    /// Bytes taken (0 = the socket buffer was full), or the error that ended the connection.
    pub taken: Result<u32, SendError>,
}

/// A connection that can no longer be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError {
    /// The kernel's errno.
    pub errno: i32,
}

/// Why nothing more will be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The peer closed its side.
    Eof,
    /// Reset or another error: its errno.
    Error(i32),
}

/// Names a filled receive buffer until it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u16);

/// What happened outside.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A connection was accepted into `slot`. Answer with [`Reactor::open`] or [`Reactor::close`].
    Accepted {
        /// Its slot.
        slot: u32,
        /// Its remote address.
        peer: SocketAddr,
    },
    /// Bytes arrived. They stay in the buffer until [`Reactor::recycle`], which must be called in the same tick.
    Received {
        /// The connection.
        token: Token,
        /// The buffer that holds them.
        buffer: BufferId,
        /// How many.
        len: u32,
    },
    /// Nothing more will come.
    Ended {
        /// The connection.
        token: Token,
        /// Why.
        reason: EndReason,
    },
    /// A connection for which [`Reactor::wait_writable`] was asked can be written again (or has failed: the send will tell).
    Writable {
        /// The connection.
        token: Token,
    },
    /// The slot is free.
    Closed {
        /// The slot.
        slot: u32,
    },
}

/// Counters of a reactor, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorStats {
    /// Calls into the kernel that submit or wait.
    pub enters: u64,
    /// Sends submitted.
    pub sends: u64,
    /// Sends the kernel did not take whole.
    pub short_sends: u64,
    /// Receives that found no provided buffer.
    pub buffers_exhausted: u64,
    /// Completion queue overflows seen.
    pub cq_overflows: u64,
    /// Multishot operations that had to be armed again.
    pub rearms: u64,
    /// Times accepting was paused because the file table was full.
    pub accepts_paused: u64,
}

/// Sockets, time and waking for one shard.
pub trait Reactor {
    /// Slots in the table: every `slot` is below it.
    fn slots(&self) -> u32;

    /// The current moment. The only clock the shard has.
    fn now(&mut self) -> Now;

    /// Waits until something happens, at most `patience` (zero: only looks), and appends the events. Interrupted waits
    /// return early and empty. A wake through this reactor's waker also ends the wait, without an event.
    ///
    /// # Errors
    /// Only when the reactor itself is broken; the process then ends.
    fn poll(&mut self, patience: Duration, events: &mut Vec<Event>) -> std::io::Result<()>;

    /// The bytes of a received buffer, to be unmasked in place.
    fn buffer(&mut self, buffer: BufferId, len: u32) -> &mut [u8];

    /// Gives a receive buffer back.
    fn recycle(&mut self, buffer: BufferId);

    /// Starts the life `token` of an accepted slot: reads are armed.
    fn open(&mut self, token: Token);

    /// Sends; when it returns every send is over. Appends a [`Short`] for each that did not go out whole.
    /// `sends.len() <= FLUSH_MAX`, no slot twice.
    fn flush(&mut self, sends: &[Send<'_>], short: &mut Vec<Short>);

    /// Asks for one `Writable` event. At most one outstanding a life.
    fn wait_writable(&mut self, token: Token);

    /// Ends the life of a slot, orderly (pending bytes in the kernel are still delivered) or by reset. `Closed` follows.
    fn close(&mut self, token: Token, how: CloseHow);

    /// Stops accepting and closes the listener: a new connect is refused at once.
    fn stop_accepting(&mut self);

    /// Counters since start.
    fn stats(&self) -> ReactorStats;
}

/// How long the kernel keeps what an orderly close left behind for a peer that takes none of it (TCP_USER_TIMEOUT). Without
/// this limit it probes a closed window for minutes, and memory that nobody counts any more is held by whoever likes to.
pub const UNTAKEN_MILLIS: u32 = 5000;

/// How a socket is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseHow {
    /// close(2): FIN after what is queued, which the peer has to take within [`UNTAKEN_MILLIS`].
    Orderly,
    /// SO_LINGER 0, then close: RST, queued bytes are dropped.
    Reset,
}

mod clock;
pub mod epoll;
mod error;
pub mod ktls;
pub mod listener;
pub mod uring;

pub use error::ReactorError;
