//! Making tokens, for the command line and for tests.

use super::user_claim;
use crate::config::TokenConfig;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

/// Why a token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Nothing to sign with.
    #[error("no hmac_secret_key is configured")]
    NoSecret,
    /// The info must be JSON.
    #[error("info is not JSON")]
    Info,
    /// The claim that names the user is one that the token needs for something else.
    #[error("user_id_claim names a claim of another meaning")]
    UserClaim,
}

/// What goes into a connection token.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionGrant<'a> {
    /// The user; empty: anonymous.
    pub user: &'a str,
    /// Server-side subscriptions.
    pub channels: &'a [String],
    /// Seconds until it expires; `None`: never.
    pub ttl: Option<u64>,
    /// JSON.
    pub info: Option<&'a str>,
}

/// What goes into a subscription token.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscriptionGrant<'a> {
    /// The user; empty: anonymous.
    pub user: &'a str,
    /// The channel.
    pub channel: &'a str,
    /// Seconds until it expires; `None`: never.
    pub ttl: Option<u64>,
    /// JSON.
    pub info: Option<&'a str>,
}

/// Signs a connection token; `now` in unix seconds.
pub fn sign_connection(
    config: &TokenConfig,
    grant: &ConnectionGrant<'_>,
    now: u64,
) -> Result<String, SignError> {
    let mut claims = serde_json::Map::new();
    if !grant.channels.is_empty() {
        claims.insert("channels".into(), grant.channels.into());
    }
    sign(config, claims, grant.user, grant.ttl, grant.info, now)
}

/// Signs a subscription token; `now` in unix seconds.
pub fn sign_subscription(
    config: &TokenConfig,
    grant: &SubscriptionGrant<'_>,
    now: u64,
) -> Result<String, SignError> {
    let mut claims = serde_json::Map::new();
    claims.insert("channel".into(), grant.channel.into());
    sign(config, claims, grant.user, grant.ttl, grant.info, now)
}

fn sign(
    config: &TokenConfig,
    mut claims: serde_json::Map<String, serde_json::Value>,
    user: &str,
    ttl: Option<u64>,
    info: Option<&str>,
    now: u64,
) -> Result<String, SignError> {
    if config.hmac_secret_key.is_empty() {
        return Err(SignError::NoSecret);
    }
    claims.insert("iat".into(), now.into());
    if let Some(ttl) = ttl {
        claims.insert("exp".into(), now.saturating_add(ttl).into());
    }
    if let Some(info) = info {
        let info: serde_json::Value = serde_json::from_str(info).map_err(|_| SignError::Info)?;
        claims.insert("info".into(), info);
    }
    for (claim, value) in [("aud", &config.audience), ("iss", &config.issuer)] {
        if !value.is_empty() {
            claims.insert(claim.into(), value.as_str().into());
        }
    }
    if claims
        .insert(user_claim(config).into(), user.into())
        .is_some()
    {
        return Err(SignError::UserClaim);
    }
    let key = EncodingKey::from_secret(config.hmac_secret_key.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
    Ok(token.expect("HMAC takes any key, and JSON values serialize"))
}
