//! The keys that signatures are checked with. A public key belongs to the algorithms of its kind, and a secret to HMAC: what
//! a token's header says chooses among the keys that are fit for it, so that a public key is never taken for a secret.

use super::header::Algorithm;
use crate::config::TokenConfig;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm as JwkAlgorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Bits of an RSA modulus: below, keys can be broken; above, a check takes longer than is worth it.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Most keys taken from one key set.
pub const FETCHED_KEYS_MAX: usize = 256;
/// Longest key id, of tokens and of keys, bytes.
pub const KEY_ID_BYTES_MAX: usize = 256;

/// Why a key cannot be used. Never tells the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the text of a key of this kind.
    #[error("want a PEM block with a public key of {0}")]
    NotA(&'static str),
    /// An RSA modulus that is too short or too long.
    #[error("the RSA key has {0} bits, want {min} to {max}", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaSize(usize),
    /// An RSA exponent that no sane key has: even, 1, or of more than 32 bits.
    #[error("the RSA key has an unusual exponent, want 65537")]
    RsaExponent,
    /// A curve other than P-256 and P-384.
    #[error("the key is on an unknown curve, want P-256 or P-384")]
    Curve,
    /// Numbers that are no key.
    #[error("the key is damaged")]
    Damaged,
    /// A key in the place of the secret: whoever has the public key could sign.
    #[error("got a key in PEM, want a secret that only you know")]
    NotASecret,
}

/// A public key with the algorithms it checks.
#[derive(Clone)]
pub(super) struct PublicKey(Vec<(Algorithm, ParsedPublicKey, u32)>);

impl PublicKey {
    /// Reads `client.token.rsa_public_key`.
    fn from_rsa_pem(pem: &str) -> Result<Self, KeyError> {
        let key = public_pem(pem).and_then(|pem| DecodingKey::from_rsa_pem(pem).ok());
        let jwk = key.and_then(|key| Jwk::from_decoding_key(&key, None).ok());
        jwk.ok_or(KeyError::NotA("RSA"))
            .and_then(|jwk| Self::from_jwk(&jwk))
    }

    /// Reads `client.token.ecdsa_public_key`.
    fn from_ec_pem(pem: &str) -> Result<Self, KeyError> {
        let key = public_pem(pem).and_then(|pem| DecodingKey::from_ec_pem(pem).ok());
        let key = key.ok_or(KeyError::NotA("ECDSA (P-256 or P-384)"))?;
        Self::on_curve(key.try_get_as_bytes().map_err(|_| KeyError::Damaged)?)
    }

    /// Reads `client.token.eddsa_public_key`.
    fn from_ed_pem(pem: &str) -> Result<Self, KeyError> {
        let key = public_pem(pem).and_then(|pem| DecodingKey::from_ed_pem(pem).ok());
        let key = key.ok_or(KeyError::NotA("EdDSA (Ed25519)"))?;
        Self::edwards(key.try_get_as_bytes().map_err(|_| KeyError::Damaged)?)
    }

    /// Reads a JSON Web Key (RFC 7517). Symmetric keys are refused: what an endpoint shows to everybody is no secret.
    fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let bytes = |text: &str| {
            BASE64_URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| KeyError::Damaged)
        };
        let mut key = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => Self::rsa(&bytes(&rsa.n)?, &bytes(&rsa.e)?),
            AlgorithmParameters::EllipticCurve(point) => {
                // Uncompressed (SEC 1 section 2.3.3); of equal length, as RFC 7518 section 6.2.1.2 has it.
                let (x, y) = (bytes(&point.x)?, bytes(&point.y)?);
                let len = match point.curve {
                    EllipticCurve::P256 => 32,
                    EllipticCurve::P384 => 48,
                    _ => return Err(KeyError::Curve),
                };
                if x.len() != len || y.len() != len {
                    return Err(KeyError::Damaged);
                }
                Self::on_curve(&[&[4], &x[..], &y[..]].concat())
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                Self::edwards(&bytes(&pair.x)?)
            }
            _ => Err(KeyError::NotA("RSA, ECDSA or EdDSA")),
        }?;
        // A key that names its algorithm is for no other.
        if let Some(own) = jwk.common.key_algorithm {
            let own =
                JwkAlgorithm::try_from(own).map_err(|_| KeyError::NotA("a known algorithm"))?;
            let own = Algorithm::of_jwk(own);
            key.0.retain(|(algorithm, ..)| Some(*algorithm) == own);
            if key.0.is_empty() {
                return Err(KeyError::NotA("a known algorithm"));
            }
        }
        Ok(key)
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let trim = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        let (n, e) = (trim(n), trim(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        if e.len() > 4 || e == [1] || e.last().is_none_or(|last| last % 2 == 0) {
            return Err(KeyError::RsaExponent);
        }
        let components = RsaPublicKeyComponents { n, e };
        let parameters: [(Algorithm, &'static RsaParameters); 4] = [
            (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
        ];
        let keys = parameters.map(|(algorithm, parameters)| {
            let key = components.to_parsed_public_key(parameters);
            let key = key.map_err(|_| KeyError::Damaged)?;
            Ok((algorithm, key, rsa_nanos(bits)))
        });
        keys.into_iter().collect::<Result<_, _>>().map(Self)
    }

    fn on_curve(point: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, parameters, nanos) = match point.len() {
            65 => (
                Algorithm::Es256,
                &signature::ECDSA_P256_SHA256_FIXED,
                P256_NANOS,
            ),
            97 => (
                Algorithm::Es384,
                &signature::ECDSA_P384_SHA384_FIXED,
                P384_NANOS,
            ),
            _ => return Err(KeyError::Curve),
        };
        let key = ParsedPublicKey::new(parameters, point).map_err(|_| KeyError::Damaged)?;
        Ok(Self(vec![(algorithm, key, nanos)]))
    }

    fn edwards(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = ParsedPublicKey::new(&signature::ED25519, bytes);
        let key = key.map_err(|_| KeyError::Damaged)?;
        Ok(Self(vec![(Algorithm::EdDsa, key, ED25519_NANOS)]))
    }

    /// The key for an algorithm, and what a check costs in nanoseconds.
    pub(super) fn fit_for(&self, algorithm: Algorithm) -> Option<(&ParsedPublicKey, u32)> {
        let found = self.0.iter().find(|(own, ..)| *own == algorithm);
        found.map(|(_, key, nanos)| (key, *nanos))
    }
}

/// What a check costs, for the budget of a tick: rounded up from what one core of a server does. The clock is not read for
/// it, so that a tick does the same work wherever it runs.
const P256_NANOS: u32 = 60_000;
const P384_NANOS: u32 = 250_000;
const ED25519_NANOS: u32 = 60_000;

/// A modulus twice as long takes four times the time.
fn rsa_nanos(bits: usize) -> u32 {
    (25_000 * bits * bits / (2048 * 2048)) as u32
}

/// The bytes of a PEM text that holds one public key; not a private key, nor a certificate.
fn public_pem(pem: &str) -> Option<&[u8]> {
    let text = pem.trim();
    let is_public = ["PUBLIC KEY", "RSA PUBLIC KEY"].iter().any(|label| {
        text.starts_with(&format!("-----BEGIN {label}-----"))
            && text.ends_with(&format!("-----END {label}-----"))
    });
    (is_public && text.matches("-----BEGIN").count() == 1).then_some(text.as_bytes())
}

/// A secret, ready for each hash.
#[derive(Clone)]
pub(super) struct Secret {
    keys: [(Algorithm, hmac::Key); 3],
    /// Unix seconds from which on it no longer counts; `None`: for ever.
    until: Option<u64>,
}

impl Secret {
    /// Refuses a key in PEM: whoever has the public key could sign with it.
    fn new(secret: &str, until: Option<u64>) -> Result<Self, KeyError> {
        if secret.trim_start().starts_with("-----BEGIN ") {
            return Err(KeyError::NotASecret);
        }
        let keys = [
            (Algorithm::Hs256, hmac::HMAC_SHA256),
            (Algorithm::Hs384, hmac::HMAC_SHA384),
            (Algorithm::Hs512, hmac::HMAC_SHA512),
        ];
        let keys = keys.map(|(name, hash)| (name, hmac::Key::new(hash, secret.as_bytes())));
        Ok(Self { keys, until })
    }

    /// Whether the signature is one of this secret; `now` in unix seconds.
    pub(super) fn has_signed(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
        now: u64,
    ) -> bool {
        let key = self.keys.iter().find(|(own, _)| *own == algorithm);
        let key = key.filter(|_| self.until.is_none_or(|until| now < until));
        key.is_some_and(|(_, key)| hmac::verify(key, message, signature).is_ok())
    }
}

/// The keys of the configuration.
#[derive(Clone, Default)]
pub struct ConfiguredKeys {
    pub(super) secrets: Vec<Secret>,
    pub(super) public: Vec<PublicKey>,
}

impl ConfiguredKeys {
    /// Reads them all.
    ///
    /// # Errors
    /// The first key that cannot be used, by its name in the configuration.
    pub fn new(config: &TokenConfig) -> Result<Self, (&'static str, KeyError)> {
        let mut keys = Self::default();
        let until = Some(config.hmac_previous_secret_key_valid_until).filter(|until| *until > 0);
        for (name, secret, until) in [
            ("hmac_secret_key", &config.hmac_secret_key, None),
            (
                "hmac_previous_secret_key",
                &config.hmac_previous_secret_key,
                until,
            ),
        ] {
            if !secret.is_empty() {
                let secret = Secret::new(secret, until).map_err(|error| (name, error))?;
                keys.secrets.push(secret);
            }
        }
        type Read = fn(&str) -> Result<PublicKey, KeyError>;
        let public: [(&'static str, &String, Read); 3] = [
            (
                "rsa_public_key",
                &config.rsa_public_key,
                PublicKey::from_rsa_pem,
            ),
            (
                "ecdsa_public_key",
                &config.ecdsa_public_key,
                PublicKey::from_ec_pem,
            ),
            (
                "eddsa_public_key",
                &config.eddsa_public_key,
                PublicKey::from_ed_pem,
            ),
        ];
        for (name, pem, read) in public {
            if !pem.is_empty() {
                keys.public.push(read(pem).map_err(|error| (name, error))?);
            }
        }
        Ok(keys)
    }
}

/// A key set (RFC 7517 section 5) as an endpoint gave it: public keys by their ids.
#[derive(Clone, Default)]
pub struct KeySet(HashMap<Box<str>, PublicKey>);

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Not a key set, or one without a key that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not an object with a list of keys.
    #[error("not a JSON object with a list \"keys\"")]
    Malformed,
    /// Nothing in it is a public key with an id, for signatures, of an algorithm that we know.
    #[error("no key of it can be used")]
    Empty,
}

impl KeySet {
    /// Reads a key set. Keys that are not for signatures, have no id or cannot be used are left out; of two with one id the
    /// first counts.
    ///
    /// # Errors
    /// When no key is left: a set that was had before is worth more.
    pub fn parse(body: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let raw: Raw<'_> = serde_json::from_slice(body).map_err(|_| KeySetError::Malformed)?;
        let mut keys = HashMap::new();
        for key in raw.keys.into_iter().take(FETCHED_KEYS_MAX) {
            let Ok(jwk) = serde_json::from_str::<Jwk>(key.get()) else {
                continue;
            };
            let is_for_signatures = matches!(
                jwk.common.public_key_use,
                None | Some(PublicKeyUse::Signature)
            );
            let Some(id) = &jwk.common.key_id else {
                continue;
            };
            if !is_for_signatures || id.len() > KEY_ID_BYTES_MAX {
                continue;
            }
            match PublicKey::from_jwk(&jwk) {
                Ok(public) => {
                    keys.entry(id.as_str().into()).or_insert(public);
                }
                Err(error) => tracing::debug!(id, %error, "a key of the key set is left out"),
            }
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        Ok(Self(keys))
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none, as before the first fetch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a key with this id.
    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&PublicKey> {
        self.0.get(id)
    }
}
