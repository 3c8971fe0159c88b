//! What shards and the control thread say to each other. Bytes of a message stand in its batch ([`Span`]); between two
//! threads the order is FIFO.

use crate::ids::{ShardId, Token};
use std::sync::Arc;

/// A range of bytes in the batch that carries the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// How many.
    pub len: u32,
}

impl Span {
    /// The bytes.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..(self.start + self.len) as usize]
    }
}

/// Where the control thread's answers go: it is one more peer, behind the last shard.
pub type RequestId = u64;

/// A question of the control thread to one shard. Owned: this path may allocate.
#[derive(Clone, Debug)]
pub enum Request {
    /// To the channel's home. `publication` is a Protobuf `Publication` without an offset
    /// ([`crate::protocol::centrifuge::publication`]); its data is valid for the namespace. → `Published`.
    Publish {
        /// The channel, checked to be in a known namespace.
        channel: Arc<str>,
        /// Encoded.
        publication: Vec<u8>,
        /// Whether `data` is known to be valid JSON.
        json: bool,
        /// Deliver, but do not keep.
        skip_history: bool,
    },
    /// To the home. → `History`.
    History {
        /// The channel.
        channel: Arc<str>,
        /// 0: only the position; `None`: all.
        limit: Option<u32>,
        /// Exclusive; `reverse` walks down from it.
        since: Option<(u64, String)>,
        /// Newest first.
        reverse: bool,
    },
    /// To the home. → `Done`.
    HistoryRemove {
        /// The channel.
        channel: Arc<str>,
    },
    /// To the home. → `Presence`.
    Presence {
        /// The channel.
        channel: Arc<str>,
    },
    /// To the home. → `PresenceStats`.
    PresenceStats {
        /// The channel.
        channel: Arc<str>,
    },
    /// To every shard: push `unsubscribe` and drop the subscriptions of a user. → `Done`.
    Unsubscribe {
        /// The user.
        user: String,
        /// One channel, or every one when `None`.
        channel: Option<Arc<str>>,
        /// One client id, or every one of the user.
        client: Option<String>,
    },
    /// To every shard: close a user's connections. → `Done`.
    Disconnect {
        /// The user.
        user: String,
        /// One client id, or every one of the user.
        client: Option<String>,
        /// Client ids that stay.
        whitelist: Vec<String>,
        /// Close code, 3000 to 4999.
        code: u16,
        /// Plain words, at most 32 bytes.
        reason: String,
    },
    /// To every shard. → `Channels`.
    Channels,
    /// To every shard. → `Stats`.
    Stats,
    /// To the user's home ([`crate::hub::home_of_user`]). → `UserStatus`.
    UserStatus {
        /// The user.
        user: String,
    },
    /// To every shard: stop accepting, then close the connections evenly until `millis` from now. → `Done` when the
    /// last one is closed.
    Drain {
        /// The window.
        millis: u64,
    },
    /// To every shard: end the thread now. → `Done` with the number of connections cut.
    Stop,
}

/// An answer to the control thread.
#[derive(Clone, Debug)]
pub enum Response {
    /// Nothing to say.
    Done {
        /// How many connections or subscriptions it touched.
        count: u64,
    },
    /// The publication's position, in channels with history.
    Published {
        /// Offset and epoch.
        position: Option<(u64, Arc<str>)>,
    },
    /// Records, each a Protobuf `Publication` with its offset.
    History {
        /// In the order asked for.
        publications: Vec<Vec<u8>>,
        /// The channel's newest offset.
        offset: u64,
        /// Its epoch.
        epoch: Arc<str>,
    },
    /// Who is there: client id and Protobuf `ClientInfo`.
    Presence {
        /// Unordered.
        clients: Vec<(String, Vec<u8>)>,
    },
    /// Counts.
    PresenceStats {
        /// Connections.
        clients: u32,
        /// Distinct users.
        users: u32,
    },
    /// Channels with members on this shard and how many.
    Channels {
        /// Unordered.
        channels: Vec<(Arc<str>, u32)>,
    },
    /// Counters.
    Stats(Box<crate::stats::ShardStats>),
    /// A user's connections on this node and when the last one ended.
    UserStatus {
        /// Now.
        connections: u32,
        /// Unix seconds; `None`: never seen since start.
        last_seen: Option<u64>,
    },
    /// The request could not be carried out.
    Failed(crate::protocol::codes::ReplyError),
}

/// Where a reply of another shard belongs: the command that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The connection.
    pub token: Token,
    /// The command's place in the connection's order of replies.
    pub ticket: u32,
}

/// Which shard (or, one past the last, the control thread) a message goes to or came from.
pub type Peer = ShardId;

/// What one thread says to another.
#[derive(Clone, Debug)]
pub enum Message {
    /// Control thread → shard.
    Request {
        /// Comes back with the answer.
        id: RequestId,
        /// The question.
        request: Box<Request>,
    },
    /// Shard → control thread.
    Response {
        /// The question's.
        id: RequestId,
        /// The answer.
        response: Box<Response>,
    },
}
