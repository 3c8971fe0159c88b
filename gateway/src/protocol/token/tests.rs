use super::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

mod keys;
mod refused;

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
    let expected = [
        ("a".into(), first),
        ("b".into(), TokenSubscription::default()),
    ];
    assert_eq!(claims.subscriptions, expected);
    assert_eq!(claims.user, "", "no sub: anonymous");
}

#[test]
fn expiry_follows_exp_unless_expire_at_says_otherwise() {
    let expiry = |claims| connection(claims).map(|claims| claims.expire_at);
    assert_eq!(expiry(json!({})), Ok(None));
    assert_eq!(expiry(json!({"exp": NOW as f64 + 1.5})), Ok(Some(NOW + 1)));
    assert_eq!(expiry(json!({"exp": NOW + 1, "expire_at": 0})), Ok(None));
    assert_eq!(
        expiry(json!({"exp": NOW + 1, "expire_at": NOW + 9})),
        Ok(Some(NOW + 9))
    );
    for expired in [
        json!({"exp": NOW}),
        json!({"exp": 0}),
        json!({"exp": NOW, "expire_at": 0}),
        json!({"exp": NOW + 1, "expire_at": NOW}),
        json!({"nbf": NOW + 1}),
    ] {
        assert_eq!(
            expiry(expired.clone()),
            Err(TokenError::Expired),
            "{expired}"
        );
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
        assert!(
            matches!(refused, Err(TokenError::Invalid(_))),
            "{claims}: {refused:?}"
        );
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
    for aud in [
        json!("other"),
        json!(["x"]),
        json!([]),
        json!(null),
        json!(1),
    ] {
        let refused = verify(json!({"aud": aud, "iss": "us"}));
        assert_eq!(refused, Err(TokenError::Invalid("audience")), "{aud}");
    }
    for iss in [json!("them"), json!(""), json!(null)] {
        let refused = verify(json!({"aud": "edge", "iss": iss}));
        assert_eq!(refused, Err(TokenError::Invalid("issuer")), "{iss}");
    }
    assert_eq!(
        connection(json!({"aud": "any", "iss": "any"})).map(drop),
        Ok(()),
        "not configured"
    );
}

#[test]
fn without_a_secret_every_token_is_refused() {
    let verifier = TokenVerifier::new(&TokenConfig::default());
    let token = signed_with(Algorithm::HS256, "", &json!({"sub": "1"}));
    let refused = verifier.verify_connection(&token, NOW);
    assert_eq!(
        refused,
        Err(TokenError::Invalid("no key for its algorithm"))
    );
    let grant = ConnectionGrant::default();
    assert_eq!(
        sign_connection(&TokenConfig::default(), &grant, NOW),
        Err(SignError::NoSecret)
    );
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
    assert_eq!(
        subscription(json!({"sub": "42"})),
        Err(TokenError::Invalid("no channel"))
    );
    assert_eq!(
        subscription(json!({"channel": "a", "exp": NOW})),
        Err(TokenError::Expired)
    );
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
    assert_eq!(
        (claims.user.as_str(), claims.expire_at),
        ("42", Some(NOW + 60))
    );
    assert_eq!(claims.info, br#"{"a":1}"#);
    assert_eq!(claims.subscriptions.len(), 2);
    assert_eq!(
        verifier.verify_connection(&token, NOW + 60),
        Err(TokenError::Expired)
    );
    let refused = verifier.verify_subscription(&token, NOW);
    assert_eq!(refused, Err(TokenError::Invalid("no channel")));

    let grant = SubscriptionGrant {
        user: "42",
        channel: "$r",
        ..SubscriptionGrant::default()
    };
    let token = sign_subscription(&config, &grant, NOW).unwrap();
    let claims = verifier.verify_subscription(&token, u64::MAX).unwrap();
    assert_eq!(
        (claims.user.as_str(), claims.channel.as_str()),
        ("42", "$r")
    );
    assert_eq!(claims.expire_at, None);
    let refused = verifier.verify_connection(&token, NOW);
    assert_eq!(refused, Err(TokenError::Invalid("a subscription token")));

    let bad_info = ConnectionGrant {
        info: Some("{"),
        ..ConnectionGrant::default()
    };
    assert_eq!(
        sign_connection(&config, &bad_info, NOW),
        Err(SignError::Info)
    );
    let bad_claim = TokenConfig {
        user_id_claim: "iat".into(),
        ..config
    };
    let grant = ConnectionGrant::default();
    assert_eq!(
        sign_connection(&bad_claim, &grant, NOW),
        Err(SignError::UserClaim)
    );
}
