//! The end of a connection: it needs a reason.

use super::connection::COARSE_MILLIS;
use super::limits::PUT_OFF_ENOUGH;
use super::{ConnectionId, Oracle, Verdict, violation};
use crate::protocol::centrifuge::Encoding;
use crate::testing::net::Facts;
use crate::testing::profile::Reads;

/// How a connection ended, as the client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The upgrade was refused with this HTTP status.
    Refused(u16),
    /// A close frame with a code and a reason.
    Close(u16, String),
    /// The server's end of the stream, without a close frame.
    Eof,
    /// A reset.
    Reset,
}

impl Oracle {
    /// The client closes or drops its connection: whatever comes is not seen any more.
    pub fn left(&mut self, connection: ConnectionId) {
        let book = &mut self.connections[connection];
        book.left = true;
        book.over_at = self.clock.millis();
        book.members.clear();
    }

    /// The world asked for this connection to be closed with this code.
    pub fn expelled(&mut self, connection: ConnectionId, code: u16) {
        self.connections[connection].expelled = Some(code);
    }

    /// The world asked for this connection to be unsubscribed from a channel.
    pub fn expelled_from(&mut self, connection: ConnectionId, channel: &std::sync::Arc<str>) {
        self.connections[connection]
            .expelled_from
            .insert(channel.clone());
    }

    /// The gateway ended a connection.
    ///
    /// # Errors
    /// When the client gave no reason for it.
    pub fn ended(&mut self, connection: ConnectionId, end: &End, facts: Facts) -> Verdict {
        let now = self.clock.millis();
        self.digest(connection as u64);
        let slots_are_few = self.profile.config.limits.slots_per_shard < 64;
        let has_binary = self.channels.values().any(|channel| channel.has_binary);
        let may_be_refused = self.may_be_refused();
        let may_be_too_many = self.may_be_too_many(connection);
        let speaks_tls = self.profile.tls.is_some();
        let misunderstands = self
            .profile
            .misunderstands(&self.connections[connection].temper);
        self.tally.refused += u64::from(*end == End::Refused(503));
        let config = &self.profile.config.client;
        let limits = &self.profile.config.client_limits;
        let book = &mut self.connections[connection];
        book.ended = true;
        book.over_at = now;
        book.members.clear();
        let who = format!("connection {connection}");
        // When the client is not to blame for what its socket does.
        let is_disturbed = facts.was_short || book.temper.reads != Reads::Promptly;
        let is_excused = match end {
            End::Refused(503) => slots_are_few || may_be_refused,
            // It said nothing, or half of it.
            End::Refused(408) => book.temper.mute,
            // It got no further.
            End::Refused(400) if misunderstands => {
                self.tally.misunderstood += 1;
                book.client.is_none()
            }
            End::Refused(_) => false,
            End::Close(code, reason) => {
                *self.tally.closed.entry(*code).or_default() += 1;
                if reason.is_empty() && *code >= 3000 {
                    return violation(format!("{who}: close {code} without a reason"));
                }
                match code {
                    3001 => book.expelled == Some(3001),
                    3008 => facts.was_short || self.profile.logs_are_small(),
                    3012 => {
                        let timeout = config.pong_timeout.as_millis() as u64;
                        let is_overdue = (book.unanswered.front())
                            .is_some_and(|at| now + COARSE_MILLIS >= at + timeout);
                        let was_overdue =
                            book.ponged_late > 0 && now <= book.ponged_late + COARSE_MILLIS;
                        // A socket's own delays are the client's.
                        is_disturbed || !book.temper.pongs && (is_overdue || was_overdue)
                    }
                    3013 => book.put_off >= PUT_OFF_ENOUGH || limits.connection.bytes > 0,
                    3504 => may_be_too_many,
                    3502 => {
                        book.client.is_none()
                            && now
                                >= book.opened.millis + config.stale_close_delay.as_millis() as u64
                    }
                    3506 => has_binary && book.temper.encoding == Encoding::Json,
                    code => book.expelled == Some(*code),
                }
            }
            End::Eof | End::Reset => {
                self.tally.ended_without_close += 1;
                // Who does not take the close frame is reset, and who never connected may be dropped.
                facts.was_reset
                    || is_disturbed
                    || book.temper.mute
                    || misunderstands
                    // Before TLS stands nothing is said.
                    || speaks_tls && limits.handshakes > 0 && book.client.is_none()
                    || (slots_are_few || limits.address_connections + limits.address_handshakes > 0)
                        && book.client.is_none()
            }
        };
        match is_excused {
            true => Ok(()),
            false => violation(format!(
                "{who}: ended by {end:?}, though it gave no reason ({:?})",
                book.temper
            )),
        }
    }
}
