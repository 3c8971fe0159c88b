//! The configuration as typed: one struct a table of the file, named as there. `Default` is the default of every key, in
//! this one place. Ranges and relations are checked in `check`; here only the kind of each value is.
//!
//! Built-in error texts of serde may quote what they got. Secrets and tables of secrets therefore have texts of their own,
//! see [`Secret`] and `source::plain_words`.

use super::limits::{BURST, RawAddress, RawRates};
use super::nats::RawNats;
use super::proxy::RawProxyProtocol;
pub use super::tls::{PemFiles, Tls};
pub use super::token::Token;
use super::units::{RawDuration, Size};
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct Raw {
    pub address: String,
    pub shards: Shards,
    #[serde(deserialize_with = "core_list")]
    pub cores: Vec<usize>,
    pub reactor: String,
    pub incoming_cpu: String,
    pub node: Node,
    pub internal: Internal,
    pub http_api: HttpApi,
    pub proxy_protocol: RawProxyProtocol,
    pub tls: Tls,
    pub nats: RawNats,
    pub client: Client,
    pub channel: Channel,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub log: Log,
}

impl Default for Raw {
    fn default() -> Raw {
        Raw {
            address: "127.0.0.1:8000".into(),
            shards: Shards::Auto,
            cores: Vec::new(),
            reactor: "auto".into(),
            incoming_cpu: "auto".into(),
            node: Node::default(),
            internal: Internal::default(),
            http_api: HttpApi::default(),
            proxy_protocol: RawProxyProtocol::default(),
            tls: Tls::default(),
            nats: RawNats::default(),
            client: Client::default(),
            channel: Channel::default(),
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            log: Log::default(),
        }
    }
}

/// `[node]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Node {
    pub name: String,
}

/// `[internal]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Internal {
    pub address: String,
}

impl Default for Internal {
    fn default() -> Internal {
        Internal {
            address: "127.0.0.1:9000".into(),
        }
    }
}

/// `[http_api]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct HttpApi {
    pub key: Secret,
}

/// `[client]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Client {
    pub allowed_origins: Vec<String>,
    pub trusted_proxies: Vec<String>,
    #[serde(deserialize_with = "switch")]
    pub insecure: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_anonymous_connect_without_token: bool,
    #[serde(deserialize_with = "whole")]
    pub channel_limit: u32,
    pub message_size_limit: Size,
    pub queue_max_size: Size,
    pub stall_timeout: RawDuration,
    pub stale_close_delay: RawDuration,
    pub expired_close_delay: RawDuration,
    pub ping_interval: RawDuration,
    pub pong_timeout: RawDuration,
    #[serde(deserialize_with = "whole")]
    pub user_connection_limit: u32,
    #[serde(deserialize_with = "whole")]
    pub connection_limit: u32,
    #[serde(deserialize_with = "whole")]
    pub connection_rate_limit: u32,
    pub token: Token,
    pub subscription_token: Token,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            insecure: false,
            allow_anonymous_connect_without_token: false,
            channel_limit: 128,
            message_size_limit: Size(65_536),
            queue_max_size: Size(65_536),
            stall_timeout: RawDuration::from_secs(25),
            stale_close_delay: RawDuration::from_secs(10),
            expired_close_delay: RawDuration::from_secs(25),
            ping_interval: RawDuration::from_secs(25),
            pong_timeout: RawDuration::from_secs(8),
            user_connection_limit: 0,
            connection_limit: 0,
            connection_rate_limit: 0,
            token: Token::default(),
            subscription_token: Token::default(),
        }
    }
}

/// `[channel]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Channel {
    pub without_namespace: Namespace,
    pub namespaces: Vec<Namespace>,
}

/// `[channel.without_namespace]` (which has no name) and each `[[channel.namespaces]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Namespace {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(deserialize_with = "whole")]
    pub history_size: u32,
    pub history_ttl: RawDuration,
    #[serde(deserialize_with = "switch")]
    pub force_recovery: bool,
    #[serde(deserialize_with = "switch")]
    pub force_positioning: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_positioning: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_recovery: bool,
    #[serde(deserialize_with = "switch")]
    pub presence: bool,
    #[serde(deserialize_with = "switch")]
    pub join_leave: bool,
    #[serde(deserialize_with = "switch")]
    pub force_push_join_leave: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_subscribe_for_client: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_subscribe_for_anonymous: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_publish_for_client: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_publish_for_subscriber: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_publish_for_anonymous: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_presence_for_client: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_presence_for_subscriber: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_presence_for_anonymous: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_history_for_client: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_history_for_subscriber: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_history_for_anonymous: bool,
    #[serde(deserialize_with = "switch")]
    pub allow_user_limited_channels: bool,
    #[serde(deserialize_with = "switch")]
    pub compress: bool,
    pub slow: Slow,
    pub lag: Lag,
}

/// `slow.*` of a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Slow {
    pub policy: String,
    #[serde(deserialize_with = "switch")]
    pub silent: bool,
}

impl Default for Slow {
    fn default() -> Slow {
        Slow {
            policy: "disconnect".into(),
            silent: false,
        }
    }
}

/// `lag.*` of a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Lag {
    pub bytes: Size,
    pub time: RawDuration,
}

impl Default for Lag {
    fn default() -> Lag {
        Lag {
            bytes: Size(1 << 20),
            time: RawDuration::from_secs(10),
        }
    }
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Limits {
    pub log_bytes: Size,
    pub history_bytes: Size,
    pub publication_bytes: Size,
    pub burst: RawDuration,
    pub dry_run: Vec<String>,
    pub address: RawAddress,
    pub connection: RawRates,
    pub user: RawRates,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            log_bytes: Size(256 << 20),
            history_bytes: Size(1 << 30),
            publication_bytes: Size(1 << 20),
            burst: BURST,
            dry_run: Vec::new(),
            address: RawAddress::default(),
            connection: RawRates::default(),
            user: RawRates::default(),
        }
    }
}

/// `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Shutdown {
    pub delay: RawDuration,
    pub drain: RawDuration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown {
            delay: RawDuration::from_secs(5),
            drain: RawDuration::from_secs(20),
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Log {
    pub level: String,
    pub format: String,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".into(),
            format: "auto".into(),
        }
    }
}

/// How many shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shards {
    /// One a core this process may use.
    Auto,
    /// So many.
    Number(i64),
}

impl Serialize for Shards {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Shards::Auto => to.serialize_str("auto"),
            Shards::Number(n) => to.serialize_i64(*n),
        }
    }
}

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Shards, D::Error> {
        struct Kind;
        impl Visitor<'_> for Kind {
            type Value = Shards;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or \"auto\"")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Shards, E> {
                Ok(Shards::Number(n))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Shards, E> {
                match text {
                    "auto" => Ok(Shards::Auto),
                    _ => Err(wanted(Unexpected::Str(text), &self)),
                }
            }
        }
        from.deserialize_any(Kind)
    }
}

/// A string that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "<set>" })
    }
}

/// Written as empty: what is written may be shown.
impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        struct Kind;
        const WANTED: &str = "want a string in quotes (what was got is a secret and not shown)";
        impl<'de> Visitor<'de> for Kind {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string in quotes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(text.to_owned()))
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom(WANTED))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom(WANTED))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom(WANTED))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<Secret, A::Error> {
                Err(A::Error::custom(WANTED))
            }
        }
        from.deserialize_any(Kind)
    }
}

/// `got X, want Y`, the one form of all kind errors.
pub(super) fn wanted<E: Error>(got: Unexpected<'_>, want: &dyn serde::de::Expected) -> E {
    match got {
        Unexpected::Str(text) => E::custom(format_args!("got {text:?}, want {want}")),
        other => E::custom(format_args!("got {other}, want {want}")),
    }
}

/// `true` or `false`.
pub(super) fn switch<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    struct Kind;
    impl Visitor<'_> for Kind {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }
        fn visit_bool<E: Error>(self, on: bool) -> Result<bool, E> {
            Ok(on)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
            Err(wanted(Unexpected::Str(text), &self))
        }
    }
    from.deserialize_any(Kind)
}

/// A whole number that fits.
pub(super) fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    struct Kind;
    impl Visitor<'_> for Kind {
        type Value = u32;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from 0 to {}", u32::MAX)
        }
        fn visit_i64<E: Error>(self, n: i64) -> Result<u32, E> {
            u32::try_from(n).map_err(|_| wanted(Unexpected::Signed(n), &self))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<u32, E> {
            Err(wanted(Unexpected::Str(text), &self))
        }
    }
    from.deserialize_any(Kind)
}

/// Unix seconds.
pub(super) fn whole_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Kind;
    impl Visitor<'_> for Kind {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number of seconds since 1970, or 0")
        }
        fn visit_i64<E: Error>(self, n: i64) -> Result<u64, E> {
            u64::try_from(n).map_err(|_| wanted(Unexpected::Signed(n), &self))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            Err(wanted(Unexpected::Str(text), &self))
        }
    }
    from.deserialize_any(Kind)
}

/// `[0, 2, 3]` or `"0,2-3"`.
fn core_list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<usize>, D::Error> {
    struct Kind;
    impl<'de> Visitor<'de> for Kind {
        type Value = Vec<usize>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("core numbers, like [0, 2, 3] or \"0,2-3\"")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<usize>, E> {
            cores_of(text).ok_or_else(|| wanted(Unexpected::Str(text), &self))
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Vec<usize>, A::Error> {
            let mut cores = Vec::new();
            while let Some(core) = seq.next_element()? {
                cores.push(core);
            }
            Ok(cores)
        }
    }
    from.deserialize_any(Kind)
}

/// Reads `"0,2-3"`; the empty text is the empty list.
fn cores_of(text: &str) -> Option<Vec<usize>> {
    /// More than any machine has; keeps `0-99999999999` from filling memory.
    const CORE_MAX: usize = 65_535;
    let mut cores = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|_| !text.trim().is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > CORE_MAX {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_core_lists() {
        assert_eq!(cores_of("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert_eq!(cores_of(" 7 "), Some(vec![7]));
        assert_eq!(cores_of(""), Some(vec![]));
        for bad in ["x", "1-", "3-2", "0-99999999", "1,,2", "-1"] {
            assert_eq!(cores_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let raw: Raw = toml::from_str("http_api.key = 'hunter2'").unwrap();
        assert_eq!(raw.http_api.key.0, "hunter2");
        assert!(!format!("{raw:?}").contains("hunter2"));
        assert!(!toml::to_string(&raw).unwrap().contains("hunter2"));
    }
}
