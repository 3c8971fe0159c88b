//! Closing: cancel every operation of the slot, await each one's last completion, then CLOSE; only then is the slot free.
//!
//! A direct descriptor that is closed with an operation armed does not close its socket, and the operation goes on
//! delivering what the socket receives while the slot belongs to somebody else.

use super::{Completion, Op, Slot, State, Tag, UringReactor};
use crate::ids::Token;
use crate::reactor::{CloseHow, Event, UNTAKEN_MILLIS};
use io_uring::types::Fixed;
use io_uring::{opcode, squeue};

/// SO_LINGER with no time: closing sends RST and drops what is queued.
static NO_LINGER: libc::linger = libc::linger {
    l_onoff: 1,
    l_linger: 0,
};
static UNTAKEN: libc::c_uint = UNTAKEN_MILLIS;

impl UringReactor {
    pub(super) fn close_slot(&mut self, token: Token, how: CloseHow) {
        let slot = &mut self.slots[token.slot as usize];
        match slot.state {
            State::Accepted => slot.generation = token.generation,
            State::Open if slot.generation == token.generation => {}
            // Closed already, or a life that is over.
            _ => return,
        }
        slot.state = State::Ending;
        slot.clear(Slot::READABLE);
        let slot = *slot;
        if slot.has(Slot::POLLING) {
            self.push_cancel(Tag::new(Op::Poll, token.slot, slot.generation));
        }
        if slot.has(Slot::WAITING) {
            self.push_cancel(Tag::new(Op::Writable, token.slot, slot.generation));
        }
        match how {
            CloseHow::Reset => {
                self.push_option(token.slot, libc::SOL_SOCKET, libc::SO_LINGER, &NO_LINGER);
            }
            CloseHow::Orderly => {
                self.push_option(
                    token.slot,
                    libc::IPPROTO_TCP,
                    libc::TCP_USER_TIMEOUT,
                    &UNTAKEN,
                );
            }
        }
    }

    /// Cancels by `user_data`: the kernel finds it by hash (by file it would walk all that is armed in the ring).
    pub(super) fn push_cancel(&mut self, tag: Tag) {
        let cancel = Tag::new(Op::Cancel, tag.slot, tag.generation);
        let entry = opcode::AsyncCancel::new(tag.pack())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push_plain(entry.user_data(cancel.pack()));
    }

    fn push_option<T>(&mut self, number: u32, level: i32, name: i32, value: &'static T) {
        let slot = &mut self.slots[number as usize];
        slot.armed += 1;
        let tag = Tag::new(Op::SetOption, number, slot.generation);
        let entry = opcode::SetSockOpt::new(
            Fixed(number),
            level as u32,
            name as u32,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
        .build()
        .user_data(tag.pack());
        // SAFETY: the option's value is a static that nobody writes.
        unsafe { self.push(&entry) };
    }

    pub(super) fn push_close(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        debug_assert!(slot.state == State::Ending && slot.armed == 0);
        slot.state = State::Closing;
        let tag = Tag::new(Op::Close, number, slot.generation);
        self.push_plain(
            opcode::Close::new(Fixed(number))
                .build()
                .user_data(tag.pack()),
        );
    }

    pub(super) fn on_close(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let number = completion.tag.slot;
        let slot = &mut self.slots[number as usize];
        debug_assert!(
            completion.result == 0,
            "close of slot {number}: {}",
            completion.result
        );
        debug_assert!(slot.state == State::Closing && slot.armed == 0);
        // A place in the queue of readable slots is kept: the next life inherits it.
        *slot = Slot {
            flags: slot.flags & Slot::QUEUED,
            ..Slot::FREE
        };
        self.in_use -= 1;
        events.push(Event::Closed { slot: number });
    }
}
