//! Commands: which may come when, and who handles each.

use super::Core;
use super::reply::READY_BYTES_MAX;
use crate::connection::{Phase, TICKETS_MAX};
use crate::ids::Token;
use crate::limit::Ruling;
use crate::protocol::centrifuge::{
    Command, Commands, Method, RefreshResult, reply_ping, reply_refresh, reply_sub_refresh,
};
use crate::protocol::codes::{Disconnect, ReplyError};
use crate::protocol::token::TokenError;
use crate::shard::timers::Timer;

impl Core {
    /// Handles the commands of a payload, up to one whose token waits for its check. `false`: this was the last payload
    /// that matters.
    pub(super) fn commands(&mut self, token: Token, payload: &[u8]) -> bool {
        let Some(encoding) = self.conn(token).map(|c| c.encoding) else {
            return false;
        };
        let mut commands = Commands::new(encoding, payload);
        loop {
            let rest = commands.rest();
            let Some(command) = commands.next() else {
                return true;
            };
            let goes_on = match command {
                Ok(command) => {
                    let has_turn = self.tokens.take_turn();
                    match self.may_begin(token, &command, has_turn) {
                        Ok(()) if self.waits_for_check(token, &command, has_turn) => {
                            return self.hold(token, rest);
                        }
                        Ok(()) => self.begin(token, &command),
                        Err(done) => done,
                    }
                }
                Err(_) => {
                    self.stats.frames_invalid += 1;
                    self.close(token, Disconnect::BAD_REQUEST);
                    false
                }
            };
            if !goes_on {
                return self.conn(token).is_some_and(|c| c.phase != Phase::Closing);
            }
        }
    }

    /// Whether a command may come now, before anything is spent on it. Who `has_turn` has been measured when its command
    /// began to wait. `Err`: it is dealt with; `Err(false)`: ignore the rest of the message.
    fn may_begin(
        &mut self,
        token: Token,
        command: &Command<'_>,
        has_turn: bool,
    ) -> Result<(), bool> {
        let queue_max = self.config.client.queue_max_size as usize;
        let is_blocked = self.blocked.contains(token.slot);
        let Some(conn) = self.conn(token) else {
            return Err(false);
        };
        let (phase, is_connecting) = (conn.phase, conn.identity.is_some());
        let id = command.id;
        if let Method::Pong = command.method {
            // At most one a ping, and none before the connect.
            if conn.pings == 0 || phase != Phase::Open {
                return Err(self.mistaken(token));
            }
            conn.pings -= 1;
            return Err(true);
        }
        // What waits for the next flush is not the client's fault.
        if is_blocked && conn.private_bytes() > queue_max {
            self.close(token, Disconnect::SLOW);
            return Err(false);
        }
        match (&command.method, phase) {
            (_, Phase::Failed) => return Err(self.mistaken(token)),
            (Method::Connect(_), Phase::Greeted) if !is_connecting && id > 0 => return Ok(()),
            // Commands may follow the connect before it is answered: they start now and are answered after it.
            (_, Phase::Greeted) if !is_connecting => return Err(self.mistaken(token)),
            (Method::Connect(_), _) => return Err(self.mistaken(token)),
            _ => {}
        }
        if id == 0 && !matches!(command.method, Method::Send { .. }) {
            return Err(self.mistaken(token));
        }
        let waiting = self
            .conn(token)
            .and_then(|c| c.pending.as_ref())
            .map_or(0, |p| p.len());
        let slot = token.slot;
        // Unsubscribing is never refused: an SDK would drop the connection.
        if waiting >= 2 * TICKETS_MAX {
            self.close(token, Disconnect::TOO_MANY_REQUESTS);
            return Err(false);
        }
        // Its replies wait for one of another shard: it is not slow, but it cannot ask on for ever.
        let ready_bytes = self
            .conn(token)
            .and_then(|c| c.pending.as_ref())
            .map_or(0, |p| p.ready_bytes());
        if (waiting >= TICKETS_MAX || ready_bytes > READY_BYTES_MAX)
            && !matches!(command.method, Method::Unsubscribe(_) | Method::Send { .. })
        {
            self.refuse(slot, id, ReplyError::TOO_MANY_REQUESTS);
            return Err(true);
        }
        if has_turn {
            return Ok(());
        }
        match self.measure_command(token, &command.method) {
            Ruling::Goes => Ok(()),
            Ruling::Closed => Err(false),
            Ruling::Refused => {
                if id > 0 {
                    self.refuse(slot, id, ReplyError::TOO_MANY_REQUESTS);
                }
                Err(true)
            }
        }
    }

    /// Handles one command that may begin. `false`: ignore the rest of the message.
    fn begin(&mut self, token: Token, command: &Command<'_>) -> bool {
        let (slot, id) = (token.slot, command.id);
        match &command.method {
            Method::Connect(request) => return self.connect(token, id, request),
            Method::Subscribe(request) => self.subscribe(token, id, request),
            Method::Unsubscribe(request) => self.unsubscribe(token, id, &request.channel),
            Method::Publish(request) => self.publish(token, id, request),
            Method::Presence(request) => self.presence(token, id, &request.channel, false),
            Method::PresenceStats(request) => self.presence(token, id, &request.channel, true),
            Method::History(request) => self.history(token, id, request),
            Method::Ping => self.reply(slot, |out, encoding| reply_ping(out, encoding, id)),
            Method::Send { .. } => {}
            Method::Rpc { method, data } => self.rpc(token, id, method, data),
            Method::Refresh { token: jwt } => self.refresh(token, id, jwt),
            Method::SubRefresh(request) if request.is_unavailable() => {
                self.refuse(slot, id, ReplyError::NOT_AVAILABLE);
            }
            Method::SubRefresh(request) => {
                self.sub_refresh(token, id, &request.channel, &request.token)
            }
            Method::Unknown => self.refuse(slot, id, ReplyError::METHOD_NOT_FOUND),
            Method::Pong => {}
        }
        self.conn(token).is_some_and(|c| c.phase != Phase::Closing)
    }

    fn mistaken(&mut self, token: Token) -> bool {
        self.close(token, Disconnect::BAD_REQUEST);
        false
    }

    fn refresh(&mut self, token: Token, id: u32, jwt: &str) {
        let claims = match self.tokens.verify_connection(jwt, self.now) {
            Ok(claims) => claims,
            Err(TokenError::Expired) => return self.close(token, Disconnect::EXPIRED),
            Err(TokenError::Unavailable) => {
                return self.refuse(token.slot, id, ReplyError::INTERNAL);
            }
            Err(_) => return self.close(token, Disconnect::INVALID_TOKEN),
        };
        let Some(identity) = self.conn(token).and_then(|c| c.identity.as_mut()) else {
            return;
        };
        if *identity.user != *claims.user {
            return self.close(token, Disconnect::INVALID_TOKEN);
        }
        identity.expire_at = claims.expire_at.unwrap_or(0);
        identity.extras.set_conn_info(claims.info);
        let client = identity.client.text();
        let ttl = self.seconds_left(claims.expire_at);
        self.arm_expiry(token, claims.expire_at.unwrap_or(0), Timer::Expiry);
        self.reply(token.slot, |out, encoding| {
            let result = RefreshResult {
                client: client.as_str(),
                version: super::connect::VERSION,
                expires: ttl.is_some(),
                ttl: ttl.unwrap_or(0),
            };
            reply_refresh(out, encoding, id, &result);
        });
    }

    fn sub_refresh(&mut self, token: Token, id: u32, channel: &str, jwt: &str) {
        let Some((view, _)) = self.subscribed(token, channel) else {
            return self.refuse(token.slot, id, ReplyError::PERMISSION_DENIED);
        };
        let claims = match self.tokens.verify_subscription(jwt, self.now) {
            Ok(claims) => claims,
            Err(error) => return self.refuse(token.slot, id, refusal_of_subscription(error)),
        };
        if !self.is_for(token, channel, &claims) {
            return self.close(token, Disconnect::INVALID_TOKEN);
        }
        let info = claims.info.into_boxed_slice();
        let expire_at = claims.expire_at.unwrap_or(0);
        self.set_extra(token, view, info, expire_at);
        let ttl = self.seconds_left(claims.expire_at);
        self.arm_expiry(token, expire_at, Timer::SubscriptionExpiry(view));
        self.reply(token.slot, |out, encoding| {
            reply_sub_refresh(out, encoding, id, ttl)
        });
    }
}

/// What a client is told whose subscription token does not pass.
pub(super) fn refusal_of_subscription(error: TokenError) -> ReplyError {
    match error {
        TokenError::Expired => ReplyError::TOKEN_EXPIRED,
        TokenError::Unavailable => ReplyError::INTERNAL,
        TokenError::UnknownKey | TokenError::Invalid(_) => ReplyError::PERMISSION_DENIED,
    }
}
