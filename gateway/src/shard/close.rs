//! Closing, in three steps: take no more part (members out, presence told), say so (a close frame) and wait for the
//! peer's, then give the socket up and wait for the reactor to say that the slot is free.

use super::timers::{CLOSING_MILLIS, Timer};
use super::{Ask, Core};
use crate::connection::{Flags, Phase};
use crate::ids::Token;
use crate::protocol::codes::Disconnect;
use crate::protocol::websocket::close_frame;
use crate::reactor::CloseHow;

impl Core {
    /// Ends a connection with a close code. What waits for it is still sent if it can be, within five seconds.
    pub(super) fn close(&mut self, token: Token, why: Disconnect) {
        self.close_with(token, why.code, why.reason);
    }

    /// The same with a code and reason of the server API.
    pub(super) fn close_with(&mut self, token: Token, code: u16, reason: &str) {
        let Some(conn) = self.conn(token) else { return };
        match conn.phase {
            Phase::Closing => return,
            // Without an upgrade there is no close frame.
            Phase::Handshake => return self.abandon(token, CloseHow::Orderly),
            _ => {}
        }
        crate::stats::count(&mut self.stats.closed, code);
        self.leave_all(token);
        self.say(token.slot, |out, _| close_frame(out, code, reason));
        self.start_closing(token);
    }

    /// What is queued is the last that is said.
    pub(super) fn start_closing(&mut self, token: Token) {
        let deadline = self.now.millis + CLOSING_MILLIS;
        let Some(conn) = self.conn(token) else { return };
        if matches!(
            conn.phase,
            Phase::Greeted | Phase::Open | Phase::Failed | Phase::Echo
        ) {
            self.no_longer_open(token);
        }
        let Some(conn) = self.conn(token) else { return };
        conn.phase = Phase::Closing;
        self.timers.set(deadline, token, Timer::Closing);
    }

    fn no_longer_open(&mut self, token: Token) {
        self.open -= 1;
        let conn = self.conn(token);
        if conn.is_some_and(|c| !c.flags.has(Flags::NO_PERMIT)) {
            self.permits.give_back();
        }
    }

    /// The peer's close frame has come: the socket goes as soon as ours has left.
    pub(super) fn peer_closed(&mut self, token: Token) {
        let Some(conn) = self.conn(token) else { return };
        conn.flags.set(Flags::PEER_CLOSED, true);
        if conn.private.as_ref().is_none_or(|p| p.is_empty()) && conn.phase == Phase::Closing {
            self.part(token);
        }
    }

    /// All private bytes of a closing connection have left.
    pub(super) fn last_word_sent(&mut self, token: Token) {
        let Some(conn) = self.conn(token) else { return };
        // An HTTP refusal says `Connection: close`; nobody answers it. Closing with unread bytes would reset the
        // connection, but a request is read to its end before it is refused.
        if conn.flags.has(Flags::PEER_CLOSED) || conn.flags.has(Flags::REFUSED) {
            self.part(token);
        }
    }

    /// All is said and sent. What TLS has to say about it is sent before the socket goes.
    fn part(&mut self, token: Token) {
        if !self.says_goodbye(token) {
            self.abandon(token, CloseHow::Orderly);
        }
    }

    /// Gives the socket up. The slot stays taken until the reactor says that it is free.
    pub(super) fn abandon(&mut self, token: Token, how: CloseHow) {
        let Some(conn) = self.conn(token) else { return };
        let phase = conn.phase;
        if phase != Phase::Closing {
            // It went without a close frame.
            crate::stats::count(&mut self.stats.closed, 0);
            self.leave_all(token);
            if matches!(
                phase,
                Phase::Greeted | Phase::Open | Phase::Failed | Phase::Echo
            ) {
                self.no_longer_open(token);
            }
        }
        self.no_longer_counted(token.slot);
        self.meters.forget(token.slot);
        self.forget_arrival(token);
        self.unblock(token.slot);
        self.was_short.remove(token.slot);
        self.rescan.remove(token.slot);
        let Some(conn) = self.conn(token) else { return };
        let private = conn.private.take();
        if let Some(tls) = &mut self.tls {
            tls.forget(token.slot);
        }
        // From now on the token names nothing: late events are dropped.
        let generation = self.generations[token.slot as usize].wrapping_add(1);
        self.generations[token.slot as usize] = generation;
        if let Some(conn) = self.conns.get_mut(token.slot) {
            conn.generation = generation;
            conn.phase = Phase::Closing;
        }
        if let Some(private) = private {
            self.spare_private(private);
        }
        self.asks.push(Ask::Close(token, how));
    }

    /// Ends subscriptions and presence, and forgets who it was.
    pub(super) fn leave_all(&mut self, token: Token) {
        self.remove_all_subscriptions(token);
        let Some(conn) = self.conn(token) else { return };
        let was_counted = conn.flags.has(Flags::COUNTED);
        conn.flags.set(Flags::COUNTED, false);
        conn.pings = 0;
        conn.pending = None;
        conn.held = None;
        if conn.identity.is_none() {
            return;
        }
        self.unindex_user(token.slot);
        let Some(identity) = self.conn(token).and_then(|c| c.identity.take()) else {
            return;
        };
        if was_counted {
            self.user_left(&identity.user);
        }
    }
}
