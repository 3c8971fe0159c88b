//! Connection and subscription tokens: JSON Web Tokens (RFC 7519) signed with HS256. The time is an argument.

use crate::config::TokenConfig;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
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
    if claims.insert(user_claim(config).into(), user.into()).is_some() {
        return Err(SignError::UserClaim);
    }
    let key = EncodingKey::from_secret(config.hmac_secret_key.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key);
    Ok(token.expect("HMAC takes any key, and JSON values serialize"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn config() -> TokenConfig {
        TokenConfig {
            hmac_secret_key: "secret".into(),
            ..TokenConfig::default()
        }
    }

    fn signed_with(algorithm: Algorithm, secret: &str, claims: &serde_json::Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn signed(claims: serde_json::Value) -> String {
        signed_with(Algorithm::HS256, "secret", &claims)
    }

    fn connection(claims: serde_json::Value) -> Result<ConnectionClaims, TokenError> {
        TokenVerifier::new(&config()).verify_connection(&signed(claims), NOW)
    }

    fn subscription(claims: serde_json::Value) -> Result<SubscriptionClaims, TokenError> {
        TokenVerifier::new(&config()).verify_subscription(&signed(claims), NOW)
    }

    #[test]
    fn connection_claims_are_read() {
        let claims = connection(json!({
            "sub": "42", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "jti": "x", "meta": {"a": 1},
            "info": {"name": "Bo"}, "channels": ["b", "a", "b"],
        }))
        .unwrap();
        assert_eq!(claims.user, "42");
        assert_eq!(claims.expire_at, Some(NOW + 60));
        assert_eq!(claims.info, br#"{"name":"Bo"}"#);
        let names: Vec<_> = claims.subscriptions.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn subs_win_over_channels() {
        let claims = connection(json!({
            "channels": ["other"],
            "subs": {
                "a": {"info": {"r": 1}, "b64data": "AAE=", "override": {"presence": {"value": true}, "join_leave": {}}},
                "b": {},
            },
        }))
        .unwrap();
        let options = OptionOverrides {
            presence: Some(true),
            join_leave: Some(false),
            ..OptionOverrides::default()
        };
        let first = TokenSubscription {
            info: br#"{"r":1}"#.to_vec(),
            data: vec![0, 1],
            options,
        };
        let expected = [("a".into(), first), ("b".into(), TokenSubscription::default())];
        assert_eq!(claims.subscriptions, expected);
        assert_eq!(claims.user, "", "no sub: anonymous");
    }

    #[test]
    fn expiry_follows_exp_unless_expire_at_says_otherwise() {
        let expiry = |claims| connection(claims).map(|claims| claims.expire_at);
        assert_eq!(expiry(json!({})), Ok(None));
        assert_eq!(expiry(json!({"exp": NOW as f64 + 1.5})), Ok(Some(NOW + 1)));
        assert_eq!(expiry(json!({"exp": NOW + 1, "expire_at": 0})), Ok(None));
        assert_eq!(expiry(json!({"exp": NOW + 1, "expire_at": NOW + 9})), Ok(Some(NOW + 9)));
        for expired in [
            json!({"exp": NOW}),
            json!({"exp": 0}),
            json!({"exp": NOW, "expire_at": 0}),
            json!({"exp": NOW + 1, "expire_at": NOW}),
            json!({"nbf": NOW + 1}),
        ] {
            assert_eq!(expiry(expired.clone()), Err(TokenError::Expired), "{expired}");
        }
    }

    #[test]
    fn claims_of_the_wrong_type_are_invalid() {
        for claims in [
            json!({"sub": 42}),
            json!({"exp": "soon"}),
            json!({"expire_at": true}),
            json!({"channels": "a"}),
            json!({"channels": [1]}),
            json!({"subs": ["a"]}),
            json!({"subs": {"a": 1}}),
            json!({"b64info": "*"}),
            json!({"channel": "a"}),
            json!({"channel": ""}),
            json!([]),
            json!("x"),
        ] {
            let refused = connection(claims.clone());
            assert!(matches!(refused, Err(TokenError::Invalid(_))), "{claims}: {refused:?}");
        }
    }

    #[test]
    fn audience_and_issuer_must_be_named() {
        let verifier = TokenVerifier::new(&TokenConfig {
            audience: "edge".into(),
            issuer: "us".into(),
            ..config()
        });
        let verify = |claims| verifier.verify_connection(&signed(claims), NOW).map(drop);
        assert_eq!(verify(json!({"aud": "edge", "iss": "us"})), Ok(()));
        assert_eq!(verify(json!({"aud": ["x", "edge"], "iss": "us"})), Ok(()));
        for aud in [json!("other"), json!(["x"]), json!([]), json!(null), json!(1)] {
            let refused = verify(json!({"aud": aud, "iss": "us"}));
            assert_eq!(refused, Err(TokenError::Invalid("audience")), "{aud}");
        }
        for iss in [json!("them"), json!(""), json!(null)] {
            let refused = verify(json!({"aud": "edge", "iss": iss}));
            assert_eq!(refused, Err(TokenError::Invalid("issuer")), "{iss}");
        }
        assert_eq!(connection(json!({"aud": "any", "iss": "any"})).map(drop), Ok(()), "not configured");
    }

    #[test]
    fn only_hs256_with_our_secret_passes() {
        let verifier = TokenVerifier::new(&config());
        let claims = json!({"sub": "1"});
        let good = signed(claims.clone());
        assert!(verifier.verify_connection(&good, NOW).is_ok());
        let parts: Vec<_> = good.split('.').collect();
        let encode = |text: &str| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text);
        let none = encode(r#"{"alg":"none","typ":"JWT"}"#);
        let critical = jsonwebtoken::encode(
            &Header { crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::HS256) },
            &claims,
            &EncodingKey::from_secret(b"secret"),
        );
        for (token, why) in [
            (signed_with(Algorithm::HS256, "other", &claims), "signature"),
            (signed_with(Algorithm::HS512, "secret", &claims), "algorithm"),
            (signed_with(Algorithm::HS384, "secret", &claims), "algorithm"),
            (format!("{none}.{}.", parts[1]), "malformed"),
            (format!("{none}.{}.{}", parts[1], parts[2]), "malformed"),
            (format!("{}.{}.", parts[0], parts[1]), "signature"),
            (format!("{}.{}.{}", parts[0], encode(r#"{"sub":"2"}"#), parts[2]), "signature"),
            (format!("{}.{}", parts[0], parts[1]), "malformed"),
            (format!("{good}."), "malformed"),
            (format!("{good}=="), "malformed"),
            (critical.unwrap(), "critical header"),
            (String::new(), "malformed"),
            ("garbage".into(), "malformed"),
            ("..".into(), "malformed"),
            ("a.b.c".into(), "malformed"),
        ] {
            assert_eq!(verifier.verify_connection(&token, NOW), Err(TokenError::Invalid(why)), "{token}");
        }
    }

    #[test]
    fn without_a_secret_every_token_is_refused() {
        let verifier = TokenVerifier::new(&TokenConfig::default());
        let token = signed_with(Algorithm::HS256, "", &json!({"sub": "1"}));
        let refused = verifier.verify_connection(&token, NOW);
        assert_eq!(refused, Err(TokenError::Invalid("no secret is configured")));
        let grant = ConnectionGrant::default();
        assert_eq!(sign_connection(&TokenConfig::default(), &grant, NOW), Err(SignError::NoSecret));
    }

    #[test]
    fn subscription_claims_are_read() {
        let claims = subscription(json!({
            "sub": "42", "channel": "$r", "client": "c", "exp": NOW + 1, "b64info": "AAE=", "info": 1,
            "override": {"force_recovery": {"value": true}, "unknown": 1},
        }));
        let expected = SubscriptionClaims {
            user: "42".into(),
            channel: "$r".into(),
            client: Some("c".into()),
            expire_at: Some(NOW + 1),
            info: vec![0, 1],
            options: OptionOverrides {
                force_recovery: Some(true),
                ..OptionOverrides::default()
            },
        };
        assert_eq!(claims, Ok(expected));
        assert_eq!(subscription(json!({"sub": "42"})), Err(TokenError::Invalid("no channel")));
        assert_eq!(subscription(json!({"channel": "a", "exp": NOW})), Err(TokenError::Expired));
    }

    #[test]
    fn signed_tokens_pass_their_own_check() {
        let config = TokenConfig {
            audience: "edge".into(),
            issuer: "us".into(),
            user_id_claim: "uid".into(),
            ..config()
        };
        let verifier = TokenVerifier::new(&config);
        let channels = ["b".to_owned(), "a".to_owned()];
        let grant = ConnectionGrant {
            user: "42",
            channels: &channels,
            ttl: Some(60),
            info: Some(r#"{ "a": 1 }"#),
        };
        let token = sign_connection(&config, &grant, NOW).unwrap();
        let claims = verifier.verify_connection(&token, NOW + 59).unwrap();
        assert_eq!((claims.user.as_str(), claims.expire_at), ("42", Some(NOW + 60)));
        assert_eq!(claims.info, br#"{"a":1}"#);
        assert_eq!(claims.subscriptions.len(), 2);
        assert_eq!(verifier.verify_connection(&token, NOW + 60), Err(TokenError::Expired));
        let refused = verifier.verify_subscription(&token, NOW);
        assert_eq!(refused, Err(TokenError::Invalid("no channel")));

        let grant = SubscriptionGrant {
            user: "42",
            channel: "$r",
            ..SubscriptionGrant::default()
        };
        let token = sign_subscription(&config, &grant, NOW).unwrap();
        let claims = verifier.verify_subscription(&token, u64::MAX).unwrap();
        assert_eq!((claims.user.as_str(), claims.channel.as_str()), ("42", "$r"));
        assert_eq!(claims.expire_at, None);
        let refused = verifier.verify_connection(&token, NOW);
        assert_eq!(refused, Err(TokenError::Invalid("a subscription token")));

        let bad_info = ConnectionGrant { info: Some("{"), ..ConnectionGrant::default() };
        assert_eq!(sign_connection(&config, &bad_info, NOW), Err(SignError::Info));
        let bad_claim = TokenConfig { user_id_claim: "iat".into(), ..config };
        let grant = ConnectionGrant::default();
        assert_eq!(sign_connection(&bad_claim, &grant, NOW), Err(SignError::UserClaim));
    }
}
