//! Connection and subscription tokens: JSON Web Tokens (RFC 7519) signed with HS256. The time is an argument.

mod sign;
#[cfg(test)]
mod tests;

pub use sign::*;

use crate::config::TokenConfig;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Too late (`exp`, `expire_at`) or too early (`nbf`): the client may fetch another one.
    #[error("token expired")]
    Expired,
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

/// Checks tokens under one configuration.
#[derive(Clone)]
pub struct TokenVerifier {
    /// `None`: no secret, so every token is refused.
    key: Option<DecodingKey>,
    validation: Validation,
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
    /// Prepares the key.
    pub fn new(config: &TokenConfig) -> Self {
        let secret = config.hmac_secret_key.as_bytes();
        // Signature and algorithm are the library's to check, the claims are ours: its clock is the system's.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            key: (!secret.is_empty()).then(|| DecodingKey::from_secret(secret)),
            validation,
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            user_claim: user_claim(config).to_owned(),
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
        let options = match claims.get("override") {
            Some(value) => parse::<RawOverrides>(value, "override")?.into(),
            None => OptionOverrides::default(),
        };
        Ok(SubscriptionClaims {
            user: claims.string(&self.user_claim)?,
            channel,
            client: (!client.is_empty()).then_some(client),
            expire_at: claims.expire_at(now)?,
            info: claims.info()?,
            options,
        })
    }

    /// Checks all that both kinds of tokens share.
    fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        let Some(key) = &self.key else {
            return Err(TokenError::Invalid("no secret is configured"));
        };
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let decoded = decoded.map_err(|error| refusal(error.kind()))?;
        if decoded.header.crit.is_some() {
            // Extensions that must be understood (RFC 7515 §4.1.11): we know none.
            return Err(TokenError::Invalid("critical header"));
        }
        let claims = decoded.claims;
        if claims.time("exp")?.is_some_and(|exp| now >= exp) {
            return Err(TokenError::Expired);
        }
        if claims.time("nbf")?.is_some_and(|nbf| now < nbf) {
            return Err(TokenError::Expired);
        }
        if !self.issuer.is_empty() && claims.string("iss")? != self.issuer {
            return Err(TokenError::Invalid("issuer"));
        }
        if !self.audience.is_empty() {
            let audience = match claims.get("aud") {
                Some(value) => parse::<Audience>(value, "audience")?,
                None => Audience::Many(Vec::new()),
            };
            let named = match audience {
                Audience::One(name) => name == self.audience,
                Audience::Many(names) => names.contains(&self.audience),
            };
            if !named {
                return Err(TokenError::Invalid("audience"));
            }
        }
        Ok(claims)
    }
}

/// The claim that names the user.
fn user_claim(config: &TokenConfig) -> &str {
    match config.user_id_claim.as_str() {
        "" => "sub",
        claim => claim,
    }
}

/// In words that tell nothing of the token's content.
fn refusal(kind: &jsonwebtoken::errors::ErrorKind) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    TokenError::Invalid(match kind {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "algorithm",
        _ => "malformed",
    })
}

fn parse<'a, T: Deserialize<'a>>(
    value: &'a RawValue,
    claim: &'static str,
) -> Result<T, TokenError> {
    serde_json::from_str(value.get()).map_err(|_| TokenError::Invalid(claim))
}

/// The claims by their names, still as text. `null` counts as absent.
#[derive(Deserialize)]
#[serde(transparent)]
struct Claims(HashMap<String, Box<RawValue>>);

impl Claims {
    fn get(&self, name: &str) -> Option<&RawValue> {
        let value = self.0.get(name)?;
        (value.get() != "null").then_some(value)
    }

    /// Text; empty when absent.
    fn string(&self, name: &str) -> Result<String, TokenError> {
        self.get(name).map_or_else(
            || Ok(String::new()),
            |value| parse(value, "claim is no text"),
        )
    }

    /// Unix seconds; fractions are cut.
    fn time(&self, name: &str) -> Result<Option<u64>, TokenError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        // The cast saturates: times before 1970 are 0.
        parse::<f64>(value, "claim is no time").map(|seconds| Some(seconds as u64))
    }

    fn expire_at(&self, now: u64) -> Result<Option<u64>, TokenError> {
        match self.time("expire_at")? {
            None => self.time("exp"),
            Some(0) => Ok(None),
            Some(time) if time <= now => Err(TokenError::Expired),
            Some(time) => Ok(Some(time)),
        }
    }

    fn info(&self) -> Result<Vec<u8>, TokenError> {
        json_or_base64(self.get("info"), &self.string("b64info")?)
    }

    fn subscriptions(&self) -> Result<Vec<(String, TokenSubscription)>, TokenError> {
        let mut subscriptions = Vec::new();
        if let Some(value) = self.get("subs") {
            let subs: std::collections::BTreeMap<String, RawSubscription<'_>> =
                parse(value, "subs")?;
            for (channel, sub) in subs {
                let subscription = TokenSubscription {
                    info: json_or_base64(sub.info, &sub.b64info)?,
                    data: json_or_base64(sub.data, &sub.b64data)?,
                    options: sub.r#override.unwrap_or_default().into(),
                };
                subscriptions.push((channel, subscription));
            }
        }
        if subscriptions.is_empty()
            && let Some(value) = self.get("channels")
        {
            let mut channels: Vec<String> = parse(value, "channels")?;
            channels.sort_unstable();
            channels.dedup();
            let without_options = |channel| (channel, TokenSubscription::default());
            subscriptions.extend(channels.into_iter().map(without_options));
        }
        Ok(subscriptions)
    }
}

fn json_or_base64(json: Option<&RawValue>, base64: &str) -> Result<Vec<u8>, TokenError> {
    if base64.is_empty() {
        return Ok(json.map_or_else(Vec::new, |value| value.get().into()));
    }
    BASE64_STANDARD
        .decode(base64)
        .map_err(|_| TokenError::Invalid("base64"))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSubscription<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: String,
    r#override: Option<RawOverrides>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawOverrides {
    presence: Option<RawOverride>,
    join_leave: Option<RawOverride>,
    force_recovery: Option<RawOverride>,
    force_positioning: Option<RawOverride>,
    force_push_join_leave: Option<RawOverride>,
}

#[derive(Deserialize)]
struct RawOverride {
    #[serde(default)]
    value: bool,
}

impl From<RawOverrides> for OptionOverrides {
    fn from(raw: RawOverrides) -> Self {
        let value = |option: Option<RawOverride>| option.map(|option| option.value);
        Self {
            presence: value(raw.presence),
            join_leave: value(raw.join_leave),
            force_recovery: value(raw.force_recovery),
            force_positioning: value(raw.force_positioning),
            force_push_join_leave: value(raw.force_push_join_leave),
        }
    }
}
