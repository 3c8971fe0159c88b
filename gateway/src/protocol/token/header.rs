//! The parts of a token (RFC 7515 section 7.1), before anything about it is believed.

use super::TokenError;
use super::keys::KEY_ID_BYTES_MAX;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::borrow::Cow;

/// Longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Longest header, bytes, as it stands in the token.
const HEADER_BYTES_MAX: usize = 4096;

/// How a token is signed (RFC 7518 section 3.1, RFC 8037). `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    /// As a key of a key set names it.
    pub(super) fn of_jwk(algorithm: jsonwebtoken::Algorithm) -> Option<Self> {
        Self::from_name(&format!("{algorithm:?}"))
    }

    /// Whether it is checked with a secret, which costs next to nothing.
    pub(super) fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// A token in its parts.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) algorithm: Algorithm,
    /// Names the key; at most [`KEY_ID_BYTES_MAX`] bytes.
    pub(super) key_id: Option<String>,
    /// What is signed.
    pub(super) message: &'a str,
    /// The claims, encoded.
    pub(super) payload: &'a str,
    /// The signature, encoded.
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Takes a token apart and reads its header.
    pub(super) fn of(token: &'a str) -> Result<Self, TokenError> {
        #[derive(Deserialize)]
        struct Header<'a> {
            #[serde(borrow)]
            alg: Cow<'a, str>,
            kid: Option<String>,
            crit: Option<serde::de::IgnoredAny>,
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid("too long"));
        }
        let malformed = TokenError::Invalid("malformed");
        let (message, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = message.split_once('.').ok_or(malformed)?;
        if payload.contains('.') || header.len() > HEADER_BYTES_MAX {
            return Err(malformed);
        }
        let header = decode(header)?;
        // UTF-8 all of it (RFC 7515 section 4), also what is not looked at.
        let header = std::str::from_utf8(&header).map_err(|_| malformed)?;
        let header: Header<'_> = serde_json::from_str(header).map_err(|_| malformed)?;
        if header.crit.is_some() {
            // Extensions that must be understood (RFC 7515 section 4.1.11): we know none.
            return Err(TokenError::Invalid("critical header"));
        }
        let key_id = header.kid;
        if key_id
            .as_ref()
            .is_some_and(|id| id.len() > KEY_ID_BYTES_MAX)
        {
            return Err(TokenError::Invalid("key id too long"));
        }
        Ok(Self {
            algorithm: Algorithm::from_name(&header.alg).ok_or(TokenError::Invalid("algorithm"))?,
            key_id,
            message,
            payload,
            signature,
        })
    }

    pub(super) fn signature(&self) -> Result<Vec<u8>, TokenError> {
        decode(self.signature)
    }

    pub(super) fn payload(&self) -> Result<Vec<u8>, TokenError> {
        decode(self.payload)
    }
}

/// URL-safe, without padding and without stray bits.
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Invalid("malformed"))
}
