//! What a token claims, once its signature is known to be good.

use super::{OptionOverrides, TokenError, TokenSubscription};
use crate::protocol::centrifuge::json;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};

fn parse<'a, T: Deserialize<'a>>(
    value: &'a RawValue,
    claim: &'static str,
) -> Result<T, TokenError> {
    serde_json::from_str(value.get()).map_err(|_| TokenError::Invalid(claim))
}

/// The claims by their names, still as text. `null` counts as absent.
pub(super) struct Claims(HashMap<String, Box<RawValue>>);

/// Of a claim that comes twice one reader may believe the first and another the last (RFC 7519 section 4): refused.
impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Claims;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("claims, each once")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = HashMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim comes twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        from.deserialize_map(Each)
    }
}

impl Claims {
    /// Reads a payload: one JSON object that nests no deeper than what clients may be sent.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, TokenError> {
        let claims = json::is_valid(payload)
            .then(|| serde_json::from_slice(payload).ok())
            .flatten();
        claims.ok_or(TokenError::Invalid("malformed"))
    }

    /// Whether the audience names us.
    pub(super) fn is_for(&self, us: &str) -> Result<bool, TokenError> {
        Ok(match self.get("aud") {
            None => false,
            Some(value) => match parse::<Audience>(value, "audience")? {
                Audience::One(name) => name == us,
                Audience::Many(names) => names.iter().any(|name| name == us),
            },
        })
    }

    /// What a subscription token sets in place of the namespace's options.
    pub(super) fn overrides(&self) -> Result<OptionOverrides, TokenError> {
        Ok(match self.get("override") {
            Some(value) => parse::<RawOverrides>(value, "override")?.into(),
            None => OptionOverrides::default(),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        let value = self.0.get(name)?;
        (value.get() != "null").then_some(value)
    }

    /// Text; empty when absent.
    pub(super) fn string(&self, name: &str) -> Result<String, TokenError> {
        self.get(name).map_or_else(
            || Ok(String::new()),
            |value| parse(value, "claim is no text"),
        )
    }

    /// Unix seconds; fractions are cut.
    pub(super) fn time(&self, name: &str) -> Result<Option<u64>, TokenError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        // The cast saturates: times before 1970 are 0.
        parse::<f64>(value, "claim is no time").map(|seconds| Some(seconds as u64))
    }

    pub(super) fn expire_at(&self, now: u64) -> Result<Option<u64>, TokenError> {
        match self.time("expire_at")? {
            None => self.time("exp"),
            Some(0) => Ok(None),
            Some(time) if time <= now => Err(TokenError::Expired),
            Some(time) => Ok(Some(time)),
        }
    }

    pub(super) fn info(&self) -> Result<Vec<u8>, TokenError> {
        json_or_base64(self.get("info"), &self.string("b64info")?)
    }

    pub(super) fn subscriptions(&self) -> Result<Vec<(String, TokenSubscription)>, TokenError> {
        let mut subscriptions = Vec::new();
        if let Some(value) = self.get("subs") {
            let subs: BTreeMap<String, RawSubscription<'_>> = parse(value, "subs")?;
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
