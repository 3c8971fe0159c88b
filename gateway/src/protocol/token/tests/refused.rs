//! Tokens that must not pass, and why each does not.

use super::*;
use crate::testing::token::TestKey;
use TokenError::{Expired, Invalid};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

fn encode(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// A token with any text for a header and for claims, signed with the secret as HS256 would have it.
fn forged(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(b"secret");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

fn claiming(claims: &str) -> String {
    forged(r#"{"alg":"HS256"}"#, claims)
}

fn verdict(verifier: &TokenVerifier, token: &str) -> Result<(), TokenError> {
    verifier.verify_connection(token, NOW).map(drop)
}

#[test]
fn tokens_that_are_not_signed_with_our_secret() {
    let verifier = TokenVerifier::new(&config());
    let claims = json!({"sub": "1"});
    let good = signed(claims.clone());
    assert_eq!(verdict(&verifier, &good), Ok(()));
    let parts: Vec<_> = good.split('.').collect();
    let none = encode(r#"{"alg":"none","typ":"JWT"}"#);
    let table = [
        (signed_with(Algorithm::HS256, "other", &claims), "signature"),
        (
            TestKey::rsa().sign(None, &claims),
            "no key for its algorithm",
        ),
        (
            TestKey::es256().sign(None, &claims),
            "no key for its algorithm",
        ),
        (format!("{none}.{}.", parts[1]), "algorithm"),
        (format!("{none}.{}.{}", parts[1], parts[2]), "algorithm"),
        (forged(r#"{"alg":"None"}"#, "{}"), "algorithm"),
        (forged(r#"{"alg":"hs256"}"#, "{}"), "algorithm"),
        (forged(r#"{"alg":"ES512"}"#, "{}"), "algorithm"),
        (forged(r#"{"alg":"HS384"}"#, "{}"), "signature"),
        (forged(r#"{"typ":"JWT"}"#, "{}"), "malformed"),
        (forged(r#"{"alg":"HS256","alg":"none"}"#, "{}"), "malformed"),
        (forged(r#"{"alg":["HS256"]}"#, "{}"), "malformed"),
        (forged(r#"{"alg":"HS256","kid":1}"#, "{}"), "malformed"),
        (forged(r#"["HS256"]"#, "{}"), "malformed"),
        (
            forged(r#"{"alg":"HS256","crit":["exp"]}"#, "{}"),
            "critical header",
        ),
        (
            forged(
                &format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257)),
                "{}",
            ),
            "key id too long",
        ),
        (
            forged(
                &format!(r#"{{"alg":"HS256","x":"{}"}}"#, "x".repeat(4096)),
                "{}",
            ),
            "malformed",
        ),
        (format!("{}.{}.", parts[0], parts[1]), "signature"),
        (
            format!("{}.{}.{}", parts[0], encode(r#"{"sub":"2"}"#), parts[2]),
            "signature",
        ),
        (format!("{}.{}", parts[0], parts[1]), "malformed"),
        (format!("{good}."), "malformed"),
        (format!("{good}.{}", parts[2]), "malformed"),
        (format!("{good}=="), "malformed"),
        (format!(" {good}"), "malformed"),
        (String::new(), "malformed"),
        ("garbage".into(), "malformed"),
        ("..".into(), "malformed"),
        ("a.b.c".into(), "malformed"),
        ("ä.ö.ü".into(), "malformed"),
    ];
    for (token, why) in table {
        assert_eq!(verdict(&verifier, &token), Err(Invalid(why)), "{token}");
    }
}

#[test]
fn a_long_token_passes_and_a_huge_one_does_not() {
    let padded = |len: usize| claiming(&format!(r#"{{"sub":"1","info":"{}"}}"#, "x".repeat(len)));
    let verifier = TokenVerifier::new(&config());
    let at_the_limit = (0..=3)
        .map(|more| padded((header::TOKEN_BYTES_MAX - 100) / 4 * 3 + more))
        .max_by_key(String::len)
        .unwrap();
    assert!(at_the_limit.len() <= header::TOKEN_BYTES_MAX);
    assert_eq!(verdict(&verifier, &at_the_limit), Ok(()));
    for len in [header::TOKEN_BYTES_MAX, 10 << 20] {
        assert_eq!(verdict(&verifier, &padded(len)), Err(Invalid("too long")));
    }
}

#[test]
fn claims_that_one_reader_could_read_otherwise_than_another() {
    let verifier = TokenVerifier::new(&config());
    let deep = |levels: usize| {
        format!(
            r#"{{"info":{}1{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let table = [
        (r#"{"sub":"1"}"#.into(), Ok(())),
        (r#"{"sub":"1","sub":"2"}"#.into(), Err(Invalid("malformed"))),
        (
            r#"{"exp":1,"exp":1900000000}"#.into(),
            Err(Invalid("malformed")),
        ),
        (
            r#"{"sub":"1","s\u0075b":"2"}"#.into(),
            Err(Invalid("malformed")),
        ),
        (r#"{"sub":"1"}x"#.into(), Err(Invalid("malformed"))),
        (r#"{"sub":"1","#.into(), Err(Invalid("malformed"))),
        ("{'sub':'1'}".into(), Err(Invalid("malformed"))),
        (r#"{"exp":NaN}"#.into(), Err(Invalid("malformed"))),
        (r#"{"exp":Infinity}"#.into(), Err(Invalid("malformed"))),
        ("".into(), Err(Invalid("malformed"))),
        ("null".into(), Err(Invalid("malformed"))),
        (deep(63), Ok(())),
        (deep(64), Err(Invalid("malformed"))),
        (deep(20_000), Err(Invalid("malformed"))),
        // Numbers.
        (r#"{"exp":1800000000.9}"#.into(), Err(Expired)),
        (r#"{"exp":1800000001.0}"#.into(), Ok(())),
        (r#"{"exp":1.9e9}"#.into(), Ok(())),
        (r#"{"exp":1e300}"#.into(), Ok(())),
        (r#"{"exp":18446744073709551615}"#.into(), Ok(())),
        (r#"{"exp":1e999}"#.into(), Err(Invalid("claim is no time"))),
        (r#"{"exp":-1}"#.into(), Err(Expired)),
        (r#"{"exp":-1e300}"#.into(), Err(Expired)),
        (r#"{"nbf":1800000000.9}"#.into(), Ok(())),
        (r#"{"nbf":1e300}"#.into(), Err(Expired)),
        (
            r#"{"exp":"1900000000"}"#.into(),
            Err(Invalid("claim is no time")),
        ),
        (r#"{"sub":7}"#.into(), Err(Invalid("claim is no text"))),
    ];
    for (claims, expected) in table {
        assert_eq!(verdict(&verifier, &claiming(&claims)), expected, "{claims}");
    }
    let not_text = forged(r#"{"alg":"HS256"}"#, "").replace(
        "..",
        &format!(".{}.", BASE64_URL_SAFE_NO_PAD.encode([0xff])),
    );
    assert!(matches!(verdict(&verifier, &not_text), Err(Invalid(_))));
}
