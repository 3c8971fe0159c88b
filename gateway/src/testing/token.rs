//! Key pairs of a backend, and the tokens it signs with them.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair};
use aws_lc_rs::signature::{RsaKeyPair, RsaSubjectPublicKey};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A key pair; its private half stays in the test.
pub struct TestKey {
    algorithm: Algorithm,
    private: EncodingKey,
    public_pem: String,
}

impl TestKey {
    /// One RSA key of 2048 bits for the whole run: making one takes a while.
    pub fn rsa() -> &'static Self {
        static KEY: LazyLock<TestKey> = LazyLock::new(|| {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
            let private: Pkcs8V1Der<'_> = pair.as_der().expect("its private half");
            let public: &RsaSubjectPublicKey = pair.public_key();
            let public: PublicKeyX509Der<'_> = public.as_der().expect("its public half");
            let pem = pem("PRIVATE KEY", private.as_ref());
            TestKey {
                algorithm: Algorithm::RS256,
                private: EncodingKey::from_rsa_pem(pem.as_bytes()).expect("an RSA key"),
                public_pem: self::pem("PUBLIC KEY", public.as_ref()),
            }
        });
        &KEY
    }

    /// A new key on P-256.
    pub fn es256() -> Self {
        Self::on_curve(
            Algorithm::ES256,
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        )
    }

    /// A new key on P-384.
    pub fn es384() -> Self {
        Self::on_curve(
            Algorithm::ES384,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        )
    }

    fn on_curve(algorithm: Algorithm, signing: &'static EcdsaSigningAlgorithm) -> Self {
        let private = EcdsaKeyPair::generate_pkcs8(signing, &SystemRandom::new()).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(signing, private.as_ref()).expect("what was made");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("its public half");
        let pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            algorithm,
            private: EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key on a curve"),
            public_pem: self::pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// A new key for EdDSA.
    pub fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("its public half");
        let private = pair.to_pkcs8v1().expect("its private half");
        let pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            algorithm: Algorithm::EdDSA,
            private: EncodingKey::from_ed_pem(pem.as_bytes()).expect("an Ed25519 key"),
            public_pem: self::pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// The public half, as the configuration takes it.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// The public half, as a key set has it.
    pub fn jwk(&self, id: &str) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a public half");
        let mut jwk = serde_json::to_value(jwk).expect("a JSON object");
        jwk["kid"] = json!(id);
        jwk["use"] = json!("sig");
        jwk
    }

    /// Signs with the key's own algorithm.
    pub fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        self.sign_with(self.algorithm, id, claims)
    }

    /// Signs with one of the key's algorithms.
    pub fn sign_with(&self, algorithm: Algorithm, id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.private).expect("a key fit for its algorithm")
    }
}

/// Says nothing of the private half.
impl std::fmt::Debug for TestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// A PEM block (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
