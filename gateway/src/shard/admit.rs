//! Who is let in. First the home of the client's address is asked, as soon as the address is known: its answer is there
//! before the request is, unless the client is near. Then, with the request, the node's limits.

use super::Core;
use super::timers::Timer;
use crate::connection::{Flags, Phase};
use crate::hub::message::Message;
use crate::ids::Token;
use crate::limit::{Limit, Verdict};
use crate::protocol::http::{HEAD_MAX, Refusal, UpgradeRequest, origin_allowed};
use crate::reactor::CloseHow;
use rand::RngExt;
use std::net::IpAddr;

/// What is kept of a client that has sent more than its request before it was answered.
const KEPT_MAX: usize = 2 * HEAD_MAX;
/// How long somebody who is refused may take to send the request that is answered so. It has a slot meanwhile.
const TURNED_AWAY_MILLIS: u64 = 1000;

impl Core {
    /// Asks the home of a client's address to let it in.
    pub(super) fn knock(&mut self, token: Token, peer: IpAddr) {
        let is_exempt = self.config.client_limits.exempts_loopback && peer.is_loopback();
        if !self.addresses.is_on() || is_exempt {
            return;
        }
        let address = self.keys.hash_address(peer);
        let home = self.keys.home(address);
        if home == self.id {
            let now = self.now.nanos;
            let verdict = self.addresses.arrive(address, now, &mut self.stats.limits);
            return self.knocked(token, address, verdict);
        }
        if self.links.is_congested(home) {
            return self.knocked(token, address, Verdict::Refused);
        }
        if let Some(conn) = self.conn(token) {
            conn.flags.set(Flags::KNOCKS, true);
        }
        let knock = Message::Knock { address, token };
        self.links.to(home).messages.push(knock);
    }

    /// Whether the home of its address has still to let it in.
    pub(super) fn knocks(&mut self, token: Token) -> bool {
        self.conn(token).is_some_and(|c| c.flags.has(Flags::KNOCKS))
    }

    /// The home has decided.
    pub(super) fn knocked(&mut self, token: Token, address: u64, verdict: Verdict) {
        let is_before_tls = self.is_before_tls(token);
        let Some(conn) = self.conn(token) else {
            if verdict == Verdict::Counted {
                self.address_left(address);
            }
            return;
        };
        conn.flags.set(Flags::KNOCKS, false);
        match verdict {
            Verdict::Admitted => {}
            Verdict::Counted => self.counted[token.slot as usize] = Some(address),
            Verdict::Dropped => return self.abandon(token, CloseHow::Reset),
            // A word to it would cost a handshake of TLS.
            Verdict::Refused if is_before_tls => {
                return self.abandon(token, CloseHow::Reset);
            }
            Verdict::Refused => {
                conn.flags.set(Flags::TURNED_AWAY, true);
                let deadline = self.now.millis + TURNED_AWAY_MILLIS;
                self.timers.set(deadline, token, Timer::TurnedAway);
            }
        }
        self.resume_handshake(token);
        let Some(conn) = self.conn(token) else { return };
        if conn.phase == Phase::Handshake
            && let Some(mut head) = conn.held.take().filter(|head| !head.is_empty())
        {
            self.handshake(token, &mut head);
        }
    }

    /// Keeps what a client sends before its address is let in.
    pub(super) fn keep_head(&mut self, token: Token, bytes: &[u8]) {
        let Some(conn) = self.conn(token) else { return };
        let head = conn.held.get_or_insert_default();
        if head.len() + bytes.len() > KEPT_MAX {
            return self.refuse_upgrade(token, Refusal::HeadTooLarge);
        }
        head.extend_from_slice(bytes);
    }

    /// A connection is over that the home of its address may count.
    pub(super) fn no_longer_counted(&mut self, slot: u32) {
        let counted = self.counted.get_mut(slot as usize);
        if let Some(address) = counted.and_then(Option::take)
            && !crate::planted!(AddressNotLeft)
        {
            self.address_left(address);
        }
    }

    fn address_left(&mut self, address: u64) {
        let home = self.keys.home(address);
        let left = Message::AddressLeft { address };
        self.links.to(home).messages.push(left);
    }

    /// Whether a request may become a connection. The costly part of the handshake is still to come.
    pub(super) fn admit(
        &mut self,
        token: Token,
        request: &UpgradeRequest<'_>,
    ) -> Result<(), Refusal> {
        let is_turned_away = self
            .conn(token)
            .is_some_and(|c| c.flags.has(Flags::TURNED_AWAY));
        if is_turned_away {
            return Err(self.busy());
        }
        let origins = &self.config.client.allowed_origins;
        if request
            .origin
            .is_some_and(|origin| !origin_allowed(origin, Some(request.host), origins))
        {
            return Err(Refusal::Forbidden);
        }
        if self.open >= self.connections_max() || self.drain.is_on() {
            return Err(self.busy());
        }
        // With TLS its handshake was counted.
        if !self.speaks_tls() && !self.may_shake_hands() {
            return Err(self.busy());
        }
        if !self.permits.take() {
            if self.stats.limits.refuses(Limit::Connections) {
                return Err(self.busy());
            }
            if let Some(conn) = self.conn(token) {
                conn.flags.set(Flags::NO_PERMIT, true);
            }
        }
        Ok(())
    }

    /// Whether the node's limit of handshakes lets another one begin.
    pub(super) fn may_shake_hands(&mut self) -> bool {
        self.handshakes.take(self.now.nanos) || !self.stats.limits.refuses(Limit::Handshakes)
    }

    pub(super) fn turn_away(&mut self, token: Token) {
        let refusal = self.busy();
        self.refuse_upgrade(token, refusal);
    }

    /// Come back later, but not all at once.
    fn busy(&mut self) -> Refusal {
        Refusal::Busy {
            retry_after_seconds: self.rng.random_range(1..=5),
        }
    }

    /// Connections this shard has room for: its table holds slots for refusals, too.
    fn connections_max(&self) -> u32 {
        (self.generations.len() as u32).saturating_sub(super::REFUSAL_SLOTS)
    }
}
