//! The protocol's messages: each field's Protobuf number and JSON name, in one place. Fields that are neither read nor
//! written are absent, and so are skipped.

/// The fields of one message.
pub(super) trait Schema: Copy {
    /// The field of a Protobuf number, if it is known.
    fn from_number(number: u32) -> Option<Self>;
    /// The field of a JSON name, if it is known.
    fn from_name(name: &str) -> Option<Self>;
    /// The Protobuf number.
    fn number(self) -> u32;
    /// The JSON name; it needs no escapes.
    fn name(self) -> &'static str;
}

macro_rules! messages {
    ($($message:ident { $($field:ident $number:literal $name:literal,)* })*) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $message { $($field),* }

        impl Schema for $message {
            fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$field),)*
                    _ => None,
                }
            }

            fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }

            fn number(self) -> u32 {
                match self { $(Self::$field => $number),* }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$field => $name),* }
            }
        }
    )*};
}

messages! {
    Nothing {}

    Command {
        Id 1 "id",
        Connect 4 "connect",
        Subscribe 5 "subscribe",
        Unsubscribe 6 "unsubscribe",
        Publish 7 "publish",
        Presence 8 "presence",
        PresenceStats 9 "presence_stats",
        History 10 "history",
        Ping 11 "ping",
        Send 12 "send",
        Rpc 13 "rpc",
        Refresh 14 "refresh",
        SubRefresh 15 "sub_refresh",
    }
    ConnectRequest {
        Token 1 "token",
        Data 2 "data",
        Subs 3 "subs",
        Name 4 "name",
        Version 5 "version",
    }
    SubscribeRequest {
        Channel 1 "channel",
        Token 2 "token",
        Recover 3 "recover",
        Epoch 6 "epoch",
        Offset 7 "offset",
        Data 8 "data",
        Positioned 9 "positioned",
        Recoverable 10 "recoverable",
        JoinLeave 11 "join_leave",
        Filter 13 "tf",
        Flag 14 "flag",
        Type 15 "type",
    }
    ChannelRequest {
        Channel 1 "channel",
    }
    PublishRequest {
        Channel 1 "channel",
        Data 2 "data",
        Type 3 "type",
        Key 4 "key",
        Removed 5 "removed",
    }
    HistoryRequest {
        Channel 1 "channel",
        Limit 7 "limit",
        Since 8 "since",
        Reverse 9 "reverse",
    }
    StreamPosition {
        Offset 1 "offset",
        Epoch 2 "epoch",
    }
    SendRequest {
        Data 1 "data",
    }
    RpcRequest {
        Data 1 "data",
        Method 2 "method",
    }
    RefreshRequest {
        Token 1 "token",
    }
    SubRefreshRequest {
        Channel 1 "channel",
        Token 2 "token",
        Type 3 "type",
        Track 4 "track",
        Untrack 5 "untrack",
    }

    Reply {
        Id 1 "id",
        Error 2 "error",
        Push 4 "push",
        Connect 5 "connect",
        Subscribe 6 "subscribe",
        Unsubscribe 7 "unsubscribe",
        Publish 8 "publish",
        Presence 9 "presence",
        PresenceStats 10 "presence_stats",
        History 11 "history",
        Ping 12 "ping",
        Rpc 13 "rpc",
        Refresh 14 "refresh",
        SubRefresh 15 "sub_refresh",
    }
    Error {
        Code 1 "code",
        Message 2 "message",
        Temporary 3 "temporary",
    }
    ConnectResult {
        Client 1 "client",
        Version 2 "version",
        Expires 3 "expires",
        Ttl 4 "ttl",
        Data 5 "data",
        Subs 6 "subs",
        Ping 7 "ping",
        Pong 8 "pong",
        Session 9 "session",
        Node 10 "node",
    }
    SubscribeResult {
        Expires 1 "expires",
        Ttl 2 "ttl",
        Recoverable 3 "recoverable",
        Epoch 6 "epoch",
        Publications 7 "publications",
        Recovered 8 "recovered",
        Offset 9 "offset",
        Positioned 10 "positioned",
        Data 11 "data",
        WasRecovering 12 "was_recovering",
    }
    PresenceResult {
        Presence 1 "presence",
    }
    PresenceStatsResult {
        NumClients 1 "num_clients",
        NumUsers 2 "num_users",
    }
    HistoryResult {
        Publications 1 "publications",
        Epoch 2 "epoch",
        Offset 3 "offset",
    }
    RpcResult {
        Data 1 "data",
    }
    RefreshResult {
        Client 1 "client",
        Version 2 "version",
        Expires 3 "expires",
        Ttl 4 "ttl",
    }
    SubRefreshResult {
        Expires 1 "expires",
        Ttl 2 "ttl",
    }

    Push {
        Channel 2 "channel",
        Publication 4 "pub",
        Join 5 "join",
        Leave 6 "leave",
        Unsubscribe 7 "unsubscribe",
        Message 8 "message",
        Subscribe 9 "subscribe",
        Disconnect 11 "disconnect",
    }
    Publication {
        Data 4 "data",
        Info 5 "info",
        Offset 6 "offset",
        Tags 7 "tags",
        Time 9 "time",
        Key 11 "key",
    }
    ClientInfo {
        User 1 "user",
        Client 2 "client",
        ConnInfo 3 "conn_info",
        ChanInfo 4 "chan_info",
    }
    JoinLeave {
        Info 1 "info",
    }
    Unsubscribe {
        Code 2 "code",
        Reason 3 "reason",
    }
    Subscribe {
        Recoverable 1 "recoverable",
        Epoch 4 "epoch",
        Offset 5 "offset",
        Positioned 6 "positioned",
        Data 7 "data",
    }
    Message {
        Data 1 "data",
    }
    Disconnect {
        Code 1 "code",
        Reason 2 "reason",
        Reconnect 3 "reconnect",
    }
}
