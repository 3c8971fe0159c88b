//! Commands, appended one after the other: any sequence of them is a legal payload.

use crate::protocol::centrifuge::Encoding;
use crate::protocol::centrifuge::encode::{Message, Nothing, Put, write};
use crate::protocol::centrifuge::protobuf::{self, put_varint, varint_len};
use crate::protocol::centrifuge::schema::{self, Schema};

/// Opens the connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connect<'a> {
    /// Connection token; empty: none.
    pub token: &'a str,
    /// For the backend; empty: none.
    pub data: &'a [u8],
    /// The client's kind.
    pub name: &'a str,
    /// The client's version.
    pub version: &'a str,
    /// Server-side subscriptions to recover.
    pub subs: &'a [(&'a str, Position<'a>)],
}

/// A place in a channel's stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position<'a> {
    /// Number of the last publication seen.
    pub offset: u64,
    /// Name of the stream's life.
    pub epoch: &'a str,
}

/// Asks for a subscription.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscribe<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Subscription token; empty: none.
    pub token: &'a str,
    /// Recover from here.
    pub recover: Option<Position<'a>>,
    /// For the backend; empty: none.
    pub data: &'a [u8],
    /// Ask to be told of gaps.
    pub positioned: bool,
    /// Ask to be able to recover.
    pub recoverable: bool,
    /// Ask to see others join and leave.
    pub join_leave: bool,
}

/// Asks for what was published.
#[derive(Clone, Copy, Debug, Default)]
pub struct History<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Most publications; 0: only the position, -1: as many as allowed.
    pub limit: i32,
    /// Where to start, exclusive.
    pub since: Option<Position<'a>>,
    /// Newest first.
    pub reverse: bool,
}

struct Command<M> {
    id: u32,
    method: schema::Command,
    body: M,
}

impl<M: Message> Message for Command<M> {
    fn put<P: Put>(&self, put: &mut P) {
        put.number(schema::Command::Id, u64::from(self.id));
        put.message(self.method, &self.body);
    }
}

fn command(
    out: &mut Vec<u8>,
    encoding: Encoding,
    id: u32,
    method: schema::Command,
    body: impl Message,
) {
    let start = out.len();
    if encoding == Encoding::Protobuf {
        out.push(0);
    }
    let written = write(out, encoding, &Command { id, method, body });
    debug_assert!(written.is_ok(), "nothing in it must be JSON");
    match encoding {
        Encoding::Json => out.push(b'\n'),
        Encoding::Protobuf => {
            let length = out.len() - start - 1;
            let room = varint_len(length as u64);
            out.resize(start + room + length, 0);
            out.copy_within(start + 1..start + 1 + length, start + room);
            put_varint(&mut out[start..start + room], length as u64);
        }
    }
}

impl Message for Connect<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::ConnectRequest as F;
        put.string(F::Token, self.token);
        put.raw(F::Data, self.data);
        if !self.subs.is_empty() {
            let subs = self.subs.iter().map(|(channel, position)| {
                let subscribe = Subscribe {
                    recover: Some(*position),
                    ..Subscribe::default()
                };
                (*channel, subscribe)
            });
            put.map(F::Subs, subs);
        }
        put.string(F::Name, self.name);
        put.string(F::Version, self.version);
    }
}

impl Message for Subscribe<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::SubscribeRequest as F;
        put.string(F::Channel, self.channel);
        put.string(F::Token, self.token);
        if let Some(position) = &self.recover {
            put.boolean(F::Recover, true);
            put.string(F::Epoch, position.epoch);
            put.number(F::Offset, position.offset);
        }
        put.raw(F::Data, self.data);
        put.boolean(F::Positioned, self.positioned);
        put.boolean(F::Recoverable, self.recoverable);
        put.boolean(F::JoinLeave, self.join_leave);
    }
}

impl Message for Position<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        put.number(schema::StreamPosition::Offset, self.offset);
        put.string(schema::StreamPosition::Epoch, self.epoch);
    }
}

impl Message for History<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::HistoryRequest as F;
        put.string(F::Channel, self.channel);
        put.signed(F::Limit, i64::from(self.limit));
        if let Some(since) = &self.since {
            put.message(F::Since, since);
        }
        put.boolean(F::Reverse, self.reverse);
    }
}

/// One string and some bytes.
struct Named<'a, F> {
    name: Option<(F, &'a str)>,
    data: Option<(F, &'a [u8])>,
}

impl<F: Schema> Message for Named<'_, F> {
    fn put<P: Put>(&self, put: &mut P) {
        if let Some((field, name)) = self.name {
            put.string(field, name);
        }
        if let Some((field, data)) = self.data {
            put.raw(field, data);
        }
    }
}

fn channel(channel: &str) -> impl Message {
    Named {
        name: Some((schema::ChannelRequest::Channel, channel)),
        data: None,
    }
}

/// Appends a connect.
pub fn connect(out: &mut Vec<u8>, encoding: Encoding, id: u32, request: &Connect<'_>) {
    command(out, encoding, id, schema::Command::Connect, *request);
}

/// Appends a subscribe.
pub fn subscribe(out: &mut Vec<u8>, encoding: Encoding, id: u32, request: &Subscribe<'_>) {
    command(out, encoding, id, schema::Command::Subscribe, *request);
}

/// Appends an unsubscribe.
pub fn unsubscribe(out: &mut Vec<u8>, encoding: Encoding, id: u32, name: &str) {
    command(
        out,
        encoding,
        id,
        schema::Command::Unsubscribe,
        channel(name),
    );
}

/// Appends a publish. For JSON `data` must be JSON.
pub fn publish(out: &mut Vec<u8>, encoding: Encoding, id: u32, channel: &str, data: &[u8]) {
    use schema::PublishRequest as F;
    let body = Named {
        name: Some((F::Channel, channel)),
        data: Some((F::Data, data)),
    };
    command(out, encoding, id, schema::Command::Publish, body);
}

/// Appends a presence.
pub fn presence(out: &mut Vec<u8>, encoding: Encoding, id: u32, name: &str) {
    command(out, encoding, id, schema::Command::Presence, channel(name));
}

/// Appends a presence stats.
pub fn presence_stats(out: &mut Vec<u8>, encoding: Encoding, id: u32, name: &str) {
    command(
        out,
        encoding,
        id,
        schema::Command::PresenceStats,
        channel(name),
    );
}

/// Appends a history.
pub fn history(out: &mut Vec<u8>, encoding: Encoding, id: u32, request: &History<'_>) {
    command(out, encoding, id, schema::Command::History, *request);
}

/// Appends a ping command (not the answer to a ping: [`pong`]).
pub fn ping(out: &mut Vec<u8>, encoding: Encoding, id: u32) {
    command(out, encoding, id, schema::Command::Ping, Nothing);
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, encoding: Encoding) {
    match encoding {
        Encoding::Json => out.extend_from_slice(b"{}\n"),
        Encoding::Protobuf => protobuf::write_varint(out, 0),
    }
}

/// Appends a message that gets no reply. For JSON `data` must be JSON.
pub fn send(out: &mut Vec<u8>, encoding: Encoding, data: &[u8]) {
    let body = Named {
        name: None,
        data: Some((schema::SendRequest::Data, data)),
    };
    command(out, encoding, 0, schema::Command::Send, body);
}

/// Appends a call. For JSON `data` must be JSON.
pub fn rpc(out: &mut Vec<u8>, encoding: Encoding, id: u32, method: &str, data: &[u8]) {
    use schema::RpcRequest as F;
    let body = Named {
        name: Some((F::Method, method)),
        data: Some((F::Data, data)),
    };
    command(out, encoding, id, schema::Command::Rpc, body);
}

/// Appends a refresh of the connection's token.
pub fn refresh(out: &mut Vec<u8>, encoding: Encoding, id: u32, token: &str) {
    let body = Named {
        name: Some((schema::RefreshRequest::Token, token)),
        data: None,
    };
    command(out, encoding, id, schema::Command::Refresh, body);
}

/// Appends a refresh of a subscription's token.
pub fn sub_refresh(out: &mut Vec<u8>, encoding: Encoding, id: u32, channel: &str, token: &str) {
    use schema::SubRefreshRequest as F;
    struct SubRefresh<'a>(&'a str, &'a str);
    impl Message for SubRefresh<'_> {
        fn put<P: Put>(&self, put: &mut P) {
            put.string(F::Channel, self.0);
            put.string(F::Token, self.1);
        }
    }
    let body = SubRefresh(channel, token);
    command(out, encoding, id, schema::Command::SubRefresh, body);
}
