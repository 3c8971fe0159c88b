//! The io_uring reactor. All unsafe I/O of the product is in this directory.
//!
//! One ring, one thread: SINGLE_ISSUER and DEFER_TASKRUN. Connections are direct descriptors, so a slot of the ring's file
//! table *is* the connection's index and no file descriptor is spent. Every operation carries its kind, slot and generation
//! in `user_data`; memory is never addressed through it, so a late completion is harmless.
//!
//! | verb | file | operations |
//! | --- | --- | --- |
//! | set up | `setup` | the ring, its file table and its restrictions |
//! | enter | `enter` | queue, submit, wait, reap |
//! | accept | `accept` | 64 one-shot ACCEPTs, each with an address buffer |
//! | receive | `receive`, `buffers` | a multishot POLL a connection, one-shot RECVs from the buffer ring |
//! | send | `send` | SEND that is over when the submit returns |
//! | close | `close` | cancel all, wait for the last completion, CLOSE |
//! | look | `probe`, `selftest` | what this kernel can do |
//!
//! # Invariants
//! * Of a slot, `armed` operations have a completion to come. It is closed, and then free, only at zero.
//! * No SEND outlives the [`Reactor::flush`] that pushed it, so the ring never holds the caller's memory.
//! * Accepts armed + slots in use ≤ slots: an accept always finds a place, no connection is dropped for lack of one.
//! * A buffer is either the kernel's or has been handed out; [`Reactor::buffer`] and [`Reactor::recycle`] check that.
#![allow(unsafe_code)]

mod accept;
mod buffers;
mod close;
mod enter;
pub mod probe;
mod receive;
pub mod selftest;
mod send;
mod setup;

pub use probe::{Probe, probe};
pub use selftest::SelfTest;
pub use setup::UringSetup;

use super::clock::Clock;
use super::{BufferId, CloseHow, Event, Reactor, ReactorError, ReactorStats, Send, Short};
use crate::ids::{Now, Token};
use accept::Accepts;
use buffers::Buffers;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Receives of one connection in one poll: so many rounds over all that are readable.
const RECEIVE_ROUNDS: u32 = 4;
/// Kernel entries in one round that only run deferred work (about 20 items each).
const DRAIN_ENTERS: u32 = 16;

/// What an operation is, in the low byte of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Accept = 1,
    Poll,
    Receive,
    Writable,
    Cancel,
    SetOption,
    Close,
    Wake,
    Send,
}

/// The largest slot number `user_data` can carry.
const SLOT_MAX: u32 = (1 << 24) - 1;

/// `user_data`: what it is (8 bits), slot or index (24), generation or flush number (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    op: Op,
    slot: u32,
    generation: u32,
}

impl Tag {
    fn new(op: Op, slot: u32, generation: u32) -> Self {
        debug_assert!(slot <= SLOT_MAX);
        Self {
            op,
            slot,
            generation,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot) << 8 | self.op as u64
    }

    fn unpack(data: u64) -> Self {
        let op = match data as u8 {
            1 => Op::Accept,
            2 => Op::Poll,
            3 => Op::Receive,
            4 => Op::Writable,
            5 => Op::Cancel,
            6 => Op::SetOption,
            7 => Op::Close,
            8 => Op::Wake,
            9 => Op::Send,
            other => unreachable!("a completion of kind {other} that nobody submitted"),
        };
        Self {
            op,
            slot: (data >> 8) as u32 & SLOT_MAX,
            generation: (data >> 32) as u32,
        }
    }
}

/// A completion, copied out of the ring.
#[derive(Clone, Copy, Debug)]
struct Completion {
    tag: Tag,
    result: i32,
    flags: u32,
}

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// No file.
    Free,
    /// A file, no token yet.
    Accepted,
    /// Has a token, reads are armed.
    Open,
    /// Its operations are being cancelled.
    Ending,
    /// The CLOSE is under way.
    Closing,
}

/// What the reactor knows of a slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u32,
    /// The last flush that sent on it: no slot is sent on twice in one flush.
    flushed: u32,
    state: State,
    /// Operations whose last completion is to come.
    armed: u8,
    flags: u8,
}

const _: () = assert!(
    size_of::<Slot>() <= 16,
    "a slot of the reactor costs at most 16 bytes"
);

impl Slot {
    /// The multishot poll is armed.
    const POLLING: u8 = 1;
    /// The one-shot poll for writing is armed.
    const WAITING: u8 = 1 << 1;
    /// Something may be there to receive.
    const READABLE: u8 = 1 << 2;
    /// It stands in the queue of readable slots (also while it belongs to nobody).
    const QUEUED: u8 = 1 << 3;
    /// The peer has hung up: receive until the end shows.
    const HUNG_UP: u8 = 1 << 4;
    /// `Ended` was emitted.
    const ENDED: u8 = 1 << 5;

    const FREE: Slot = Slot {
        generation: 0,
        flushed: 0,
        state: State::Free,
        armed: 0,
        flags: 0,
    };

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    fn is_life(&self, generation: u32) -> bool {
        self.state == State::Open && self.generation == generation
    }
}

/// Sockets, time and waking by io_uring. Made on any thread; belongs to the thread that polls it first.
pub struct UringReactor {
    // Dropped first: the ring goes before the memory that its operations name (see `Drop`).
    ring: Option<IoUring>,
    buffers: Buffers,
    accepts: Accepts,
    slots: Vec<Slot>,
    /// Slots that are not free.
    in_use: u32,
    /// Readable slots, each at most once, in the order they are served.
    readable: VecDeque<u32>,
    wake: OwnedFd,
    is_wake_armed: bool,
    is_started: bool,
    clock: Clock,
    /// Completions that a flush found and the next poll delivers.
    stash: Vec<Completion>,
    /// Scratch for the completions in hand.
    reaped: Vec<Completion>,
    /// The number of the current flush.
    flushes: u32,
    /// Full sends complete silently (proved on this kernel at start).
    is_silent: bool,
    stats: ReactorStats,
}

// SAFETY: the ring is tied to the thread that enables it (the first poll), not to the one that makes it; the raw pointers
// inside `buffers` and `accepts` own their memory and are reached only through `&mut self`.
unsafe impl std::marker::Send for UringReactor {}

impl UringReactor {
    /// Makes the ring, its file table and its buffers. Nothing is accepted before the first poll, whose thread the reactor
    /// then belongs to.
    ///
    /// # Errors
    /// See [`ReactorError`]; lack of memory is retried for a second.
    pub fn new(setup: UringSetup) -> Result<Self, ReactorError> {
        setup::make(setup)
    }

    fn ring(&mut self) -> &mut IoUring {
        self.ring
            .as_mut()
            .expect("the ring is there until it is dropped")
    }

    /// Enables the ring for this thread and arms what is always armed.
    fn start(&mut self) -> io::Result<()> {
        self.ring().submitter().register_enable_rings()?;
        self.is_started = true;
        self.arm_wake();
        Ok(())
    }

    /// Acts on all completions at hand.
    fn handle_completions(&mut self, events: &mut Vec<Event>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        reaped.append(&mut self.stash);
        self.reap(&mut reaped);
        for completion in reaped.drain(..) {
            self.handle(completion, events);
        }
        self.reaped = reaped;
    }

    fn handle(&mut self, completion: Completion, events: &mut Vec<Event>) {
        match completion.tag.op {
            Op::Accept => self.on_accept(completion, events),
            Op::Poll => self.on_poll(completion, events),
            Op::Receive => self.on_receive(completion, events),
            Op::Writable => self.on_writable(completion, events),
            // A cancel that finds nothing: the operation has ended by itself, its last completion is under way.
            Op::Cancel => {}
            // Failed: the close is the kernel's plain one then.
            Op::SetOption => self.disarm(completion.tag),
            Op::Close => self.on_close(completion, events),
            Op::Wake => self.on_wake(completion),
            Op::Send => unreachable!("a send outlived its flush"),
        }
    }

    /// One operation of a slot has seen its last completion.
    fn disarm(&mut self, tag: Tag) {
        let slot = &mut self.slots[tag.slot as usize];
        debug_assert_eq!(
            slot.generation, tag.generation,
            "a life ended before its operations: {tag:?} {slot:?}"
        );
        slot.armed = slot
            .armed
            .checked_sub(1)
            .expect("more completions than operations");
        if slot.state == State::Ending && slot.armed == 0 {
            self.push_close(tag.slot);
        }
    }

    fn arm_wake(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.wake.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push_plain(entry.user_data(Tag::new(Op::Wake, 0, 0).pack()));
        self.is_wake_armed = true;
    }

    fn on_wake(&mut self, completion: Completion) {
        // Cleared, so that the counter cannot fill up; nothing to read is fine.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        if !cqueue::more(completion.flags) {
            self.is_wake_armed = false;
            if completion.result != -libc::ECANCELED {
                self.stats.rearms += 1;
                self.arm_wake();
            }
        }
    }

    /// Cancels everything in the ring and waits until nothing is left that could touch memory. Returns whether it worked.
    fn quiesce(&mut self) -> bool {
        if !self.is_started {
            return true;
        }
        self.accepts.is_stopping = true;
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        let cancel = cancel.user_data(Tag::new(Op::Cancel, 0, 0).pack());
        // SAFETY: a cancel names no memory. Not `push`: on a foreign thread a full queue cannot be submitted.
        if unsafe { self.ring().submission().push(&cancel) }.is_err() {
            return false;
        }
        let deadline = self.clock.millis() + 1000;
        let mut events = Vec::new();
        while self.accepts.armed > 0
            || self.is_wake_armed
            || self.slots.iter().any(|slot| slot.armed > 0)
        {
            if self.clock.millis() > deadline
                || self.submit_and_wait(Duration::from_millis(10)).is_err()
            {
                return false;
            }
            // Without a life no completion leads to another operation.
            self.handle_completions(&mut events);
        }
        true
    }
}

impl Drop for UringReactor {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if slot.state == State::Open {
                slot.state = State::Accepted;
            }
        }
        if self.ring.is_some() && (std::thread::panicking() || !self.quiesce()) {
            self.abandon();
        }
        drop(self.ring.take());
    }
}

impl Reactor for UringReactor {
    fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn poll(&mut self, patience: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        if !self.is_started {
            self.start()?;
        }
        let before = events.len();
        // First what is here already: then there is no reason to wait.
        self.handle_completions(events);
        self.arm_accepts();
        for round in 0..RECEIVE_ROUNDS {
            let is_receiving = self.push_receives();
            let is_first = round == 0;
            let is_idle = self.ring().submission().is_empty() && !self.is_work_pending();
            let has_news = events.len() > before
                || is_receiving
                || !self.readable.is_empty()
                || !self.stash.is_empty();
            if is_first && !has_news && !patience.is_zero() {
                self.submit_and_wait(self.accepts.cap(patience, self.clock.millis()))?;
            } else if !is_idle {
                self.submit_and_wait(Duration::ZERO)?;
            } else {
                break;
            }
            self.handle_completions(events);
            for _ in 0..DRAIN_ENTERS {
                if !self.is_work_pending() {
                    break;
                }
                self.run_deferred();
                self.handle_completions(events);
            }
        }
        Ok(())
    }

    fn buffer(&mut self, buffer: BufferId, len: u32) -> &mut [u8] {
        self.buffers.bytes(buffer.0, len)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.buffers.take_back(buffer.0);
    }

    fn open(&mut self, token: Token) {
        self.open_slot(token);
    }

    fn flush(&mut self, sends: &[Send<'_>], short: &mut Vec<Short>) {
        self.send_all(sends, short);
    }

    fn wait_writable(&mut self, token: Token) {
        self.arm_writable(token);
    }

    fn close(&mut self, token: Token, how: CloseHow) {
        self.close_slot(token, how);
    }

    fn stop_accepting(&mut self) {
        self.stop_accepts();
    }

    fn stats(&self) -> ReactorStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_kernel() {
        for op in [
            Op::Accept,
            Op::Poll,
            Op::Receive,
            Op::Writable,
            Op::Cancel,
            Op::SetOption,
            Op::Close,
            Op::Wake,
            Op::Send,
        ] {
            for slot in [0, 1, 255, 256, SLOT_MAX] {
                for generation in [0, 1, u32::MAX] {
                    let tag = Tag::new(op, slot, generation);
                    assert_eq!(Tag::unpack(tag.pack()), tag);
                }
            }
        }
    }
}
