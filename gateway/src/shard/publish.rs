//! Commands that are the home's to answer: publish, presence, history; and RPC.

use super::Core;
use super::permit::Who;
use crate::config::ChannelOptions;
use crate::connection::{Awaited, Slot};
use crate::hub::links::{put, span_from};
use crate::hub::message::{ChannelRef, Message, Query, ReplyTo, Span};
use crate::ids::{ShardId, Token};
use crate::protocol::centrifuge::publication::{ClientInfoRef, PublicationParts, encode};
use crate::protocol::centrifuge::{Encoding, HistoryRequest, PublishRequest, reply_rpc};
use crate::protocol::channel::ChannelName;
use crate::protocol::codes::ReplyError;

/// Presences and histories of one connection under way: each may be large.
const ANSWERS_MAX: usize = 64;
/// Most publications a client gets of a history.
const HISTORY_MAX: u32 = 300;

impl Core {
    /// The channel's namespace, if its name is one.
    fn namespace_of(&self, channel: &str) -> Result<u16, ReplyError> {
        let name = ChannelName::parse(channel).map_err(|e| e.reply())?;
        self.config
            .channels
            .find(name.namespace())
            .ok_or(ReplyError::UNKNOWN_CHANNEL)
    }

    fn check(
        &mut self,
        token: Token,
        channel: &str,
        namespace: u16,
        may: impl FnOnce(&Who<'_>, &ChannelOptions) -> bool,
    ) -> Result<u64, ReplyError> {
        let is_anonymous = self
            .conns
            .get(token.slot)
            .and_then(|c| c.identity.as_ref())
            .is_none_or(|identity| identity.user.is_empty());
        let is_subscribed = self.is_subscriber(token, channel);
        let who = Who {
            client: &self.config.client,
            is_anonymous,
            is_subscribed,
        };
        if !may(&who, self.config.channels.options(namespace)) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        let hash = self.keys.hash(channel);
        Ok(hash)
    }

    /// What cannot be handed over soon is refused at the door; nothing is dropped behind it.
    fn ensure_takes(&self, peer: ShardId) -> Result<(), ReplyError> {
        match self.links.is_congested(peer) {
            true => Err(ReplyError::TOO_MANY_REQUESTS),
            false => Ok(()),
        }
    }

    pub(super) fn publish(&mut self, token: Token, id: u32, request: &PublishRequest<'_>) {
        if let Err(error) = self.try_publish(token, id, request) {
            self.refuse(token.slot, id, error);
        }
    }

    fn try_publish(
        &mut self,
        token: Token,
        id: u32,
        request: &PublishRequest<'_>,
    ) -> Result<(), ReplyError> {
        if request.is_unavailable() {
            return Err(ReplyError::NOT_AVAILABLE);
        }
        let channel = &*request.channel;
        let namespace = self.namespace_of(channel)?;
        if request.data.is_empty() {
            return Err(ReplyError::BAD_REQUEST);
        }
        let hash = self.check(token, channel, namespace, |who, options| {
            who.may_publish(options)
        })?;
        // What a linked channel is given comes to its homes from the backplane, here as on every node.
        let peer = if self.config.is_linked(namespace) {
            self.links.control()
        } else {
            self.keys.home(hash)
        };
        self.ensure_takes(peer)?;
        let ticket = self.enqueue(token.slot, Slot::Awaited(Awaited::Publish(id)));
        let view = self.hub.find(channel, hash);
        let batch = self.links.to(peer);
        let name = put(batch, channel.as_bytes());
        let Some(conn) = self.conns.get(token.slot) else {
            return Ok(());
        };
        let identity = conn.identity.as_ref();
        let client = identity.map(|i| i.client.text());
        let info = identity
            .zip(client.as_ref())
            .map(|(identity, client)| ClientInfoRef {
                user: &identity.user,
                client: client.as_str(),
                conn_info: identity.conn_info(),
                chan_info: identity.chan_info(view),
            });
        let start = batch.bytes.len();
        encode(
            &mut batch.bytes,
            &PublicationParts {
                data: request.data,
                info,
                ..PublicationParts::default()
            },
        );
        let publication = span_from(batch, start);
        batch.messages.push(Message::Publish {
            channel: ChannelRef {
                hash,
                name,
                namespace,
            },
            publication,
            json: conn.encoding == Encoding::Json,
            reply: ReplyTo { token, ticket },
        });
        Ok(())
    }

    pub(super) fn presence(&mut self, token: Token, id: u32, channel: &str, only_counts: bool) {
        let query = if only_counts {
            Query::PresenceStats
        } else {
            Query::Presence
        };
        let asked = self.namespace_of(channel).and_then(|namespace| {
            if !self.config.channels.options(namespace).presence {
                return Err(ReplyError::NOT_AVAILABLE);
            }
            let hash = self.check(token, channel, namespace, |who, options| {
                who.may_see_presence(options)
            })?;
            self.ask(token, id, channel, (hash, namespace), query, "")
        });
        if let Err(error) = asked {
            self.refuse(token.slot, id, error);
        }
    }

    pub(super) fn history(&mut self, token: Token, id: u32, request: &HistoryRequest<'_>) {
        let channel = &*request.channel;
        let asked = self.namespace_of(channel).and_then(|namespace| {
            if !self.config.channels.options(namespace).has_history() {
                return Err(ReplyError::NOT_AVAILABLE);
            }
            let hash = self.check(token, channel, namespace, |who, options| {
                who.may_read_history(options)
            })?;
            let limit =
                u32::try_from(request.limit).map_or(HISTORY_MAX, |limit| limit.min(HISTORY_MAX));
            let since = request.since.as_ref();
            let query = Query::History {
                limit,
                since: since.map(|s| s.offset),
                epoch: Span::default(),
                reverse: request.reverse,
            };
            self.ask(
                token,
                id,
                channel,
                (hash, namespace),
                query,
                since.map_or("", |s| &s.epoch),
            )
        });
        if let Err(error) = asked {
            self.refuse(token.slot, id, error);
        }
    }

    fn ask(
        &mut self,
        token: Token,
        id: u32,
        channel: &str,
        (hash, namespace): (u64, u16),
        mut query: Query,
        epoch: &str,
    ) -> Result<(), ReplyError> {
        self.ensure_takes(self.keys.home(hash))?;
        let pending = self.conns.get(token.slot).and_then(|c| c.pending.as_ref());
        if pending.is_some_and(|p| p.answers() >= ANSWERS_MAX) {
            return Err(ReplyError::TOO_MANY_REQUESTS);
        }
        let ticket = self.enqueue(token.slot, Slot::Awaited(Awaited::Answer(id)));
        let encoding = self
            .conns
            .get(token.slot)
            .map_or(Encoding::Json, |c| c.encoding);
        let batch = self.links.to(self.keys.home(hash));
        let name = put(batch, channel.as_bytes());
        if let Query::History { epoch: span, .. } = &mut query {
            *span = put(batch, epoch.as_bytes());
        }
        batch.messages.push(Message::Query {
            channel: ChannelRef {
                hash,
                name,
                namespace,
            },
            query,
            id,
            encoding,
            reply: ReplyTo { token, ticket },
        });
        Ok(())
    }

    pub(super) fn rpc(&mut self, token: Token, id: u32, method: &str, data: &[u8]) {
        if !(self.config.dev && method == "echo") {
            return self.refuse(token.slot, id, ReplyError::METHOD_NOT_FOUND);
        }
        self.reply(token.slot, |out, encoding| {
            // A JSON client's data is JSON, so it can be given back to it.
            if reply_rpc(out, encoding, id, data).is_err() {
                crate::protocol::centrifuge::reply_error(
                    out,
                    encoding,
                    id,
                    ReplyError::BAD_REQUEST,
                    None,
                );
            }
        });
    }
}
