//! Every code that a client can see, in one table each: reply errors, unsubscribes, disconnects.

/// An error in a reply: code, message, and whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyError {
    /// The code, 100 to 1999.
    pub code: u32,
    /// A short text, never empty.
    pub message: &'static str,
    /// Whether the client should try again.
    pub temporary: bool,
}

const fn error(code: u32, message: &'static str, temporary: bool) -> ReplyError {
    ReplyError {
        code,
        message,
        temporary,
    }
}

impl ReplyError {
    /// 100: our fault.
    pub const INTERNAL: Self = error(100, "internal server error", true);
    /// 101
    pub const UNAUTHORIZED: Self = error(101, "unauthorized", false);
    /// 102: no such namespace.
    pub const UNKNOWN_CHANNEL: Self = error(102, "unknown channel", false);
    /// 103
    pub const PERMISSION_DENIED: Self = error(103, "permission denied", false);
    /// 104: no such command or RPC method.
    pub const METHOD_NOT_FOUND: Self = error(104, "method not found", false);
    /// 105
    pub const ALREADY_SUBSCRIBED: Self = error(105, "already subscribed", false);
    /// 106
    pub const LIMIT_EXCEEDED: Self = error(106, "limit exceeded", false);
    /// 107
    pub const BAD_REQUEST: Self = error(107, "bad request", false);
    /// 108: the feature is off here.
    pub const NOT_AVAILABLE: Self = error(108, "not available", false);
    /// 109: the SDK fetches a new token.
    pub const TOKEN_EXPIRED: Self = error(109, "token expired", false);
    /// 110
    pub const EXPIRED: Self = error(110, "expired", false);
    /// 111: try later.
    pub const TOO_MANY_REQUESTS: Self = error(111, "too many requests", true);
    /// 112
    pub const UNRECOVERABLE_POSITION: Self = error(112, "unrecoverable position", false);
}

/// An unsubscribe push: below 2500 the client stays away, from 2500 it subscribes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// 2000 to 2999.
    pub code: u32,
    /// A short text, never empty.
    pub reason: &'static str,
}

impl Unsubscribed {
    /// 2000: by the server API.
    pub const SERVER: Self = Self {
        code: 2000,
        reason: "server unsubscribe",
    };
    /// 2500: something could not be delivered; the client recovers.
    pub const INSUFFICIENT_STATE: Self = Self {
        code: 2500,
        reason: "insufficient state",
    };
    /// 2501: the subscription token ran out.
    pub const EXPIRED: Self = Self {
        code: 2501,
        reason: "subscription expired",
    };
}

/// Why the server ends a connection: a WebSocket close code and its reason. 3000 to 3499: the client comes back;
/// 3500 to 3999: it does not. Reasons are plain words (SDKs would parse JSON).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// The close code.
    pub code: u16,
    /// A short text; empty only for protocol-level codes below 3000.
    pub reason: &'static str,
}

const fn disconnect(code: u16, reason: &'static str) -> Disconnect {
    Disconnect { code, reason }
}

impl Disconnect {
    /// 1000: answer to the client's own close.
    pub const NORMAL: Self = disconnect(1000, "");
    /// 1002: WebSocket protocol error.
    pub const WS_PROTOCOL: Self = disconnect(1002, "protocol error");
    /// 1003: text where binary was agreed, or the reverse.
    pub const WS_UNSUPPORTED: Self = disconnect(1003, "unsupported data");
    /// 1007: invalid UTF-8.
    pub const WS_INVALID_UTF8: Self = disconnect(1007, "invalid utf-8");
    /// 1007: a compressed message that is none.
    pub const WS_INVALID_DEFLATE: Self = disconnect(1007, "invalid compressed data");
    /// 1009: message over the limit.
    pub const WS_TOO_BIG: Self = disconnect(1009, "message too big");
    /// 3001
    pub const SHUTDOWN: Self = disconnect(3001, "shutdown");
    /// 3004
    pub const INTERNAL: Self = disconnect(3004, "internal server error");
    /// 3005
    pub const EXPIRED: Self = disconnect(3005, "connection expired");
    /// 3006
    pub const SUBSCRIPTION_EXPIRED: Self = disconnect(3006, "subscription expired");
    /// 3008
    pub const SLOW: Self = disconnect(3008, "slow");
    /// 3010
    pub const INSUFFICIENT_STATE: Self = disconnect(3010, "insufficient state");
    /// 3011
    pub const FORCE_RECONNECT: Self = disconnect(3011, "force reconnect");
    /// 3012
    pub const NO_PONG: Self = disconnect(3012, "no pong");
    /// 3013
    pub const TOO_MANY_REQUESTS: Self = disconnect(3013, "too many requests");
    /// 3500
    pub const INVALID_TOKEN: Self = disconnect(3500, "invalid token");
    /// 3501
    pub const BAD_REQUEST: Self = disconnect(3501, "bad request");
    /// 3502
    pub const STALE: Self = disconnect(3502, "stale");
    /// 3503
    pub const FORCE_NO_RECONNECT: Self = disconnect(3503, "force disconnect");
    /// 3504
    pub const CONNECTION_LIMIT: Self = disconnect(3504, "connection limit");
    /// 3505
    pub const CHANNEL_LIMIT: Self = disconnect(3505, "channel limit");
    /// 3506
    pub const INAPPROPRIATE_PROTOCOL: Self = disconnect(3506, "inappropriate protocol");
    /// 3507
    pub const PERMISSION_DENIED: Self = disconnect(3507, "permission denied");
    /// 3508
    pub const NOT_AVAILABLE: Self = disconnect(3508, "not available");
}
