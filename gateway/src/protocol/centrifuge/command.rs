//! Commands: what clients send. Everything is borrowed from the payload; only strings with escapes and the server-side
//! subscriptions of a connect are allocated.

use super::Encoding;
use super::decode::{DecodeError, Fields, Payload, nothing};
use super::schema;
use crate::protocol::token::TokenKind;
use std::borrow::Cow;

/// One command. `id` is above zero for all that want a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Command<'a> {
    /// The client's number for it, given back in the reply; 0: none.
    pub id: u32,
    /// What it asks for.
    pub method: Method<'a>,
}

/// What a command asks for. Should one name several methods, the lowest field number counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Method<'a> {
    /// An empty command: the answer to a ping.
    Pong,
    /// Must be the first.
    Connect(ConnectRequest<'a>),
    /// To a channel.
    Subscribe(SubscribeRequest<'a>),
    /// From a channel.
    Unsubscribe(ChannelRequest<'a>),
    /// Into a channel.
    Publish(PublishRequest<'a>),
    /// Who is in a channel.
    Presence(ChannelRequest<'a>),
    /// How many are in a channel.
    PresenceStats(ChannelRequest<'a>),
    /// What was published.
    History(HistoryRequest<'a>),
    /// Wants an empty reply.
    Ping,
    /// A message to the backend, without a reply: the only command whose id may be 0.
    Send {
        /// The message; in JSON the text of a value.
        data: &'a [u8],
    },
    /// A call of the backend.
    Rpc {
        /// The method's name.
        method: Cow<'a, str>,
        /// The parameters; in JSON the text of a value.
        data: &'a [u8],
    },
    /// A new connection token.
    Refresh {
        /// The token.
        token: Cow<'a, str>,
    },
    /// A new subscription token.
    SubRefresh(SubRefreshRequest<'a>),
    /// An id but no known method: error 104.
    Unknown,
}

impl Method<'_> {
    /// The token that it brings, if any, and what it is for.
    pub fn token(&self) -> Option<(TokenKind, &str)> {
        let (kind, token) = match self {
            Self::Connect(request) => (TokenKind::Connection, &request.token),
            Self::Refresh { token } => (TokenKind::Connection, token),
            Self::Subscribe(request) => (TokenKind::Subscription, &request.token),
            Self::SubRefresh(request) => (TokenKind::Subscription, &request.token),
            _ => return None,
        };
        (!token.is_empty()).then_some((kind, token))
    }
}

/// Opens the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectRequest<'a> {
    /// Connection token; empty: none.
    pub token: Cow<'a, str>,
    /// For the backend; in JSON the text of a value.
    pub data: &'a [u8],
    /// The client's kind. Any length: the limit is applied by cutting it.
    pub name: Cow<'a, str>,
    /// The client's version. Any length.
    pub version: Cow<'a, str>,
    /// Positions of server-side subscriptions that the client remembers. Should a channel come twice, the last counts.
    pub subs: Vec<ServerSubscription<'a>>,
}

/// A server-side subscription that the client remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSubscription<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// Whether to recover from the position.
    pub recover: bool,
    /// The position's epoch.
    pub epoch: Cow<'a, str>,
    /// The position's offset.
    pub offset: u64,
}

/// Asks for a subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeRequest<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// Subscription token; empty: none.
    pub token: Cow<'a, str>,
    /// Whether to recover from the position.
    pub recover: bool,
    /// The position's epoch.
    pub epoch: Cow<'a, str>,
    /// The position's offset.
    pub offset: u64,
    /// For the backend; in JSON the text of a value.
    pub data: &'a [u8],
    /// Whether the client wants to be told of gaps.
    pub positioned: bool,
    /// Whether the client wants to recover later.
    pub recoverable: bool,
    /// Whether the client wants to see others join and leave.
    pub join_leave: bool,
    /// Features of the client, a bit mask. May be ignored.
    pub flag: i64,
    /// A tags filter is present: not available.
    pub has_filter: bool,
    /// The kind of subscription; other than 0: not available.
    pub kind: i32,
}

impl SubscribeRequest<'_> {
    /// Whether it asks for what is not built and must not be ignored: error 108.
    pub fn is_unavailable(&self) -> bool {
        self.has_filter || self.kind != 0
    }
}

/// Names a channel, and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelRequest<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
}

/// Publishes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishRequest<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// In JSON the text of a value, valid; in Protobuf any bytes. Empty: absent.
    pub data: &'a [u8],
    /// The kind of channel; other than 0: not available.
    pub kind: i32,
    /// A key is present: not available to clients.
    pub has_key: bool,
    /// A removal: not available.
    pub removed: bool,
}

impl PublishRequest<'_> {
    /// Whether it asks for what is not built and must not be ignored: error 108.
    pub fn is_unavailable(&self) -> bool {
        self.kind != 0 || self.has_key || self.removed
    }
}

/// Asks for what was published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRequest<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// Most publications; 0: only the position, below: as many as allowed.
    pub limit: i32,
    /// Where to start, exclusive.
    pub since: Option<StreamPosition<'a>>,
    /// Newest first.
    pub reverse: bool,
}

/// A place in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamPosition<'a> {
    /// Number of a publication.
    pub offset: u64,
    /// Name of the stream's life.
    pub epoch: Cow<'a, str>,
}

/// A new subscription token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubRefreshRequest<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// The token.
    pub token: Cow<'a, str>,
    /// 0: refresh; others: not available.
    pub kind: i32,
    /// Keys to track or untrack are present: not available.
    pub has_keys: bool,
}

impl SubRefreshRequest<'_> {
    /// Whether it asks for what is not built and must not be ignored: error 108.
    pub fn is_unavailable(&self) -> bool {
        self.kind != 0 || self.has_keys
    }
}

/// The commands of one message. Ends after the first error, which is one that closes the connection (3501). A payload
/// without a command is an error too.
#[derive(Clone, Debug)]
pub struct Commands<'a>(Payload<'a>);

impl<'a> Commands<'a> {
    /// The commands of a payload: JSON objects separated by one line feed each, with an optional one at the end, or
    /// Protobuf messages with their lengths in front.
    pub fn new(encoding: Encoding, payload: &'a [u8]) -> Self {
        Self(Payload::new(encoding, payload))
    }

    /// The bytes from the next command on: a payload of its own.
    pub fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(command, command)
    }
}

fn command<'a, F: Fields<'a>>(fields: &mut F) -> Result<Command<'a>, DecodeError> {
    use schema::{Command as C, Schema};
    let mut id = 0;
    let mut method = None;
    let mut chosen = u32::MAX;
    while let Some(field) = fields.next()? {
        let read = match field {
            C::Id => {
                id = fields.u32()?;
                continue;
            }
            C::Connect => fields.message(connect)?.map(Method::Connect),
            C::Subscribe => fields.message(subscribe)?.map(Method::Subscribe),
            C::Unsubscribe => fields.message(channel)?.map(Method::Unsubscribe),
            C::Publish => fields.message(publish)?.map(Method::Publish),
            C::Presence => fields.message(channel)?.map(Method::Presence),
            C::PresenceStats => fields.message(channel)?.map(Method::PresenceStats),
            C::History => fields.message(history)?.map(Method::History),
            C::Ping => fields.message(nothing)?.map(|()| Method::Ping),
            C::Send => fields.message(send)?,
            C::Rpc => fields.message(rpc)?,
            C::Refresh => fields.message(refresh)?,
            C::SubRefresh => fields.message(sub_refresh)?.map(Method::SubRefresh),
        };
        if read.is_some() && field.number() <= chosen {
            chosen = field.number();
            method = read;
        }
    }
    let method = method.unwrap_or(match id {
        0 => Method::Pong,
        _ => Method::Unknown,
    });
    Ok(Command { id, method })
}

fn connect<'a, F: Fields<'a>>(fields: &mut F) -> Result<ConnectRequest<'a>, DecodeError> {
    use schema::ConnectRequest as C;
    let mut request = ConnectRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            C::Token => request.token = fields.string()?,
            C::Data => request.data = fields.bytes()?,
            C::Name => request.name = fields.string()?,
            C::Version => request.version = fields.string()?,
            C::Subs => fields.entries(|channel, fields| {
                let sub = fields.message(subscribe)?.unwrap_or_default();
                request.subs.push(ServerSubscription {
                    channel,
                    recover: sub.recover,
                    epoch: sub.epoch,
                    offset: sub.offset,
                });
                Ok(())
            })?,
        }
    }
    Ok(request)
}

fn subscribe<'a, F: Fields<'a>>(fields: &mut F) -> Result<SubscribeRequest<'a>, DecodeError> {
    use schema::SubscribeRequest as S;
    let mut request = SubscribeRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            S::Channel => request.channel = fields.string()?,
            S::Token => request.token = fields.string()?,
            S::Recover => request.recover = fields.boolean()?,
            S::Epoch => request.epoch = fields.string()?,
            S::Offset => request.offset = fields.u64()?,
            S::Data => request.data = fields.bytes()?,
            S::Positioned => request.positioned = fields.boolean()?,
            S::Recoverable => request.recoverable = fields.boolean()?,
            S::JoinLeave => request.join_leave = fields.boolean()?,
            S::Filter => request.has_filter = fields.skip()?,
            S::Flag => request.flag = fields.i64()?,
            S::Type => request.kind = fields.i32()?,
        }
    }
    Ok(request)
}

fn channel<'a, F: Fields<'a>>(fields: &mut F) -> Result<ChannelRequest<'a>, DecodeError> {
    use schema::ChannelRequest as C;
    let mut request = ChannelRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            C::Channel => request.channel = fields.string()?,
        }
    }
    Ok(request)
}

fn publish<'a, F: Fields<'a>>(fields: &mut F) -> Result<PublishRequest<'a>, DecodeError> {
    use schema::PublishRequest as P;
    let mut request = PublishRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            P::Channel => request.channel = fields.string()?,
            P::Data => request.data = fields.bytes()?,
            P::Type => request.kind = fields.i32()?,
            P::Key => request.has_key = !fields.string()?.is_empty(),
            P::Removed => request.removed = fields.boolean()?,
        }
    }
    Ok(request)
}

fn history<'a, F: Fields<'a>>(fields: &mut F) -> Result<HistoryRequest<'a>, DecodeError> {
    use schema::HistoryRequest as H;
    let mut request = HistoryRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            H::Channel => request.channel = fields.string()?,
            H::Limit => request.limit = fields.i32()?,
            H::Since => request.since = fields.message(position)?,
            H::Reverse => request.reverse = fields.boolean()?,
        }
    }
    Ok(request)
}

fn position<'a, F: Fields<'a>>(fields: &mut F) -> Result<StreamPosition<'a>, DecodeError> {
    use schema::StreamPosition as S;
    let mut position = StreamPosition::default();
    while let Some(field) = fields.next()? {
        match field {
            S::Offset => position.offset = fields.u64()?,
            S::Epoch => position.epoch = fields.string()?,
        }
    }
    Ok(position)
}

fn send<'a, F: Fields<'a>>(fields: &mut F) -> Result<Method<'a>, DecodeError> {
    let mut data = &[][..];
    while let Some(field) = fields.next()? {
        match field {
            schema::SendRequest::Data => data = fields.bytes()?,
        }
    }
    Ok(Method::Send { data })
}

fn rpc<'a, F: Fields<'a>>(fields: &mut F) -> Result<Method<'a>, DecodeError> {
    let mut data = &[][..];
    let mut method = Cow::Borrowed("");
    while let Some(field) = fields.next()? {
        match field {
            schema::RpcRequest::Data => data = fields.bytes()?,
            schema::RpcRequest::Method => method = fields.string()?,
        }
    }
    Ok(Method::Rpc { method, data })
}

fn refresh<'a, F: Fields<'a>>(fields: &mut F) -> Result<Method<'a>, DecodeError> {
    let mut token = Cow::Borrowed("");
    while let Some(field) = fields.next()? {
        match field {
            schema::RefreshRequest::Token => token = fields.string()?,
        }
    }
    Ok(Method::Refresh { token })
}

fn sub_refresh<'a, F: Fields<'a>>(fields: &mut F) -> Result<SubRefreshRequest<'a>, DecodeError> {
    use schema::SubRefreshRequest as S;
    let mut request = SubRefreshRequest::default();
    while let Some(field) = fields.next()? {
        match field {
            S::Channel => request.channel = fields.string()?,
            S::Token => request.token = fields.string()?,
            S::Type => request.kind = fields.i32()?,
            S::Track | S::Untrack => request.has_keys |= fields.skip()?,
        }
    }
    Ok(request)
}
