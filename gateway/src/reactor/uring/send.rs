//! Sending: one SEND a connection a flush, over when the submit returns.
//!
//! MSG_DONTWAIT keeps the kernel from parking a send on a full socket, MSG_WAITALL makes a cut one fail (so that it
//! completes in spite of CQE_SKIP_SUCCESS, with the bytes it took). Silence therefore means: all of it went. The self-test
//! proves this of the running kernel; where it fails, every send completes and the flush waits for the completions.

use super::{Completion, Op, Slot, State, Tag, UringReactor};
use crate::ids::Token;
use crate::reactor::{Event, FLUSH_MAX, Send, SendError, Short};
use io_uring::types::Fixed;
use io_uring::{opcode, squeue};
use std::time::Duration;

/// Not parked, not cut without saying so, no SIGPIPE.
pub(super) const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// A completion of a send that has been submitted comes at once, or the kernel is broken.
const COMPLETION_PATIENCE: Duration = Duration::from_secs(1);

impl UringReactor {
    pub(super) fn send_all(&mut self, sends: &[Send<'_>], short: &mut Vec<Short>) {
        assert!(sends.len() <= FLUSH_MAX, "a flush of {}", sends.len());
        if sends.is_empty() {
            return;
        }
        if self.queue_room() < sends.len() {
            self.submit();
        }
        self.flushes = self.flushes.wrapping_add(1).max(1);
        // All is checked before anything is queued: a panic must not leave a send in the queue.
        for send in sends {
            self.check_send(send);
        }
        let mut pending = 0;
        for (index, send) in sends.iter().enumerate() {
            if self.push_send(index as u32, send) {
                pending += 1;
            } else {
                short.push(Short {
                    index: index as u32,
                    taken: Err(SendError { errno: libc::EBADF }),
                });
            }
        }
        self.stats.sends += u64::from(pending);
        self.submit(); // until the queue is empty: submitted == asked
        let mut reported = 0;
        loop {
            reported += self.sort_completions(sends, short);
            if self.ring().submission().cq_overflow() {
                self.run_deferred();
            } else if self.is_silent || reported == pending {
                break;
            } else if self.submit_and_wait(COMPLETION_PATIENCE).is_err() {
                panic!("io_uring_enter cannot wait for the completion of a send");
            }
        }
        self.stash_is_free_of_sends();
    }

    fn check_send(&mut self, send: &Send<'_>) {
        let flush = self.flushes;
        let slot = &mut self.slots[send.slot as usize];
        assert!(
            !send.bytes.is_empty(),
            "an empty send on slot {}",
            send.slot
        );
        assert!(
            u32::try_from(send.bytes.len()).is_ok(),
            "a send of 4 GiB on slot {}",
            send.slot
        );
        assert!(
            slot.flushed != flush,
            "slot {} twice in one flush: a cut first send would leave a hole",
            send.slot
        );
        slot.flushed = flush;
    }

    /// Queues one send. False: the slot has no life, nothing is sent.
    fn push_send(&mut self, index: u32, send: &Send<'_>) -> bool {
        if self.slots[send.slot as usize].state != State::Open {
            return false;
        }
        let flags = if self.is_silent {
            squeue::Flags::SKIP_SUCCESS
        } else {
            squeue::Flags::empty()
        };
        let entry = opcode::Send::new(
            Fixed(send.slot),
            send.bytes.as_ptr(),
            send.bytes.len() as u32,
        )
        .flags(SEND_FLAGS)
        .build()
        .flags(flags)
        .user_data(Tag::new(Op::Send, index, self.flushes).pack());
        // SAFETY: the bytes are borrowed for the whole of `send_all`, which returns only when the queue is empty and the
        // kernel is done with every send: proved by the self-test for silent sends, awaited otherwise. The one panic on
        // the way, in `submit`, closes the ring with what is left in the queue.
        unsafe { self.push(&entry) };
        true
    }

    /// Turns completions of this flush into `Short`s and stashes the others. Returns how many sends have completed.
    fn sort_completions(&mut self, sends: &[Send<'_>], short: &mut Vec<Short>) -> u32 {
        let mut found = std::mem::take(&mut self.reaped);
        found.append(&mut self.stash);
        self.reap(&mut found);
        let mut reported = 0;
        for completion in found.drain(..) {
            let Tag {
                op: Op::Send,
                slot: index,
                generation: flush,
            } = completion.tag
            else {
                self.stash.push(completion);
                continue;
            };
            assert_eq!(flush, self.flushes, "a send outlived its flush");
            reported += 1;
            let asked = sends[index as usize].bytes.len();
            let taken = match completion.result {
                taken @ 0.. if taken as usize >= asked => continue,
                taken @ 0.. => Ok(taken as u32),
                error if -error == libc::EAGAIN => Ok(0),
                error => Err(SendError { errno: -error }),
            };
            self.stats.short_sends += 1;
            short.push(Short { index, taken });
        }
        self.reaped = found;
        reported
    }

    fn stash_is_free_of_sends(&self) {
        debug_assert!(
            self.stash
                .iter()
                .all(|completion| completion.tag.op != Op::Send)
        );
    }

    pub(super) fn arm_writable(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        if !slot.is_life(token.generation) || slot.has(Slot::WAITING) {
            return;
        }
        slot.armed += 1;
        slot.set(Slot::WAITING);
        let tag = Tag::new(Op::Writable, token.slot, token.generation);
        self.push_plain(
            opcode::PollAdd::new(Fixed(token.slot), libc::POLLOUT as u32)
                .build()
                .user_data(tag.pack()),
        );
    }

    pub(super) fn on_writable(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let tag = completion.tag;
        self.slots[tag.slot as usize].clear(Slot::WAITING);
        self.disarm(tag);
        if self.slots[tag.slot as usize].is_life(tag.generation) {
            events.push(Event::Writable {
                token: Token {
                    slot: tag.slot,
                    generation: tag.generation,
                },
            });
        }
    }
}
