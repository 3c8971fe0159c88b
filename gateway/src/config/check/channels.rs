//! Options of channels, by namespace.

use super::Keys;
use crate::config::error::ConfigError;
use crate::config::raw::{self, Namespace};
use crate::config::{ChannelOptions, Channels, Limits, SlowPolicy};
use std::sync::Arc;

/// The namespaces are indexed by u16, and 0 has no name.
const NAMESPACES_MAX: usize = 65_535;

impl Keys<'_> {
    pub(super) fn channels(
        &self,
        raw: &raw::Channel,
        limits: &Limits,
    ) -> Result<Channels, ConfigError> {
        let prefix = "channel.without_namespace";
        self.ensure(
            raw.without_namespace.name.is_empty(),
            &format!("{prefix}.name"),
            || "unknown key: these are the channels without a name before the colon".into(),
        )?;
        self.ensure(
            raw.namespaces.len() < NAMESPACES_MAX,
            "channel.namespaces",
            || {
                format!(
                    "got {}, want less than {NAMESPACES_MAX}",
                    raw.namespaces.len()
                )
            },
        )?;
        let first = self.options(prefix, &raw.without_namespace, limits)?;
        let mut namespaces = vec![(String::new(), Arc::new(first))];
        for (index, namespace) in raw.namespaces.iter().enumerate() {
            let prefix = format!("channel.namespaces[{index}]");
            let (key, name) = (format!("{prefix}.name"), &namespace.name);
            let plain = name.len() >= 2
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            self.ensure(plain, &key, || {
                format!("got {name:?}, want at least two of the characters a-z A-Z 0-9 - _")
            })?;
            let unique = !namespaces.iter().any(|(known, _)| known == name);
            self.ensure(unique, &key, || {
                format!("got {name:?} a second time, want each namespace once")
            })?;
            let options = self.options(&prefix, namespace, limits)?;
            namespaces.push((name.clone(), Arc::new(options)));
        }
        Ok(Channels { namespaces })
    }

    fn options(
        &self,
        prefix: &str,
        raw: &Namespace,
        limits: &Limits,
    ) -> Result<ChannelOptions, ConfigError> {
        let at = |name: &str| format!("{prefix}.{name}");
        self.options_can_work(prefix, raw)?;
        let lag_most = limits.log_bytes.min(u64::from(u32::MAX));
        Ok(ChannelOptions {
            history_size: raw.history_size,
            history_ttl: raw.history_ttl.0,
            force_recovery: raw.force_recovery,
            force_positioning: raw.force_positioning,
            allow_positioning: raw.allow_positioning,
            allow_recovery: raw.allow_recovery,
            presence: raw.presence,
            join_leave: raw.join_leave,
            force_push_join_leave: raw.force_push_join_leave,
            allow_subscribe_for_client: raw.allow_subscribe_for_client,
            allow_subscribe_for_anonymous: raw.allow_subscribe_for_anonymous,
            allow_publish_for_client: raw.allow_publish_for_client,
            allow_publish_for_subscriber: raw.allow_publish_for_subscriber,
            allow_publish_for_anonymous: raw.allow_publish_for_anonymous,
            allow_presence_for_client: raw.allow_presence_for_client,
            allow_presence_for_subscriber: raw.allow_presence_for_subscriber,
            allow_presence_for_anonymous: raw.allow_presence_for_anonymous,
            allow_history_for_client: raw.allow_history_for_client,
            allow_history_for_subscriber: raw.allow_history_for_subscriber,
            allow_history_for_anonymous: raw.allow_history_for_anonymous,
            allow_user_limited_channels: raw.allow_user_limited_channels,
            compress: raw.compress,
            slow: self.choice(&at("slow.policy"), &raw.slow.policy, &POLICIES)?,
            slow_silent: raw.slow.silent,
            lag_bytes: self.size32(&at("lag.bytes"), raw.lag.bytes, 1, lag_most)?,
            lag_time: self.positive(&at("lag.time"), raw.lag.time)?,
        })
    }

    /// Options that can never have an effect without another are mistakes.
    fn options_can_work(&self, prefix: &str, raw: &Namespace) -> Result<(), ConfigError> {
        let at = |name: &str| format!("{prefix}.{name}");
        let (size, ttl) = (raw.history_size > 0, !raw.history_ttl.0.is_zero());
        self.ensure(size || !ttl, &at("history_ttl"), || {
            format!("set while {} is 0: history needs both", at("history_size"))
        })?;
        self.ensure(ttl || !size, &at("history_size"), || {
            format!("set while {} is 0: history needs both", at("history_ttl"))
        })?;
        let needs_history = [
            ("force_recovery", raw.force_recovery),
            ("force_positioning", raw.force_positioning),
            ("allow_positioning", raw.allow_positioning),
            ("allow_recovery", raw.allow_recovery),
            ("allow_history_for_client", raw.allow_history_for_client),
            (
                "allow_history_for_subscriber",
                raw.allow_history_for_subscriber,
            ),
            (
                "allow_history_for_anonymous",
                raw.allow_history_for_anonymous,
            ),
        ];
        for (name, on) in needs_history {
            self.ensure(!on || size, &at(name), || {
                format!(
                    "on without history: set {} and {} too",
                    at("history_size"),
                    at("history_ttl")
                )
            })?;
        }
        let needs_presence = [
            ("allow_presence_for_client", raw.allow_presence_for_client),
            (
                "allow_presence_for_subscriber",
                raw.allow_presence_for_subscriber,
            ),
            (
                "allow_presence_for_anonymous",
                raw.allow_presence_for_anonymous,
            ),
        ];
        for (name, on) in needs_presence {
            self.ensure(!on || raw.presence, &at(name), || {
                format!("on without presence: set {} too", at("presence"))
            })?;
        }
        self.ensure(
            !raw.force_push_join_leave || raw.join_leave,
            &at("force_push_join_leave"),
            || {
                format!(
                    "on without join and leave messages: set {} too",
                    at("join_leave")
                )
            },
        )?;
        self.ensure(
            !raw.slow.silent || raw.slow.policy == "skip",
            &at("slow.silent"),
            || {
                format!(
                    "on with {} = {:?}: only \"skip\" can be silent",
                    at("slow.policy"),
                    raw.slow.policy
                )
            },
        )
    }
}

const POLICIES: [(&str, SlowPolicy); 3] = [
    ("disconnect", SlowPolicy::Disconnect),
    ("skip", SlowPolicy::Skip),
    ("latest", SlowPolicy::Latest),
];
