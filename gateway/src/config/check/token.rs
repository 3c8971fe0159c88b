//! How tokens are checked.

use super::Keys;
use crate::config::TokenConfig;
use crate::config::error::ConfigError;
use crate::config::raw::Token;
use crate::protocol::token::ConfiguredKeys;
use hyper::Uri;
use std::time::Duration;

/// Claims that cannot name the user.
const CLAIMS_WITH_A_MEANING: [&str; 16] = [
    "aud",
    "b64info",
    "bdata",
    "binfo",
    "channel",
    "channels",
    "client",
    "exp",
    "expire_at",
    "iat",
    "info",
    "iss",
    "jti",
    "meta",
    "nbf",
    "subs",
];

/// The endpoint of a key set is somebody else's server.
const REFRESH_MIN: Duration = Duration::from_secs(10);

impl Keys<'_> {
    pub(super) fn token(&self, prefix: &str, raw: &Token) -> Result<TokenConfig, ConfigError> {
        let key = |name: &str| format!("{prefix}.{name}");
        let claim = &raw.user_id_claim;
        let plain = claim.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        self.ensure(plain, &key("user_id_claim"), || {
            format!("got {claim:?}, want letters and underscores, or nothing for sub")
        })?;
        self.ensure(
            !CLAIMS_WITH_A_MEANING.contains(&claim.as_str()),
            &key("user_id_claim"),
            || format!("got {claim:?}, which tokens need for something else: want another name"),
        )?;
        let config = TokenConfig {
            hmac_secret_key: raw.hmac_secret_key.0.clone(),
            hmac_previous_secret_key: raw.hmac_previous_secret_key.0.clone(),
            hmac_previous_secret_key_valid_until: raw.hmac_previous_secret_key_valid_until,
            rsa_public_key: raw.rsa_public_key.clone(),
            ecdsa_public_key: raw.ecdsa_public_key.clone(),
            eddsa_public_key: raw.eddsa_public_key.clone(),
            jwks_public_endpoint: raw.jwks_public_endpoint.clone(),
            jwks_refresh_interval: raw.jwks_refresh_interval.0,
            audience: raw.audience.clone(),
            issuer: raw.issuer.clone(),
            user_id_claim: claim.clone(),
        };
        self.ensure(
            raw.hmac_previous_secret_key.0.is_empty() || !raw.hmac_secret_key.0.is_empty(),
            &key("hmac_previous_secret_key"),
            || "set without hmac_secret_key: want the secret that comes after it, too".into(),
        )?;
        ConfiguredKeys::new(&config)
            .map_err(|(name, error)| self.refuse(&key(name), error.to_string()))?;
        self.endpoint(&key("jwks_public_endpoint"), &config)?;
        let every = raw.jwks_refresh_interval;
        self.ensure(
            every.0 >= REFRESH_MIN,
            &key("jwks_refresh_interval"),
            || format!("got {every}, want at least 10s"),
        )?;
        Ok(config)
    }

    fn endpoint(&self, key: &str, config: &TokenConfig) -> Result<(), ConfigError> {
        if !config.has_endpoint() {
            return Ok(());
        }
        let uri: Result<Uri, _> = config.jwks_public_endpoint.parse();
        let is_http = uri.is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        });
        // Its text is not shown: there may be a password in it.
        self.ensure(is_http, key, || {
            "want an address like https://id.example.com/keys.json".into()
        })?;
        self.ensure(!config.has_public_key(), key, || {
            "set beside a public key: want one or the other".into()
        })
    }

    pub(super) fn subscription_token(
        &self,
        raw: &Token,
    ) -> Result<Option<TokenConfig>, ConfigError> {
        let prefix = "client.subscription_token";
        if *raw == Token::default() {
            return Ok(None);
        }
        let config = self.token(prefix, raw)?;
        self.ensure(config.has_keys(), &format!("{prefix}.hmac_secret_key"), || {
            format!(
                "not set, nor is any other key, so no subscription token could be checked: set one, or leave {prefix} out"
            )
        })?;
        Ok(Some(config))
    }
}
