//! One io_uring with its direct descriptors and provided buffers: all `unsafe` of the harness.
//!
//! A ring belongs to the thread that made it. Sockets live in its file table, so a connection costs no entry of the
//! process' descriptor table; the table itself holds at most `RLIMIT_NOFILE` slots, hence several rings for many
//! connections. Receives are multishot into provided buffers; sends are inline.
//!
//! Invariants:
//! - Sends carry `MSG_DONTWAIT | MSG_WAITALL` and `CQE_SKIP_SUCCESS`: when the enter that submitted them returns, the
//!   kernel has let go of their bytes. A completion exists only for a send that was short or failed.
//! - At most one send a slot is in one submission, so a short one cannot be overtaken.
//! - A provided buffer is either the kernel's or lent to one `Event`, never both.
//! - A slot's receives carry its generation, which changes when a socket leaves it: what an old socket's receive still has
//!   to say is not taken for the next one's.
#![allow(unsafe_code)]

mod buffers;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use io_uring::types::{CancelBuilder, Fixed, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use buffers::Buffers;

/// Sends and receives queued before one enter.
pub const BATCH: usize = 256;
/// Bytes of queued sends kept until the next enter.
const ARENA_BYTES: usize = 1 << 20;
/// Completions handled in one call of `poll`.
const AT_ONCE: usize = 32;
/// How much of a rest is tried at once.
const RETRY_BYTES: usize = 128 * 1024;
const BUFFER_GROUP: u16 = 0;
const KIND_RECEIVE: u64 = 0;
const KIND_SEND: u64 = 1 << 32;
/// Cancels: what they come to is told by the receive.
const KIND_CONTROL: u64 = 1 << 33;
const GENERATION_SHIFT: u32 = 40;

/// How a ring is sized.
#[derive(Clone, Copy, Debug)]
pub struct RingSize {
    /// Slots of the file table; at most `RLIMIT_NOFILE`.
    pub slots: u32,
    /// Provided buffers, a power of two; 0 for a ring that only sends.
    pub buffers: u16,
    /// Bytes of one provided buffer.
    pub buffer_bytes: u32,
}

/// What the kernel had to tell about a socket.
#[derive(Debug)]
pub enum Event<'a> {
    /// Bytes arrived; they are gone when the handler returns.
    Received { slot: u32, bytes: &'a [u8] },
    /// The peer closed (`None`) or the socket failed with this `errno`.
    Closed { slot: u32, errno: Option<i32> },
}

/// An io_uring with sockets in its file table.
pub struct Ring {
    // Dropped first (see `Drop`): the buffers below must outlive it.
    uring: IoUring,
    buffers: Option<Buffers>,
    arena: Vec<u8>,
    queued: Vec<Queued>,
    slots: Vec<Slot>,
    batch: u64,
    /// What short sends left, in order, by slot.
    rests: HashMap<u32, VecDeque<u8>>,
    completions: Vec<Completion>,
    used: u32,
    exhausted: u64,
}

#[derive(Clone, Copy)]
struct Slot {
    /// The number of the submission it last had a send in.
    last_batch: u64,
    generation: u32,
    reading: Reading,
}

/// What becomes of bytes that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// They stay in the socket.
    Off,
    /// A multishot receive takes them, or will after the one that takes some.
    On,
    /// One receive takes some.
    Once,
    /// The multishot receive is being cancelled; then off.
    Stopping,
    /// The same; then on again.
    Restarting,
}

struct Queued {
    slot: u32,
    start: usize,
    len: usize,
    /// All, unless a completion says less.
    sent: usize,
    /// A piece of what an earlier send left.
    of_rest: bool,
}

#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// What the kernel says to the ring, its file table or its buffer ring.
    pub fn new(size: RingSize) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(16 * 1024)
            .build(2 * BATCH as u32)?;
        uring.submitter().register_files_sparse(size.slots)?;
        let buffers = match size.buffers {
            0 => None,
            count => Some(Buffers::register(&uring, count, size.buffer_bytes)?),
        };
        Ok(Self {
            uring,
            buffers,
            arena: Vec::with_capacity(ARENA_BYTES),
            queued: Vec::with_capacity(BATCH),
            slots: vec![
                Slot {
                    last_batch: 0,
                    generation: 0,
                    reading: Reading::Off,
                };
                size.slots as usize
            ],
            batch: 1,
            rests: HashMap::new(),
            completions: Vec::new(),
            used: 0,
            exhausted: 0,
        })
    }

    /// Puts a socket into the next free slot; the descriptor is closed, the socket lives on in the table.
    pub fn attach(&mut self, socket: OwnedFd) -> io::Result<u32> {
        self.place(socket.as_raw_fd())
    }

    /// Puts a socket into the next free slot and leaves its descriptor to the caller.
    pub fn attach_shared(&mut self, socket: BorrowedFd<'_>) -> io::Result<u32> {
        self.place(socket.as_raw_fd())
    }

    /// Puts a socket into a slot that was detached.
    pub fn attach_at(&mut self, slot: u32, socket: OwnedFd) -> io::Result<()> {
        let fds = [socket.as_raw_fd()];
        self.uring.submitter().register_files_update(slot, &fds)?;
        Ok(())
    }

    /// Takes the socket out of its slot; with the receive cancelled nothing holds it any more, and it closes at the next
    /// flush. What it had not sent is dropped.
    pub fn detach(&mut self, slot: u32) -> io::Result<()> {
        self.submit()?;
        self.rests.remove(&slot);
        if self.slots[slot as usize].reading != Reading::Off {
            self.cancel_receive(slot)?;
        }
        let state = &mut self.slots[slot as usize];
        state.generation = (state.generation + 1) & 0x00ff_ffff;
        state.reading = Reading::Off;
        self.uring.submitter().register_files_update(slot, &[-1])?;
        Ok(())
    }

    fn place(&mut self, fd: RawFd) -> io::Result<u32> {
        let slot = self.used;
        if slot as usize == self.slots.len() {
            return Err(io::Error::other("the ring's file table is full"));
        }
        self.uring.submitter().register_files_update(slot, &[fd])?;
        self.used += 1;
        Ok(slot)
    }

    /// Slots in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// How often the provided buffers ran out.
    pub fn exhausted(&self) -> u64 {
        self.exhausted
    }

    /// Takes what arrives from now on, until the socket closes or [`Ring::stop_receiving`].
    pub fn receive(&mut self, slot: u32) -> io::Result<()> {
        let reading = &mut self.slots[slot as usize].reading;
        match reading {
            Reading::Off => self.arm(slot),
            Reading::Stopping => {
                *reading = Reading::Restarting;
                Ok(())
            }
            // What is left to it is armed when the little has come.
            Reading::Once => {
                *reading = Reading::On;
                Ok(())
            }
            Reading::On | Reading::Restarting => Ok(()),
        }
    }

    /// Leaves what arrives in the socket, hence soon at the sender; what a receive has taken already is still told.
    pub fn stop_receiving(&mut self, slot: u32) -> io::Result<()> {
        let reading = &mut self.slots[slot as usize].reading;
        match reading {
            Reading::On => {
                *reading = Reading::Stopping;
                self.cancel_receive(slot)
            }
            Reading::Restarting => {
                *reading = Reading::Stopping;
                Ok(())
            }
            Reading::Off | Reading::Once | Reading::Stopping => Ok(()),
        }
    }

    /// Takes at most `bytes` when some arrive, if the slot is not receiving anyway.
    pub fn receive_once(&mut self, slot: u32, bytes: u32) -> io::Result<()> {
        if self.slots[slot as usize].reading != Reading::Off {
            return Ok(());
        }
        self.slots[slot as usize].reading = Reading::Once;
        let entry = opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), bytes)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
            .user_data(self.receive_data(slot));
        // SAFETY: as in `arm`.
        unsafe { self.push(&entry) }
    }

    fn arm(&mut self, slot: u32) -> io::Result<()> {
        assert!(self.buffers.is_some(), "a ring without buffers only sends");
        self.slots[slot as usize].reading = Reading::On;
        let entry = opcode::RecvMulti::new(Fixed(slot), BUFFER_GROUP)
            .build()
            .user_data(self.receive_data(slot));
        // SAFETY: the operation names no memory of ours but the buffer group, which lives as long as the ring.
        unsafe { self.push(&entry) }
    }

    fn cancel_receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(self.receive_data(slot))
            .build()
            .user_data(KIND_CONTROL);
        // SAFETY: the operation names no memory.
        unsafe { self.push(&entry) }
    }

    fn receive_data(&self, slot: u32) -> u64 {
        let generation = self.slots[slot as usize].generation;
        u64::from(generation) << GENERATION_SHIFT | KIND_RECEIVE | u64::from(slot)
    }

    /// Queues a send of a copy of `bytes`; what the socket does not take is kept and tried again at each flush.
    pub fn send(&mut self, slot: u32, bytes: &[u8]) -> io::Result<()> {
        if let Some(rest) = self.rests.get_mut(&slot) {
            rest.extend(bytes);
            return Ok(());
        }
        if self.arena.len() + bytes.len() > self.arena.capacity() || self.must_wait(slot) {
            self.flush()?;
            if self.rests.contains_key(&slot) {
                return self.send(slot, bytes);
            }
            // Only a message larger than the whole arena moves it, and then nothing is queued.
            self.arena.reserve(bytes.len());
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        match self.queued.last_mut() {
            Some(last) if last.slot == slot && !last.of_rest => {
                last.len += bytes.len();
                last.sent += bytes.len();
            }
            _ => self.queue(slot, start, false),
        }
        Ok(())
    }

    /// True when the slot's send cannot join this submission: it is full, or has one for the slot that cannot grow.
    fn must_wait(&self, slot: u32) -> bool {
        let grows = self
            .queued
            .last()
            .is_some_and(|last| last.slot == slot && !last.of_rest);
        !grows && (self.queued.len() == BATCH || self.slots[slot as usize].last_batch == self.batch)
    }

    /// Queues the arena's bytes from `start` on.
    fn queue(&mut self, slot: u32, start: usize, of_rest: bool) {
        let len = self.arena.len() - start;
        self.queued.push(Queued {
            slot,
            start,
            len,
            sent: len,
            of_rest,
        });
        self.slots[slot as usize].last_batch = self.batch;
    }

    /// True when some socket did not take all it was sent.
    pub fn is_blocked(&self, slot: u32) -> bool {
        self.rests.contains_key(&slot)
    }

    /// Submits what is queued; when it returns, each send is over or its rest is kept.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.rests.is_empty() {
            self.retry()?;
        }
        self.submit()
    }

    /// Queues the next piece of each rest.
    fn retry(&mut self) -> io::Result<()> {
        self.submit()?;
        let blocked: Vec<u32> = self.rests.keys().copied().collect();
        for slot in blocked {
            if self.queued.len() == BATCH || self.arena.len() + RETRY_BYTES > self.arena.capacity()
            {
                self.submit()?;
            }
            let Some(rest) = self.rests.get_mut(&slot) else {
                continue;
            };
            let (start, piece) = (self.arena.len(), rest.len().min(RETRY_BYTES));
            let (front, back) = rest.as_slices();
            self.arena
                .extend_from_slice(&front[..piece.min(front.len())]);
            self.arena
                .extend_from_slice(&back[..piece - piece.min(front.len())]);
            self.queue(slot, start, true);
        }
        Ok(())
    }

    fn submit(&mut self) -> io::Result<()> {
        if self.uring.submission().is_empty() && self.queued.is_empty() {
            return Ok(());
        }
        for index in 0..self.queued.len() {
            let Queued {
                slot, start, len, ..
            } = self.queued[index];
            let entry = send_entry(slot, &self.arena[start..start + len])
                .user_data(KIND_SEND | index as u64);
            // SAFETY: the arena is neither moved nor cleared before the last `enter` has returned: each send is over then.
            unsafe { self.push(&entry)? };
        }
        self.enter()?;
        if self.queued.is_empty() {
            return Ok(());
        }
        self.reap();
        let (queued, arena, rests) = (&mut self.queued, &self.arena, &mut self.rests);
        self.completions.retain(|done| {
            if done.user_data & KIND_SEND == 0 {
                return true;
            }
            let send = &mut queued[done.user_data as u32 as usize];
            send.sent = match done.result {
                n if n >= 0 => n as usize,
                e if e == -libc::EAGAIN || e == -libc::EINTR => 0,
                // A reset peer: the receive says so, nothing is left to send.
                _ => send.len,
            };
            false
        });
        for send in queued.drain(..) {
            if send.of_rest {
                let rest = rests
                    .get_mut(&send.slot)
                    .expect("only its own sends shorten a rest");
                rest.drain(..send.sent);
                if rest.is_empty() {
                    rests.remove(&send.slot);
                }
            } else if send.sent < send.len {
                let rest = &arena[send.start + send.sent..send.start + send.len];
                rests.insert(send.slot, rest.iter().copied().collect());
            }
        }
        self.arena.clear();
        self.batch += 1;
        Ok(())
    }

    /// Sends the same bytes once to each slot of `0..used`, `BATCH` a submission: the bare loop the gateway is
    /// measured against.
    ///
    /// # Errors
    /// `WouldBlock` when a socket did not take all.
    pub fn send_to_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(
            self.queued.is_empty(),
            "nothing else may be in this submission"
        );
        for slot in 0..self.used {
            let entry = send_entry(slot, bytes).user_data(KIND_SEND);
            // SAFETY: `bytes` is borrowed until this function returns, after the last `enter`: each send is over then.
            unsafe { self.push_unsubmitted(&entry) };
            if slot % BATCH as u32 == BATCH as u32 - 1 {
                self.enter()?;
            }
        }
        self.enter()?;
        self.reap();
        let before = self.completions.len();
        self.completions
            .retain(|done| done.user_data & KIND_SEND == 0);
        match before - self.completions.len() {
            0 => Ok(()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Flushes, then hands each event to `on`; never waits. True when there was any.
    pub fn poll(&mut self, mut on: impl FnMut(Event<'_>)) -> io::Result<bool> {
        self.flush()?;
        let submission = self.uring.submission();
        let asked = submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if asked {
            self.enter()?;
        }
        self.reap();
        if self.completions.is_empty() {
            return Ok(false);
        }
        let mut completions = std::mem::take(&mut self.completions);
        // The rest is the next call's: who publishes by timetable must not wait for all that has come.
        for done in completions.drain(..completions.len().min(AT_ONCE)) {
            self.handle(done, &mut on)?;
        }
        completions.append(&mut self.completions);
        self.completions = completions;
        if let Some(buffers) = &mut self.buffers {
            buffers.publish();
        }
        Ok(true)
    }

    fn handle(&mut self, done: Completion, on: &mut impl FnMut(Event<'_>)) -> io::Result<()> {
        if done.user_data & KIND_CONTROL != 0 {
            return Ok(());
        }
        let slot = done.user_data as u32;
        let current = done.user_data == self.receive_data(slot);
        if let Some(id) = cqueue::buffer_select(done.flags) {
            let buffers = self
                .buffers
                .as_mut()
                .expect("a selected buffer has a group");
            if done.result > 0 && current {
                on(Event::Received {
                    slot,
                    bytes: buffers.filled(id, done.result as usize),
                });
            }
            buffers.give_back(id);
        }
        if !current {
            return Ok(());
        }
        let reading = self.slots[slot as usize].reading;
        let over = match done.result {
            n if n > 0 => false,
            0 => {
                on(Event::Closed { slot, errno: None });
                true
            }
            e if e == -libc::ENOBUFS => {
                self.exhausted += 1;
                false
            }
            e if e == -libc::ECANCELED
                && matches!(reading, Reading::Stopping | Reading::Restarting) =>
            {
                false
            }
            e => {
                let errno = Some(-e);
                on(Event::Closed { slot, errno });
                true
            }
        };
        if !cqueue::more(done.flags) {
            self.slots[slot as usize].reading = Reading::Off;
            if !over && matches!(reading, Reading::On | Reading::Restarting) {
                self.arm(slot)?;
            }
        }
        Ok(())
    }

    /// # Safety
    /// What `entry` points to must stay valid until the operation is over.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.uring.submission().is_full() {
            self.enter()?;
        }
        // SAFETY: passed on to the caller.
        unsafe { self.push_unsubmitted(entry) };
        Ok(())
    }

    /// # Safety
    /// As `push`; the caller also leaves room in the submission queue.
    unsafe fn push_unsubmitted(&mut self, entry: &squeue::Entry) {
        // SAFETY: passed on to the caller.
        let pushed = unsafe { self.uring.submission().push(entry) };
        pushed.expect("the submission queue holds two batches");
    }

    fn enter(&mut self) -> io::Result<()> {
        loop {
            match self.uring.submitter().submit() {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
                // Completions must be taken first.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
                Err(e) => return Err(e),
            }
            if self.uring.submission().is_empty() {
                return Ok(());
            }
            self.reap();
        }
    }

    fn reap(&mut self) {
        self.completions
            .extend(self.uring.completion().map(|entry| Completion {
                user_data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            }));
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns the descriptor and is borrowed as long as the result.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Ends the armed receives while the buffers still live. Nothing armed is the other good answer.
        let patience = Timespec::new().sec(1);
        let _ = self
            .uring
            .submitter()
            .register_sync_cancel(Some(patience), CancelBuilder::any());
        let _ = self.uring.submitter().unregister_files();
        if self.buffers.is_some() {
            let _ = self.uring.submitter().unregister_buf_ring(BUFFER_GROUP);
        }
    }
}

fn send_entry(slot: u32, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
}

#[cfg(test)]
mod tests;
