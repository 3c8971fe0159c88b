//! What the limits promise: nobody gets more, and refusals have a reason.

use super::{Ask, ConnectionId, Oracle, Verdict, violation};
use crate::limit::REFUSALS_MAX;
use crate::protocol::centrifuge::client::{ClientReply, ReplyKind};

/// Commands that are put off before a connection may be closed for going on. Those whose answer was not read any more are not
/// among them.
pub(super) const PUT_OFF_ENOUGH: u64 = REFUSALS_MAX / 4;

/// After this time, milliseconds, a connection that went without a word is not counted any more: its ping, its pong, the
/// close, and steps of virtual time.
const MISSED_MILLIS: u64 = 60_000;

impl Oracle {
    /// Whether commands may be refused for being too many.
    pub fn measures_connections(&self) -> bool {
        let rates = &self.profile.config.client_limits.connection;
        rates.commands > 0 || rates.publications > 0 || rates.bytes > 0
    }

    /// Whether upgrades may be refused though there is room.
    pub(super) fn may_be_refused(&self) -> bool {
        let limits = &self.profile.config.client_limits;
        let asks_homes = limits.address_connections > 0 || limits.address_handshakes > 0;
        asks_homes || limits.handshakes > 0
    }

    /// What a pace gives from a moment on until now, and at once.
    fn most(&self, per_second: u32, since_millis: u64) -> u64 {
        let burst = self.profile.config.client_limits.burst.as_millis() as u64;
        let millis = self.clock.millis() - since_millis + burst;
        u64::from(per_second) * millis / 1000 + 1
    }

    /// A connection is made: there must have been room for it.
    pub(super) fn was_let_in(&self, connection: ConnectionId) -> Verdict {
        let limits = &self.profile.config.client_limits;
        let address = self.connections[connection].address;
        let named = || self.connections.iter().filter(|it| it.client.is_some());
        let from_there = || named().filter(|it| it.address == address);
        // What the gateway has given up, a client that is not healthy may not know yet.
        let held = from_there().filter(|it| !it.is_over() && it.temper.is_healthy());
        let held = held.count() as u64;
        let most = u64::from(limits.address_connections);
        if most > 0 && held > most {
            return violation(format!(
                "connection {connection}: {held} from address {address}, of which {most} are allowed"
            ));
        }
        let user = &self.connections[connection].temper.user;
        let most = u64::from(self.profile.config.client.user_connection_limit);
        let held = named().filter(|it| it.temper.user == *user);
        // Who is being closed is counted no more, and may read why only after this one is told that it is in.
        let may_be_closed = self.profile.logs_are_small()
            || self.channels.values().any(|channel| channel.has_binary)
            || self.measures_connections();
        let held = held.filter(|it| !it.is_over() && it.temper.is_healthy());
        let held = held.filter(|it| it.expelled.is_none()).count() as u64;
        if most > 0 && !user.is_empty() && !may_be_closed && held > most {
            return violation(format!(
                "connection {connection}: {held} of user {user}, who may have {most}"
            ));
        }
        for (what, per_second, count) in [
            (
                "this address",
                limits.address_handshakes,
                from_there().count(),
            ),
            // Shards may keep a few permits each, while there are many.
            ("this node", limits.handshakes, named().count()),
        ] {
            let most = self.most(per_second, 0);
            if per_second > 0 && count as u64 > most {
                return violation(format!(
                    "connection {connection}: {count} handshakes of {what}, which has had {most}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a user's other connections, those that the gateway may not have missed yet among them, are as many as may be.
    pub(super) fn may_be_too_many(&self, connection: ConnectionId) -> bool {
        let user = &self.connections[connection].temper.user;
        let now = self.clock.millis();
        let others = self.connections.iter().enumerate().filter(|(id, it)| {
            let may_count = !it.is_over() || now < it.over_at + MISSED_MILLIS;
            *id != connection && it.temper.user == *user && may_count
        });
        let most = self.profile.config.client.user_connection_limit as usize;
        most > 0 && !user.is_empty() && others.count() >= most
    }

    /// A command is answered: it must have been within its connection's paces, unless it says that it was not.
    pub(super) fn within_paces(
        &mut self,
        connection: ConnectionId,
        ask: &Ask,
        reply: &ClientReply<'_>,
    ) -> Verdict {
        let book = &mut self.connections[connection];
        if matches!(&reply.kind, ReplyKind::Error(error) if error.code == 111) {
            book.put_off += 1;
            self.tally.put_off += 1;
            return Ok(());
        }
        if matches!(ask, Ask::Connect | Ask::Unsubscribe(_)) {
            return Ok(());
        }
        book.done[0] += 1;
        book.done[1] += u64::from(matches!(ask, Ask::Publish(..)));
        let (done, opened) = (book.done, book.opened.millis);
        let rates = self.profile.config.client_limits.connection;
        let paces = [rates.commands, rates.publications];
        for (per_second, done) in paces.into_iter().zip(done) {
            let most = self.most(per_second, opened);
            if per_second > 0 && done > most {
                return violation(format!(
                    "connection {connection}: {done} commands were carried out of {most} ({per_second} a second)"
                ));
            }
        }
        Ok(())
    }
}
