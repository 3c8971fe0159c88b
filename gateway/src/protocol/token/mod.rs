//! Connection and subscription tokens: JSON Web Tokens (RFC 7519), signed with a secret or checked with a public key. The
//! time is an argument, keys that must be fetched are handed in.

mod claims;
mod header;
mod keys;
mod sign;
#[cfg(test)]
mod tests;

pub use keys::{ConfiguredKeys, KeyError, KeySet, KeySetError};
pub use sign::*;

use crate::config::TokenConfig;
use aws_lc_rs::signature::ParsedPublicKey;
use claims::Claims;
use header::Parts;
use std::sync::Arc;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too late (`exp`, `expire_at`) or too early (`nbf`): the client may fetch another one.
    #[error("token expired")]
    Expired,
    /// It names a key that is not in the key set. The set may be old.
    #[error("unknown key")]
    UnknownKey,
    /// Its key is not known, and whether there is one cannot be found out now.
    #[error("the key cannot be had now")]
    Unavailable,
    /// It will never do.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
}

/// What a connection token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionClaims {
    /// The user; empty: anonymous.
    pub user: String,
    /// Unix seconds when the connection expires; `None`: never.
    pub expire_at: Option<u64>,
    /// The user's info: JSON, unless the token had it in base64. Empty: none.
    pub info: Vec<u8>,
    /// Server-side subscriptions, each channel once, in the order of their names.
    pub subscriptions: Vec<(String, TokenSubscription)>,
}

/// A server-side subscription in a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSubscription {
    /// The member's info in the channel: JSON, unless in base64. Empty: none.
    pub info: Vec<u8>,
    /// For the client, with the subscription: likewise.
    pub data: Vec<u8>,
    /// In place of the namespace's options.
    pub options: OptionOverrides,
}

/// What a subscription token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionClaims {
    /// The user, to be equal to the connection's; empty: anonymous.
    pub user: String,
    /// The channel, to be equal to the one asked for. Never empty.
    pub channel: String,
    /// To be equal to the connection's id, if it is there.
    pub client: Option<String>,
    /// Unix seconds when the subscription expires; `None`: never.
    pub expire_at: Option<u64>,
    /// The member's info in the channel: JSON, unless in base64. Empty: none.
    pub info: Vec<u8>,
    /// In place of the namespace's options.
    pub options: OptionOverrides,
}

/// Channel options that a token sets for one subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // named as in the configuration
pub struct OptionOverrides {
    pub presence: Option<bool>,
    pub join_leave: Option<bool>,
    pub force_recovery: Option<bool>,
    pub force_positioning: Option<bool>,
    pub force_push_join_leave: Option<bool>,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Who a connection is.
    Connection,
    /// That a client may subscribe to a channel.
    Subscription,
}

impl TokenKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Connection, Self::Subscription];
}

/// What must be had before a token can be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// So many nanoseconds of this core, about; 0: not worth counting.
    Nanos(u32),
    /// A key of the key set with this id, which is not in it.
    Key(String),
}

/// Checks tokens under one configuration, with its keys and those that were fetched.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: ConfiguredKeys,
    /// What the key set's endpoint gave; `None`: there is no endpoint.
    fetched: Option<Arc<KeySet>>,
    audience: String,
    issuer: String,
    user_claim: String,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// Prepares the keys. One that cannot be used is left out: the configuration's check refuses it.
    pub fn new(config: &TokenConfig) -> Self {
        let has_endpoint = !config.jwks_public_endpoint.is_empty();
        Self {
            keys: ConfiguredKeys::new(config).unwrap_or_default(),
            fetched: has_endpoint.then(Arc::default),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            user_claim: user_claim(config).to_owned(),
        }
    }

    /// From now on these are the keys of the endpoint.
    pub fn set_fetched(&mut self, keys: Arc<KeySet>) {
        self.fetched = Some(keys);
    }

    /// The keys of the endpoint.
    pub fn fetched(&self) -> Option<&KeySet> {
        self.fetched.as_deref()
    }

    /// What the check of a token takes. A token that is refused without a signature's check takes nothing.
    pub fn demand(&self, token: &str) -> Demand {
        if self.keys.public.is_empty() && self.fetched.is_none() {
            return Demand::Nanos(0);
        }
        let Ok(parts) = Parts::of(token) else {
            return Demand::Nanos(0);
        };
        match (self.public_key(&parts), parts.key_id) {
            _ if parts.algorithm.is_hmac() => Demand::Nanos(0),
            (Ok((_, nanos)), _) => Demand::Nanos(nanos),
            (Err(TokenError::UnknownKey), Some(id)) => Demand::Key(id),
            (Err(_), _) => Demand::Nanos(0),
        }
    }

    /// Checks a connection token; `now` in unix seconds.
    pub fn verify_connection(&self, token: &str, now: u64) -> Result<ConnectionClaims, TokenError> {
        let claims = self.verify(token, now)?;
        if claims.get("channel").is_some() {
            return Err(TokenError::Invalid("a subscription token"));
        }
        Ok(ConnectionClaims {
            user: claims.string(&self.user_claim)?,
            expire_at: claims.expire_at(now)?,
            info: claims.info()?,
            subscriptions: claims.subscriptions()?,
        })
    }

    /// Checks a subscription token; `now` in unix seconds. Whether user, channel and client are the right ones is for
    /// the caller to compare.
    pub fn verify_subscription(
        &self,
        token: &str,
        now: u64,
    ) -> Result<SubscriptionClaims, TokenError> {
        let claims = self.verify(token, now)?;
        let channel = claims.string("channel")?;
        if channel.is_empty() {
            return Err(TokenError::Invalid("no channel"));
        }
        let client = claims.string("client")?;
        Ok(SubscriptionClaims {
            user: claims.string(&self.user_claim)?,
            channel,
            client: (!client.is_empty()).then_some(client),
            expire_at: claims.expire_at(now)?,
            info: claims.info()?,
            options: claims.overrides()?,
        })
    }

    /// Checks all that both kinds of tokens share.
    fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let parts = Parts::of(token)?;
        self.check_signature(&parts, now)?;
        let claims = Claims::parse(&parts.payload()?)?;
        if claims.time("exp")?.is_some_and(|exp| now >= exp) {
            return Err(TokenError::Expired);
        }
        if claims.time("nbf")?.is_some_and(|nbf| now < nbf) {
            return Err(TokenError::Expired);
        }
        if !self.issuer.is_empty() && claims.string("iss")? != self.issuer {
            return Err(TokenError::Invalid("issuer"));
        }
        if !self.audience.is_empty() && !claims.is_for(&self.audience)? {
            return Err(TokenError::Invalid("audience"));
        }
        Ok(claims)
    }

    fn check_signature(&self, parts: &Parts<'_>, now: u64) -> Result<(), TokenError> {
        let message = parts.message.as_bytes();
        let signature = parts.signature()?;
        let is_good = if parts.algorithm.is_hmac() {
            if self.keys.secrets.is_empty() {
                return Err(TokenError::Invalid("no key for its algorithm"));
            }
            let mut secrets = self.keys.secrets.iter();
            secrets.any(|secret| secret.has_signed(parts.algorithm, message, &signature, now))
        } else {
            let (key, _) = self.public_key(parts)?;
            key.verify_sig(message, &signature).is_ok()
        };
        is_good
            .then_some(())
            .ok_or(TokenError::Invalid("signature"))
    }

    /// The one key that may have signed a token: with an endpoint the one that the token names, else the one of the
    /// configuration.
    fn public_key(&self, parts: &Parts<'_>) -> Result<(&ParsedPublicKey, u32), TokenError> {
        let none = TokenError::Invalid("no key for its algorithm");
        if let Some(fetched) = &self.fetched {
            let id = parts
                .key_id
                .as_ref()
                .ok_or(TokenError::Invalid("no key id"))?;
            let key = fetched.get(id).ok_or(TokenError::UnknownKey)?;
            return key.fit_for(parts.algorithm).ok_or(none);
        }
        let mut keys = self.keys.public.iter();
        keys.find_map(|key| key.fit_for(parts.algorithm))
            .ok_or(none)
    }
}

/// The claim that names the user.
fn user_claim(config: &TokenConfig) -> &str {
    match config.user_id_claim.as_str() {
        "" => "sub",
        claim => claim,
    }
}
