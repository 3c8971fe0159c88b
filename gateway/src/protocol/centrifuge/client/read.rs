//! Replies and pushes, borrowed from the payload. A publication without tags is read without allocating.

use crate::protocol::centrifuge::Encoding;
use crate::protocol::centrifuge::decode::{DecodeError, Fields, Payload, nothing};
use crate::protocol::centrifuge::schema;
use std::borrow::Cow;

/// What the server sent: the answer to command `id`, or (id 0) a push or a ping.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientReply<'a> {
    /// The command's id; 0: none.
    pub id: u32,
    /// What it says.
    pub kind: ReplyKind<'a>,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // named as the command that it answers
pub enum ReplyKind<'a> {
    /// Wants a pong.
    Ping,
    /// The command failed.
    Error(ReplyFailure<'a>),
    Connect(Connected<'a>),
    Subscribe(Subscribed<'a>),
    Unsubscribe,
    Publish,
    /// Clients by their ids.
    Presence(Vec<(Cow<'a, str>, ClientInfo<'a>)>),
    PresenceStats {
        clients: u32,
        users: u32,
    },
    History {
        publications: Vec<ClientPublication<'a>>,
        epoch: Cow<'a, str>,
        offset: u64,
    },
    /// The answer to a ping command.
    PingResult,
    Rpc {
        data: &'a [u8],
    },
    Refresh(Refreshed<'a>),
    /// Seconds until the next one; `None`: it does not expire.
    SubRefresh(Option<u32>),
    /// Unasked.
    Push {
        /// Empty: about the connection.
        channel: Cow<'a, str>,
        push: ClientPush<'a>,
    },
    /// An answer of a kind that is not known.
    Unknown,
}

/// What a push says.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub enum ClientPush<'a> {
    Publication(ClientPublication<'a>),
    Join(ClientInfo<'a>),
    Leave(ClientInfo<'a>),
    Unsubscribe {
        code: u32,
        reason: Cow<'a, str>,
    },
    /// A server-side subscription.
    Subscribe(Subscribed<'a>),
    Message {
        data: &'a [u8],
    },
    Disconnect {
        code: u32,
        reason: Cow<'a, str>,
        reconnect: bool,
    },
    /// A push of a kind that is not known.
    Unknown,
}

/// An error in a reply.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub struct ReplyFailure<'a> {
    pub code: u32,
    pub message: Cow<'a, str>,
    pub temporary: bool,
}

/// The answer to a connect.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub struct Connected<'a> {
    pub client: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub expires: bool,
    pub ttl: u32,
    pub data: &'a [u8],
    pub subs: Vec<(Cow<'a, str>, Subscribed<'a>)>,
    pub ping: u32,
    pub pong: bool,
    pub session: Cow<'a, str>,
    pub node: Cow<'a, str>,
}

/// The answer to a subscribe, or a server-side subscription.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub struct Subscribed<'a> {
    pub expires: bool,
    pub ttl: u32,
    pub recoverable: bool,
    pub positioned: bool,
    pub epoch: Cow<'a, str>,
    pub offset: u64,
    pub recovered: bool,
    pub was_recovering: bool,
    pub publications: Vec<ClientPublication<'a>>,
    pub data: &'a [u8],
}

/// The answer to a refresh.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub struct Refreshed<'a> {
    pub client: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub expires: bool,
    pub ttl: u32,
}

/// A publication.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub struct ClientPublication<'a> {
    pub data: &'a [u8],
    pub info: Option<ClientInfo<'a>>,
    pub offset: u64,
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub key: Cow<'a, str>,
    pub time: i64,
}

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // named as in the protocol
pub struct ClientInfo<'a> {
    pub user: Cow<'a, str>,
    pub client: Cow<'a, str>,
    pub conn_info: &'a [u8],
    pub chan_info: &'a [u8],
}

/// The replies of one payload. Ends after the first error; a payload without a reply is an error too.
#[derive(Clone, Debug)]
pub struct Replies<'a>(Payload<'a>);

impl<'a> Replies<'a> {
    /// The replies of a payload.
    pub fn new(encoding: Encoding, payload: &'a [u8]) -> Self {
        Self(Payload::new(encoding, payload))
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<ClientReply<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(reply, reply)
    }
}

fn reply<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientReply<'a>, DecodeError> {
    use schema::Reply as R;
    let mut id = 0;
    let mut kind = None;
    while let Some(field) = fields.next()? {
        let read = match field {
            R::Id => {
                id = fields.u32()?;
                continue;
            }
            R::Error => fields.message(failure)?.map(ReplyKind::Error),
            R::Push => fields.message(push)?,
            R::Connect => fields.message(connected)?.map(ReplyKind::Connect),
            R::Subscribe => fields.message(subscribed)?.map(ReplyKind::Subscribe),
            R::Unsubscribe => fields.message(nothing)?.map(|()| ReplyKind::Unsubscribe),
            R::Publish => fields.message(nothing)?.map(|()| ReplyKind::Publish),
            R::Presence => fields.message(presence)?.map(ReplyKind::Presence),
            R::PresenceStats => fields.message(presence_stats)?,
            R::History => fields.message(history)?,
            R::Ping => fields.message(nothing)?.map(|()| ReplyKind::PingResult),
            R::Rpc => fields.message(rpc)?,
            R::Refresh => fields.message(refreshed)?.map(ReplyKind::Refresh),
            R::SubRefresh => fields.message(sub_refreshed)?.map(ReplyKind::SubRefresh),
        };
        kind = read.or(kind);
    }
    let kind = kind.unwrap_or(match id {
        0 => ReplyKind::Ping,
        _ => ReplyKind::Unknown,
    });
    Ok(ClientReply { id, kind })
}

fn failure<'a, F: Fields<'a>>(fields: &mut F) -> Result<ReplyFailure<'a>, DecodeError> {
    use schema::Error as E;
    let mut failure = ReplyFailure::default();
    while let Some(field) = fields.next()? {
        match field {
            E::Code => failure.code = fields.u32()?,
            E::Message => failure.message = fields.string()?,
            E::Temporary => failure.temporary = fields.boolean()?,
        }
    }
    Ok(failure)
}

fn connected<'a, F: Fields<'a>>(fields: &mut F) -> Result<Connected<'a>, DecodeError> {
    use schema::ConnectResult as C;
    let mut result = Connected::default();
    while let Some(field) = fields.next()? {
        match field {
            C::Client => result.client = fields.string()?,
            C::Version => result.version = fields.string()?,
            C::Expires => result.expires = fields.boolean()?,
            C::Ttl => result.ttl = fields.u32()?,
            C::Data => result.data = fields.bytes()?,
            C::Subs => fields.entries(|channel, fields| {
                let sub = fields.message(subscribed)?.unwrap_or_default();
                result.subs.push((channel, sub));
                Ok(())
            })?,
            C::Ping => result.ping = fields.u32()?,
            C::Pong => result.pong = fields.boolean()?,
            C::Session => result.session = fields.string()?,
            C::Node => result.node = fields.string()?,
        }
    }
    Ok(result)
}

fn subscribed<'a, F: Fields<'a>>(fields: &mut F) -> Result<Subscribed<'a>, DecodeError> {
    use schema::SubscribeResult as S;
    let mut result = Subscribed::default();
    while let Some(field) = fields.next()? {
        match field {
            S::Expires => result.expires = fields.boolean()?,
            S::Ttl => result.ttl = fields.u32()?,
            S::Recoverable => result.recoverable = fields.boolean()?,
            S::Epoch => result.epoch = fields.string()?,
            S::Publications => publications(fields, &mut result.publications)?,
            S::Recovered => result.recovered = fields.boolean()?,
            S::Offset => result.offset = fields.u64()?,
            S::Positioned => result.positioned = fields.boolean()?,
            S::Data => result.data = fields.bytes()?,
            S::WasRecovering => result.was_recovering = fields.boolean()?,
        }
    }
    Ok(result)
}

fn publications<'a, F: Fields<'a>>(
    fields: &mut F,
    into: &mut Vec<ClientPublication<'a>>,
) -> Result<(), DecodeError> {
    fields.each(|fields| {
        into.extend(fields.message(publication)?);
        Ok(())
    })
}

fn presence<'a, F: Fields<'a>>(
    fields: &mut F,
) -> Result<Vec<(Cow<'a, str>, ClientInfo<'a>)>, DecodeError> {
    let mut clients = Vec::new();
    while let Some(field) = fields.next()? {
        match field {
            schema::PresenceResult::Presence => fields.entries(|client, fields| {
                clients.push((client, fields.message(client_info)?.unwrap_or_default()));
                Ok(())
            })?,
        }
    }
    Ok(clients)
}

fn presence_stats<'a, F: Fields<'a>>(fields: &mut F) -> Result<ReplyKind<'a>, DecodeError> {
    use schema::PresenceStatsResult as P;
    let (mut clients, mut users) = (0, 0);
    while let Some(field) = fields.next()? {
        match field {
            P::NumClients => clients = fields.u32()?,
            P::NumUsers => users = fields.u32()?,
        }
    }
    Ok(ReplyKind::PresenceStats { clients, users })
}

fn history<'a, F: Fields<'a>>(fields: &mut F) -> Result<ReplyKind<'a>, DecodeError> {
    use schema::HistoryResult as H;
    let mut found = Vec::new();
    let mut top = Cow::Borrowed("");
    let mut offset = 0;
    while let Some(field) = fields.next()? {
        match field {
            H::Publications => publications(fields, &mut found)?,
            H::Epoch => top = fields.string()?,
            H::Offset => offset = fields.u64()?,
        }
    }
    Ok(ReplyKind::History {
        publications: found,
        epoch: top,
        offset,
    })
}

fn rpc<'a, F: Fields<'a>>(fields: &mut F) -> Result<ReplyKind<'a>, DecodeError> {
    let mut data = &[][..];
    while let Some(field) = fields.next()? {
        match field {
            schema::RpcResult::Data => data = fields.bytes()?,
        }
    }
    Ok(ReplyKind::Rpc { data })
}

fn refreshed<'a, F: Fields<'a>>(fields: &mut F) -> Result<Refreshed<'a>, DecodeError> {
    use schema::RefreshResult as R;
    let mut result = Refreshed::default();
    while let Some(field) = fields.next()? {
        match field {
            R::Client => result.client = fields.string()?,
            R::Version => result.version = fields.string()?,
            R::Expires => result.expires = fields.boolean()?,
            R::Ttl => result.ttl = fields.u32()?,
        }
    }
    Ok(result)
}

fn sub_refreshed<'a, F: Fields<'a>>(fields: &mut F) -> Result<Option<u32>, DecodeError> {
    use schema::SubRefreshResult as S;
    let (mut expires, mut ttl) = (false, 0);
    while let Some(field) = fields.next()? {
        match field {
            S::Expires => expires = fields.boolean()?,
            S::Ttl => ttl = fields.u32()?,
        }
    }
    Ok(expires.then_some(ttl))
}

fn push<'a, F: Fields<'a>>(fields: &mut F) -> Result<ReplyKind<'a>, DecodeError> {
    use schema::Push as P;
    let mut channel = Cow::Borrowed("");
    let mut push = ClientPush::Unknown;
    while let Some(field) = fields.next()? {
        let read = match field {
            P::Channel => {
                channel = fields.string()?;
                continue;
            }
            P::Publication => fields.message(publication)?.map(ClientPush::Publication),
            P::Join => fields.message(join_leave)?.map(ClientPush::Join),
            P::Leave => fields.message(join_leave)?.map(ClientPush::Leave),
            P::Unsubscribe => fields.message(unsubscribe)?,
            P::Message => fields.message(message)?,
            P::Subscribe => fields.message(subscribe)?.map(ClientPush::Subscribe),
            P::Disconnect => fields.message(disconnect)?,
        };
        push = read.unwrap_or(push);
    }
    Ok(ReplyKind::Push { channel, push })
}

fn publication<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientPublication<'a>, DecodeError> {
    use schema::Publication as P;
    let mut publication = ClientPublication::default();
    while let Some(field) = fields.next()? {
        match field {
            P::Data => publication.data = fields.bytes()?,
            P::Info => publication.info = fields.message(client_info)?,
            P::Offset => publication.offset = fields.u64()?,
            P::Tags => fields.entries(|key, fields| {
                publication.tags.push((key, fields.string()?));
                Ok(())
            })?,
            P::Time => publication.time = fields.i64()?,
            P::Key => publication.key = fields.string()?,
        }
    }
    Ok(publication)
}

fn client_info<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientInfo<'a>, DecodeError> {
    use schema::ClientInfo as C;
    let mut info = ClientInfo::default();
    while let Some(field) = fields.next()? {
        match field {
            C::User => info.user = fields.string()?,
            C::Client => info.client = fields.string()?,
            C::ConnInfo => info.conn_info = fields.bytes()?,
            C::ChanInfo => info.chan_info = fields.bytes()?,
        }
    }
    Ok(info)
}

fn join_leave<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientInfo<'a>, DecodeError> {
    let mut info = ClientInfo::default();
    while let Some(field) = fields.next()? {
        match field {
            schema::JoinLeave::Info => info = fields.message(client_info)?.unwrap_or_default(),
        }
    }
    Ok(info)
}

fn unsubscribe<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientPush<'a>, DecodeError> {
    use schema::Unsubscribe as U;
    let (mut code, mut reason) = (0, Cow::Borrowed(""));
    while let Some(field) = fields.next()? {
        match field {
            U::Code => code = fields.u32()?,
            U::Reason => reason = fields.string()?,
        }
    }
    Ok(ClientPush::Unsubscribe { code, reason })
}

fn message<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientPush<'a>, DecodeError> {
    let mut data = &[][..];
    while let Some(field) = fields.next()? {
        match field {
            schema::Message::Data => data = fields.bytes()?,
        }
    }
    Ok(ClientPush::Message { data })
}

fn subscribe<'a, F: Fields<'a>>(fields: &mut F) -> Result<Subscribed<'a>, DecodeError> {
    use schema::Subscribe as S;
    let mut subscribe = Subscribed::default();
    while let Some(field) = fields.next()? {
        match field {
            S::Recoverable => subscribe.recoverable = fields.boolean()?,
            S::Epoch => subscribe.epoch = fields.string()?,
            S::Offset => subscribe.offset = fields.u64()?,
            S::Positioned => subscribe.positioned = fields.boolean()?,
            S::Data => subscribe.data = fields.bytes()?,
        }
    }
    Ok(subscribe)
}

fn disconnect<'a, F: Fields<'a>>(fields: &mut F) -> Result<ClientPush<'a>, DecodeError> {
    use schema::Disconnect as D;
    let (mut code, mut reason, mut reconnect) = (0, Cow::Borrowed(""), false);
    while let Some(field) = fields.next()? {
        match field {
            D::Code => code = fields.u32()?,
            D::Reason => reason = fields.string()?,
            D::Reconnect => reconnect = fields.boolean()?,
        }
    }
    Ok(ClientPush::Disconnect {
        code,
        reason,
        reconnect,
    })
}
