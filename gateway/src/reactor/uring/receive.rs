//! Receiving: a multishot POLL a connection (265 bytes of kernel memory; an armed receive costs 866), and one-shot RECVs
//! from the buffer ring where it says that something is there.
//!
//! The poll is edge-triggered, so a receive is repeated until the socket is known to be empty: EAGAIN, or a completion
//! without SOCK_NONEMPTY. Readable connections are served round robin, one receive each a round.

use super::buffers::GROUP;
use super::{Completion, Op, Slot, State, Tag, UringReactor};
use crate::ids::Token;
use crate::reactor::{BufferId, EndReason, Event};
use io_uring::types::Fixed;
use io_uring::{cqueue, opcode, squeue};

/// What the multishot poll looks for, beside POLLERR and POLLHUP.
const READ_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
/// What says that the end is near, or behind the bytes that wait.
const HANG_UP: i32 = (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) as i32;

impl UringReactor {
    pub(super) fn open_slot(&mut self, token: Token) {
        let slot = &mut self.slots[token.slot as usize];
        assert!(
            slot.state == State::Accepted,
            "slot {} cannot be opened: {slot:?}",
            token.slot
        );
        slot.state = State::Open;
        slot.generation = token.generation;
        self.arm_poll(token.slot);
    }

    fn arm_poll(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.armed += 1;
        slot.set(Slot::POLLING);
        let tag = Tag::new(Op::Poll, number, slot.generation);
        self.push_plain(
            opcode::PollAdd::new(Fixed(number), READ_EVENTS)
                .multi(true)
                .build()
                .user_data(tag.pack()),
        );
    }

    pub(super) fn on_poll(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let tag = completion.tag;
        let is_over = !cqueue::more(completion.flags);
        if is_over {
            self.slots[tag.slot as usize].clear(Slot::POLLING);
            self.disarm(tag);
        }
        if !self.slots[tag.slot as usize].is_life(tag.generation) {
            return;
        }
        if completion.result < 0 {
            self.end(tag, EndReason::Error(-completion.result), events);
            return;
        }
        if completion.result & HANG_UP != 0 {
            self.slots[tag.slot as usize].set(Slot::HUNG_UP);
        }
        self.mark_readable(tag.slot);
        if is_over {
            // The kernel ends a multishot when its completion finds no room.
            self.stats.rearms += 1;
            self.arm_poll(tag.slot);
        }
    }

    fn mark_readable(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.has(Slot::ENDED) {
            return;
        }
        slot.set(Slot::READABLE);
        if !slot.has(Slot::QUEUED) {
            slot.set(Slot::QUEUED);
            self.readable.push_back(number);
        }
    }

    /// Queues one receive for each readable slot, as far as buffers and room in the queue go. Returns whether it did any.
    pub(super) fn push_receives(&mut self) -> bool {
        let mut budget = self.readable.len();
        if budget == 0 {
            return false;
        }
        if self.buffers.free() == 0 {
            self.stats.buffers_exhausted += 1;
            return false;
        }
        budget = budget
            .min(self.buffers.free() as usize)
            .min(self.queue_room());
        let mut is_receiving = false;
        while budget > 0 {
            let Some(number) = self.readable.pop_front() else {
                break;
            };
            let slot = &mut self.slots[number as usize];
            slot.clear(Slot::QUEUED);
            if slot.state != State::Open || !slot.has(Slot::READABLE) || slot.has(Slot::ENDED) {
                continue;
            }
            slot.clear(Slot::READABLE);
            slot.armed += 1;
            let tag = Tag::new(Op::Receive, number, slot.generation);
            let entry = opcode::Recv::new(Fixed(number), std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .flags(libc::MSG_DONTWAIT)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
                .user_data(tag.pack());
            self.push_plain(entry);
            is_receiving = true;
            budget -= 1;
        }
        is_receiving
    }

    pub(super) fn on_receive(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let tag = completion.tag;
        let buffer = cqueue::buffer_select(completion.flags);
        self.disarm(tag);
        let is_wanted = self.slots[tag.slot as usize].is_life(tag.generation);
        match (completion.result, buffer) {
            (1.., Some(id)) if is_wanted => {
                self.buffers.hand_out(id);
                let token = Token {
                    slot: tag.slot,
                    generation: tag.generation,
                };
                events.push(Event::Received {
                    token,
                    buffer: BufferId(id),
                    len: completion.result as u32,
                });
                if cqueue::sock_nonempty(completion.flags)
                    || self.slots[tag.slot as usize].has(Slot::HUNG_UP)
                {
                    self.mark_readable(tag.slot);
                }
                return;
            }
            (_, Some(id)) => self.buffers.put_back(id),
            (_, None) => {}
        }
        if !is_wanted {
            return;
        }
        match completion.result {
            0 => self.end(tag, EndReason::Eof, events),
            result if result > 0 => unreachable!("bytes without a buffer"),
            result => match -result {
                libc::EAGAIN => {}
                libc::EINTR => self.mark_readable(tag.slot),
                libc::ENOBUFS => {
                    self.stats.buffers_exhausted += 1;
                    self.mark_readable(tag.slot);
                }
                errno => self.end(tag, EndReason::Error(errno), events),
            },
        }
    }

    /// Emits `Ended`, once a life.
    fn end(&mut self, tag: Tag, reason: EndReason, events: &mut Vec<Event>) {
        let slot = &mut self.slots[tag.slot as usize];
        if !slot.has(Slot::ENDED) {
            slot.set(Slot::ENDED);
            slot.clear(Slot::READABLE);
            events.push(Event::Ended {
                token: Token {
                    slot: tag.slot,
                    generation: tag.generation,
                },
                reason,
            });
        }
    }
}
