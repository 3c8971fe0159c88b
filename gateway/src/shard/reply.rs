//! Private bytes of a connection, and the order of its replies.

use super::Core;
use crate::connection::{Awaited, Pending, Phase, Private, Slot};
use crate::hub::message::ReplyTo;
use crate::ids::Token;
use crate::protocol::centrifuge::{Encoding, reply_error};
use crate::protocol::codes::{Disconnect, ReplyError};

/// Largest buffer a spare keeps.
const SPARE_BYTES: usize = 1024;
/// As many as one flush empties. What a storm of connects made beyond that goes back to the allocator.
const SPARES_MAX: usize = 64;
/// Frames for one connection alone that are compressed where that was agreed. It is done for one reader, so they have to
/// be worth it; and what is larger would keep the others waiting.
const DEFLATE_BYTES: std::ops::RangeInclusive<usize> = 1024..=64 * 1024;
/// As fast as it gets, for the same reason.
pub(super) const DEFLATE_LEVEL: u32 = 1;
/// Bytes of replies that may wait for an earlier one, and of large answers that may wait for the socket.
pub(super) const READY_BYTES_MAX: usize = 1024 * 1024;
/// Up to here an answer is sent whatever waits.
const SMALL_ANSWER_BYTES: usize = 4096;

/// What became of a command that waited.
pub(super) enum Settled<W> {
    /// It has its reply.
    Answered,
    /// It still waits.
    Waits(W),
    /// It cannot be answered in JSON.
    NotJson(W),
}

impl Core {
    /// Appends whole frames to what waits for a connection, and sees that they are sent.
    pub(super) fn say(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>, Encoding)) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let (encoding, phase, window_bits) = (conn.encoding, conn.phase, conn.window_bits);
        let tail = conn.private_mut(&mut self.spare_private).tail();
        let start = tail.len();
        write(tail, encoding);
        if window_bits > 0
            && (phase == Phase::Echo || DEFLATE_BYTES.contains(&(tail.len() - start)))
        {
            self.deflater.deflate_tail(tail, start, window_bits);
        }
        self.make_ready(slot);
    }

    /// The connection is looked at in the next flush (unless it is blocked).
    pub(super) fn make_ready(&mut self, slot: u32) {
        if !self.blocked.contains(slot) && self.is_ready.insert(slot) {
            self.ready.push_back(slot);
        }
    }

    pub(super) fn spare_private(&mut self, mut private: Box<Private>) {
        if self.spare_private.len() < SPARES_MAX && private.capacity() <= SPARE_BYTES {
            private.clear();
            self.spare_private.push(private);
        }
    }

    fn spare_pending(&mut self, pending: Box<Pending>) {
        debug_assert!(pending.is_empty());
        if self.spare_pending.len() < SPARES_MAX {
            self.spare_pending.push(pending);
        }
    }

    /// A command that waits takes its place in the order of replies; its ticket.
    pub(super) fn enqueue(&mut self, slot: u32, wait: Slot) -> u32 {
        let spare = &mut self.spare_pending;
        let conn = self
            .conns
            .get_mut(slot)
            .expect("commands come from connections that are there");
        conn.pending
            .get_or_insert_with(|| spare.pop().unwrap_or_default())
            .push(wait)
    }

    /// Replies to a command: at once, or when all before it are answered.
    pub(super) fn reply(&mut self, slot: u32, write: impl FnOnce(&mut Vec<u8>, Encoding)) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        match &mut conn.pending {
            None => self.say(slot, write),
            Some(pending) => {
                let mut frame = Vec::new();
                write(&mut frame, conn.encoding);
                pending.push(Slot::Ready(frame));
            }
        }
    }

    /// Replies with an error.
    pub(super) fn refuse(&mut self, slot: u32, id: u32, error: ReplyError) {
        self.count_error(error.code);
        self.reply(slot, |out, encoding| {
            reply_error(out, encoding, id, error, None)
        });
    }

    pub(super) fn count_error(&mut self, code: u32) {
        crate::stats::count(&mut self.stats.reply_errors, code);
    }

    /// Whether an answer of `len` bytes is one too many on top of what waits for a connection. A small one always finds room,
    /// and one however large when little waits: many large ones for a message full of small questions do not.
    pub(super) fn has_too_much(&mut self, token: Token, len: usize) -> bool {
        let Some(conn) = self.conn(token) else {
            return false;
        };
        let ready = conn.pending.as_ref().map_or(0, |p| p.ready_bytes());
        len > SMALL_ANSWER_BYTES && conn.private_bytes() + ready > READY_BYTES_MAX
    }

    /// Another shard has answered a command.
    pub(super) fn answered(
        &mut self,
        to: ReplyTo,
        write: impl FnOnce(&mut Vec<u8>, Encoding, Awaited),
    ) {
        let Some(conn) = self.conn(to.token) else {
            return;
        };
        let encoding = conn.encoding;
        let Some(pending) = &mut conn.pending else {
            return;
        };
        let is_front = pending.is_front(to.ticket);
        let Some(Slot::Awaited(awaited)) = pending.get(to.ticket) else {
            return;
        };
        let awaited = *awaited;
        if is_front {
            pending.pop();
            self.say(to.token.slot, |out, encoding| write(out, encoding, awaited));
            self.settle(to.token);
        } else {
            let mut frame = Vec::new();
            write(&mut frame, encoding, awaited);
            pending.make_ready(to.ticket, frame);
        }
    }

    /// Answers the oldest commands as far as they can be.
    pub(super) fn settle(&mut self, token: Token) {
        let slot = token.slot;
        loop {
            let Some(conn) = self.conn(token) else { return };
            let Some(pending) = &mut conn.pending else {
                return;
            };
            match pending.pop() {
                None => {
                    if let Some(pending) = conn.pending.take() {
                        self.spare_pending(pending);
                    }
                    return;
                }
                Some(Slot::Ready(frame)) => self.say(slot, |out, _| out.extend_from_slice(&frame)),
                Some(Slot::Awaited(awaited)) => {
                    pending.unpop(Slot::Awaited(awaited));
                    return;
                }
                Some(Slot::Subscribe(wait)) => match self.settle_subscribe(token, wait) {
                    Settled::Answered => {}
                    Settled::Waits(wait) => return self.put_back(token, Slot::Subscribe(wait)),
                    Settled::NotJson(wait) => return self.not_json(token, Slot::Subscribe(wait)),
                },
                Some(Slot::Connect(wait)) => match self.settle_connect(token, wait) {
                    Settled::Answered => {}
                    Settled::Waits(wait) => return self.put_back(token, Slot::Connect(wait)),
                    Settled::NotJson(wait) => return self.not_json(token, Slot::Connect(wait)),
                },
            }
        }
    }

    /// What it would recover is not JSON. The command goes back first, so that closing gives up its part in the views.
    fn not_json(&mut self, token: Token, wait: Slot) {
        self.put_back(token, wait);
        self.close(token, Disconnect::INAPPROPRIATE_PROTOCOL);
    }

    fn put_back(&mut self, token: Token, wait: Slot) {
        if let Some(pending) = self.conn(token).and_then(|c| c.pending.as_mut()) {
            pending.unpop(wait);
        }
    }

    /// Looks again at the connections that waited for a home.
    pub(super) fn settle_waiters(&mut self) {
        let mut waiters = std::mem::take(&mut self.waiters);
        // A connection may have waited for several things that came together.
        waiters.sort_unstable_by_key(|token| (token.slot, token.generation));
        waiters.dedup();
        for token in waiters.drain(..) {
            self.settle(token);
        }
        // Settling never adds waiters; answers of homes do.
        debug_assert!(self.waiters.is_empty());
        self.waiters = waiters;
    }
}
