//! `token` and `sub-token`: tokens for tries and scripts, signed with the configured secrets.

use super::arguments::{ConnectionToken, SubscriptionToken};
use super::{Environment, Exit, load, print, refuse};
use crate::cli::arguments::ConfigFlags;
use crate::config::units::RawDuration;
use crate::config::{Config, ConfigError};
use crate::protocol::token::{
    ConnectionGrant, SignError, SubscriptionGrant, sign_connection, sign_subscription,
};
use std::path::Path;
use std::time::SystemTime;

pub(super) fn connection(asked: &ConnectionToken, environment: Environment) -> Exit {
    let grant = ConnectionGrant {
        user: &asked.user,
        channels: &asked.channels,
        ttl: seconds(asked.ttl),
        info: asked.info.as_deref(),
    };
    match configured(asked.config.as_deref(), environment) {
        Ok(config) => show(
            "client.token",
            sign_connection(&config.client.token, &grant, unix_seconds()),
        ),
        Err(error) => refuse(Exit::Configuration, &error),
    }
}

pub(super) fn subscription(asked: &SubscriptionToken, environment: Environment) -> Exit {
    let grant = SubscriptionGrant {
        user: &asked.user,
        channel: &asked.channel,
        ttl: seconds(asked.ttl),
        info: None,
    };
    match configured(asked.config.as_deref(), environment) {
        Ok(Config { client, .. }) => match &client.subscription_token {
            Some(own) => show(
                "client.subscription_token",
                sign_subscription(own, &grant, unix_seconds()),
            ),
            None => show(
                "client.token",
                sign_subscription(&client.token, &grant, unix_seconds()),
            ),
        },
        Err(error) => refuse(Exit::Configuration, &error),
    }
}

fn configured(file: Option<&Path>, environment: Environment) -> Result<Config, ConfigError> {
    let flags = ConfigFlags::of_file(file);
    load(&flags, environment).map(|loaded| loaded.config)
}

fn show(table: &str, signed: Result<String, SignError>) -> Exit {
    match signed {
        Ok(token) => print(&format!("{token}\n")),
        Err(SignError::NoSecret) => refuse(
            Exit::Configuration,
            &format_args!("{table}.hmac_secret_key: not set, so nothing can be signed"),
        ),
        Err(SignError::Info) => refuse(Exit::Configuration, &"flag --info: want JSON"),
        Err(SignError::UserClaim) => refuse(
            Exit::Configuration,
            &format_args!("{table}.user_id_claim: {}", SignError::UserClaim),
        ),
    }
}

/// Zero is for ever.
fn seconds(ttl: RawDuration) -> Option<u64> {
    Some(ttl.0.as_secs()).filter(|seconds| *seconds > 0)
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
