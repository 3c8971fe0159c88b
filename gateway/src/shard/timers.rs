//! Deadlines that only some connections have, in one heap; those that all have and nearly none reaches, in queues that
//! are as short as the handshakes under way; and pings, which need no timer.
//!
//! An entry of the heap is never removed: when it is due, the connection is asked whether it still applies.

use super::Core;
use super::receive::HANDSHAKE_MILLIS;
use crate::connection::{Connection, Flags, Phase};
use crate::heartbeat::Beat;
use crate::ids::Token;
use crate::protocol::centrifuge::{Encoding, ping_frame, push_unsubscribe};
use crate::protocol::codes::{Disconnect, Unsubscribed};
use crate::reactor::CloseHow;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The upgrade request must be whole.
    Handshake,
    /// The connect must have come.
    Stale,
    /// The token runs out, the grace included.
    Expiry,
    /// The subscription (by view) runs out.
    SubscriptionExpiry(u32),
    /// The close handshake must be over.
    Closing,
    /// The peer of a connection that broke the frame format has had time to read why it is closed.
    Deaf,
    /// Nothing has left for too long.
    Stall,
    /// A message that is cut must be whole.
    Message,
    /// Who is refused has had time to send the request that is to be answered so.
    TurnedAway,
    /// Try again to send: the kernel was out of memory, so that polling would spin.
    Retry,
}

/// Deadlines a fixed time after something that happens to every connection, in its order. What is at the front and does not apply any more
/// is forgotten, so that a storm of connects leaves nothing behind.
struct Queue {
    timer: Timer,
    delay_millis: u64,
    waiting: VecDeque<(u64, Token)>,
}

impl Queue {
    fn new(timer: Timer, delay_millis: u64) -> Self {
        Self {
            timer,
            delay_millis,
            waiting: VecDeque::new(),
        }
    }

    fn push(&mut self, now_millis: u64, token: Token) {
        self.waiting
            .push_back((now_millis + self.delay_millis, token));
    }

    fn pop(&mut self) {
        self.waiting.pop_front();
        if self.waiting.capacity() > 1024 && self.waiting.len() * 4 < self.waiting.capacity() {
            self.waiting.shrink_to(self.waiting.len() * 2);
        }
    }
}

/// All deadlines of a shard's connections.
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, u32, u32, Timer)>>,
    queues: [Queue; 2],
}

impl Timers {
    /// None yet; a connection may go without its connect for `stale_millis`.
    pub(super) fn new(stale_millis: u64) -> Self {
        Self {
            heap: BinaryHeap::new(),
            queues: [
                Queue::new(Timer::Handshake, HANDSHAKE_MILLIS),
                Queue::new(Timer::Stale, stale_millis),
            ],
        }
    }

    pub(super) fn set(&mut self, millis: u64, token: Token, timer: Timer) {
        self.heap
            .push(Reverse((millis, token.slot, token.generation, timer)));
    }

    /// A connection was accepted: its upgrade is waited for.
    pub(super) fn accepted(&mut self, now_millis: u64, token: Token) {
        self.queues[0].push(now_millis, token);
    }

    /// A connection was upgraded: its connect is waited for.
    pub(super) fn upgraded(&mut self, now_millis: u64, token: Token) {
        self.queues[1].push(now_millis, token);
    }

    pub(super) fn next(&self) -> Option<u64> {
        let fronts = self.queues.iter().filter_map(|q| q.waiting.front());
        let heap = self.heap.peek().map(|Reverse((millis, ..))| *millis);
        fronts.map(|(millis, _)| *millis).chain(heap).min()
    }

    fn due(&mut self, now_millis: u64) -> Option<(u64, Token, Timer)> {
        for queue in &mut self.queues {
            if let Some(&(millis, token)) = queue.waiting.front()
                && millis <= now_millis
            {
                queue.pop();
                return Some((millis, token, queue.timer));
            }
        }
        let Reverse((millis, slot, generation, timer)) = *self.heap.peek()?;
        if millis > now_millis {
            return None;
        }
        self.heap.pop();
        // After a storm the room for its deadlines is given back.
        if self.heap.capacity() > 1024 && self.heap.len() * 4 < self.heap.capacity() {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        Some((millis, Token { slot, generation }, timer))
    }

    /// Forgets what `applies` no more, up to the first that does; a budget's worth: what is left waits for the next tick.
    fn forget(&mut self, mut applies: impl FnMut(Token, Timer) -> bool) {
        for queue in &mut self.queues {
            for _ in 0..TIMERS_A_TICK {
                match queue.waiting.front() {
                    Some(&(_, token)) if !applies(token, queue.timer) => queue.pop(),
                    _ => break,
                }
            }
        }
    }
}

/// Longest time between two looks at something that expires.
const EXPIRY_LOOK_SECONDS: u64 = 60;
/// Pings that may be without a pong.
const PINGS_MAX: u8 = 3;
/// Deadlines handled in one tick, so that a storm's end does not hold everybody up.
const TIMERS_A_TICK: u32 = 4096;
/// `Closing` and stalled connections get this long, then a reset.
pub(super) const CLOSING_MILLIS: u64 = 5000;

/// Whether a connection has not done yet what one of the deadlines that all have is about. Whose connect has come and waits
/// for a home, or for its token's check, has done its part.
fn is_late_for(timer: Timer, conn: &Connection) -> bool {
    match (timer, conn.phase) {
        (Timer::Handshake, phase) => phase == Phase::Handshake,
        (Timer::Stale, Phase::Greeted) => conn.identity.is_none() && conn.held.is_none(),
        (Timer::Stale, Phase::Failed) => true,
        _ => false,
    }
}

impl Core {
    pub(super) fn run_timers(&mut self) {
        let conns = &self.conns;
        self.timers.forget(|token, timer| {
            let conn = conns.get(token.slot);
            conn.is_some_and(|c| c.generation == token.generation && is_late_for(timer, c))
        });
        for _ in 0..TIMERS_A_TICK {
            let Some((at, token, timer)) = self.timers.due(self.now.millis) else {
                break;
            };
            self.due(at, token, timer);
        }
        self.handshakes.make(self.now.nanos);
        self.beat();
        self.housekeep();
        self.run_drain();
    }

    fn due(&mut self, at: u64, token: Token, timer: Timer) {
        let seconds = self.now.unix_seconds();
        let now = self.now.millis;
        let grace = self.config.client.expired_close_delay.as_secs();
        let stall = self.config.client.stall_timeout.as_millis() as u64;
        let Some(conn) = self.conn(token) else { return };
        let is_open = matches!(conn.phase, Phase::Open | Phase::Greeted);
        match timer {
            Timer::Handshake if is_late_for(timer, conn) => {
                self.handshake_late(token);
            }
            Timer::Stale if is_late_for(timer, conn) => self.close(token, Disconnect::STALE),
            Timer::Expiry if is_open => {
                conn.flags.set(Flags::EXPIRY_TIMED, false);
                let expire_at = conn.identity.as_ref().map_or(0, |i| i.expire_at);
                if expire_at > 0 && seconds >= expire_at.saturating_add(grace) {
                    self.close(token, Disconnect::EXPIRED);
                } else {
                    self.arm_expiry(token, expire_at, Timer::Expiry);
                }
            }
            Timer::SubscriptionExpiry(view) if is_open => {
                self.subscription_expired(at, token, view, grace)
            }
            Timer::Closing if conn.phase == Phase::Closing => self.abandon(token, CloseHow::Reset),
            Timer::Deaf if conn.phase == Phase::Closing => self.abandon(token, CloseHow::Orderly),
            Timer::Stall => {
                conn.flags.set(Flags::STALL_TIMED, false);
                if !conn.is_blocked() || conn.phase == Phase::Closing {
                    return;
                }
                match stall.saturating_sub(conn.blocked_for(now)) {
                    0 => self.close(token, Disconnect::SLOW),
                    left => {
                        conn.flags.set(Flags::STALL_TIMED, true);
                        self.timers.set(now + left, token, Timer::Stall);
                    }
                }
            }
            Timer::Message if conn.phase != Phase::Closing => {
                conn.flags.set(Flags::MESSAGE_TIMED, false);
                let (is_idle, is_old) =
                    (conn.decoder.is_idle(), conn.flags.has(Flags::MESSAGE_OLD));
                if is_idle && !self.has_cut_record(token) {
                    return;
                }
                match is_old {
                    true => self.close(token, Disconnect::SLOW),
                    // It is another one than when the timer was set.
                    false => self.time_message(token),
                }
            }
            Timer::TurnedAway if conn.phase == Phase::Handshake => self.turn_away(token),
            Timer::Retry if conn.is_blocked() && !conn.flags.has(Flags::POLLS_OUT) => {
                self.writable(token)
            }
            _ => {}
        }
    }

    fn subscription_expired(&mut self, at: u64, token: Token, view: u32, grace: u64) {
        let seconds = self.now.unix_seconds();
        let identity = self.conn(token).and_then(|c| c.identity.as_mut());
        let Some(identity) = identity else { return };
        let Some(extra) = identity.extras.get_mut(view).filter(|e| e.due == at) else {
            return;
        };
        extra.due = 0;
        let expire_at = extra.expire_at;
        if expire_at == 0 {
            // It was refreshed to last, or is over: what was kept for the timer's sake goes.
            let chan_info = std::mem::take(&mut extra.chan_info);
            return identity.extras.set(view, chan_info, 0);
        }
        if seconds < expire_at.saturating_add(grace) {
            return self.arm_expiry(token, expire_at, Timer::SubscriptionExpiry(view));
        }
        let Some((_, server_side)) = self.main_sub(token, view) else {
            return;
        };
        if server_side {
            return self.close(token, Disconnect::SUBSCRIPTION_EXPIRED);
        }
        self.end_subscription(token, view, Unsubscribed::EXPIRED);
    }

    /// The subscription is over: the client is told.
    pub(super) fn end_subscription(&mut self, token: Token, view: u32, why: Unsubscribed) {
        let name = self.hub.views[view].name.clone();
        self.remove_subscription(token, view);
        self.say(token.slot, |out, encoding| {
            push_unsubscribe(out, encoding, &name, why)
        });
    }

    /// Sees to it that a message that is cut is whole in time, though its client may send a byte now and then for ever. One
    /// timer looks after all messages of a connection, so one may take up to twice as long.
    pub(super) fn time_message(&mut self, token: Token) {
        let deadline = self.now.millis + self.config.client.stall_timeout.as_millis() as u64;
        let Some(conn) = self.conn(token) else { return };
        if !conn.flags.has(Flags::MESSAGE_TIMED) {
            conn.flags.set(Flags::MESSAGE_TIMED, true);
            conn.flags.set(Flags::MESSAGE_OLD, true);
            self.timers.set(deadline, token, Timer::Message);
        }
    }

    /// Seconds until something expires, as the client is told.
    pub(super) fn seconds_left(&self, expire_at: Option<u64>) -> Option<u32> {
        let left = expire_at
            .filter(|at| *at > 0)?
            .saturating_sub(self.now.unix_seconds());
        Some(left.clamp(1, u64::from(u32::MAX)) as u32)
    }

    /// Sees to it that something that expires (0: it does not) is looked at then. One timer looks after the connection's
    /// token and one after each subscription's, whatever is refreshed meanwhile; it comes once a minute at least, so that
    /// a connection that is gone is forgotten long before its token runs out.
    pub(super) fn arm_expiry(&mut self, token: Token, expire_at: u64, timer: Timer) {
        if expire_at == 0 {
            return;
        }
        let seconds = self.now.unix_seconds();
        let grace = self.config.client.expired_close_delay.as_secs();
        // One second more, because both clocks are cut to whole seconds.
        let left = expire_at
            .saturating_add(grace)
            .saturating_sub(seconds)
            .min(EXPIRY_LOOK_SECONDS)
            + 1;
        let due = self.now.millis + left * 1000;
        let Some(conn) = self.conn(token) else { return };
        let is_timed = match timer {
            Timer::SubscriptionExpiry(view) => {
                let identity = conn.identity.as_mut();
                let extra = identity.and_then(|i| i.extras.get_mut(view));
                extra.is_none_or(|e| {
                    let is_timed = e.due > 0 && e.due <= due;
                    if !is_timed {
                        e.due = due;
                    }
                    is_timed
                })
            }
            _ => {
                let is_timed = conn.flags.has(Flags::EXPIRY_TIMED);
                conn.flags.set(Flags::EXPIRY_TIMED, true);
                is_timed
            }
        };
        if !is_timed {
            self.timers.set(due, token, timer);
        }
    }

    fn beat(&mut self) {
        let slots = if self.conns.is_empty() {
            0
        } else {
            self.conns.slots()
        };
        let mut beats = std::mem::take(&mut self.beats);
        self.heartbeat
            .advance(self.now.millis, slots, |beat| beats.push(beat));
        for beat in beats.drain(..) {
            match beat {
                Beat::Ping(slot) => self.ping(slot),
                Beat::Pong(slot) => self.look_for_pong(slot),
            }
        }
        self.beats = beats;
    }

    fn ping(&mut self, slot: u32) {
        let asks_pong = !self.config.client.pong_timeout.is_zero();
        let Some(conn) = self.conns.get_mut(slot).filter(|c| c.phase == Phase::Open) else {
            return;
        };
        // Behind pings that have not left yet one more says nothing; the stall timeout watches.
        if conn.pings >= PINGS_MAX {
            return;
        }
        let is_frame = conn.flags.has(Flags::FRAME_PINGS);
        // One that has left is answered or not, whenever this one leaves.
        let is_first = conn.pings == 0 || conn.flags.has(Flags::PING_WAITS);
        conn.pings += u8::from(asks_pong);
        // The pong is waited for from the moment the ping leaves: at once, unless the connection is or becomes blocked, or
        // we have more to send than we get done.
        conn.flags.set(Flags::PING_WAITS, is_first);
        conn.flags
            .set(Flags::PING_LATE, self.blocked.contains(slot));
        self.say(slot, |out, encoding: Encoding| {
            out.extend_from_slice(if is_frame {
                b"\x89\x00"
            } else {
                ping_frame(encoding)
            });
        });
    }

    fn look_for_pong(&mut self, slot: u32) {
        let is_blocked = self.blocked.contains(slot);
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.phase != Phase::Open || conn.pings == 0 {
            return;
        }
        // When the ping left late, its pong is looked for in the next round.
        let waits = is_blocked || conn.flags.has(Flags::PING_WAITS);
        if conn.flags.has(Flags::PING_LATE) || waits {
            conn.flags.set(Flags::PING_LATE, waits);
            return;
        }
        self.close(self.token(slot), Disconnect::NO_PONG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_that_all_have_come_in_time_or_are_forgotten_from_the_front() {
        let token = |slot| Token {
            slot,
            generation: 1,
        };
        let mut timers = Timers::new(3000);
        for slot in 0..4 {
            timers.accepted(u64::from(slot), token(slot));
        }
        // 0 and 1 are upgraded, 3 too; 2, which is not, keeps what stands behind it.
        timers.forget(|token, _| token.slot == 2);
        assert_eq!(timers.next(), Some(HANDSHAKE_MILLIS + 2));
        timers.upgraded(5, token(0));
        assert_eq!(timers.next(), Some(3005));
        assert_eq!(timers.due(3004), None);
        assert_eq!(timers.due(3005), Some((3005, token(0), Timer::Stale)));
        let at = HANDSHAKE_MILLIS + 2;
        assert_eq!(timers.due(at), Some((at, token(2), Timer::Handshake)));
        timers.forget(|_, _| false);
        assert_eq!(timers.next(), None);
    }
}
