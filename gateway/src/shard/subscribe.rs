//! Subscribing, recovering, unsubscribing.

use super::Core;
use super::command::refusal_of_subscription;
use super::permit::{self, Who, Wish};
use super::reply::Settled;
use crate::connection::{Phase, Slot, Sub, SubscribeWait};
use crate::hub::lane::{LaneKind, Rendition};
use crate::hub::links::put;
use crate::hub::message::{ChannelRef, LaneMask, MemberChange, Message};
use crate::hub::recover::Recovery;
use crate::ids::Token;
use crate::limit::Limit;
use crate::protocol::centrifuge::publication::ClientInfoRef;
use crate::protocol::centrifuge::{
    Encoding, SubscribeRequest, SubscribeResult, publication_in_frame, push_unsubscribe,
    reply_error, reply_subscribe, reply_unsubscribe,
};
use crate::protocol::channel::ChannelName;
use crate::protocol::codes::{Disconnect, ReplyError, Unsubscribed};
use crate::protocol::token::{OptionOverrides, SubscriptionClaims};
use crate::protocol::websocket::WINDOW_BITS_MAX;
use crate::shard::timers::Timer;

/// `SubscribeRequest::flag`: rather an error than a subscription that was not recovered.
const REJECT_UNRECOVERED: i64 = 2;

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// Not known yet.
    Waiting,
    /// At the head; it did not ask to recover, or could not be.
    Head,
    /// At the head, and nothing was missed.
    UpToDate,
    /// In a backfill, behind the first missed frame.
    Backfill { number: u16, start: u64, end: u64 },
    /// It missed something that a JSON client cannot have.
    NotJson,
}

/// Adds to a result what recovery gave.
pub(super) fn with_recovery<'a>(
    mut result: SubscribeResult<'a>,
    wait: &SubscribeWait,
    resolved: Resolved,
    first: &'a [&'a [u8]],
) -> SubscribeResult<'a> {
    if matches!(resolved, Resolved::UpToDate | Resolved::Backfill { .. }) {
        result.recovered = true;
        // The client's own position: should it lose the connection in mid-stream, it recovers from what it has seen.
        result.offset = wait.recover_from.unwrap_or(0);
        result.publications = first;
    }
    result
}

impl Core {
    pub(super) fn subscribe(&mut self, token: Token, id: u32, request: &SubscribeRequest<'_>) {
        if let Err(error) = self.try_subscribe(token, id, request) {
            self.refuse(token.slot, id, error);
        }
    }

    fn try_subscribe(
        &mut self,
        token: Token,
        id: u32,
        request: &SubscribeRequest<'_>,
    ) -> Result<(), ReplyError> {
        if request.is_unavailable() {
            return Err(ReplyError::NOT_AVAILABLE);
        }
        let name = ChannelName::parse(&request.channel).map_err(|e| e.reply())?;
        let namespace = self
            .config
            .channels
            .find(name.namespace())
            .ok_or(ReplyError::UNKNOWN_CHANNEL)?;
        if self.is_subscribed_or_about_to(token, &request.channel) {
            return Err(ReplyError::ALREADY_SUBSCRIBED);
        }
        if self.subscriptions_of(token) >= self.config.client.channel_limit as usize
            && self.stats.limits.refuses(Limit::Channels)
        {
            return Err(ReplyError::LIMIT_EXCEEDED);
        }
        let claims = if request.token.is_empty() {
            None
        } else {
            let verified = self.tokens.verify_subscription(&request.token, self.now);
            let claims = verified.map_err(refusal_of_subscription)?;
            if !self.is_for(token, &request.channel, &claims) {
                self.close(token, Disconnect::INVALID_TOKEN);
                return Ok(());
            }
            Some(claims)
        };
        let options = self.config.channels.namespaces[usize::from(namespace)]
            .1
            .clone();
        let Some(identity) = self.conn(token).and_then(|c| c.identity.as_ref()) else {
            return Ok(());
        };
        let user = identity.user.clone();
        // As a subscriber it is what it will be.
        let who = Who {
            client: &self.config.client,
            is_anonymous: user.is_empty(),
            is_subscribed: true,
        };
        if claims.is_none() {
            let may = if name.is_private() {
                false
            } else if name.is_user_limited() {
                who.client.insecure
                    || (options.allow_user_limited_channels && name.is_user_allowed(&user))
            } else {
                who.may_subscribe(&options)
            };
            if !may {
                return Err(ReplyError::PERMISSION_DENIED);
            }
        }
        let wish = Wish {
            positioned: request.positioned,
            recoverable: request.recoverable || request.recover,
            join_leave: request.join_leave,
        };
        let over = claims
            .as_ref()
            .map_or(OptionOverrides::default(), |c| c.options);
        let granted = permit::grant(&options, &over, wish, who.may_see_presence(&options));
        let hash = self.keys.hash(&request.channel);
        if self.links.is_congested(self.keys.home(hash)) {
            return Err(ReplyError::TOO_MANY_REQUESTS);
        }
        let mut wait = SubscribeWait {
            id,
            join_leave: granted.join_leave,
            positioned: granted.positioned,
            recoverable: granted.recoverable,
            is_present: granted.is_present,
            announces: granted.announces,
            rejects_unrecovered: request.flag & REJECT_UNRECOVERED != 0,
            ..SubscribeWait::default()
        };
        if request.recover && granted.recoverable {
            self.wish_to_recover(&mut wait, &request.epoch, request.offset);
        }
        self.begin_subscription(token, &request.channel, namespace, &mut wait);
        if let Some(claims) = claims {
            wait.chan_info = claims.info.into();
            wait.expire_at = claims.expire_at.unwrap_or(0);
            wait.ttl = self.seconds_left(claims.expire_at);
        }
        self.enqueue(token.slot, Slot::Subscribe(Box::new(wait)));
        self.settle(token);
        Ok(())
    }

    /// An empty epoch counts as equal; another one means that nothing can be said about the position.
    pub(super) fn wish_to_recover(&self, wait: &mut SubscribeWait, epoch: &str, offset: u64) {
        wait.wants_recovery = true;
        wait.recover_from = (epoch.is_empty() || *epoch == **self.homes.epoch()).then_some(offset);
    }

    /// Takes part in a view, which asks the home for what it does not get yet.
    pub(super) fn begin_subscription(
        &mut self,
        token: Token,
        channel: &str,
        namespace: u16,
        wait: &mut SubscribeWait,
    ) {
        let lanes = self.lanes_wanted(token, namespace, wait);
        let hash = self.keys.hash(channel);
        wait.view = self
            .hub
            .retain(channel, hash, namespace, lanes, &mut self.links);
    }

    fn lanes_wanted(&self, token: Token, namespace: u16, wait: &SubscribeWait) -> LaneMask {
        let rendition = self.rendition(token, namespace);
        let main = LaneKind::Publications(rendition).mask();
        if wait.join_leave {
            main.with(LaneKind::Sideband(rendition.encoding).mask())
        } else {
            main
        }
    }

    /// How a connection gets the publications of a namespace. All deflated ones are made for the largest window.
    pub(super) fn rendition(&self, token: Token, namespace: u16) -> Rendition {
        let (encoding, window_bits) = self
            .conns
            .get(token.slot)
            .map_or((Encoding::Json, 0), |c| (c.encoding, c.window_bits));
        Rendition {
            encoding,
            deflated: window_bits == WINDOW_BITS_MAX
                && self.config.channels.options(namespace).compress,
        }
    }

    /// The connection's subscription to a channel: its view and whether the server made it.
    pub(super) fn subscribed(&mut self, token: Token, channel: &str) -> Option<(u32, bool)> {
        let view = self.hub.find(channel, self.keys.hash(channel))?;
        self.main_sub(token, view)
            .map(|(_, server_side)| (view, server_side))
    }

    /// Index of the connection's subscription to a view, and whether the server made it.
    pub(super) fn main_sub(&mut self, token: Token, view: u32) -> Option<(usize, bool)> {
        let hub = &self.hub;
        let conn = self
            .conns
            .get(token.slot)
            .filter(|c| c.generation == token.generation)?;
        let at = conn
            .subs
            .iter()
            .position(|s| !s.has(Sub::SIDEBAND) && hub.lanes[s.lane].view == view)?;
        Some((at, conn.subs[at].has(Sub::SERVER_SIDE)))
    }

    fn waits(&self, token: Token) -> impl Iterator<Item = &SubscribeWait> {
        let pending = self.conns.get(token.slot).and_then(|c| c.pending.as_ref());
        pending
            .into_iter()
            .flat_map(|p| p.iter())
            .flat_map(|slot| match slot {
                Slot::Subscribe(wait) => std::slice::from_ref(&**wait),
                Slot::Connect(wait) => &wait.subscriptions[..],
                _ => &[],
            })
    }

    /// Views of a connection's subscriptions, those that are being made included; some may come twice.
    pub(super) fn views_of(&self, token: Token) -> Vec<u32> {
        let subs = self.conns.get(token.slot).map_or(&[][..], |c| &c.subs);
        let subscribed = subs.iter().map(|s| self.hub.lanes[s.lane].view);
        subscribed
            .chain(self.waits(token).map(|w| w.view))
            .collect()
    }

    fn is_subscribed_or_about_to(&mut self, token: Token, channel: &str) -> bool {
        let Some(view) = self.hub.find(channel, self.keys.hash(channel)) else {
            return false;
        };
        self.main_sub(token, view).is_some()
            || self.waits(token).any(|w| w.view == view && !w.is_cancelled)
    }

    /// As far as permissions go, a subscription that is being made counts.
    pub(super) fn is_subscriber(&mut self, token: Token, channel: &str) -> bool {
        self.is_subscribed_or_about_to(token, channel)
    }

    fn subscriptions_of(&self, token: Token) -> usize {
        let subs = self.conns.get(token.slot).map_or(0, |c| {
            c.subs.iter().filter(|s| !s.has(Sub::SIDEBAND)).count()
        });
        subs + self.waits(token).count()
    }

    /// Whether a subscription token is for this channel and this client.
    pub(super) fn is_for(
        &mut self,
        token: Token,
        channel: &str,
        claims: &SubscriptionClaims,
    ) -> bool {
        let Some(identity) = self.conn(token).and_then(|c| c.identity.as_ref()) else {
            return false;
        };
        claims.channel == channel
            && *claims.user == *identity.user
            && claims
                .client
                .as_deref()
                .is_none_or(|client| client == identity.client.text().as_str())
    }

    pub(super) fn set_extra(
        &mut self,
        token: Token,
        view: u32,
        chan_info: Box<[u8]>,
        expire_at: u64,
    ) {
        let Some(identity) = self.conn(token).and_then(|c| c.identity.as_mut()) else {
            return;
        };
        identity.extras.set(view, chan_info, expire_at);
    }

    /// Where a subscription starts, as far as that is known.
    pub(super) fn resolve(&mut self, token: Token, wait: &mut SubscribeWait) -> Resolved {
        let namespace = self.hub.views[wait.view].namespace;
        let lanes = self.lanes_wanted(token, namespace, wait);
        if !self.hub.is_attached(wait.view, lanes) {
            self.hub.wait(wait.view, token);
            return Resolved::Waiting;
        }
        let Some(offset) = wait.recover_from else {
            return Resolved::Head;
        };
        let kind = LaneKind::Publications(self.rendition(token, namespace));
        let now = self.now.millis;
        match self
            .hub
            .recover(wait.view, kind, offset, &mut wait.ahead, now)
        {
            Recovery::UpToDate => Resolved::UpToDate,
            Recovery::From {
                backfill,
                start,
                end,
            } => Resolved::Backfill {
                number: backfill,
                start,
                end,
            },
            Recovery::Lost => Resolved::Head,
            Recovery::NotJson => Resolved::NotJson,
            Recovery::Waiting => {
                self.hub.wait(wait.view, token);
                Resolved::Waiting
            }
        }
    }

    /// Answers a subscribe if its home has; else gives it back.
    pub(super) fn settle_subscribe(
        &mut self,
        token: Token,
        mut wait: Box<SubscribeWait>,
    ) -> Settled<Box<SubscribeWait>> {
        let resolved = self.resolve(token, &mut wait);
        match resolved {
            Resolved::Waiting => return Settled::Waits(wait),
            // The command is in the queue of no one now: it goes back, so that the close gives up its part in the view.
            Resolved::NotJson => return Settled::NotJson(wait),
            _ => {}
        }
        let rendition = self.rendition(token, self.hub.views[wait.view].namespace);
        let encoding = rendition.encoding;
        let is_unrecovered =
            wait.wants_recovery && resolved == Resolved::Head && !wait.is_cancelled;
        if is_unrecovered && wait.rejects_unrecovered {
            let error = ReplyError::UNRECOVERABLE_POSITION;
            self.count_error(error.code);
            self.say(token.slot, |out, encoding| {
                reply_error(out, encoding, wait.id, error, None)
            });
            self.hub.release(wait.view, self.now.millis);
            return Settled::Answered;
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        {
            let view = &self.hub.views[wait.view];
            let mut first: &[u8] = &[];
            if let Resolved::Backfill { number, start, end } = resolved
                && let Some(lane) = self
                    .hub
                    .lane_of(wait.view, LaneKind::Publications(rendition))
            {
                first = publication_in_frame(
                    self.hub.frame(lane, number, start, end),
                    encoding,
                    &view.name,
                );
            }
            let first = [first];
            let first = if first[0].is_empty() {
                &[][..]
            } else {
                &first[..]
            };
            let result = wait.result(self.homes.epoch(), view.top);
            reply_subscribe(
                &mut frame,
                encoding,
                wait.id,
                &with_recovery(result, &wait, resolved, first),
            );
        }
        self.say(token.slot, |out, _| out.extend_from_slice(&frame));
        self.frame = frame;
        self.place(token, &wait, resolved);
        Settled::Answered
    }

    /// The subscription begins: from here on its frames are owed. Its reply is queued already, so it leaves first.
    pub(super) fn place(&mut self, token: Token, wait: &SubscribeWait, resolved: Resolved) {
        if wait.wants_recovery {
            self.stats.recoveries[usize::from(resolved == Resolved::Head)] += 1;
        }
        if wait.is_cancelled {
            if let Some(why) = wait.ended {
                let name = self.hub.views[wait.view].name.clone();
                self.say(token.slot, |out, encoding| {
                    push_unsubscribe(out, encoding, &name, why)
                });
            }
            return self.hub.release(wait.view, self.now.millis);
        }
        self.set_extra(token, wait.view, wait.chan_info.clone(), wait.expire_at);
        self.arm_expiry(token, wait.expire_at, Timer::SubscriptionExpiry(wait.view));
        let rendition = self.rendition(token, self.hub.views[wait.view].namespace);
        let kind = LaneKind::Publications(rendition);
        let Some(conn) = self.conns.get_mut(token.slot) else {
            return;
        };
        let mut bits = 0;
        for (on, bit) in [
            (wait.server_side, Sub::SERVER_SIDE),
            (wait.is_present, Sub::PRESENT),
            (wait.announces, Sub::ANNOUNCED),
        ] {
            bits |= if on { bit } else { 0 };
        }
        let at = conn.subs.len() as u32;
        let (lane, place) = match resolved {
            Resolved::Backfill { number, end, .. } => self
                .hub
                .join_backfill(wait.view, kind, token.slot, at, number, end),
            _ => self.hub.join(wait.view, kind, token.slot, at),
        };
        let sub = Sub::new(lane, place, bits);
        conn.subs.push(sub);
        if wait.join_leave {
            let kind = LaneKind::Sideband(rendition.encoding);
            let (lane, place) = self.hub.join(wait.view, kind, token.slot, at + 1);
            conn.subs.push(Sub::new(lane, place, Sub::SIDEBAND));
        }
        if matches!(resolved, Resolved::Backfill { .. }) {
            self.rescan.insert(token.slot);
            self.make_ready(token.slot);
        }
        self.tell_home(token, wait.view, sub, true);
    }

    /// Tells the home that the client is in the channel, or no more, if that is anybody's business.
    fn tell_home(&mut self, token: Token, view_index: u32, sub: Sub, has_arrived: bool) {
        let change = MemberChange {
            has_arrived,
            is_present: sub.has(Sub::PRESENT),
            is_announced: sub.has(Sub::ANNOUNCED),
        };
        if !change.is_present && !change.is_announced {
            return;
        }
        let Some(identity) = self.conns.get(token.slot).and_then(|c| c.identity.as_ref()) else {
            return;
        };
        let view = &self.hub.views[view_index];
        let batch = self.links.to(self.keys.home(view.hash));
        let name = put(batch, view.name.as_bytes());
        let start = batch.bytes.len();
        ClientInfoRef {
            user: &identity.user,
            client: identity.client.text().as_str(),
            conn_info: identity.conn_info(),
            chan_info: identity.chan_info(Some(view_index)),
        }
        .encode(&mut batch.bytes);
        let info = crate::hub::links::span_from(batch, start);
        batch.messages.push(Message::Member {
            channel: ChannelRef {
                hash: view.hash,
                name,
                namespace: view.namespace,
            },
            client: identity.client,
            info,
            change,
        });
    }

    pub(super) fn unsubscribe(&mut self, token: Token, id: u32, channel: &str) {
        if let Some(view) = self.hub.find(channel, self.keys.hash(channel)) {
            self.drop_subscription(token, view, None);
        }
        self.reply(token.slot, |out, encoding| {
            reply_unsubscribe(out, encoding, id)
        });
    }

    /// Ends a subscription, or sees to it that one that is being made ends at once. Whether there was one.
    /// `why`: the client is told.
    pub(super) fn drop_subscription(
        &mut self,
        token: Token,
        view: u32,
        why: Option<Unsubscribed>,
    ) -> bool {
        let Some(conn) = self.conn(token) else {
            return false;
        };
        let pending = conn.pending.as_mut();
        let waits = pending
            .into_iter()
            .flat_map(|p| p.iter_mut())
            .flat_map(|slot| match slot {
                Slot::Subscribe(wait) => std::slice::from_mut(&mut **wait),
                Slot::Connect(wait) => &mut wait.subscriptions[..],
                _ => &mut [],
            });
        let mut was_about_to = false;
        for wait in waits.filter(|w| w.view == view && !w.is_cancelled) {
            wait.is_cancelled = true;
            wait.ended = why;
            was_about_to = true;
        }
        self.remove_subscription(token, view) || was_about_to
    }

    /// Takes the members of a subscription out. Whether there was one.
    pub(super) fn remove_subscription(&mut self, token: Token, view: u32) -> bool {
        let Some((at, _)) = self.main_sub(token, view) else {
            return false;
        };
        let Some(conn) = self.conns.get(token.slot) else {
            return false;
        };
        let sub = conn.subs[at];
        self.tell_home(token, view, sub, false);
        self.remove_sub(token.slot, at);
        let hub = &self.hub;
        let beside = self
            .conns
            .get(token.slot)
            .and_then(|c| c.subs.iter().position(|s| hub.lanes[s.lane].view == view));
        if let Some(at) = beside {
            self.remove_sub(token.slot, at);
        }
        self.set_extra(token, view, Box::default(), 0);
        self.hub.release(view, self.now.millis);
        true
    }

    fn remove_sub(&mut self, slot: u32, at: usize) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let gone = conn.subs.swap_remove(at);
        if let Some(moved) = conn.subs.get(at) {
            self.hub.lanes[moved.lane].members[moved.place() as usize].set_sub(at as u32);
        }
        if let Some(moved) = self.hub.leave(gone.lane, gone.place())
            && let Some(conn) = self.conns.get_mut(moved.slot)
        {
            conn.subs[moved.sub as usize].set_place(moved.member);
        }
    }

    /// Ends every subscription, without a word to the client.
    pub(super) fn remove_all_subscriptions(&mut self, token: Token) {
        while let Some(sub) = self
            .conns
            .get(token.slot)
            .and_then(|c| c.subs.first().copied())
        {
            let view = self.hub.lanes[sub.lane].view;
            self.remove_subscription(token, view);
        }
        let Some(pending) = self
            .conns
            .get_mut(token.slot)
            .and_then(|c| c.pending.take())
        else {
            return;
        };
        for slot in pending.iter() {
            let waits = match slot {
                Slot::Subscribe(wait) => std::slice::from_ref(&**wait),
                Slot::Connect(wait) => &wait.subscriptions[..],
                _ => &[],
            };
            for wait in waits {
                self.hub.release(wait.view, self.now.millis);
            }
        }
    }

    /// A view has missed something: everybody in it is told.
    pub(super) fn broken(&mut self, view: u32) {
        for slot in self.slots_in(view) {
            self.lose_position(self.token(slot), view);
        }
    }

    /// Connections with a member in a view.
    pub(super) fn slots_in(&self, view: u32) -> Vec<u32> {
        let lanes = self
            .hub
            .lanes_of(view)
            .filter(|lane| self.hub.lanes[*lane].kind.is_publications());
        lanes
            .flat_map(|lane| self.hub.lanes[lane].members.iter().map(|m| m.slot))
            .collect()
    }

    /// A subscription has lost its position: the client subscribes again (2500), or, when the server made it, comes back
    /// as a whole (3010).
    pub(super) fn lose_position(&mut self, token: Token, view: u32) {
        match self.main_sub(token, view) {
            Some((_, true)) => self.close(token, Disconnect::INSUFFICIENT_STATE),
            Some((_, false))
                if self
                    .conns
                    .get(token.slot)
                    .is_some_and(|c| c.phase == Phase::Open) =>
            {
                self.end_subscription(
                    token,
                    view,
                    crate::protocol::codes::Unsubscribed::INSUFFICIENT_STATE,
                );
            }
            _ => {}
        }
    }
}
