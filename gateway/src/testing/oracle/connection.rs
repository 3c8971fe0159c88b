//! One connection: its commands and their replies, its memberships, its pings.

use super::membership::Membership;
use super::{Ask, ConnectionId, Fate, Oracle, Stamp, SubscribeAsk, Verdict, violation};
use crate::protocol::centrifuge::Encoding;
use crate::protocol::centrifuge::client::{
    ClientPush, ClientReply, Connected, ReplyKind, Subscribed,
};
use crate::testing::net::Facts;
use crate::testing::profile::{Reads, Temper};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// How late a ping may be, and the end of who does not answer one, beyond what is promised: steps of virtual time.
const SLACK_MILLIS: u64 = 1500;

/// How far the moments at which a client reads and writes are from those at which the gateway does: a step.
pub(super) const COARSE_MILLIS: u64 = 500;

/// The shadow of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionBook {
    pub(crate) temper: Temper,
    pub(crate) shard: usize,
    pub(crate) address: u32,
    pub(crate) opened: Stamp,
    /// Its client id, once connected.
    pub(crate) client: Option<String>,
    /// Commands without an answer yet.
    pub(crate) pending: VecDeque<(u32, Ask, Stamp)>,
    /// Its memberships that go on.
    pub(crate) members: BTreeMap<Arc<str>, usize>,
    /// When the last ping was read, or the connection was made; milliseconds.
    pub(super) pinged: u64,
    /// How long shards had been stopped then.
    stalled_then: u64,
    /// When the pings were read that it has not answered.
    pub(super) unanswered: VecDeque<u64>,
    /// When it last answered one that was overdue: it may be closed already.
    pub(super) ponged_late: u64,
    /// Its commands that were carried out, publications among them, and those that were refused for being too many.
    pub(super) done: [u64; 2],
    pub(super) put_off: u64,
    /// The client closed or dropped it.
    pub(crate) left: bool,
    /// It ended.
    pub(crate) ended: bool,
    /// When it left or ended, milliseconds.
    pub(super) over_at: u64,
    /// The world had it closed: by this code.
    pub(crate) expelled: Option<u16>,
    /// When it last read that the gateway has unsubscribed it.
    unsubscribed: BTreeMap<Arc<str>, Stamp>,
    /// Channels the world had it unsubscribed from.
    pub(crate) expelled_from: BTreeSet<Arc<str>>,
}

impl ConnectionBook {
    pub(crate) fn new(temper: Temper, shard: usize, address: u32, opened: Stamp) -> Self {
        Self {
            temper,
            shard,
            address,
            opened,
            client: None,
            pending: VecDeque::new(),
            members: BTreeMap::new(),
            pinged: opened.millis,
            stalled_then: 0,
            unanswered: VecDeque::new(),
            ponged_late: 0,
            done: [0; 2],
            put_off: 0,
            left: false,
            ended: false,
            over_at: 0,
            expelled: None,
            unsubscribed: BTreeMap::new(),
            expelled_from: BTreeSet::new(),
        }
    }

    /// Nothing more will be seen of it.
    pub(crate) fn is_over(&self) -> bool {
        self.left || self.ended
    }
}

impl Oracle {
    /// A client sends a command.
    pub fn asked(&mut self, connection: ConnectionId, id: u32, ask: Ask) {
        let now = self.stamp();
        self.connections[connection]
            .pending
            .push_back((id, ask, now));
    }

    /// A client answers the oldest ping that it has not answered.
    pub fn ponged(&mut self, connection: ConnectionId) {
        let now = self.clock.millis();
        let timeout = self.profile.config.client.pong_timeout.as_millis() as u64;
        let book = &mut self.connections[connection];
        let pinged = book.unanswered.pop_front();
        if pinged.is_some_and(|at| now + COARSE_MILLIS >= at + timeout) {
            book.ponged_late = now;
        }
    }

    /// A client reads a reply, a push or a ping.
    ///
    /// # Errors
    /// When it must not be there, or not say that.
    pub fn replied(
        &mut self,
        connection: ConnectionId,
        reply: &ClientReply<'_>,
        facts: Facts,
    ) -> Verdict {
        if reply.id != 0 {
            return self.answered(connection, reply, facts);
        }
        let book = &mut self.connections[connection];
        if book.client.is_none() {
            return violation(format!(
                "connection {connection}: {reply:?} before the connect reply"
            ));
        }
        match &reply.kind {
            ReplyKind::Ping => {
                let now = self.clock.millis();
                book.pinged = now;
                book.stalled_then = self.stalled_millis;
                book.unanswered.push_back(now);
                self.tally.pings += 1;
                Ok(())
            }
            ReplyKind::Push { channel, push } => self.pushed(connection, channel, push, facts),
            other => violation(format!("connection {connection}: {other:?} without an id")),
        }
    }

    fn pushed(
        &mut self,
        connection: ConnectionId,
        channel: &str,
        push: &ClientPush<'_>,
        facts: Facts,
    ) -> Verdict {
        let Some(member) = self.connections[connection].members.get(channel).copied() else {
            return violation(format!(
                "connection {connection}: {push:?} of {channel:?}, where it is no member"
            ));
        };
        let who = format!("connection {connection} in {channel}");
        match push {
            ClientPush::Publication(publication) => self.sees(member, publication, facts),
            ClientPush::Join(info) | ClientPush::Leave(info) => {
                self.tally.joins_and_leaves += 1;
                if !self.memberships[member].wants_joins {
                    return violation(format!("{who}: a join or leave, though it did not ask"));
                }
                match self.client_ids.contains_key(&*info.client) {
                    true => Ok(()),
                    // Its connect reply may not have been read yet.
                    false if self.somebody_is_unnamed() => Ok(()),
                    false => violation(format!(
                        "{who}: a join or leave of {:?}, whom nobody knows",
                        info.client
                    )),
                }
            }
            ClientPush::Unsubscribe { code: 2500, .. } => {
                self.tally.unsubscribed_2500 += 1;
                self.unsubscribed(connection, channel);
                let has_room = !self.profile.history_is_short && !self.profile.logs_are_small();
                // A shard that fell behind has missed what its members do not get.
                let is_fit = has_room && self.profile.stalls == 0;
                if !facts.was_short && is_fit && !self.may_have_lost_the_rest(member) {
                    return violation(format!("{who}: 2500, though it took everything at once"));
                }
                Ok(())
            }
            ClientPush::Unsubscribe { code: 2000, .. } => {
                self.unsubscribed(connection, channel);
                match self.connections[connection].expelled_from.contains(channel) {
                    true => Ok(()),
                    false => violation(format!("{who}: unsubscribed, though nobody asked for it")),
                }
            }
            other => violation(format!("{who}: {other:?}")),
        }
    }

    /// The gateway has ended a membership.
    fn unsubscribed(&mut self, connection: ConnectionId, channel: &str) {
        let now = self.stamp();
        let book = &mut self.connections[connection];
        if let Some((channel, _)) = book.members.remove_entry(channel) {
            book.unsubscribed.insert(channel, now);
        }
    }

    /// Whether some connection's client id may exist without being known here.
    pub(super) fn somebody_is_unnamed(&self) -> bool {
        self.connections.iter().any(|connection| {
            connection.client.is_none()
                && (connection.ended || connection.left || !connection.pending.is_empty())
        })
    }

    fn answered(
        &mut self,
        connection: ConnectionId,
        reply: &ClientReply<'_>,
        facts: Facts,
    ) -> Verdict {
        let now = self.stamp();
        let who = format!("connection {connection}");
        let Some((id, ask, asked)) = self.connections[connection].pending.pop_front() else {
            return violation(format!(
                "{who}: an answer to {}, which was not asked: {:?}",
                reply.id, reply.kind
            ));
        };
        if id != reply.id {
            return violation(format!(
                "{who}: an answer to {} in place of {id} ({ask:?})",
                reply.id
            ));
        }
        self.digest(u64::from(id));
        self.within_paces(connection, &ask, reply)?;
        if let ReplyKind::Error(error) = &reply.kind {
            *self.tally.reply_errors.entry(error.code).or_default() += 1;
            if error.message.is_empty() {
                return violation(format!("{who}: error {} without a message", error.code));
            }
            return self.failed(connection, &ask, asked, error.code);
        }
        match (&ask, &reply.kind) {
            (Ask::Connect, ReplyKind::Connect(result)) => self.connected(connection, now, result),
            (Ask::Subscribe(ask), ReplyKind::Subscribe(result)) => {
                self.subscribed(connection, asked, now, ask, result, facts)
            }
            (Ask::Unsubscribe(channel), ReplyKind::Unsubscribe) => {
                self.connections[connection].members.remove(channel);
                Ok(())
            }
            (Ask::Publish(_, id), ReplyKind::Publish) => {
                self.publications.get_mut(id).expect("it was sent").fate = Fate::Accepted(now);
                Ok(())
            }
            (
                Ask::History {
                    channel,
                    limit,
                    since,
                    reverse,
                },
                ReplyKind::History {
                    publications,
                    epoch,
                    offset,
                },
            ) => {
                let question = super::history::Question {
                    limit: *limit,
                    since: *since,
                    reverse: *reverse,
                    asked,
                };
                self.history(&who, channel, &question, publications, epoch, *offset)
            }
            (Ask::Presence(channel), ReplyKind::Presence(clients)) => {
                let book = &self.connections[connection];
                let mine = book.client.as_deref().unwrap_or_default();
                let listed = clients.iter().any(|(client, _)| client == mine);
                // A 2500 may be under way: then it is no member any more.
                let was_member = book
                    .members
                    .get(channel)
                    .is_some_and(|member| self.memberships[*member].started < asked);
                if was_member && !listed && !facts.was_short && self.profile.stalls == 0 {
                    return violation(format!(
                        "{who}: a member of {channel}, but not in its presence"
                    ));
                }
                match clients
                    .iter()
                    .find(|(client, _)| !self.client_ids.contains_key(&**client))
                {
                    Some((client, _)) if !self.somebody_is_unnamed() => violation(format!(
                        "{who}: {client:?} is present in {channel}, but nobody knows it"
                    )),
                    _ => Ok(()),
                }
            }
            (Ask::PresenceStats(_), ReplyKind::PresenceStats { clients, users }) => {
                match users <= clients {
                    true => Ok(()),
                    false => violation(format!("{who}: {users} users, but {clients} clients")),
                }
            }
            (Ask::Ping, ReplyKind::PingResult) => Ok(()),
            (ask, kind) => violation(format!("{who}: {kind:?} in answer to {ask:?}")),
        }
    }

    fn failed(&mut self, connection: ConnectionId, ask: &Ask, asked: Stamp, code: u32) -> Verdict {
        let who = format!("connection {connection}");
        if let Ask::Publish(_, id) = ask {
            self.publications.get_mut(id).expect("it was sent").fate = Fate::Refused;
        }
        let is_fine = match (ask, code) {
            (Ask::Unsubscribe(_), _) => false,
            (Ask::Connect, code) => code == 111 && self.profile.stalls > 0,
            (Ask::Ping | Ask::Wrong(_), 111) => self.measures_connections(),
            (Ask::Ping, _) => false,
            (Ask::Wrong(expected), code) => *expected == code,
            // Too many requests: a peer is behind. Temporary, and honest.
            (_, 111) => true,
            // It is a member, or was one when it asked: an unsubscribe push overtakes replies that wait for others.
            (Ask::Subscribe(ask), 105) => {
                let book = &self.connections[connection];
                let ended = book.unsubscribed.get(&ask.channel);
                book.members.contains_key(&ask.channel) || ended.is_some_and(|ended| asked < *ended)
            }
            (Ask::History { channel, .. }, code) => {
                let book = &self.channels[channel];
                // A record that is not JSON cannot be shown to a client that talks JSON.
                let cannot_be_shown =
                    book.has_binary && self.encoding(connection) == Encoding::Json;
                cannot_be_shown || code == 108 && !book.has_history
            }
            (Ask::Presence(channel) | Ask::PresenceStats(channel), 108) => {
                !self.channels[channel].options.presence
            }
            _ => false,
        };
        match is_fine {
            true => Ok(()),
            false => violation(format!("{who}: error {code} in answer to {ask:?}")),
        }
    }

    fn connected(
        &mut self,
        connection: ConnectionId,
        now: Stamp,
        result: &Connected<'_>,
    ) -> Verdict {
        let who = format!("connection {connection}");
        let client = &self.profile.config.client;
        let (ping, pong) = (
            client.ping_interval.as_secs() as u32,
            !client.pong_timeout.is_zero(),
        );
        if result.ping != ping || result.pong != pong || result.version.is_empty() {
            return violation(format!("{who}: a connect reply that says {result:?}"));
        }
        if let Some(other) = self
            .client_ids
            .insert(result.client.to_string(), connection)
        {
            return violation(format!("{who}: has the client id of connection {other}"));
        }
        let book = &mut self.connections[connection];
        book.client = Some(result.client.to_string());
        book.pinged = now.millis;
        book.stalled_then = self.stalled_millis;
        self.was_let_in(connection)
    }

    fn subscribed(
        &mut self,
        connection: ConnectionId,
        asked: Stamp,
        now: Stamp,
        ask: &SubscribeAsk,
        result: &Subscribed<'_>,
        facts: Facts,
    ) -> Verdict {
        let channel = &ask.channel;
        let who = format!("connection {connection} in {channel}");
        self.tally.subscribed += 1;
        if self.connections[connection].members.contains_key(channel) {
            return violation(format!("{who}: subscribed twice"));
        }
        let shard = self.connections[connection].shard;
        let book = self
            .channels
            .get_mut(channel)
            .expect("profiles name every channel");
        let recoverable = book.has_history && (ask.recoverable || book.options.force_recovery);
        let positioned =
            recoverable || book.has_history && (ask.positioned || book.options.force_positioning);
        if (result.recoverable, result.positioned) != (recoverable, positioned) {
            return violation(format!("{who}: the reply to {ask:?} says {result:?}"));
        }
        if result.was_recovering != (ask.recover.is_some() && recoverable) {
            return violation(format!(
                "{who}: was_recovering {} after {ask:?}",
                result.was_recovering
            ));
        }
        let mut offset = None;
        if positioned {
            book.know_epoch(&result.epoch)?;
            offset = Some(result.offset);
        }
        if !result.recovered {
            if !result.publications.is_empty() {
                return violation(format!(
                    "{who}: publications in a reply that recovers nothing"
                ));
            }
            if positioned {
                let top = book.top_before(asked, Some(shard));
                if result.offset < top {
                    return violation(format!(
                        "{who}: stands at {}, but {top} was there before",
                        result.offset
                    ));
                }
                book.know_top(now, Some(shard), result.offset);
            }
        }
        let wants_joins =
            book.options.join_leave && (ask.join_leave || book.options.force_push_join_leave);
        let member = self.memberships.len();
        self.memberships.push(Membership::new(
            connection,
            channel.clone(),
            now,
            wants_joins,
            offset,
        ));
        self.connections[connection]
            .members
            .insert(channel.clone(), member);
        match &ask.recover {
            Some((from, epoch)) if result.was_recovering => {
                self.recovered(&who, member, asked, *from, epoch, result, facts)
            }
            _ if result.recovered => violation(format!("{who}: recovered without being asked")),
            _ => Ok(()),
        }
    }

    /// Time has passed: pings must have come.
    ///
    /// # Errors
    /// When one is overdue, or a client that answers none is still there.
    pub fn time_passed(&self, connection: ConnectionId, facts: Facts) -> Verdict {
        let book = &self.connections[connection];
        if book.is_over() || book.client.is_none() || facts.was_short {
            return Ok(());
        }
        let now = self.clock.millis();
        let client = &self.profile.config.client;
        let interval = client.ping_interval.as_millis() as u64;
        let stalled = self.stalled_millis - book.stalled_then;
        let overdue = book.pinged + interval + 2000 + SLACK_MILLIS + stalled;
        if book.temper.is_healthy() && now > overdue {
            return violation(format!(
                "connection {connection}: no ping since {} ms",
                now - book.pinged
            ));
        }
        // Who does not read why it is closed is reset five seconds later.
        let closing = match book.temper.reads {
            Reads::Promptly => 0,
            _ => 5000,
        };
        let timeout = client.pong_timeout.as_millis() as u64 + closing;
        match book.unanswered.front() {
            // A ping that left late is asked for in the next round.
            Some(since) if now > *since + timeout + interval + 2000 + SLACK_MILLIS => {
                violation(format!(
                    "connection {connection}: answered no ping for {} ms, still there",
                    now - since
                ))
            }
            _ => Ok(()),
        }
    }
}
