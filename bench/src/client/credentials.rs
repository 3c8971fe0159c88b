//! Connection tokens (JSON Web Tokens, RFC 7519): one for all connections, or one for each, signed here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Seconds a token is good for: longer than any run.
const LIFE: u64 = 24 * 3600;

/// What connections say who they are with.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing: they are anonymous.
    None,
    /// All the same token.
    Same(String),
    /// Each a token of its own, for a user of its own.
    Signed(Arc<Signer>),
}

impl Credentials {
    /// The token of the connection with this number in the run.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, connection: usize) -> std::io::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Same(token) => Ok(Some(token.clone())),
            Self::Signed(signer) => signer.sign(&format!("bench-{connection}")).map(Some),
        }
    }

    /// In words, for the report: nothing, or behind a comma.
    pub fn words(&self) -> &'static str {
        match self {
            Self::None => "",
            Self::Same(_) => ", one token for all",
            Self::Signed(signer) => match **signer {
                Signer::Secret(_) => ", HS256 tokens, one each",
                Signer::Curve(_) => ", ES256 tokens, one each",
            },
        }
    }
}

/// A backend's key.
pub enum Signer {
    /// HS256.
    Secret(Box<hmac::Key>),
    /// ES256.
    Curve(EcdsaKeyPair),
}

impl Signer {
    /// HS256.
    pub fn by_secret(secret: &[u8]) -> Self {
        Self::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// ES256, by a private key on P-256 in PEM (PKCS #8).
    ///
    /// # Errors
    /// When it is something else.
    pub fn by_pem(pem: &str) -> Result<Self, String> {
        let words = || "want one private key on P-256 in PEM (PKCS #8)".to_owned();
        let body = pem
            .trim()
            .strip_prefix("-----BEGIN PRIVATE KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
            .ok_or_else(words)?;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| words())?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der);
        key.map(Self::Curve).map_err(|_| words())
    }

    fn sign(&self, user: &str) -> std::io::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(std::io::Error::other)?.as_secs();
        let algorithm = match self {
            Self::Secret(_) => "HS256",
            Self::Curve(_) => "ES256",
        };
        let header = serde_json::json!({ "alg": algorithm, "typ": "JWT" });
        let claims = serde_json::json!({ "sub": user, "iat": now, "exp": now + LIFE });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", part(&header), part(&claims));
        let signature = match self {
            Self::Secret(key) => hmac::sign(key, token.as_bytes()).as_ref().to_vec(),
            Self::Curve(key) => {
                let signature = key.sign(&SystemRandom::new(), token.as_bytes());
                signature.map_err(std::io::Error::other)?.as_ref().to_vec()
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// Never tells the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};

    /// The claims of a token, and its signed part and signature.
    fn parts(token: &str) -> (serde_json::Value, String, Vec<u8>) {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let claims = URL_SAFE_NO_PAD
            .decode(message.split_once('.').unwrap().1)
            .unwrap();
        (
            serde_json::from_slice(&claims).unwrap(),
            message.to_owned(),
            URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
    }

    #[test]
    fn each_connection_has_a_token_that_its_key_has_signed() {
        let secret = Credentials::Signed(Arc::new(Signer::by_secret(b"secret")));
        let (claims, message, signature) = parts(&secret.token(7).unwrap().unwrap());
        assert_eq!(claims["sub"], "bench-7");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        hmac::verify(&key, message.as_bytes(), &signature).unwrap();

        let pair =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(pair.as_ref())
        );
        let signer = Signer::by_pem(&pem).unwrap();
        let Signer::Curve(key) = &signer else {
            panic!("a key on a curve")
        };
        let public = key.public_key().as_ref().to_vec();
        let curve = Credentials::Signed(Arc::new(signer));
        let (claims, message, signature) = parts(&curve.token(8).unwrap().unwrap());
        assert_eq!(claims["sub"], "bench-8");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
        public.verify(message.as_bytes(), &signature).unwrap();

        assert!(Signer::by_pem("secret").is_err());
        assert_eq!(Credentials::None.token(1).unwrap(), None);
    }
}
