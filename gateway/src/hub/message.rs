//! What shards and the control thread say to each other. Bytes of a message stand in its batch ([`Span`]); between two
//! threads the order is FIFO.

use super::lane::Rendition;
use crate::ids::{ClientId, Token};
use crate::limit::{Report, Verdict};
use crate::protocol::centrifuge::Encoding;
use crate::protocol::codes::ReplyError;
use crate::protocol::token::{KeySet, TokenKind};
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
    /// To the home: drop the records. → `HistoryRemoved`.
    HistoryRemove {
        /// The channel.
        channel: Arc<str>,
    },
    /// To every shard, after that: recover nothing up to `upto`, whatever is held or under way. → `Done`.
    HistoryForget {
        /// The channel.
        channel: Arc<str>,
        /// Its newest offset when the records were dropped.
        upto: u64,
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
    /// To every shard: what the endpoint of a key set gave. → `Done`.
    Keys {
        /// Of the keys of which tokens.
        kind: TokenKind,
        /// The keys; `None`: they could not be had.
        keys: Option<Arc<KeySet>>,
        /// Whether it answers [`Message::KeyWanted`]: an id that is not among them names no key.
        answers: bool,
    },
    /// To every shard. → `Channels`.
    Channels,
    /// To every shard. → `Stats`.
    Stats,
    /// To the user's home ([`Keys::home_of`](crate::hub::keys::Keys::home_of)). → `UserStatus`.
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
    /// The records are dropped.
    HistoryRemoved {
        /// The channel's newest offset; 0: there were none.
        top: u64,
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

/// What a view wants appended: renditions of publications, and of frames without an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneMask(pub u8);

impl LaneMask {
    /// Whether all of `other` is in it.
    pub fn covers(self, other: LaneMask) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    pub fn with(self, other: LaneMask) -> LaneMask {
        LaneMask(self.0 | other.0)
    }
}

/// A channel as the sender of a message names it: its keyed hash, and its name in the batch.
#[derive(Clone, Copy, Debug)]
pub struct ChannelRef {
    /// Keyed hash of the name ([`crate::hub::Keys`]).
    pub hash: u64,
    /// The name.
    pub name: Span,
    /// Index of its namespace in the configuration.
    pub namespace: u16,
}

/// A client has subscribed or left. What that means to others is its subscription's, not only its namespace's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Arrived, or left.
    pub has_arrived: bool,
    /// The home keeps its presence.
    pub is_present: bool,
    /// Those who asked for joins and leaves are told.
    pub is_announced: bool,
}

/// What a client asks of a channel's home.
#[derive(Clone, Copy, Debug)]
pub enum Query {
    /// Who is there.
    Presence,
    /// How many are there.
    PresenceStats,
    /// Records.
    History {
        /// 0: only the position.
        limit: u32,
        /// Exclusive.
        since: Option<u64>,
        /// The epoch `since` belongs to; empty: any.
        epoch: Span,
        /// Newest first.
        reverse: bool,
    },
}

/// What one thread tells another.
#[derive(Clone, Debug)]
pub enum Message {
    /// A view asks its channel's home for everything from now on. Answered by `Attached`. Sent again, with the same
    /// generation, when it wants more.
    Attach {
        /// The channel, in a form the home keeps.
        name: Arc<str>,
        /// Its keyed hash.
        hash: u64,
        /// Its namespace.
        namespace: u16,
        /// The view's index on its shard.
        view: u32,
        /// The view's life.
        generation: u32,
        /// What it wants.
        lanes: LaneMask,
    },
    /// A view is gone.
    Detach {
        /// The channel.
        name: Arc<str>,
        /// Its keyed hash.
        hash: u64,
        /// The life that ended.
        generation: u32,
    },
    /// Home → control thread: something in a linked channel is heard by nobody here yet; from now on it should be. Answered by
    /// `Followed`.
    Follow {
        /// The channel, in a form that is kept.
        name: Arc<str>,
        /// Its keyed hash.
        hash: u64,
        /// Its namespace.
        namespace: u16,
        /// The channel's life at its home.
        life: u32,
    },
    /// Home → control thread: the channel is gone here.
    Unfollow {
        /// The channel.
        name: Arc<str>,
        /// The life that ended.
        life: u32,
    },
    /// Control thread → home: what is published in the channel from now on, on any node, is heard.
    Followed {
        /// The channel.
        channel: ChannelRef,
        /// The life that asked.
        life: u32,
    },
    /// Control thread → home: a publication in a linked channel, of any node's client or backend.
    Heard {
        /// The channel.
        channel: ChannelRef,
        /// Protobuf `Publication` without an offset. Whether its data is JSON is not known.
        publication: Span,
    },
    /// A client publishes: to the home, or, in a linked channel, to the control thread.
    Publish {
        /// Where.
        channel: ChannelRef,
        /// Protobuf `Publication` without an offset.
        publication: Span,
        /// Whether its data is known to be JSON.
        json: bool,
        /// Who waits for the outcome.
        reply: ReplyTo,
    },
    /// A client subscribed or left.
    Member {
        /// The channel.
        channel: ChannelRef,
        /// The client.
        client: ClientId,
        /// Protobuf `ClientInfo`.
        info: Span,
        /// What has happened.
        change: MemberChange,
    },
    /// A client asks; answered by `Answer` with a whole frame.
    Query {
        /// About which channel.
        channel: ChannelRef,
        /// What.
        query: Query,
        /// The command's id, for the reply.
        id: u32,
        /// The client's encoding.
        encoding: Encoding,
        /// Who waits.
        reply: ReplyTo,
    },
    /// A view asks for records as frames. Answered by `Fetched`.
    Fetch {
        /// The channel.
        channel: ChannelRef,
        /// The view.
        view: u32,
        /// Its life.
        generation: u32,
        /// For which lane. Records come plain for a deflated one, too: they are for few, and the first of them goes into a
        /// reply.
        rendition: Rendition,
        /// Everything after this offset,
        from: u64,
        /// but at most about this many bytes.
        limit_bytes: u32,
    },
    /// Home → view: what follows is gapless from `top`.
    Attached {
        /// The channel, in the one copy of its name that all its views share.
        name: Arc<str>,
        /// The view.
        view: u32,
        /// Its life.
        generation: u32,
        /// What it gets.
        lanes: LaneMask,
        /// The newest offset so far.
        top: u64,
    },
    /// Home → view: one publication, or one frame without an offset.
    Append {
        /// The view.
        view: u32,
        /// Its life.
        generation: u32,
        /// The publication's offset; equal to `prev` for a frame that has none (`skip_history`, join, leave).
        offset: u64,
        /// The offset before it.
        prev: u64,
        /// Whole frames by rendition; an empty one was not asked for.
        frames: [Span; Rendition::COUNT],
        /// It goes to those who asked for join and leave.
        sideband: bool,
        /// Its data is not JSON, so it cannot be given to JSON members.
        not_json: bool,
        /// The publication's key, if it has one.
        key: Span,
    },
    /// Home → view: from here on frames were dropped, because its shard is too far behind. The view is attached no more.
    Missed {
        /// The view.
        view: u32,
        /// Its life.
        generation: u32,
    },
    /// Home → view: records as frames, oldest first.
    Fetched {
        /// The view.
        view: u32,
        /// Its life.
        generation: u32,
        /// For which lane.
        rendition: Rendition,
        /// The frames are all of `(from, upto]`. May lie below what was asked for.
        from: u64,
        /// The newest offset in it.
        upto: u64,
        /// The newest offset of which the home no longer holds the record.
        floor: u64,
        /// Whether `upto` is the newest there is.
        complete: bool,
        /// Frames, end to end.
        frames: Span,
        /// For each frame its offset and its length, u64 and u32, little-endian.
        index: Span,
        /// A record is not JSON, so JSON members cannot have it.
        not_json: bool,
    },
    /// The outcome of a publish.
    Published {
        /// Who waits.
        reply: ReplyTo,
        /// Why not.
        error: Option<ReplyError>,
    },
    /// A reply, rendered.
    Answer {
        /// Who waits.
        reply: ReplyTo,
        /// A whole frame.
        frame: Span,
        /// The code, if it is an error (for counting).
        error: u32,
    },
    /// A user's connection began; the user's home counts it. Answered by `Admitted` when `reply` is given.
    UserArrived {
        /// The user.
        user: Span,
        /// Who waits to be let in.
        reply: Option<ReplyTo>,
    },
    /// A user's connection that was counted has ended.
    UserLeft {
        /// The user.
        user: Span,
    },
    /// Whether a connection is within its user's limit (and counted).
    Admitted {
        /// Who waits.
        reply: ReplyTo,
        /// The user, should nobody wait any more.
        user: Span,
        /// Let in.
        admitted: bool,
    },
    /// A connection has come from an address (its keyed hash) whose home is asked to let it in. Answered by `Knocked`.
    Knock {
        /// The address.
        address: u64,
        /// Who waits.
        token: Token,
    },
    /// The address' home has decided.
    Knocked {
        /// The address.
        address: u64,
        /// Who waits.
        token: Token,
        /// How.
        verdict: Verdict,
    },
    /// A connection that its address' home has counted is over.
    AddressLeft {
        /// The address.
        address: u64,
    },
    /// What a user has done on a shard, for the user's home. Answered by `UserPaced`.
    UserSpent(Report),
    /// What a user has done on all shards: for how long it counts, see [`crate::limit::Meters::raise`].
    UserPaced {
        /// The keyed hash of the user.
        user: u64,
        /// Nanoseconds.
        ahead: [u64; 3],
    },
    /// The control thread asks.
    Request {
        /// To be given back.
        id: RequestId,
        /// What.
        request: Box<Request>,
    },
    /// To the control thread: a token names a key that is not in the key set. Answered by [`Request::Keys`], once.
    KeyWanted {
        /// Of which tokens.
        kind: TokenKind,
    },
    /// The control thread is answered.
    Response {
        /// Of the request.
        id: RequestId,
        /// What.
        response: Box<Response>,
    },
}
