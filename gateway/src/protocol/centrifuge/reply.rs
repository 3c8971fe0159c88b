//! Replies: exactly one for each command with an id. Each function appends one complete WebSocket frame.

use super::encode::{Message, Nothing, Put, write_frame};
use super::publication::ClientInfoRef;
use super::schema;
use super::{Encoding, NotJson};
use crate::protocol::codes::ReplyError;

/// The answer to a connect.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectResult<'a> {
    /// The connection's id.
    pub client: &'a str,
    /// The server's version.
    pub version: &'a str,
    /// Whether the client must refresh its token.
    pub expires: bool,
    /// In how many seconds, if so.
    pub ttl: u32,
    /// From the backend; left out for JSON clients when it is no JSON.
    pub data: &'a [u8],
    /// Server-side subscriptions.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// Seconds between pings; 0: there are none.
    pub ping: u32,
    /// Whether pings want an answer.
    pub pong: bool,
    /// Empty: left out.
    pub session: &'a str,
    /// Empty: left out.
    pub node: &'a str,
}

impl Message for ConnectResult<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::ConnectResult as F;
        put.string_always(F::Client, self.client);
        put.string(F::Version, self.version);
        put_expiry(put, (F::Expires, F::Ttl), self.expires, self.ttl);
        put.raw(F::Data, self.data);
        if !self.subs.is_empty() {
            put.map(F::Subs, self.subs.iter().copied());
        }
        put.number(F::Ping, u64::from(self.ping));
        put.boolean(F::Pong, self.pong);
        put.string(F::Session, self.session);
        put.string(F::Node, self.node);
    }
}

/// The answer to a subscribe.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscribeResult<'a> {
    /// Whether the client must refresh the subscription's token.
    pub expires: bool,
    /// In how many seconds, if so.
    pub ttl: u32,
    /// Whether the client can recover later.
    pub recoverable: bool,
    /// Whether the position is watched.
    pub positioned: bool,
    /// Epoch of the position.
    pub epoch: &'a str,
    /// Offset of the position: the top, or the client's own when it recovers.
    pub offset: u64,
    /// Nothing was missed, or what was missed follows.
    pub recovered: bool,
    /// The client asked to recover.
    pub was_recovering: bool,
    /// Missed publications, rendered in the reply's encoding ([`super::publication_in_frame`]).
    pub publications: &'a [&'a [u8]],
    /// From the backend; left out for JSON clients when it is no JSON.
    pub data: &'a [u8],
}

impl Message for SubscribeResult<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::SubscribeResult as F;
        put_expiry(put, (F::Expires, F::Ttl), self.expires, self.ttl);
        put.boolean(F::Recoverable, self.recoverable);
        put.string(F::Epoch, self.epoch);
        put.rendered(F::Publications, self.publications);
        put.boolean(F::Recovered, self.recovered);
        put.number(F::Offset, self.offset);
        put.boolean(F::Positioned, self.positioned);
        put.raw(F::Data, self.data);
        put.boolean(F::WasRecovering, self.was_recovering);
    }
}

/// SDKs read `ttl` whenever `expires` is set, so it is never left out then.
fn put_expiry<P: Put, F: schema::Schema>(put: &mut P, fields: (F, F), expires: bool, ttl: u32) {
    if expires {
        put.boolean(fields.0, true);
        put.number_always(fields.1, u64::from(ttl));
    }
}

struct Reply<M> {
    id: u32,
    field: schema::Reply,
    body: M,
}

impl<M: Message> Message for Reply<M> {
    fn put<P: Put>(&self, put: &mut P) {
        put.number(schema::Reply::Id, u64::from(self.id));
        put.message(self.field, &self.body);
    }
}

fn reply(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    field: schema::Reply,
    body: impl Message,
) -> Result<(), NotJson> {
    write_frame(out, encoding, &Reply { id, field, body })
}

/// Appends a reply in which nothing must be JSON.
fn reply_always(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    field: schema::Reply,
    body: impl Message,
) {
    let replied = reply(out, encoding, id, field, body);
    debug_assert!(replied.is_ok());
}

/// Appends the reply to a connect.
pub fn reply_connect(out: &mut Vec<u8>, encoding: Encoding, id: u32, result: &ConnectResult<'_>) {
    reply_always(out, encoding, id, schema::Reply::Connect, *result);
}

/// Appends the reply to a subscribe.
pub fn reply_subscribe(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    result: &SubscribeResult<'_>,
) {
    reply_always(out, encoding, id, schema::Reply::Subscribe, *result);
}

/// Appends the reply to an unsubscribe.
pub fn reply_unsubscribe(out: &mut Vec<u8>, encoding: Encoding, id: u32) {
    reply_always(out, encoding, id, schema::Reply::Unsubscribe, Nothing);
}

/// Appends the reply to a publish.
pub fn reply_publish(out: &mut Vec<u8>, encoding: Encoding, id: u32) {
    reply_always(out, encoding, id, schema::Reply::Publish, Nothing);
}

/// Appends the reply to a ping command.
pub fn reply_ping(out: &mut Vec<u8>, encoding: Encoding, id: u32) {
    reply_always(out, encoding, id, schema::Reply::Ping, Nothing);
}

struct Presence<'a>(&'a [(&'a str, &'a [u8])]);

impl Message for Presence<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        let clients = self.0.iter().map(|(client, info)| {
            // Should another node have sent nonsense, the client is still there.
            (*client, ClientInfoRef::parse(info).unwrap_or_default())
        });
        put.map(schema::PresenceResult::Presence, clients);
    }
}

/// Appends the reply to a presence: client ids with their infos in the canonical form.
pub fn reply_presence(out: &mut Vec<u8>, encoding: Encoding, id: u32, clients: &[(&str, &[u8])]) {
    reply_always(
        out,
        encoding,
        id,
        schema::Reply::Presence,
        Presence(clients),
    );
}

struct PresenceStats {
    clients: u32,
    users: u32,
}

impl Message for PresenceStats {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::PresenceStatsResult as F;
        put.number_always(F::NumClients, u64::from(self.clients));
        put.number_always(F::NumUsers, u64::from(self.users));
    }
}

/// Appends the reply to a presence stats.
pub fn reply_presence_stats(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    clients: u32,
    users: u32,
) {
    let stats = PresenceStats { clients, users };
    reply_always(out, encoding, id, schema::Reply::PresenceStats, stats);
}

struct History<'a> {
    publications: &'a [&'a [u8]],
    epoch: &'a str,
    offset: u64,
}

impl Message for History<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::HistoryResult as F;
        put.publications(F::Publications, self.publications.iter().copied());
        put.string_always(F::Epoch, self.epoch);
        put.number_always(F::Offset, self.offset);
    }
}

/// Appends the reply to a history: publications in the canonical form, with their offsets. Appends nothing when a JSON
/// client would get one that is no JSON.
pub fn reply_history(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    publications: &[&[u8]],
    epoch: &str,
    offset: u64,
) -> Result<(), NotJson> {
    let history = History {
        publications,
        epoch,
        offset,
    };
    reply(out, encoding, id, schema::Reply::History, history)
}

struct Rpc<'a>(&'a [u8]);

impl Message for Rpc<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        if !self.0.is_empty() {
            put.data(schema::RpcResult::Data, self.0, false);
        }
    }
}

/// Appends the reply to an RPC; without data when it is empty. Appends nothing when a JSON client would get what is no
/// JSON.
pub fn reply_rpc(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    data: &[u8],
) -> Result<(), NotJson> {
    reply(out, encoding, id, schema::Reply::Rpc, Rpc(data))
}

/// The answer to a refresh.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefreshResult<'a> {
    /// The connection's id, unchanged: SDKs take it over.
    pub client: &'a str,
    /// The server's version.
    pub version: &'a str,
    /// Whether the client must refresh again.
    pub expires: bool,
    /// In how many seconds, if so.
    pub ttl: u32,
}

impl Message for RefreshResult<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::RefreshResult as F;
        put.string_always(F::Client, self.client);
        put.string_always(F::Version, self.version);
        put_expiry(put, (F::Expires, F::Ttl), self.expires, self.ttl);
    }
}

/// Appends the reply to a refresh.
pub fn reply_refresh(out: &mut Vec<u8>, encoding: Encoding, id: u32, result: &RefreshResult<'_>) {
    reply_always(out, encoding, id, schema::Reply::Refresh, *result);
}

struct SubRefresh {
    expires: bool,
    ttl: u32,
}

impl Message for SubRefresh {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::SubRefreshResult as F;
        put_expiry(put, (F::Expires, F::Ttl), self.expires, self.ttl);
    }
}

/// Appends the reply to a subscription refresh; `ttl` in seconds, `None`: it does not expire.
pub fn reply_sub_refresh(out: &mut Vec<u8>, encoding: Encoding, id: u32, ttl: Option<u32>) {
    let result = SubRefresh {
        expires: ttl.is_some(),
        ttl: ttl.unwrap_or(0),
    };
    reply_always(out, encoding, id, schema::Reply::SubRefresh, result);
}

struct Failure<'a> {
    error: ReplyError,
    message: &'a str,
}

impl Message for Failure<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::Error as F;
        put.number_always(F::Code, u64::from(self.error.code));
        put.string_always(F::Message, self.message);
        put.boolean(F::Temporary, self.error.temporary);
    }
}

/// Appends an error as the reply to any command; `message` in place of the error's own, unless it is empty.
pub fn reply_error(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    error: ReplyError,
    message: Option<&str>,
) {
    let message = message
        .filter(|message| !message.is_empty())
        .unwrap_or(error.message);
    let failure = Failure { error, message };
    reply_always(out, encoding, id, schema::Reply::Error, failure);
}
