//! Tokens.

use crate::config::TokenConfig;
use crate::protocol::centrifuge::json;
use crate::protocol::token::{Demand, TokenError, TokenVerifier};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

const SECRET: &str = "a secret that is long enough";
const NOW: u64 = 1_800_000_000;

/// The first byte chooses: a token, or its claims, or its header and a line feed and its claims, to be signed.
pub fn run(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let token = match choice % 3 {
        0 => match std::str::from_utf8(rest) {
            Ok(text) => text.to_owned(),
            Err(_) => return,
        },
        1 => signed(br#"{"alg":"HS256"}"#, rest),
        _ => {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let end = end.unwrap_or(rest.len());
            signed(&rest[..end], rest.get(end + 1..).unwrap_or_default())
        }
    };
    check(&token);
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let encode = |part| BASE64_URL_SAFE_NO_PAD.encode(part);
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = signature(&message, Algorithm::HS256);
    format!("{message}.{signature}")
}

/// As another library makes it.
fn signature(message: &str, algorithm: Algorithm) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("a signature")
}

fn check(token: &str) {
    let verifier = TokenVerifier::new(&TokenConfig {
        hmac_secret_key: SECRET.into(),
        ..TokenConfig::default()
    });
    assert_eq!(verifier.demand(token), Demand::Nanos(0), "HMAC is cheap");
    let connection = verifier.verify_connection(token, NOW);
    let subscription = verifier.verify_subscription(token, NOW);
    for error in [connection.as_ref().err(), subscription.as_ref().err()] {
        use TokenError::{Expired, Invalid};
        assert!(matches!(error, None | Some(Expired | Invalid(_))));
    }
    match (&connection, &subscription) {
        (Err(_), Err(_)) => {}
        (Ok(granted), Err(_)) => {
            is_signed(token);
            assert!(granted.expire_at.is_none_or(|at| at > NOW), "it expired");
            says(token, &[("sub", &granted.user)], &granted.info);
            let names = granted.subscriptions.iter().map(|(name, _)| name);
            assert!(names.is_sorted_by(|one, two| one < two), "each once");
        }
        (Err(_), Ok(granted)) => {
            is_signed(token);
            assert!(granted.expire_at.is_none_or(|at| at > NOW), "it expired");
            let claims = [("sub", &*granted.user), ("channel", &granted.channel)];
            says(token, &claims, &granted.info);
        }
        (Ok(_), Ok(_)) => panic!("it is for one of the two"),
    }
}

fn is_signed(token: &str) {
    let (message, signed) = token.rsplit_once('.').expect("three parts");
    let algorithm = match part(token, 0)["alg"].as_str() {
        Some("HS256") => Algorithm::HS256,
        Some("HS384") => Algorithm::HS384,
        Some("HS512") => Algorithm::HS512,
        other => panic!("{other:?} needs another key"),
    };
    assert_eq!(signature(message, algorithm), signed);
}

/// Another parser finds the same claims.
fn says(token: &str, expected: &[(&str, &str)], info: &[u8]) {
    let claims = part(token, 1);
    // It knows no numbers beyond a double.
    if claims.is_null() {
        return;
    }
    for (name, value) in expected {
        assert_eq!(claims[*name].as_str().unwrap_or_default(), *value);
    }
    let is_binary = claims["b64info"]
        .as_str()
        .is_some_and(|text| !text.is_empty());
    assert!(is_binary || info.is_empty() || json::is_valid(info));
}

fn part(token: &str, index: usize) -> serde_json::Value {
    let part = token.split('.').nth(index).expect("three parts");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("it was read");
    serde_json::from_slice(&bytes).unwrap_or_default()
}
