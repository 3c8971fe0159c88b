//! Tokens that name a key of a key set: who waits for one, who asks, and what each answer does.

use crate::stand::{Heard, Stand};
use crate::tokens::{config, is_reply};
use ringway::hub::message::{Message, Request};
use ringway::protocol::token::{KeySet, TokenKind};
use ringway::testing::token::TestKey;
use serde_json::{Value, json};
use std::sync::Arc;

fn stand() -> Stand {
    let mut config = config();
    config.client.token.rsa_public_key.clear();
    config.client.token.jwks_public_endpoint = "http://127.0.0.1/".into();
    Stand::new(config)
}

fn connect(key_id: &str) -> String {
    let token = TestKey::rsa().sign(Some(key_id), &json!({"sub": "ann"}));
    json!({"id": 1, "connect": {"token": token}}).to_string()
}

fn tell(stand: &mut Stand, keys: Option<&[Value]>, answers: bool) {
    let keys = keys.map(|keys| {
        let body = json!({"keys": keys}).to_string();
        Arc::new(KeySet::parse(body.as_bytes()).expect("a key set"))
    });
    stand.ask(Request::Keys {
        kind: TokenKind::Connection,
        keys,
        answers,
    });
    stand.tick();
}

fn questions(stand: &mut Stand) -> usize {
    stand.tick();
    let heard = stand.control_heard();
    heard
        .iter()
        .filter(|m| matches!(m, Message::KeyWanted { .. }))
        .count()
}

fn unavailable() -> Heard {
    let error = json!({"code": 100, "message": "internal server error", "temporary": true});
    Heard::Json(json!({"id": 1, "error": error}))
}

#[test]
fn a_connect_waits_for_the_first_keys() {
    let mut stand = stand();
    assert_eq!(stand.hello(0, &connect("k")), []);
    assert_eq!(questions(&mut stand), 1);
    tell(&mut stand, Some(&[TestKey::rsa().jwk("k")]), false);
    assert!(is_reply(&stand.heard(0), 1));
    // Nobody has to ask for what is there.
    assert!(is_reply(&stand.hello(1, &connect("k")), 1));
    assert_eq!(questions(&mut stand), 0);
}

#[test]
fn a_rotated_key_is_asked_for_once_by_all_who_want_it() {
    let mut stand = stand();
    tell(&mut stand, Some(&[TestKey::rsa().jwk("old")]), false);
    for slot in 0..20 {
        assert_eq!(stand.hello(slot, &connect("new")), []);
    }
    assert!(
        is_reply(&stand.hello(50, &connect("old")), 1),
        "others go on"
    );
    assert_eq!(questions(&mut stand), 1);
    let both = [TestKey::rsa().jwk("old"), TestKey::rsa().jwk("new")];
    tell(&mut stand, Some(&both), true);
    (0..3).for_each(|_| stand.tick());
    for slot in 0..20 {
        assert!(is_reply(&stand.heard(slot), 1), "{slot}");
    }
}

#[test]
fn a_key_that_a_fetch_has_not_found_is_refused_and_not_looked_for_again_for_a_minute() {
    let mut stand = stand();
    let set = [TestKey::rsa().jwk("k")];
    tell(&mut stand, Some(&set), false);
    assert_eq!(stand.hello(0, &connect("made up")), []);
    assert_eq!(questions(&mut stand), 1);
    // A fetch that nobody asked for says nothing about it: it may have begun before.
    tell(&mut stand, Some(&set), false);
    assert_eq!(stand.heard(0), []);
    tell(&mut stand, Some(&set), true);
    assert_eq!(stand.heard(0), [Heard::Close(3500)]);
    stand.advance(59_000);
    assert_eq!(stand.hello(1, &connect("made up")), [Heard::Close(3500)]);
    assert_eq!(questions(&mut stand), 0);
    stand.advance(2000);
    assert_eq!(stand.hello(2, &connect("made up")), []);
    assert_eq!(questions(&mut stand), 1);
}

#[test]
fn while_keys_cannot_be_had_clients_come_back_later_and_known_ones_go_on() {
    let mut stand = stand();
    tell(&mut stand, Some(&[TestKey::rsa().jwk("k")]), false);
    assert_eq!(stand.hello(0, &connect("new")), []);
    assert_eq!(questions(&mut stand), 1);
    tell(&mut stand, None, true);
    assert_eq!(stand.heard(0), [unavailable()]);
    assert_eq!(stand.hello(1, &connect("new")), [unavailable()]);
    assert!(
        is_reply(&stand.hello(2, &connect("k")), 1),
        "the last good set stays"
    );
    assert_eq!(questions(&mut stand), 0);
    stand.advance(1001);
    assert_eq!(stand.hello(3, &connect("new")), []);
    assert_eq!(questions(&mut stand), 1);
}

#[test]
fn who_comes_after_the_question_is_not_answered_by_its_answer() {
    let mut stand = stand();
    let set = [TestKey::rsa().jwk("k")];
    assert_eq!(stand.hello(0, &connect("first")), []);
    assert_eq!(questions(&mut stand), 1);
    assert_eq!(stand.hello(1, &connect("second")), []);
    assert_eq!(questions(&mut stand), 0, "one question at a time");
    tell(&mut stand, Some(&set), true);
    assert_eq!(stand.heard(0), [Heard::Close(3500)]);
    assert_eq!(stand.heard(1), []);
    assert_eq!(questions(&mut stand), 1);
    let both = [TestKey::rsa().jwk("second")];
    tell(&mut stand, Some(&both), true);
    assert!(is_reply(&stand.heard(1), 1));
}

#[test]
fn a_flood_of_made_up_keys_is_answered_and_forgotten() {
    let mut stand = stand();
    tell(&mut stand, Some(&[TestKey::rsa().jwk("k")]), false);
    for slot in 0..1500 {
        assert_eq!(stand.hello(slot, &connect(&format!("made up {slot}"))), []);
        stand.control_heard();
    }
    // The first has asked, the others ask when it is answered.
    let set = [TestKey::rsa().jwk("k")];
    tell(&mut stand, Some(&set), true);
    tell(&mut stand, Some(&set), true);
    (0..100).for_each(|_| stand.tick());
    for slot in 0..1500 {
        assert_eq!(stand.heard(slot), [Heard::Close(3500)], "{slot}");
    }
    assert!(is_reply(&stand.hello(1600, &connect("k")), 1));
}
