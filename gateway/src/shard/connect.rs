//! Connect: who is it, and what is it subscribed to from the start.

use super::Core;
use super::permit::{self, Wish};
use super::reply::Settled;
use super::subscribe::Resolved;
use crate::connection::Connection;
use crate::connection::{ConnectWait, Extras, Flags, Identity, Phase, Slot, SubscribeWait};
use crate::hub::lane::LaneKind;
use crate::hub::links::put;
use crate::hub::message::{Message, ReplyTo};
use crate::ids::{ClientId, Token};
use crate::limit::Limit;
use crate::protocol::centrifuge::{
    ConnectRequest, ConnectResult, SubscribeResult, publication_in_frame, reply_connect,
    reply_error,
};
use crate::protocol::channel::ChannelName;
use crate::protocol::codes::{Disconnect, ReplyError};
use crate::protocol::token::{ConnectionClaims, TokenError};
use crate::shard::timers::Timer;
use crate::slab::Table;
use hashbrown::hash_table::Entry;
use rand::RngExt;
use std::collections::HashSet;

/// What clients are told they are connected to.
pub(super) const VERSION: &str = concat!("ringway ", env!("CARGO_PKG_VERSION"));

impl Core {
    /// Handles a connect. `false`: ignore the rest of the message.
    pub(super) fn connect(&mut self, token: Token, id: u32, request: &ConnectRequest<'_>) -> bool {
        let client = &self.config.client;
        let allows_anonymous = client.insecure || client.allow_anonymous_connect_without_token;
        let claims = if request.token.is_empty() {
            if !allows_anonymous {
                self.close(token, Disconnect::BAD_REQUEST);
                return false;
            }
            ConnectionClaims::default()
        } else {
            match self.tokens.verify_connection(&request.token, self.now) {
                Ok(claims) if claims.user.is_empty() && !allows_anonymous => {
                    self.close(token, Disconnect::PERMISSION_DENIED);
                    return false;
                }
                Ok(claims) => claims,
                Err(TokenError::Expired) => {
                    return self.fail_connect(token, id, ReplyError::TOKEN_EXPIRED);
                }
                Err(TokenError::Unavailable) => {
                    return self.fail_connect(token, id, ReplyError::INTERNAL);
                }
                Err(_) => {
                    self.close(token, Disconnect::INVALID_TOKEN);
                    return false;
                }
            }
        };
        if claims.subscriptions.len() > client.channel_limit as usize
            && self.stats.limits.refuses(Limit::Channels)
        {
            self.close(token, Disconnect::CHANNEL_LIMIT);
            return false;
        }
        // Before anything is begun: an unknown namespace fails the connect as a whole.
        let mut namespaces = Vec::with_capacity(claims.subscriptions.len());
        for (channel, _) in &claims.subscriptions {
            let found = ChannelName::parse(channel)
                .map_err(|error| error.reply())
                .and_then(|name| {
                    self.config
                        .channels
                        .find(name.namespace())
                        .ok_or(ReplyError::UNKNOWN_CHANNEL)
                });
            match found {
                Ok(namespace) => namespaces.push(namespace),
                Err(error) => return self.fail_connect(token, id, error),
            }
        }
        let channels = claims.subscriptions.iter();
        let mut homes = channels
            .map(|(channel, _)| self.keys.home_of(channel))
            .chain([self.keys.home_of(&claims.user)]);
        if homes.any(|home| self.links.is_congested(home)) {
            return self.fail_connect(token, id, ReplyError::TOO_MANY_REQUESTS);
        }
        let ttl = self.seconds_left(claims.expire_at);
        self.arm_expiry(token, claims.expire_at.unwrap_or(0), Timer::Expiry);
        let client_id = ClientId::from_random(self.rng.random());
        let Some(conn) = self.conn(token) else {
            return false;
        };
        conn.identity = Some(Box::new(Identity {
            user: claims.user.as_str().into(),
            client: client_id,
            expire_at: claims.expire_at.unwrap_or(0),
            extras: Extras::new(claims.info),
        }));
        self.index_user(token.slot);
        let subscriptions = claims.subscriptions.iter().zip(namespaces);
        let subscriptions: Vec<_> = subscriptions
            .map(|((channel, granted), namespace)| {
                let options = self.config.channels.options(namespace);
                let wish = Wish {
                    positioned: true,
                    recoverable: true,
                    join_leave: true,
                };
                let grant = permit::grant(options, &granted.options, wish, true);
                let remembered = request
                    .subs
                    .iter()
                    .rev()
                    .find(|s| *s.channel == **channel && s.recover);
                let mut wait = SubscribeWait {
                    server_side: true,
                    data: granted.data.clone(),
                    join_leave: grant.join_leave,
                    positioned: grant.positioned,
                    recoverable: grant.recoverable,
                    is_present: grant.is_present,
                    announces: grant.announces,
                    ..SubscribeWait::default()
                };
                if let Some(position) = remembered.filter(|_| grant.recoverable) {
                    self.wish_to_recover(&mut wait, &position.epoch, position.offset);
                }
                self.begin_subscription(token, channel, namespace, &mut wait);
                wait.chan_info = granted.info.clone().into();
                wait
            })
            .collect();
        let limit = self.config.client.user_connection_limit;
        let awaits_admission = limit > 0 && !claims.user.is_empty();
        let wait = ConnectWait {
            id,
            subscriptions,
            awaits_admission,
            ttl,
        };
        let ticket = self.enqueue(token.slot, Slot::Connect(Box::new(wait)));
        let batch = self.links.to(self.keys.home_of(&claims.user));
        let user = put(batch, claims.user.as_bytes());
        let reply = awaits_admission.then_some(ReplyTo { token, ticket });
        batch.messages.push(Message::UserArrived { user, reply });
        if !awaits_admission && let Some(conn) = self.conn(token) {
            conn.flags.set(Flags::COUNTED, true);
        }
        self.settle(token);
        true
    }

    fn fail_connect(&mut self, token: Token, id: u32, error: ReplyError) -> bool {
        self.count_error(error.code);
        self.say(token.slot, |out, encoding| {
            reply_error(out, encoding, id, error, None)
        });
        if let Some(conn) = self.conn(token) {
            conn.phase = Phase::Failed;
            // It may stay so for as long as one that says nothing.
            self.timers.upgraded(self.now.millis, token);
        }
        false
    }

    /// The user's home has answered.
    pub(super) fn admitted(&mut self, to: ReplyTo, user: &str, admitted: bool) {
        let is_there = self
            .conn(to.token)
            .is_some_and(|c| c.phase != Phase::Closing);
        if !is_there {
            if admitted {
                self.user_left(user);
            }
            return;
        }
        if !admitted {
            return self.close(to.token, Disconnect::CONNECTION_LIMIT);
        }
        let Some(conn) = self.conn(to.token) else {
            return;
        };
        conn.flags.set(Flags::COUNTED, true);
        if let Some(Slot::Connect(wait)) = conn.pending.as_mut().and_then(|p| p.get(to.ticket)) {
            wait.awaits_admission = false;
        }
        self.settle(to.token);
    }

    pub(super) fn user_left(&mut self, user: &str) {
        if crate::planted!(UserNotLeft) {
            return;
        }
        let batch = self.links.to(self.keys.home_of(user));
        let user = put(batch, user.as_bytes());
        batch.messages.push(Message::UserLeft { user });
    }

    /// Answers the connect if everything it waits for is there.
    pub(super) fn settle_connect(
        &mut self,
        token: Token,
        mut wait: Box<ConnectWait>,
    ) -> Settled<Box<ConnectWait>> {
        let mut waits = wait.awaits_admission;
        let mut resolved = Vec::with_capacity(wait.subscriptions.len());
        for subscription in &mut wait.subscriptions {
            match self.resolve(token, subscription) {
                Resolved::Waiting => waits = true,
                Resolved::NotJson => return Settled::NotJson(wait),
                ready => resolved.push(ready),
            }
        }
        if waits {
            return Settled::Waits(wait);
        }
        let Some(conn) = self.conns.get_mut(token.slot) else {
            return Settled::Waits(wait);
        };
        let Some(identity) = &conn.identity else {
            return Settled::Waits(wait);
        };
        let encoding = conn.encoding;
        let client = identity.client.text();
        conn.phase = Phase::Open;
        let frame_pings = conn.flags.has(Flags::FRAME_PINGS);
        let (interval, pong) = (
            self.config.client.ping_interval,
            self.config.client.pong_timeout,
        );
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        {
            let hub = &self.hub;
            let first: Vec<Vec<&[u8]>> = wait
                .subscriptions
                .iter()
                .zip(&resolved)
                .map(|(subscription, resolved)| match *resolved {
                    Resolved::Backfill { number, start, end } => {
                        let namespace = hub.views[subscription.view].namespace;
                        let kind = LaneKind::Publications(self.rendition(token, namespace));
                        let lane = hub.lane_of(subscription.view, kind);
                        let frame = lane.map(|lane| hub.frame(lane, number, start, end));
                        let name = &hub.views[subscription.view].name;
                        frame
                            .map(|frame| publication_in_frame(frame, encoding, name))
                            .into_iter()
                            .collect()
                    }
                    _ => Vec::new(),
                })
                .collect();
            let subs: Vec<(&str, SubscribeResult<'_>)> = wait
                .subscriptions
                .iter()
                .zip(&resolved)
                .zip(&first)
                .map(|((subscription, resolved), first)| {
                    let view = &hub.views[subscription.view];
                    let result = subscription.result(self.homes.epoch(), view.top);
                    (
                        &*view.name,
                        super::subscribe::with_recovery(result, subscription, *resolved, first),
                    )
                })
                .collect();
            let result = ConnectResult {
                client: client.as_str(),
                version: VERSION,
                expires: wait.ttl.is_some(),
                ttl: wait.ttl.unwrap_or(0),
                subs: &subs,
                ping: if frame_pings {
                    0
                } else {
                    interval.as_secs().max(u64::from(!interval.is_zero())) as u32
                },
                pong: !frame_pings && !pong.is_zero() && !interval.is_zero(),
                ..ConnectResult::default()
            };
            reply_connect(&mut frame, encoding, wait.id, &result);
        }
        self.say(token.slot, |out, _| out.extend_from_slice(&frame));
        self.frame = frame;
        for (subscription, resolved) in wait.subscriptions.iter().zip(resolved) {
            self.place(token, subscription, resolved);
        }
        Settled::Answered
    }

    fn index_user(&mut self, slot: u32) {
        let conns = &self.conns;
        let user_of = |users: &UserSlots| user_of(conns, users.any());
        // Anonymous connections are not looked for by user.
        let user = self::user_of(conns, slot);
        if user.is_empty() {
            return;
        }
        let keys = self.keys;
        let entry = self.by_user.entry(
            keys.hash(user),
            |u| user_of(u) == user,
            |u| keys.hash(user_of(u)),
        );
        match entry {
            Entry::Occupied(mut held) => held.get_mut().insert(slot),
            Entry::Vacant(free) => {
                free.insert(UserSlots::One(slot));
            }
        }
    }

    /// Before the connection forgets who it is.
    pub(super) fn unindex_user(&mut self, slot: u32) {
        let conns = &self.conns;
        let user = user_of(conns, slot);
        let found = self
            .by_user
            .find_entry(self.keys.hash(user), |u| user_of(conns, u.any()) == user);
        if let Ok(mut held) = found
            && !held.get_mut().remove(slot)
        {
            held.remove();
        }
    }

    /// A user's connections on this shard.
    pub(super) fn connections_of(&self, user: &str) -> Vec<Token> {
        if user.is_empty() {
            let anonymous = self
                .conns
                .iter()
                .filter(|(_, c)| c.identity.as_ref().is_some_and(|i| i.user.is_empty()));
            return anonymous
                .map(|(slot, c)| Token {
                    slot,
                    generation: c.generation,
                })
                .collect();
        }
        let found = self.by_user.find(self.keys.hash(user), |u| {
            user_of(&self.conns, u.any()) == user
        });
        match found {
            None => Vec::new(),
            Some(UserSlots::One(slot)) => vec![self.token(*slot)],
            Some(UserSlots::Many(slots)) => slots.iter().map(|slot| self.token(*slot)).collect(),
        }
    }
}

fn user_of(conns: &Table<Connection>, slot: u32) -> &str {
    conns
        .get(slot)
        .and_then(|c| c.identity.as_ref())
        .map_or("", |i| &i.user)
}

/// The connections of one user on this shard: nearly always one.
pub(super) enum UserSlots {
    One(u32),
    // Boxed: one slot must not take the room of a set.
    #[allow(clippy::box_collection)]
    Many(Box<HashSet<u32>>),
}

impl UserSlots {
    fn any(&self) -> u32 {
        match self {
            Self::One(slot) => *slot,
            Self::Many(slots) => slots.iter().next().copied().unwrap_or(u32::MAX),
        }
    }

    fn insert(&mut self, slot: u32) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new(HashSet::from([*first, slot]))),
            Self::Many(slots) => {
                slots.insert(slot);
            }
        }
    }

    /// Whether some are left.
    fn remove(&mut self, slot: u32) -> bool {
        match self {
            Self::One(_) => false,
            Self::Many(slots) => {
                slots.remove(&slot);
                if let (1, Some(last)) = (slots.len(), slots.iter().next()) {
                    *self = Self::One(*last);
                }
                true
            }
        }
    }
}
