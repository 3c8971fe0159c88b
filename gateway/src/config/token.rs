//! `[client.token]` and `[client.subscription_token]`, as typed and as checked.

use super::raw::{Secret, whole_seconds};
use super::units::RawDuration;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// As typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct Token {
    pub hmac_secret_key: Secret,
    pub hmac_previous_secret_key: Secret,
    #[serde(deserialize_with = "whole_seconds")]
    pub hmac_previous_secret_key_valid_until: u64,
    pub rsa_public_key: String,
    pub ecdsa_public_key: String,
    pub eddsa_public_key: String,
    pub jwks_public_endpoint: String,
    pub jwks_refresh_interval: RawDuration,
    pub audience: String,
    pub issuer: String,
    pub user_id_claim: String,
}

impl Default for Token {
    fn default() -> Token {
        Token {
            hmac_secret_key: Secret::default(),
            hmac_previous_secret_key: Secret::default(),
            hmac_previous_secret_key_valid_until: 0,
            rsa_public_key: String::new(),
            ecdsa_public_key: String::new(),
            eddsa_public_key: String::new(),
            jwks_public_endpoint: String::new(),
            jwks_refresh_interval: RawDuration::from_secs(300),
            audience: String::new(),
            issuer: String::new(),
            user_id_claim: String::new(),
        }
    }
}

/// How tokens are checked. Secrets are never printed.
#[derive(Clone, Default)]
pub struct TokenConfig {
    /// HMAC secret; empty: tokens with HMAC are refused.
    pub hmac_secret_key: String,
    /// The secret before it, which counts, too; empty: none.
    pub hmac_previous_secret_key: String,
    /// Unix seconds from which on the previous secret no longer counts; 0: for ever.
    pub hmac_previous_secret_key_valid_until: u64,
    /// RSA key in PEM, 2048 to 8192 bits: RS256, RS384, RS512, PS256; empty: none.
    pub rsa_public_key: String,
    /// ECDSA key in PEM, on P-256 (ES256) or P-384 (ES384); empty: none.
    pub ecdsa_public_key: String,
    /// Ed25519 key in PEM: EdDSA; empty: none.
    pub eddsa_public_key: String,
    /// Where public keys are fetched from (RFC 7517), in place of those above; empty: nowhere.
    pub jwks_public_endpoint: String,
    /// Between two fetches that nobody asked for.
    pub jwks_refresh_interval: Duration,
    /// Required `aud`, if not empty.
    pub audience: String,
    /// Required `iss`, if not empty.
    pub issuer: String,
    /// Claim that names the user; empty: `sub`.
    pub user_id_claim: String,
}

impl TokenConfig {
    /// Whether there is anything to check a token with.
    pub fn has_keys(&self) -> bool {
        !self.hmac_secret_key.is_empty() || self.has_public_key() || self.has_endpoint()
    }

    /// Whether a public key is configured.
    pub fn has_public_key(&self) -> bool {
        let keys = [
            &self.rsa_public_key,
            &self.ecdsa_public_key,
            &self.eddsa_public_key,
        ];
        keys.iter().any(|key| !key.is_empty())
    }

    /// Whether public keys are fetched.
    pub fn has_endpoint(&self) -> bool {
        !self.jwks_public_endpoint.is_empty()
    }
}

impl std::fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |secret: &str| if secret.is_empty() { "" } else { "<set>" };
        f.debug_struct("TokenConfig")
            .field("hmac_secret_key", &shown(&self.hmac_secret_key))
            .field(
                "hmac_previous_secret_key",
                &shown(&self.hmac_previous_secret_key),
            )
            .field("rsa_public_key", &shown(&self.rsa_public_key))
            .field("ecdsa_public_key", &shown(&self.ecdsa_public_key))
            .field("eddsa_public_key", &shown(&self.eddsa_public_key))
            .field("jwks_public_endpoint", &shown(&self.jwks_public_endpoint))
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .field("user_id_claim", &self.user_id_claim)
            .finish_non_exhaustive()
    }
}
