//! Keys, and which of them checks what.

use super::*;
use crate::testing::token::{TestKey, pem};
use TokenError::{Invalid, UnknownKey};
use jsonwebtoken::Algorithm as Jwt;
use serde_json::Value;

fn verdict(verifier: &TokenVerifier, token: &str) -> Result<(), TokenError> {
    verifier.verify_connection(token, NOW).map(drop)
}

fn with_key_set(keys: &[Value]) -> TokenVerifier {
    let mut verifier = TokenVerifier::new(&TokenConfig {
        jwks_public_endpoint: "http://127.0.0.1/".into(),
        ..config()
    });
    let set = KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap();
    verifier.set_fetched(Arc::new(set));
    verifier
}

#[test]
fn each_algorithm_is_checked_with_the_key_of_its_kind() {
    let (rsa, p256, p384, ed) = (
        TestKey::rsa(),
        TestKey::es256(),
        TestKey::es384(),
        TestKey::ed25519(),
    );
    let all: [(Jwt, &TestKey); 7] = [
        (Jwt::RS256, rsa),
        (Jwt::RS384, rsa),
        (Jwt::RS512, rsa),
        (Jwt::PS256, rsa),
        (Jwt::ES256, &p256),
        (Jwt::ES384, &p384),
        (Jwt::EdDSA, &ed),
    ];
    let claims = json!({"sub": "1"});
    for ecdsa in [&p256, &p384] {
        let verifier = TokenVerifier::new(&TokenConfig {
            rsa_public_key: rsa.public_pem().into(),
            ecdsa_public_key: ecdsa.public_pem().into(),
            eddsa_public_key: ed.public_pem().into(),
            ..config()
        });
        for (algorithm, key) in all {
            let token = key.sign_with(algorithm, Some("ignored"), &claims);
            let is_ours =
                ![&p256, &p384].iter().any(|ec| std::ptr::eq(*ec, key)) || std::ptr::eq(ecdsa, key);
            let expected = if is_ours {
                Ok(())
            } else {
                Err(Invalid("no key for its algorithm"))
            };
            assert_eq!(verdict(&verifier, &token), expected, "{algorithm:?}");
            assert_eq!(
                verifier.demand(&token) != Demand::Nanos(0),
                is_ours,
                "{algorithm:?}"
            );
            // One bit of the signature.
            let (message, signature) = token.rsplit_once('.').unwrap();
            let flipped = if signature.starts_with('A') { "B" } else { "A" };
            let bad = format!("{message}.{flipped}{}", &signature[1..]);
            assert!(
                matches!(verdict(&verifier, &bad), Err(Invalid(_))),
                "{algorithm:?}"
            );
        }
        for hmac in [Jwt::HS256, Jwt::HS384, Jwt::HS512] {
            let token = signed_with(hmac, "secret", &claims);
            assert_eq!(verdict(&verifier, &token), Ok(()), "{hmac:?}");
            assert_eq!(verifier.demand(&token), Demand::Nanos(0));
        }
        let unknown = rsa.sign_with(Jwt::PS384, None, &claims);
        assert_eq!(verdict(&verifier, &unknown), Err(Invalid("algorithm")));
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let rsa = TestKey::rsa();
    let claims = json!({"sub": "admin"});
    let with_secret = TokenConfig {
        rsa_public_key: rsa.public_pem().into(),
        ..config()
    };
    let without = TokenConfig {
        hmac_secret_key: String::new(),
        ..with_secret.clone()
    };
    let fetched = with_key_set(&[rsa.jwk("k")]);
    for secret in [rsa.public_pem(), rsa.public_pem().trim_end()] {
        let forged = signed_with(Jwt::HS256, secret, &claims);
        assert_eq!(
            verdict(&TokenVerifier::new(&with_secret), &forged),
            Err(Invalid("signature"))
        );
        assert_eq!(
            verdict(&TokenVerifier::new(&without), &forged),
            Err(Invalid("no key for its algorithm"))
        );
        assert_eq!(verdict(&fetched, &forged), Err(Invalid("signature")));
    }
}

#[test]
fn the_previous_secret_counts_until_its_time() {
    let until = |until| {
        TokenVerifier::new(&TokenConfig {
            hmac_previous_secret_key: "old".into(),
            hmac_previous_secret_key_valid_until: until,
            ..config()
        })
    };
    let (old, other) = (
        signed_with(Jwt::HS512, "old", &json!({"sub": "1"})),
        signed_with(Jwt::HS512, "older", &json!({"sub": "1"})),
    );
    for (verifier, expected) in [
        (until(0), Ok(())),
        (until(NOW + 1), Ok(())),
        (until(NOW), Err(Invalid("signature"))),
        (TokenVerifier::new(&config()), Err(Invalid("signature"))),
    ] {
        assert_eq!(verdict(&verifier, &old), expected);
        assert_eq!(verdict(&verifier, &other), Err(Invalid("signature")));
        assert_eq!(verdict(&verifier, &signed(json!({}))), Ok(()));
    }
}

#[test]
fn with_an_endpoint_the_key_is_the_one_that_the_token_names() {
    let (rsa, p256, ed) = (TestKey::rsa(), TestKey::es256(), TestKey::ed25519());
    let verifier = with_key_set(&[rsa.jwk("r"), p256.jwk("e"), ed.jwk("d")]);
    let claims = json!({"sub": "1"});
    let none = Invalid("no key for its algorithm");
    for (key, id, expected) in [
        (rsa, Some("r"), Ok(())),
        (&p256, Some("e"), Ok(())),
        (&ed, Some("d"), Ok(())),
        (&p256, Some("r"), Err(none)),
        (&p256, Some("gone"), Err(UnknownKey)),
        (&p256, None, Err(Invalid("no key id"))),
        (&TestKey::es256(), Some("e"), Err(Invalid("signature"))),
    ] {
        let token = key.sign(id, &claims);
        assert_eq!(verdict(&verifier, &token), expected, "{id:?}");
        let asks = expected == Err(UnknownKey);
        assert_eq!(verifier.demand(&token) == Demand::Key("gone".into()), asks);
    }
    // The key says RS256.
    let token = rsa.sign_with(Jwt::RS512, Some("r"), &claims);
    assert_eq!(verdict(&verifier, &token), Err(none));
    let mut any = rsa.jwk("r");
    any.as_object_mut().unwrap().remove("alg");
    assert_eq!(verdict(&with_key_set(&[any]), &token), Ok(()));
    // HMAC goes on beside it, and is never one of the set.
    assert_eq!(verdict(&verifier, &signed(json!({}))), Ok(()));
}

#[test]
fn what_is_no_key_of_a_set_is_left_out() {
    let key = TestKey::es256();
    let with = |name: &str, value: Value| {
        let mut jwk = key.jwk("e");
        jwk[name] = value;
        jwk
    };
    let mut unnamed = key.jwk("e");
    unnamed.as_object_mut().unwrap().remove("kid");
    let left_out = [
        unnamed,
        with("use", json!("enc")),
        with("kid", json!(1)),
        with("kid", json!("k".repeat(257))),
        with("crv", json!("secp256k1")),
        with("crv", json!("P-384")),
        with("alg", json!("ES384")),
        with("alg", json!("RSA-OAEP")),
        with("x", json!("AAAA")),
        with("y", json!(key.jwk("e")["x"])),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "e", "alg": "HS256"}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "e"}),
        json!("key"),
        json!(null),
    ];
    let parse = |keys: &[Value]| KeySet::parse(json!({"keys": keys}).to_string().as_bytes());
    for jwk in &left_out {
        assert_eq!(
            parse(std::slice::from_ref(jwk)).err(),
            Some(KeySetError::Empty),
            "{jwk}"
        );
    }
    let mut all = left_out.to_vec();
    all.push(key.jwk("e"));
    assert_eq!(parse(&all).unwrap().len(), 1);
    for body in ["", "{}", "[]", r#"{"keys":{}}"#, "<html>", r#"{"keys":[}"#] {
        assert_eq!(
            KeySet::parse(body.as_bytes()).err(),
            Some(KeySetError::Malformed),
            "{body}"
        );
    }
}

/// DER of one value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let length: Vec<u8> = match len {
        0..=127 => vec![len as u8],
        128..=255 => vec![0x81, len as u8],
        _ => [&[0x82], &(len as u16).to_be_bytes()[..]].concat(),
    };
    [&[tag], &length[..], content].concat()
}

/// An RSA key in PEM (PKCS #1) of a modulus with so many bits, and an exponent.
fn rsa_pem(bits: usize, exponent: &[u8]) -> String {
    let mut modulus = vec![0xff; bits / 8];
    modulus.insert(0, 0);
    let numbers = [der(2, &modulus), der(2, exponent)].concat();
    pem("RSA PUBLIC KEY", &der(0x30, &numbers))
}

#[test]
fn keys_that_cannot_be_used_are_refused_by_name() {
    let refused = |config: TokenConfig| ConfiguredKeys::new(&config).err();
    let rsa = |pem: String| TokenConfig {
        rsa_public_key: pem,
        ..TokenConfig::default()
    };
    for bits in [2048, 4096, 8192] {
        assert_eq!(refused(rsa(rsa_pem(bits, &[1, 0, 1]))), None, "{bits}");
    }
    for bits in [512, 1024, 2040, 8200] {
        let why = KeyError::RsaSize(bits);
        assert_eq!(
            refused(rsa(rsa_pem(bits, &[1, 0, 1]))),
            Some(("rsa_public_key", why))
        );
    }
    for exponent in [&[1][..], &[4], &[1, 0, 0, 0, 0, 1]] {
        let found = refused(rsa(rsa_pem(2048, exponent)));
        assert_eq!(
            found.map(|(name, _)| name),
            Some("rsa_public_key"),
            "{exponent:?}"
        );
    }
    let (good, p256) = (TestKey::rsa().public_pem(), TestKey::es256());
    let damaged = good.replace("\nMII", "\nAAA");
    for text in [
        "x",
        "",
        "-----BEGIN PUBLIC KEY-----",
        p256.public_pem(),
        damaged.as_str(),
    ] {
        let found = refused(rsa(format!("{text} ")));
        assert_eq!(
            found,
            Some(("rsa_public_key", KeyError::NotA("RSA"))),
            "{text:?}"
        );
    }
    let twice = refused(rsa(format!("{good}{good}")));
    assert_eq!(twice, Some(("rsa_public_key", KeyError::NotA("RSA"))));
    assert_eq!(refused(rsa(format!("\n{good}\n"))), None);
    let ecdsa = TokenConfig {
        ecdsa_public_key: good.into(),
        ..TokenConfig::default()
    };
    assert_eq!(
        refused(ecdsa).map(|(name, _)| name),
        Some("ecdsa_public_key")
    );
    let eddsa = TokenConfig {
        eddsa_public_key: p256.public_pem().into(),
        ..TokenConfig::default()
    };
    assert_eq!(
        refused(eddsa).map(|(name, _)| name),
        Some("eddsa_public_key")
    );
    let secret = TokenConfig {
        hmac_secret_key: good.into(),
        ..TokenConfig::default()
    };
    assert_eq!(
        refused(secret),
        Some(("hmac_secret_key", KeyError::NotASecret))
    );
}
