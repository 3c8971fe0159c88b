//! Commands and their flags, as typed.

use crate::config::units::RawDuration;
use crate::config::{Flag, Modes};
use clap::{Args, Parser, Subcommand};
use std::path::{Path, PathBuf};
use toml::Value;

/// A WebSocket edge gateway for Linux.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node until SIGTERM, then drain
    Serve(ConfigFlags),
    /// Check the configuration and exit: 0 valid, 64 not
    CheckConfig(ConfigFlags),
    /// Print a configuration file with every key, its meaning and its default
    DefaultConfig,
    /// Print a connection token, signed with client.token.hmac_secret_key
    Token(ConnectionToken),
    /// Print a subscription token
    SubToken(SubscriptionToken),
    /// Print what this kernel offers
    Probe,
    /// Print the version
    Version,
}

/// What `serve` runs with and `check-config` checks.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ConfigFlags {
    /// Configuration file [else: RINGWAY_CONFIG, else /etc/ringway/ringway.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Development: anonymous clients, all origins and permissions, history, echo RPC, demo page, API key "dev"
    #[arg(long)]
    dev: bool,
    /// Where clients connect, IP address and port
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Health, metrics and API, IP address and port
    #[arg(long, value_name = "ADDRESS")]
    internal_address: Option<String>,
    /// Number of shards, 1 to 512
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<i64>,
    /// Cores to pin shards to, like 0,2-3
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,
    /// auto, uring or epoll
    #[arg(long, value_name = "REACTOR")]
    reactor: Option<String>,
    /// What links nodes: embedded (one node) or the URLs of NATS servers, nats://host:port,…
    #[arg(long, value_name = "BACKPLANE")]
    backplane: Option<String>,
    /// Serve /echo, which sends back what it gets
    #[arg(long)]
    debug_echo: bool,
}

impl ConfigFlags {
    /// `--config` alone, or nothing.
    pub(super) fn of_file(file: Option<&Path>) -> ConfigFlags {
        ConfigFlags {
            config: file.map(Path::to_owned),
            ..ConfigFlags::default()
        }
    }

    /// Flags that set keys.
    pub(super) fn keys(&self) -> Vec<Flag> {
        let text = |value: &Option<String>| value.clone().map(Value::String);
        let all = [
            ("--address", "address", text(&self.address)),
            (
                "--internal-address",
                "internal.address",
                text(&self.internal_address),
            ),
            ("--shards", "shards", self.shards.map(Value::Integer)),
            ("--cores", "cores", text(&self.cores)),
            ("--reactor", "reactor", text(&self.reactor)),
            ("--backplane", "nats.url", self.nats_url()),
        ];
        all.into_iter()
            .filter_map(|(name, key, value)| {
                Some(Flag {
                    name,
                    key,
                    value: value?,
                })
            })
            .collect()
    }

    /// `embedded` is no server.
    fn nats_url(&self) -> Option<Value> {
        let url = self.backplane.as_deref()?;
        Some(Value::String(
            if url == "embedded" { "" } else { url }.into(),
        ))
    }

    /// Flags that are no keys.
    pub(super) fn modes(&self) -> Modes {
        Modes {
            dev: self.dev,
            debug_echo: self.debug_echo,
        }
    }
}

/// `token`.
#[derive(Debug, Args)]
pub(super) struct ConnectionToken {
    /// Configuration file, as for serve
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The user; "" is anonymous
    #[arg(long)]
    pub(super) user: String,
    /// Channels the client is subscribed to by the server
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) channels: Vec<String>,
    /// How long it is valid; 0: for ever
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(super) ttl: RawDuration,
    /// JSON that other clients see with this one in presence, joins and publications
    #[arg(long, value_name = "JSON")]
    pub(super) info: Option<String>,
}

/// `sub-token`.
#[derive(Debug, Args)]
pub(super) struct SubscriptionToken {
    /// Configuration file, as for serve
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The user, the same as the connection's
    #[arg(long)]
    pub(super) user: String,
    /// The channel
    #[arg(long)]
    pub(super) channel: String,
    /// How long it is valid; 0: for ever
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub(super) ttl: RawDuration,
}

/// Tokens count in seconds.
fn duration(text: &str) -> Result<RawDuration, String> {
    let ttl: RawDuration = text.parse().map_err(|want| format!("want {want}"))?;
    if ttl.0.subsec_nanos() != 0 {
        return Err("want whole seconds".into());
    }
    Ok(ttl)
}
