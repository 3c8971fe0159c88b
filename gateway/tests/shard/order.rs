//! Commands that follow the subscribe of their channel before it is answered.

use crate::stand::{Heard, Stand};
use crate::tokens::hmac;
use ringway::config::Config;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Only subscribers may do anything in a channel, but subscribe.
fn stand() -> Stand {
    let mut config = Config::for_tests();
    config.client.token.hmac_secret_key = "secret".into();
    let options = Arc::make_mut(&mut config.channels.namespaces[0].1);
    options.allow_subscribe_for_client = true;
    options.allow_publish_for_client = false;
    options.allow_publish_for_subscriber = true;
    options.allow_presence_for_client = false;
    options.allow_presence_for_subscriber = true;
    options.allow_history_for_client = false;
    options.allow_history_for_subscriber = true;
    options.presence = true;
    options.history_size = 10;
    options.history_ttl = Duration::from_secs(60);
    options.allow_positioning = true;
    Stand::new(config)
}

fn connect(claims: &Value) -> Value {
    json!({"id": 1, "connect": {"token": hmac(claims)}})
}

/// What a client hears that sends commands in one message, until nothing more comes.
fn hear(stand: &mut Stand, commands: &[Value]) -> Vec<Value> {
    stand.upgrade(0);
    let lines: Vec<String> = commands.iter().map(Value::to_string).collect();
    stand.send(0, &lines.join("\n"));
    let mut heard = Vec::new();
    for _ in 0..8 {
        stand.tick();
        heard.extend(stand.heard(0).into_iter().map(|heard| match heard {
            Heard::Json(value) => value,
            other => panic!("{other:?}"),
        }));
    }
    heard
}

#[test]
fn who_subscribes_is_listed_in_the_presence_that_it_asks_for_at_once() {
    let heard = hear(
        &mut stand(),
        &[
            connect(&json!({"sub": "ann"})),
            json!({"id": 2, "subscribe": {"channel": "room"}}),
            json!({"id": 3, "presence": {"channel": "room"}}),
            json!({"id": 4, "presence_stats": {"channel": "room"}}),
        ],
    );
    let me = heard[0]["connect"]["client"].as_str().expect("an id");
    assert_eq!(heard[1], json!({"id": 2, "subscribe": {}}));
    assert_eq!(heard[2]["presence"]["presence"][me]["user"], "ann");
    assert_eq!(
        heard[3],
        json!({"id": 4, "presence_stats": {"num_clients": 1, "num_users": 1}})
    );
}

#[test]
fn who_is_subscribed_by_its_token_is_listed_in_the_presence_that_it_asks_for_at_once() {
    let heard = hear(
        &mut stand(),
        &[
            connect(&json!({"sub": "ann", "channels": ["room"]})),
            json!({"id": 2, "presence": {"channel": "room"}}),
        ],
    );
    let me = heard[0]["connect"]["client"].as_str().expect("an id");
    assert_eq!(heard[1]["presence"]["presence"][me]["user"], "ann");
}

#[test]
fn who_subscribes_and_publishes_at_once_gets_its_publication_and_finds_it_in_the_history() {
    let heard = hear(
        &mut stand(),
        &[
            connect(&json!({"sub": "ann"})),
            json!({"id": 2, "subscribe": {"channel": "room", "positioned": true}}),
            json!({"id": 3, "publish": {"channel": "room", "data": "x"}}),
            json!({"id": 4, "history": {"channel": "room", "limit": 1}}),
        ],
    );
    assert_eq!(heard[1]["subscribe"].get("offset"), None, "{heard:?}");
    let (pushes, replies): (Vec<&Value>, Vec<&Value>) = heard
        .iter()
        .partition(|message| message.get("push").is_some());
    let published: Vec<&Value> = pushes.iter().map(|p| &p["push"]["pub"]["data"]).collect();
    assert_eq!(published, ["x"]);
    let ids: Vec<&Value> = replies.iter().map(|reply| &reply["id"]).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(replies[2]["publish"], json!({}));
    assert_eq!(replies[3]["history"]["publications"][0]["data"], "x");
}

#[test]
fn a_subscription_can_be_refreshed_at_once() {
    let token = |exp: u64| {
        let claims = json!({"sub": "ann", "channel": "room", "exp": crate::stand::START + exp});
        hmac(&claims)
    };
    let heard = hear(
        &mut stand(),
        &[
            connect(&json!({"sub": "ann"})),
            json!({"id": 2, "subscribe": {"channel": "room", "token": token(10)}}),
            json!({"id": 3, "sub_refresh": {"channel": "room", "token": token(90)}}),
        ],
    );
    assert_eq!(
        heard[2],
        json!({"id": 3, "sub_refresh": {"expires": true, "ttl": 90}})
    );
}
