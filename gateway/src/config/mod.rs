//! Configuration: as typed (`raw`: file, environment, flags) and as checked ([`Config`], one part a floor).
//!
//! A [`Config`] that exists is valid: everything that can be refused is refused while it is made, before anything is bound.

pub mod check;
pub mod default;
pub mod error;
mod limits;
pub mod machine;
pub mod nats;
pub mod proxy;
pub mod raw;
pub mod source;
pub mod tls;
pub mod token;
pub mod units;

pub use error::{ConfigError, Origin};
pub use limits::{ClientLimits, Rates};
pub use machine::Machine;
pub use nats::{BackplaneChoice, Nats};
pub use proxy::{Networks, Proxies};
pub use source::{Flag, Inputs};
pub use token::TokenConfig;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the command line says beside keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// `--dev`.
    pub dev: bool,
    /// `--debug-echo`.
    pub debug_echo: bool,
}

/// A configuration and the file it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// Reads every source and checks what they say together.
///
/// # Errors
/// The first thing that is wrong, as one line.
pub fn load(inputs: &Inputs, modes: Modes, machine: &Machine) -> Result<Loaded, ConfigError> {
    let merged = source::read(inputs)?;
    let config = check::check(merged.raw, &merged.origins, modes, machine)?;
    Ok(Loaded {
        config,
        file: merged.file,
    })
}

/// The checked configuration. Immutable; shards share it behind an `Arc`.
#[derive(Clone)]
pub struct Config {
    /// Where clients connect.
    pub address: SocketAddr,
    /// The internal port: health, metrics, API, demo.
    pub internal_address: SocketAddr,
    /// Number of shards, at least 1. May exceed the cores.
    pub shards: u16,
    /// Cores to pin shards to, round robin; empty: the cores this process may use.
    pub cores: Vec<usize>,
    /// Which reactor.
    pub reactor: ReactorChoice,
    /// Whether listeners ask for SO_INCOMING_CPU.
    pub incoming_cpu: IncomingCpu,
    /// `--dev` conveniences are on (demo page, echo RPC).
    pub dev: bool,
    /// `/echo` is served.
    pub debug_echo: bool,
    /// This node's name in logs, metrics and `info`.
    pub node_name: String,
    /// Who tells the addresses of clients.
    pub proxies: Proxies,
    /// Certificates of the clients' port; `None`: it speaks no TLS.
    pub tls: Option<Arc<crate::tls::Certificates>>,
    /// What links this node to others.
    pub backplane: BackplaneChoice,
    /// What clients may do.
    pub client: Client,
    /// Options by channel.
    pub channels: Channels,
    /// Derived sizes.
    pub limits: Limits,
    /// What clients are held to.
    pub client_limits: ClientLimits,
    /// Draining.
    pub shutdown: Shutdown,
    /// Keys accepted by the server API; empty: the API refuses everything.
    pub api_keys: Vec<String>,
    /// Logging.
    pub log: LogConfig,
}

impl Config {
    /// Whether publications of a namespace's channels go by the backplane.
    pub fn is_linked(&self, namespace: u16) -> bool {
        self.links(self.channels.options(namespace))
    }

    /// Whether publications of channels with these options go by the backplane.
    pub fn links(&self, options: &ChannelOptions) -> bool {
        matches!(self.backplane, BackplaneChoice::Nats(_)) && !options.has_history()
    }

    /// What an operator should know before clients come: one line each.
    pub fn warnings(&self) -> Vec<&'static str> {
        let no_way_in = !self.client.token.has_keys()
            && !self.client.allow_anonymous_connect_without_token
            && !self.client.insecure;
        let tells_who_is_there =
            |(_, options): &(String, Arc<ChannelOptions>)| options.presence || options.join_leave;
        let all = [
            (
                matches!(self.backplane, BackplaneChoice::Nats(_))
                    && self.channels.namespaces.iter().any(tells_who_is_there),
                "presence, joins and leaves are not linked yet: they show clients of this node alone",
            ),
            (
                self.dev,
                "--dev: anyone on this machine may connect, subscribe and publish; never use it in production",
            ),
            (
                self.client.insecure && !self.dev,
                "client.insecure: everything is allowed to everyone",
            ),
            (
                no_way_in,
                "no client can connect: client.token has no key (hmac_secret_key, …) and anonymous connections are off",
            ),
            (
                self.api_keys.is_empty(),
                "http_api.key is not set: the server API refuses every call",
            ),
        ];
        all.into_iter()
            .filter(|(applies, _)| *applies)
            .map(|(_, line)| line)
            .collect()
    }

    /// The defaults on free ports of the loopback, with two shards, no pinning and small tables.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_tests() -> Config {
        let machine = Machine {
            host_name: "test".into(),
            cores: vec![0, 1],
            open_files: 1_088,
        };
        let checked = check::check(
            raw::Raw::default(),
            &source::Origins::default(),
            Modes::default(),
            &machine,
        );
        let mut config = checked.expect("the defaults are valid");
        config.address.set_port(0);
        config.internal_address.set_port(0);
        config.shards = 2;
        config
    }
}

/// Everything but the keys of the API.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("address", &self.address)
            .field("internal_address", &self.internal_address)
            .field("shards", &self.shards)
            .field("cores", &self.cores)
            .field("reactor", &self.reactor)
            .field("incoming_cpu", &self.incoming_cpu)
            .field("dev", &self.dev)
            .field("debug_echo", &self.debug_echo)
            .field("node_name", &self.node_name)
            .field("proxies", &self.proxies)
            .field("tls", &self.tls.is_some())
            .field("backplane", &self.backplane)
            .field("client", &self.client)
            .field("channels", &self.channels)
            .field("limits", &self.limits)
            .field("client_limits", &self.client_limits)
            .field("shutdown", &self.shutdown)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// Which reactor to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReactorChoice {
    /// io_uring, or epoll with a warning where it is refused.
    Auto,
    /// io_uring or exit 1.
    Uring,
    /// epoll.
    Epoll,
}

/// Whether listeners ask for SO_INCOMING_CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncomingCpu {
    /// When shards = cores.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What clients may do.
#[derive(Clone, Debug)]
pub struct Client {
    /// Origins allowed to connect; a request without an Origin header always passes.
    pub allowed_origins: Origins,
    /// Everything is allowed to everyone (development only).
    pub insecure: bool,
    /// Connections without a token are let in as the anonymous user "".
    pub allow_anonymous_connect_without_token: bool,
    /// Most subscriptions of one connection.
    pub channel_limit: u32,
    /// Largest message from a client, bytes.
    pub message_size_limit: u32,
    /// Private bytes that may wait for a connection when it sends a command.
    pub queue_max_size: u32,
    /// A blocked connection without a byte of progress for this long is closed (3008).
    pub stall_timeout: Duration,
    /// No valid connect this long after accept: 3502.
    pub stale_close_delay: Duration,
    /// Grace after a token's expiry.
    pub expired_close_delay: Duration,
    /// Time between pings; zero: none.
    pub ping_interval: Duration,
    /// Time to answer a ping; zero: no pong is asked for.
    pub pong_timeout: Duration,
    /// Most connections of one user on this node; 0: no limit.
    pub user_connection_limit: u32,
    /// Most connections on this node; 0: what the file tables hold.
    pub connection_limit: u32,
    /// Connection tokens.
    pub token: TokenConfig,
    /// Subscription tokens; `None`: checked like connection tokens.
    pub subscription_token: Option<TokenConfig>,
}

/// Allowed origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// `*`.
    Any,
    /// Exact `scheme://host[:port]`, or patterns with `*` for a part of the host.
    List(Vec<String>),
}

/// Options of every channel: a namespace by its index, 0 being the one without a name.
#[derive(Clone, Debug)]
pub struct Channels {
    /// `namespaces[0]` holds the options of channels without a namespace.
    pub namespaces: Vec<(String, Arc<ChannelOptions>)>,
}

impl Channels {
    /// The index of a namespace by name ("" is 0).
    pub fn find(&self, name: &str) -> Option<u16> {
        self.namespaces
            .iter()
            .position(|(n, _)| n == name)
            .map(|i| i as u16)
    }

    /// Options by index.
    pub fn options(&self, index: u16) -> &ChannelOptions {
        &self.namespaces[usize::from(index)].1
    }

    /// Whether publications of some namespace are compressed.
    pub fn any_compresses(&self) -> bool {
        self.namespaces.iter().any(|(_, options)| options.compress)
    }
}

/// Options of the channels of one namespace. Everything is off by default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct ChannelOptions {
    pub history_size: u32,
    pub history_ttl: Duration,
    pub force_recovery: bool,
    pub force_positioning: bool,
    pub allow_positioning: bool,
    pub allow_recovery: bool,
    pub presence: bool,
    pub join_leave: bool,
    pub force_push_join_leave: bool,
    pub allow_subscribe_for_client: bool,
    pub allow_subscribe_for_anonymous: bool,
    pub allow_publish_for_client: bool,
    pub allow_publish_for_subscriber: bool,
    pub allow_publish_for_anonymous: bool,
    pub allow_presence_for_client: bool,
    pub allow_presence_for_subscriber: bool,
    pub allow_presence_for_anonymous: bool,
    pub allow_history_for_client: bool,
    pub allow_history_for_subscriber: bool,
    pub allow_history_for_anonymous: bool,
    pub allow_user_limited_channels: bool,
    /// Publications are compressed for clients that offer permessage-deflate.
    pub compress: bool,
    pub slow: SlowPolicy,
    /// `skip` without telling the client.
    pub slow_silent: bool,
    /// Most bytes a cursor may lag behind its log's head.
    pub lag_bytes: u32,
    /// Longest a frame waits for its slowest reader.
    pub lag_time: Duration,
}

impl ChannelOptions {
    /// Whether channels keep history, and so have offsets.
    pub fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

/// What happens to a member whose cursor fell off its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SlowPolicy {
    /// The connection is closed, 3008.
    #[default]
    Disconnect,
    /// The subscription gets 2500 (it recovers if it can), or silently goes on at the head.
    Skip,
    /// It gets the newest publication (of each key) when it can be written again.
    Latest,
}

/// Derived sizes and bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of all logs of one shard.
    pub log_bytes: u64,
    /// Bytes of all history records of the node.
    pub history_bytes: u64,
    /// Largest publication by the server API, bytes.
    pub publication_bytes: u32,
    /// Slots of one shard's file table, without the 64 kept for refusals.
    pub slots_per_shard: u32,
}

/// Draining.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// Between readiness going false and the listeners closing.
    pub delay: Duration,
    /// Over which connections are closed evenly.
    pub drain: Duration,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `trace` to `error`, or `off`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// Human.
    Text,
    /// JSON.
    Json,
}
