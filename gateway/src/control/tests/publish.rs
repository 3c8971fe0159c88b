use super::api::{error, everything};
use super::*;
use crate::protocol::centrifuge::publication::PublicationView;
use serde_json::json;

/// The only publication that was asked for: channel, data, whether it is known to be JSON.
fn published(node: &Node) -> (String, Vec<u8>, bool) {
    match node.asked().as_slice() {
        [
            (
                _,
                Request::Publish {
                    channel,
                    publication,
                    json,
                    ..
                },
            ),
        ] => {
            let view = PublicationView::parse(publication).unwrap();
            (channel.to_string(), view.data().to_vec(), *json)
        }
        asked => panic!("{asked:?}"),
    }
}

#[tokio::test]
async fn publish_takes_the_data_as_it_is_written() {
    let node = node(everything);
    let body = "{\"channel\":\"news\",\"data\":{\"b\":1.0e0,\n\"a\": \"x\\n\"},\"unknown\":[1]}";
    assert_eq!(
        node.call("publish", body).await,
        json!({"result": {"offset": 5, "epoch": "E"}})
    );
    assert_eq!(
        published(&node),
        (
            "news".into(),
            b"{\"b\":1.0e0, \"a\": \"x\\n\"}".to_vec(),
            true
        )
    );
}

#[tokio::test]
async fn publish_without_history_has_an_empty_result() {
    let node = node(everything);
    let body = r#"{"channel":"plain:1","data":null,"tags":null}"#;
    assert_eq!(node.call("publish", body).await, json!({"result": {}}));
    assert_eq!(published(&node), ("plain:1".into(), b"null".to_vec(), true));
    assert_eq!(node.asked()[0].0, ShardId(1), "its home");
}

#[tokio::test]
async fn publish_takes_base64_tags_key_and_skip_history() {
    let node = node(everything);
    let body = r#"{"channel":"c","b64data":"/wA=","tags":{"b":"2","a":"1"},"key":"k","skip_history":true}"#;
    assert_eq!(node.call("publish", body).await, json!({"result": {}}));
    let asked = node.asked();
    let [
        (
            _,
            Request::Publish {
                publication,
                json: false,
                skip_history: true,
                ..
            },
        ),
    ] = asked.as_slice()
    else {
        panic!("{asked:?}")
    };
    let view = PublicationView::parse(publication).unwrap();
    assert_eq!(
        (view.data(), view.key(), view.offset()),
        (&[0xff, 0][..], "k", 0)
    );
    assert_eq!(view.tags().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
}

#[tokio::test]
async fn base64_that_holds_json_is_json() {
    let node = node(everything);
    node.call("publish", r#"{"channel":"c","b64data":"eyJhIjoKMX0="}"#)
        .await;
    assert_eq!(
        published(&node),
        ("c".into(), br#"{"a": 1}"#.to_vec(), true)
    );
}

#[tokio::test]
async fn publish_refuses_what_is_not_right() {
    let node = node(everything);
    let large = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(1023));
    let long_name = format!(r#"{{"channel":"{}","data":1}}"#, "x".repeat(256));
    for (body, expected) in [
        (r#"{"data":1}"#, error(107, "bad request")),
        (r#"{"channel":"c"}"#, error(107, "bad request")),
        (
            r#"{"channel":"c","b64data":"*"}"#,
            error(107, "bad request"),
        ),
        (large.as_str(), error(107, "bad request")),
        (long_name.as_str(), error(107, "bad request")),
        (
            r#"{"channel":"nowhere:1","data":1}"#,
            error(102, "unknown channel"),
        ),
    ] {
        assert_eq!(node.call("publish", body).await, expected, "{body}");
    }
    assert!(node.asked().is_empty());
    let largest = format!(r#"{{"channel":"c","data":"{}"}}"#, "x".repeat(1022));
    assert!(node.call("publish", &largest).await["result"].is_object());
    assert_eq!(
        node.call("publish", r#"{"channel":"overloaded","data":1}"#)
            .await,
        error(111, "too many requests")
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413() {
    let node = node(everything);
    assert_eq!(
        node.post("/api/publish", vec![b' '; 3 << 20]).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn an_idempotency_key_publishes_once_a_channel() {
    let node = node(everything);
    let body =
        |channel: &str| format!(r#"{{"channel":"{channel}","data":1,"idempotency_key":"k"}}"#);
    let first = node.call("publish", &body("a")).await;
    let (again, at_the_same_time) = (body("a"), body("a"));
    let (second, third) = tokio::join!(
        node.call("publish", &again),
        node.call("publish", &at_the_same_time)
    );
    assert_eq!((&second, &third), (&first, &first));
    assert_eq!(node.asked().len(), 1);
    node.call("publish", &body("b")).await;
    assert_eq!(node.asked().len(), 2);
}

#[tokio::test]
async fn a_failed_publish_may_be_tried_again_with_its_key() {
    let node = node(everything);
    let body = r#"{"channel":"overloaded","data":1,"idempotency_key":"k"}"#;
    for times in 1..=2 {
        assert_eq!(
            node.call("publish", body).await,
            error(111, "too many requests")
        );
        assert_eq!(node.asked().len(), times);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_lose_its_key() {
    let node = node(everything);
    let body = r#"{"channel":"a","data":1,"idempotency_key":"k"}"#;
    let control = node.control.clone();
    let call = tokio::spawn(async move {
        let request = axum::http::Request::post("/api/publish")
            .header("X-API-Key", "dev")
            .body(Body::from(body))
            .unwrap();
        control.router().oneshot(request).await
    });
    // Up to its first wait, then never again.
    tokio::task::yield_now().await;
    call.abort();
    assert_eq!(
        node.call("publish", body).await,
        json!({"result": {"offset": 5, "epoch": "E"}})
    );
    assert_eq!(node.asked().len(), 1);
}

#[tokio::test]
async fn broadcast_answers_for_each_channel_in_order() {
    let node = node(everything);
    let body = r#"{"channels":["a","nowhere:1","plain:1","overloaded",""],"data":{"x":1}}"#;
    assert_eq!(
        node.call("broadcast", body).await,
        json!({"result": {"responses": [
            {"result": {"offset": 5, "epoch": "E"}},
            error(102, "unknown channel"),
            {"result": {}},
            error(111, "too many requests"),
            error(107, "bad request"),
        ]}})
    );
    let many: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    let body = json!({"channels": many, "data": 1}).to_string();
    let answer = node.call("broadcast", &body).await;
    assert_eq!(answer["result"]["responses"].as_array().unwrap().len(), 500);
    assert_eq!(node.asked().len(), 503);
    assert_eq!(
        node.call("broadcast", r#"{"channels":[],"data":1}"#).await,
        error(107, "bad request")
    );
    let twice = r#"{"channels":["z","z"],"data":1,"idempotency_key":"k"}"#;
    assert_eq!(
        node.call("broadcast", twice).await["result"]["responses"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(node.asked().len(), 504, "the same key in the same channel");
}
