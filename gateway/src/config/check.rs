//! From what was typed to what is used: every range and relation is checked here, nowhere later.

mod channels;
mod nats;
mod tls;
mod token;

use super::error::ConfigError;
use super::raw::{Raw, Shards};
use super::source::Origins;
use super::units::{RawDuration, Size};
use super::{
    Client, Config, IncomingCpu, Limits, LogConfig, LogFormat, Machine, Modes, Origins as Allowed,
    ReactorChoice, Shutdown,
};
use crate::limit::Limit;
use std::net::SocketAddr;
use std::time::Duration;

/// A member names its subscription in 16 bits, and one with joins and leaves takes two.
const CHANNEL_LIMIT_MAX: u32 = 16_384;

/// The most shards: mailboxes are a square of it.
pub const SHARDS_MAX: u16 = 512;
/// Slots of each file table kept for connections that are refused.
pub const SLOTS_FOR_REFUSALS: u64 = 64;
/// The most slots the kernel gives a ring's file table (IORING_MAX_FIXED_FILES).
const SLOTS_MAX: u64 = 1 << 20;
/// Files an epoll process needs beside its connections: listeners, the internal port, the runtime, standard streams.
const FILES_BESIDE_CONNECTIONS: u64 = 256;
/// Largest message of a client; `/echo` has its own limit.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;
/// A ring of chunks is at least one of the largest.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// In `--dev`, the history of channels without a namespace.
const DEV_HISTORY: (u32, u64) = (100, 600);
/// In `--dev`, a key of the server API.
const DEV_API_KEY: &str = "dev";

/// Checks everything.
///
/// # Errors
/// The first key, in the order of the file, that cannot be used.
pub fn check(
    mut raw: Raw,
    origins: &Origins,
    modes: Modes,
    machine: &Machine,
) -> Result<Config, ConfigError> {
    let keys = Keys { origins };
    if modes.dev {
        open_for_development(&mut raw);
    }
    let (address, internal_address) = keys.addresses(&raw, modes)?;
    let shards = keys.shards(raw.shards, machine)?;
    let cores = keys.cores(raw.cores, machine)?;
    let reactor = keys.choice(
        "reactor",
        &raw.reactor,
        &[
            ("auto", ReactorChoice::Auto),
            ("uring", ReactorChoice::Uring),
            ("epoll", ReactorChoice::Epoll),
        ],
    )?;
    let incoming_cpu = keys.choice(
        "incoming_cpu",
        &raw.incoming_cpu,
        &[
            ("auto", IncomingCpu::Auto),
            ("on", IncomingCpu::On),
            ("off", IncomingCpu::Off),
        ],
    )?;
    let node_name = keys.node_name(raw.node.name, machine)?;
    let client_limits = keys.client_limits(&raw.limits, &raw.client, modes.dev)?;
    let proxies = keys.proxies(&raw.proxy_protocol, &raw.client.trusted_proxies)?;
    let tls = keys.tls(&raw.tls)?;
    let backplane = keys.backplane(&raw.nats)?;
    let client = keys.client(raw.client)?;
    // A limit that is only tried takes no room away.
    let is_tried = client_limits.dry_run.has(Limit::Connections);
    let limits = Limits {
        log_bytes: keys.size(
            "limits.log_bytes",
            raw.limits.log_bytes,
            LOG_BYTES_MIN,
            u64::MAX,
        )?,
        history_bytes: keys.size(
            "limits.history_bytes",
            raw.limits.history_bytes,
            1,
            u64::MAX,
        )?,
        publication_bytes: keys.size32(
            "limits.publication_bytes",
            raw.limits.publication_bytes,
            1,
            MESSAGE_BYTES_MAX,
        )?,
        slots_per_shard: slots_per_shard(
            machine.open_files,
            shards,
            reactor,
            if is_tried { 0 } else { client.connection_limit },
        ),
    };
    let channels = keys.channels(&raw.channel, &limits)?;
    keys.linkable(&backplane, &channels)?;
    let own_key = Some(raw.http_api.key.0).filter(|key| !key.is_empty());
    let dev_key = modes.dev.then(|| DEV_API_KEY.to_owned());
    Ok(Config {
        address,
        internal_address,
        shards,
        cores,
        reactor,
        incoming_cpu,
        dev: modes.dev,
        debug_echo: modes.debug_echo,
        node_name,
        proxies,
        tls,
        backplane,
        client,
        channels,
        limits,
        client_limits,
        shutdown: Shutdown {
            delay: raw.shutdown.delay.0,
            drain: raw.shutdown.drain.0,
        },
        api_keys: own_key.into_iter().chain(dev_key).collect(),
        log: LogConfig {
            level: keys
                .choice(
                    "log.level",
                    &raw.log.level,
                    &LEVELS.map(|level| (level, level)),
                )?
                .to_owned(),
            format: keys.choice(
                "log.format",
                &raw.log.format,
                &[
                    ("auto", LogFormat::Auto),
                    ("text", LogFormat::Text),
                    ("json", LogFormat::Json),
                ],
            )?,
        },
    })
}

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// What `--dev` turns on. A history that was asked for is kept as it is.
fn open_for_development(raw: &mut Raw) {
    raw.client.allowed_origins = vec!["*".into()];
    raw.client.allow_anonymous_connect_without_token = true;
    let channel = &mut raw.channel.without_namespace;
    let is_alone = raw.nats.url.0.is_empty();
    if is_alone && (channel.history_size == 0 || channel.history_ttl.0.is_zero()) {
        (channel.history_size, channel.history_ttl) =
            (DEV_HISTORY.0, RawDuration::from_secs(DEV_HISTORY.1));
    }
    for on in [
        &mut channel.presence,
        &mut channel.join_leave,
        &mut channel.allow_positioning,
        &mut channel.allow_recovery,
        &mut channel.allow_subscribe_for_client,
        &mut channel.allow_subscribe_for_anonymous,
        &mut channel.allow_publish_for_client,
        &mut channel.allow_publish_for_subscriber,
        &mut channel.allow_publish_for_anonymous,
        &mut channel.allow_presence_for_client,
        &mut channel.allow_presence_for_subscriber,
        &mut channel.allow_presence_for_anonymous,
        &mut channel.allow_history_for_client,
        &mut channel.allow_history_for_subscriber,
        &mut channel.allow_history_for_anonymous,
        &mut channel.allow_user_limited_channels,
    ] {
        *on = true;
    }
}

/// How many connections one shard's file table holds. A ring has a table of its own, as large as the limit of open files;
/// under epoll all shards share the process's table. No shard needs more than the whole node may hold.
pub fn slots_per_shard(
    open_files: u64,
    shards: u16,
    reactor: ReactorChoice,
    connection_limit: u32,
) -> u32 {
    let table = match reactor {
        ReactorChoice::Auto | ReactorChoice::Uring => open_files,
        ReactorChoice::Epoll => {
            open_files.saturating_sub(FILES_BESIDE_CONNECTIONS) / u64::from(shards.max(1))
        }
    };
    let slots = table
        .min(SLOTS_MAX)
        .saturating_sub(SLOTS_FOR_REFUSALS)
        .max(1) as u32;
    if connection_limit == 0 {
        slots
    } else {
        slots.min(connection_limit)
    }
}

/// Checks keys, and knows where each was set.
pub(super) struct Keys<'a> {
    origins: &'a Origins,
}

impl Keys<'_> {
    pub(super) fn refuse(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Key {
            key: key.to_owned(),
            origin: self.origins.of(key),
            problem: problem.into(),
        }
    }

    /// Refuses unless `holds`.
    pub(super) fn ensure(
        &self,
        holds: bool,
        key: &str,
        problem: impl FnOnce() -> String,
    ) -> Result<(), ConfigError> {
        if holds {
            Ok(())
        } else {
            Err(self.refuse(key, problem()))
        }
    }

    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        got: &str,
        known: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let found = known
            .iter()
            .find(|(name, _)| *name == got)
            .map(|(_, value)| *value);
        found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.refuse(
                key,
                format!("got {got:?}, want one of {}", names.join(", ")),
            )
        })
    }

    fn size(&self, key: &str, got: Size, least: u64, most: u64) -> Result<u64, ConfigError> {
        self.ensure((least..=most).contains(&got.0), key, || match most {
            u64::MAX => format!("got {got}, want at least {}", Size(least)),
            _ => format!("got {got}, want {} to {}", Size(least), Size(most)),
        })?;
        Ok(got.0)
    }

    /// A size that fits u32, which `most` does.
    pub(super) fn size32(
        &self,
        key: &str,
        got: Size,
        least: u64,
        most: u64,
    ) -> Result<u32, ConfigError> {
        self.size(key, got, least, most.min(u64::from(u32::MAX)))
            .map(|size| size as u32)
    }

    pub(super) fn positive(&self, key: &str, got: RawDuration) -> Result<Duration, ConfigError> {
        self.ensure(!got.0.is_zero(), key, || "got 0, want more than 0".into())?;
        Ok(got.0)
    }

    fn addresses(&self, raw: &Raw, modes: Modes) -> Result<(SocketAddr, SocketAddr), ConfigError> {
        let (public_key, internal_key) = ("address", "internal.address");
        let public = self.address(public_key, &raw.address, modes)?;
        let internal = self.address(internal_key, &raw.internal.address, modes)?;
        let same_host = public.ip() == internal.ip()
            || public.ip().is_unspecified()
            || internal.ip().is_unspecified();
        self.ensure(
            !(same_host && public.port() == internal.port()),
            internal_key,
            || format!("got {internal}, which address ({public}) takes already: want another port"),
        )?;
        Ok((public, internal))
    }

    fn address(&self, key: &str, got: &str, modes: Modes) -> Result<SocketAddr, ConfigError> {
        let parsed: Result<SocketAddr, _> = got.parse();
        let address = parsed.map_err(|_| {
            self.refuse(
                key,
                format!(
                    "got {got:?}, want an IP address and a port, like 127.0.0.1:8000 or [::]:8000"
                ),
            )
        })?;
        self.ensure(address.port() != 0, key, || {
            format!("got port 0 in {got:?}, want 1 to 65535")
        })?;
        self.ensure(!modes.dev || address.ip().is_loopback(), key, || {
            format!("got {address} with --dev, which lets everyone in: want a loopback address, like 127.0.0.1")
        })?;
        Ok(address)
    }

    fn shards(&self, got: Shards, machine: &Machine) -> Result<u16, ConfigError> {
        match got {
            Shards::Auto => Ok(machine.cores.len().min(usize::from(SHARDS_MAX)) as u16),
            Shards::Number(n) => u16::try_from(n)
                .ok()
                .filter(|n| (1..=SHARDS_MAX).contains(n))
                .ok_or_else(|| {
                    self.refuse(
                        "shards",
                        format!("got {n}, want 1 to {SHARDS_MAX}, or \"auto\""),
                    )
                }),
        }
    }

    fn cores(&self, got: Vec<usize>, machine: &Machine) -> Result<Vec<usize>, ConfigError> {
        for (index, core) in got.iter().enumerate() {
            self.ensure(machine.cores.contains(core), "cores", || {
                format!(
                    "got core {core}, which this process may not use: want some of {}",
                    ranges(&machine.cores)
                )
            })?;
            self.ensure(!got[..index].contains(core), "cores", || {
                format!("got core {core} twice, want each once")
            })?;
        }
        Ok(got)
    }

    fn node_name(&self, got: String, machine: &Machine) -> Result<String, ConfigError> {
        let name = if got.is_empty() {
            machine.host_name.clone()
        } else {
            got
        };
        let plain =
            !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_graphic());
        self.ensure(plain, "node.name", || {
            format!("got {name:?}, want 1 to 64 printable ASCII characters without spaces")
        })?;
        Ok(name)
    }

    fn client(&self, raw: super::raw::Client) -> Result<Client, ConfigError> {
        let channels = 1..=CHANNEL_LIMIT_MAX;
        self.ensure(
            channels.contains(&raw.channel_limit),
            "client.channel_limit",
            || format!("got {}, want 1 to {CHANNEL_LIMIT_MAX}", raw.channel_limit),
        )?;
        Ok(Client {
            allowed_origins: self.allowed_origins(raw.allowed_origins)?,
            insecure: raw.insecure,
            allow_anonymous_connect_without_token: raw.allow_anonymous_connect_without_token,
            channel_limit: raw.channel_limit,
            message_size_limit: self.size32(
                "client.message_size_limit",
                raw.message_size_limit,
                1,
                MESSAGE_BYTES_MAX,
            )?,
            queue_max_size: self.size32(
                "client.queue_max_size",
                raw.queue_max_size,
                1,
                u64::MAX,
            )?,
            stall_timeout: self.positive("client.stall_timeout", raw.stall_timeout)?,
            stale_close_delay: self.positive("client.stale_close_delay", raw.stale_close_delay)?,
            expired_close_delay: raw.expired_close_delay.0,
            ping_interval: self.ping_interval(raw.ping_interval, raw.pong_timeout)?,
            pong_timeout: raw.pong_timeout.0,
            user_connection_limit: raw.user_connection_limit,
            connection_limit: raw.connection_limit,
            token: self.token("client.token", &raw.token)?,
            subscription_token: self.subscription_token(&raw.subscription_token)?,
        })
    }

    /// The protocol tells clients the interval in whole seconds.
    fn ping_interval(&self, ping: RawDuration, pong: RawDuration) -> Result<Duration, ConfigError> {
        let whole = ping.0.subsec_nanos() == 0 && ping.0.as_secs() <= u64::from(u16::MAX);
        self.ensure(whole, "client.ping_interval", || {
            format!("got {ping}, want whole seconds up to {}", u16::MAX)
        })?;
        self.ensure(
            ping.0.is_zero() || pong.0 < ping.0,
            "client.pong_timeout",
            || format!("got {pong}, want less than client.ping_interval ({ping})"),
        )?;
        Ok(ping.0)
    }

    fn allowed_origins(&self, got: Vec<String>) -> Result<Allowed, ConfigError> {
        for origin in &got {
            let plain = origin.bytes().all(|b| b.is_ascii_graphic());
            let path = origin
                .split_once("://")
                .is_some_and(|(scheme, host)| scheme.is_empty() || host.contains('/'));
            let known = origin == "*" || origin == "null" || origin.contains("://");
            self.ensure(plain && known && !path, "client.allowed_origins", || {
                format!("got {origin:?}, want scheme://host[:port], where * stands for a part of the host, or \"*\" for all")
            })?;
        }
        Ok(if got.iter().any(|origin| origin == "*") {
            Allowed::Any
        } else {
            Allowed::List(got)
        })
    }
}

/// `0-3, 8` for the core numbers of a machine.
fn ranges(cores: &[usize]) -> String {
    let parts = cores.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
