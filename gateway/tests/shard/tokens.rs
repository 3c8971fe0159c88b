//! Tokens whose check is costly, and what a client is told about tokens that do not pass.

use crate::stand::{Heard, START, Stand};
use ringway::config::Config;
use ringway::testing::token::TestKey;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A gateway that takes RSA.
pub fn config() -> Config {
    let mut config = Config::for_tests();
    config.client.token.hmac_secret_key = "secret".into();
    config.client.token.rsa_public_key = TestKey::rsa().public_pem().into();
    config
}

fn hmac(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a token")
}

fn connect(token: &str) -> String {
    json!({"id": 1, "connect": {"token": token}}).to_string()
}

fn error(id: u32, code: u32) -> Heard {
    let (message, temporary) = match code {
        100 => ("internal server error", true),
        103 => ("permission denied", false),
        109 => ("token expired", false),
        _ => panic!("{code}"),
    };
    let mut error = json!({"code": code, "message": message});
    if temporary {
        error["temporary"] = json!(true);
    }
    Heard::Json(json!({"id": id, "error": error}))
}

/// Whether all that was heard is the reply to command `id`, and no error.
pub fn is_reply(heard: &[Heard], id: u32) -> bool {
    matches!(heard, [Heard::Json(reply)] if reply["id"] == id && reply.get("error").is_none())
}

#[test]
fn a_storm_of_costly_tokens_is_spread_over_ticks_and_nobody_is_refused() {
    const STORM: u32 = 300;
    let mut stand = Stand::new(config());
    assert!(is_reply(
        &stand.hello(0, &connect(&hmac(&json!({"sub": "old"})))),
        1
    ));
    (1..=STORM).for_each(|slot| stand.upgrade(slot));
    for slot in 1..=STORM {
        let token = TestKey::rsa().sign(None, &json!({"sub": format!("u{slot}")}));
        stand.send(slot, &connect(&token));
    }
    let (mut next, mut ticks) = (1, 0);
    while next <= STORM {
        // Whoever is connected is answered in the same tick, and so is whoever brings a cheap token.
        stand.send(0, &json!({"id": ticks + 2, "ping": {}}).to_string());
        let late = STORM + 1 + ticks;
        if ticks > 0 {
            stand.upgrade(late);
            stand.send(late, &connect(&hmac(&json!({"sub": "cheap"}))));
        }
        stand.tick();
        assert!(is_reply(&stand.heard(0), ticks + 2), "tick {ticks}");
        assert!(
            ticks == 0 || is_reply(&stand.heard(late), 1),
            "tick {ticks}"
        );
        let before = next;
        while next <= STORM && is_reply(&stand.heard(next), 1) {
            next += 1;
        }
        // In turn: nobody is served before those who came earlier.
        assert!(
            (next..=STORM).all(|slot| stand.heard(slot).is_empty()),
            "tick {ticks}"
        );
        assert!(next > before, "tick {ticks} checked nobody");
        // At 25 microseconds each, 300 are twelve, and one more may exceed; upgrading the late one took a tick or two.
        assert!(next - before <= 3 * 13, "{} in tick {ticks}", next - before);
        ticks += 1;
    }
    assert!(ticks >= STORM / 39, "{ticks}");
    assert_eq!(stand.stats().token_checks_deferred, u64::from(STORM) - 12);
}

#[test]
fn what_follows_a_token_that_waits_is_handled_after_it_in_order() {
    let mut config = config();
    Arc::make_mut(&mut config.channels.namespaces[0].1).allow_subscribe_for_client = true;
    let mut stand = Stand::new(config);
    for slot in 0..100 {
        stand.upgrade(slot);
    }
    for slot in 0..99 {
        stand.send(
            slot,
            &connect(&TestKey::rsa().sign(None, &json!({"sub": "u"}))),
        );
    }
    let token = TestKey::rsa().sign(None, &json!({"sub": "ann"}));
    let subscribe = json!({"id": 2, "subscribe": {"channel": "room"}});
    stand.send(99, &format!("{}\n{subscribe}\n", connect(&token)));
    stand.send(99, r#"{"id":3,"ping":{}}"#);
    stand.tick();
    stand.send(99, r#"{"id":4,"ping":{}}"#);
    assert_eq!(stand.heard(99), []);
    let mut ids = Vec::new();
    for _ in 0..30 {
        stand.tick();
        ids.extend(stand.heard(99).into_iter().map(|heard| match heard {
            Heard::Json(reply) => reply["id"].as_u64().expect("an id"),
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn a_command_over_its_limit_takes_none_of_the_budget_and_one_that_waits_is_measured_once() {
    let mut config = config();
    config.client_limits.connection.commands = 1;
    config.client_limits.burst = Duration::from_secs(1);
    let mut stand = Stand::new(config);
    stand.hello(0, &connect(&hmac(&json!({"sub": "ann"}))));
    (1..30).for_each(|slot| stand.upgrade(slot));
    let token = TestKey::rsa().sign(None, &json!({"sub": "ann"}));
    let refresh = |id: u32| json!({"id": id, "refresh": {"token": token}}).to_string();
    let flood: Vec<String> = (2..60).map(refresh).collect();
    stand.send(0, &flood.join("\n"));
    stand.send(1, &connect(&token));
    stand.tick();
    assert!(is_reply(&stand.heard(1), 1));
    assert_eq!(stand.heard(0).len(), flood.len());
    assert_eq!(stand.stats().token_checks_deferred, 0);

    stand.advance(1000);
    (2..30).for_each(|slot| stand.send(slot, &connect(&token)));
    stand.send(0, &refresh(60));
    stand.tick();
    assert_eq!(stand.heard(0), []);
    (0..5).for_each(|_| stand.tick());
    assert!(is_reply(&stand.heard(0), 60));
}

#[test]
fn who_sends_on_and_on_while_its_token_waits_is_closed() {
    let mut config = config();
    config.client.message_size_limit = 2000;
    let mut stand = Stand::new(config);
    for slot in 0..100 {
        stand.upgrade(slot);
    }
    for slot in 0..100 {
        stand.send(
            slot,
            &connect(&TestKey::rsa().sign(None, &json!({"sub": "u"}))),
        );
    }
    let padded = format!(r#"{{"id":2,"rpc":{{"method":"{}"}}}}"#, "m".repeat(1400));
    // Two fit beside the token, three do not.
    for _ in 0..2 {
        stand.send(98, &padded);
    }
    for _ in 0..3 {
        stand.send(99, &padded);
    }
    stand.tick();
    assert_eq!(stand.heard(99), [Heard::Close(3013)]);
    assert_eq!(stand.heard(98), []);
    for _ in 0..30 {
        stand.tick();
    }
    assert!(matches!(&stand.heard(98)[0], Heard::Json(reply) if reply["id"] == 1));
}

#[test]
fn who_waits_for_its_check_is_not_stale() {
    let mut config = config();
    config.client.token.rsa_public_key.clear();
    config.client.token.jwks_public_endpoint = "http://127.0.0.1/".into();
    let stale = config.client.stale_close_delay.as_millis() as u64;
    let mut stand = Stand::new(config);
    assert_eq!(
        stand.hello(0, &connect(&TestKey::rsa().sign(Some("k"), &json!({})))),
        []
    );
    stand.upgrade(1);
    stand.advance(stale + 1);
    stand.tick();
    assert_eq!(stand.heard(0), []);
    assert_eq!(stand.heard(1), [Heard::Close(3502)]);
}

#[test]
fn each_bad_token_gets_the_answer_of_its_kind() {
    let key = TestKey::rsa();
    let audience = |config: &mut Config| {
        config.client.token.audience = "edge".into();
        config.client.token.issuer = "us".into();
    };
    let mut config = config();
    audience(&mut config);
    let mut stand = Stand::new(config);
    let ours = |more: Value| {
        let mut claims = json!({"sub": "ann", "aud": "edge", "iss": "us", "exp": START + 60});
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    };
    let bad: [(String, bool); 12] = [
        // The second: whether another token may do.
        (key.sign(None, &ours(json!({"exp": START}))), true),
        (hmac(&ours(json!({"exp": START}))), true),
        (key.sign(None, &ours(json!({"nbf": START + 60}))), true),
        (key.sign(None, &ours(json!({"aud": "other"}))), false),
        (key.sign(None, &ours(json!({"iss": "them"}))), false),
        (key.sign(None, &ours(json!({"exp": "soon"}))), false),
        (TestKey::es256().sign(None, &ours(json!({}))), false),
        (key.sign(None, &ours(json!({})))[1..].to_owned(), false),
        (key.sign(None, &ours(json!({}))).replace('.', ""), false),
        ("x".repeat(60_000), false),
        (format!("{}A", key.sign(None, &ours(json!({})))), false),
        (
            {
                let forged = jsonwebtoken::EncodingKey::from_secret(key.public_pem().as_bytes());
                let header = jsonwebtoken::Header::default();
                jsonwebtoken::encode(&header, &ours(json!({})), &forged).expect("a token")
            },
            false,
        ),
    ];
    let good = key.sign(None, &ours(json!({"expire_at": START + 100})));
    let channel = |mut claims: Value| {
        claims["channel"] = json!("$room");
        claims
    };
    let mut slot = 0;
    let mut open = |stand: &mut Stand, token: &str| {
        slot += 1;
        (slot, stand.hello(slot, &connect(token)))
    };
    for (token, may_come_back) in &bad {
        let (_, heard) = open(&mut stand, token);
        let expected = if *may_come_back {
            error(1, 109)
        } else {
            Heard::Close(3500)
        };
        assert_eq!(heard, [expected], "connect with {token}");

        let (slot, heard) = open(&mut stand, &good);
        assert!(is_reply(&heard, 1), "{heard:?}");
        let subscribe = json!({"id": 2, "subscribe": {"channel": "$room", "token": token}});
        stand.send(slot, &subscribe.to_string());
        stand.tick();
        let expected = error(2, if *may_come_back { 109 } else { 103 });
        assert_eq!(stand.heard(slot), [expected], "subscribe with {token}");

        let fit = key.sign(None, &channel(ours(json!({}))));
        let subscribe = json!({"id": 3, "subscribe": {"channel": "$room", "token": fit}});
        stand.send(slot, &subscribe.to_string());
        stand.tick();
        let heard = stand.heard(slot);
        assert!(is_reply(&heard, 3), "{heard:?}");
        let refresh = json!({"id": 4, "sub_refresh": {"channel": "$room", "token": token}});
        stand.send(slot, &refresh.to_string());
        stand.tick();
        let expected = error(4, if *may_come_back { 109 } else { 103 });
        assert_eq!(stand.heard(slot), [expected], "sub_refresh with {token}");

        stand.send(
            slot,
            &json!({"id": 5, "refresh": {"token": token}}).to_string(),
        );
        stand.tick();
        let expected = Heard::Close(if *may_come_back { 3005 } else { 3500 });
        assert_eq!(stand.heard(slot), [expected], "refresh with {token}");
    }
}
