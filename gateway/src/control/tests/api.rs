use super::*;
use crate::protocol::centrifuge::publication::{
    ClientInfoRef, PublicationParts, append_offset, encode,
};
use crate::protocol::codes::ReplyError;
use serde_json::{Value, json};

/// A shard that answers every question.
pub(super) fn everything(shard: ShardId, request: &Request) -> Option<Response> {
    Some(match request {
        Request::Publish {
            skip_history: true, ..
        } => Response::Published { position: None },
        Request::Publish { channel, .. } if &**channel == "overloaded" => {
            Response::Failed(ReplyError::TOO_MANY_REQUESTS)
        }
        Request::Publish { channel, .. } if channel.starts_with("plain:") => {
            Response::Published { position: None }
        }
        Request::Publish { .. } => Response::Published {
            position: Some((5, "E".into())),
        },
        Request::History {
            since: Some((_, epoch)),
            ..
        } if epoch == "old" => Response::Failed(ReplyError::UNRECOVERABLE_POSITION),
        Request::History { .. } => {
            let mut publication = Vec::new();
            let info = ClientInfoRef {
                user: "u",
                client: "c",
                conn_info: br#"{"n":1}"#,
                chan_info: b"",
            };
            let data = br#"{"v":1}"#;
            let parts = PublicationParts {
                data,
                info: Some(info),
                tags: &[("k", "x")],
                ..Default::default()
            };
            encode(&mut publication, &parts);
            append_offset(&mut publication, 4);
            Response::History {
                publications: vec![publication.clone(), publication],
                offset: 4,
                epoch: "E".into(),
            }
        }
        Request::Presence { .. } => {
            let mut info = Vec::new();
            ClientInfoRef {
                user: "u",
                client: "c1",
                conn_info: br#"{"n":1}"#,
                chan_info: b"",
            }
            .encode(&mut info);
            Response::Presence {
                clients: vec![("c1".into(), info.clone()), ("c\"2".into(), info)],
            }
        }
        Request::PresenceStats { .. } => Response::PresenceStats {
            clients: 2,
            users: 1,
        },
        Request::Channels => Response::Channels {
            channels: vec![
                ("chat:1".into(), 2),
                (format!("only:{}", shard.0).into(), 1),
            ],
        },
        Request::Stats => Response::Stats(Box::new(crate::stats::ShardStats {
            connections: 10,
            users: 4,
            subscriptions: 20,
            homes: 3,
            ..Default::default()
        })),
        Request::UserStatus { user } if user == "gone" => Response::UserStatus {
            connections: 0,
            last_seen: Some(1_700_000_000),
        },
        Request::UserStatus { .. } => Response::UserStatus {
            connections: 2,
            last_seen: None,
        },
        Request::HistoryRemove { .. } => Response::HistoryRemoved { top: 7 },
        Request::HistoryForget { upto: 7, .. }
        | Request::Unsubscribe { .. }
        | Request::Disconnect { .. } => Response::Done { count: 1 },
        Request::HistoryForget { .. }
        | Request::Keys { .. }
        | Request::Drain { .. }
        | Request::Stop => return None,
    })
}

pub(super) fn error(code: u32, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

#[tokio::test]
async fn a_bad_or_missing_key_is_a_bare_401() {
    let node = node(everything);
    for (header, value) in [
        ("x-other", "dev"),
        ("x-api-key", "Dev"),
        ("authorization", "Bearer dev"),
        ("x-api-key", ""),
    ] {
        for path in ["/api/info", "/api/batch", "/api", "/api/nothing"] {
            let request = axum::http::Request::post(path)
                .header(header, value)
                .body(Body::from("{"))
                .unwrap();
            let (status, _, body) = node.request(request).await;
            assert_eq!(
                (status, body.as_str()),
                (StatusCode::UNAUTHORIZED, ""),
                "{header}: {value}"
            );
        }
    }
    assert!(node.asked().is_empty());
}

#[tokio::test]
async fn each_way_to_show_a_key_works() {
    let node = node(everything);
    for (path, header, value) in [
        ("/api/info", "x-api-key", "second"),
        ("/api/info", "authorization", "apikey dev"),
        ("/api/info?api_key=dev", "x-none", ""),
    ] {
        let request = axum::http::Request::post(path)
            .header(header, value)
            .body(Body::from("{}"))
            .unwrap();
        assert_eq!(
            node.request(request).await.0,
            StatusCode::OK,
            "{path} {header}"
        );
    }
}

#[tokio::test]
async fn malformed_json_is_a_400_in_plain_text() {
    let node = node(everything);
    for body in [
        "",
        "{",
        "[]x",
        r#"{"channel":5}"#,
        r#"{"channel":"a","data":}"#,
        "null",
    ] {
        let request = axum::http::Request::post("/api/publish")
            .header("X-API-Key", "dev")
            .body(Body::from(body))
            .unwrap();
        let (status, headers, _) = node.request(request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(
            headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn an_unknown_method_is_a_404_with_error_104() {
    let node = node(everything);
    let (status, body) = node.post("/api/nothing", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        error(104, "method not found")
    );
    let request = axum::http::Request::get("/api/info")
        .header("X-API-Key", "dev")
        .body(Body::empty())
        .unwrap();
    assert_eq!(
        node.request(request).await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn unsubscribe_tells_every_shard() {
    let node = node(everything);
    assert_eq!(
        node.call("unsubscribe", r#"{"user":"u","channel":"c"}"#)
            .await,
        json!({"result": {}})
    );
    assert_eq!(
        node.call("unsubscribe", r#"{"user":"u","client":"id"}"#)
            .await,
        json!({"result": {}})
    );
    let asked = node.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[..2].iter().all(|(_, request)| matches!(
        request, Request::Unsubscribe { user, channel: Some(channel), client: None } if user == "u" && &**channel == "c"
    )));
    assert!(
        matches!(&asked[2].1, Request::Unsubscribe { channel: None, client: Some(id), .. } if id == "id")
    );
    assert_eq!(
        node.call("unsubscribe", r#"{"channel":"c"}"#).await,
        error(107, "bad request")
    );
    assert_eq!(
        node.call("unsubscribe", r#"{"user":"u","channel":"no:1"}"#)
            .await,
        error(102, "unknown channel")
    );
}

#[tokio::test]
async fn disconnect_has_a_default_code_and_checks_a_given_one() {
    let node = node(everything);
    assert_eq!(
        node.call("disconnect", r#"{"user":"u"}"#).await,
        json!({"result": {}})
    );
    let body = r#"{"user":"u","whitelist":["w"],"disconnect":{"code":4500,"reason":"banned"}}"#;
    assert_eq!(node.call("disconnect", body).await, json!({"result": {}}));
    let asked = node.asked();
    assert_eq!(asked.len(), 4);
    assert!(
        matches!(&asked[0].1, Request::Disconnect { code: 3503, reason, .. } if reason == "force disconnect")
    );
    let Request::Disconnect {
        code: 4500,
        reason,
        whitelist,
        ..
    } = &asked[2].1
    else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (reason.as_str(), whitelist.as_slice()),
        ("banned", &["w".to_owned()][..])
    );
    for bad in [
        r#"{"disconnect":{"code":4000}}"#,
        r#"{"user":"u","disconnect":{"code":2999}}"#,
        r#"{"user":"u","disconnect":{"code":5000}}"#,
        r#"{"user":"u","disconnect":{"code":4000,"reason":"123"}}"#,
        r#"{"user":"u","disconnect":{"code":4000,"reason":"a reason that is longer than 32 bytes"}}"#,
    ] {
        assert_eq!(
            node.call("disconnect", bad).await,
            error(107, "bad request"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn presence_and_its_numbers() {
    let node = node(everything);
    let info = json!({"user": "u", "client": "c1", "conn_info": {"n": 1}});
    assert_eq!(
        node.call("presence", r#"{"channel":"room"}"#).await,
        json!({"result": {"presence": {"c1": info, "c\"2": info}}})
    );
    assert_eq!(
        node.call("presence_stats", r#"{"channel":"room"}"#).await,
        json!({"result": {"num_clients": 2, "num_users": 1}})
    );
    for method in ["presence", "presence_stats"] {
        assert_eq!(
            node.call(method, r#"{"channel":"plain:1"}"#).await,
            error(108, "not available")
        );
        assert_eq!(
            node.call(method, r#"{"channel":"nowhere:1"}"#).await,
            error(102, "unknown channel")
        );
        assert_eq!(node.call(method, "{}").await, error(107, "bad request"));
    }
}

#[tokio::test]
async fn history_shows_publications_and_the_position() {
    let node = node(everything);
    let publication = json!({"data": {"v": 1}, "info": {"user": "u", "client": "c", "conn_info": {"n": 1}}, "offset": 4, "tags": {"k": "x"}});
    assert_eq!(
        node.call("history", r#"{"channel":"room","limit":-1}"#)
            .await,
        json!({"result": {"publications": [publication, publication], "epoch": "E", "offset": 4}})
    );
    node.call("history", r#"{"channel":"room"}"#).await;
    let body = r#"{"channel":"room","limit":2,"since":{"offset":3,"epoch":"E"},"reverse":true}"#;
    node.call("history", body).await;
    let asked = node.asked();
    assert!(matches!(
        asked[0].1,
        Request::History {
            limit: None,
            since: None,
            reverse: false,
            ..
        }
    ));
    assert!(matches!(
        asked[1].1,
        Request::History { limit: Some(0), .. }
    ));
    assert!(
        matches!(&asked[2].1, Request::History { limit: Some(2), since: Some((3, epoch)), reverse: true, .. } if epoch == "E")
    );
    let old = r#"{"channel":"room","limit":1,"since":{"offset":3,"epoch":"old"}}"#;
    assert_eq!(
        node.call("history", old).await,
        error(112, "unrecoverable position")
    );
    assert_eq!(
        node.call("history", r#"{"channel":"plain:1"}"#).await,
        error(108, "not available")
    );
}

#[tokio::test]
async fn history_remove_has_an_empty_result() {
    let node = node(everything);
    assert_eq!(
        node.call("history_remove", r#"{"channel":"room"}"#).await,
        json!({"result": {}})
    );
    assert_eq!(
        node.call("history_remove", r#"{"channel":"plain:1"}"#)
            .await,
        error(108, "not available")
    );
}

#[tokio::test]
async fn channels_are_summed_over_shards_and_filtered() {
    let node = node(everything);
    assert_eq!(
        node.call("channels", "{}").await,
        json!({"result": {"channels": {
            "chat:1": {"num_clients": 4}, "only:0": {"num_clients": 1}, "only:1": {"num_clients": 1}
        }}})
    );
    assert_eq!(
        node.call("channels", r#"{"pattern":"chat:*"}"#).await,
        json!({"result": {"channels": {"chat:1": {"num_clients": 4}}}})
    );
    assert_eq!(
        node.call("channels", r#"{"pattern":"[x"}"#).await,
        error(107, "bad request")
    );
}

#[tokio::test]
async fn info_describes_the_node() {
    let node = node(everything);
    let answer = node.call("info", "{}").await;
    let [node] = answer["result"]["nodes"].as_array().unwrap().as_slice() else {
        panic!("{answer}")
    };
    for (field, value) in [
        ("num_clients", 20),
        ("num_users", 8),
        ("num_subs", 40),
        ("num_channels", 6),
    ] {
        assert_eq!(node[field], value, "{field}");
    }
    assert_eq!(node["uid"], "uid-1");
    assert_eq!(node["name"], "node-a");
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert!(node["uptime"].is_u64());
    assert!(node["process"]["rss"].as_u64().unwrap() > 0);
    assert!(node["process"]["cpu"].is_f64());
}

#[tokio::test]
async fn user_status_tells_connections_and_last_seen() {
    let node = node(everything);
    assert_eq!(
        node.call("user_status", r#"{"user":"u1"}"#).await,
        json!({"result": {"connections": 2}})
    );
    assert_eq!(node.asked()[0].0, ShardId(1), "the user's home");
    assert_eq!(
        node.call("user_status", r#"{"user":"gone"}"#).await,
        json!({"result": {"connections": 0, "last_seen": 1_700_000_000}})
    );
    assert_eq!(
        node.call("user_status", "{}").await,
        error(107, "bad request")
    );
}

#[tokio::test]
async fn the_transport_error_mode_turns_errors_into_statuses() {
    let node = node(everything);
    for (path, body, status, code) in [
        (
            "/api/publish",
            r#"{"channel":"nowhere:1","data":1}"#,
            404,
            102,
        ),
        ("/api/publish", "{}", 400, 107),
        ("/api/history", r#"{"channel":"plain:1"}"#, 400, 108),
        (
            "/api/publish",
            r#"{"channel":"overloaded","data":1}"#,
            429,
            111,
        ),
        (
            "/api/history",
            r#"{"channel":"c","since":{"offset":1,"epoch":"old"}}"#,
            416,
            112,
        ),
        ("/api/nothing", "{}", 404, 104),
    ] {
        let request = axum::http::Request::post(path)
            .header("X-API-Key", "dev")
            .header("X-Centrifugo-Error-Mode", "transport")
            .body(Body::from(body))
            .unwrap();
        let (got, _, text) = node.request(request).await;
        assert_eq!(got.as_u16(), status, "{body}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["code"], code);
        assert!(
            json["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        assert_eq!(json.as_object().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_batch_runs_in_order_and_answers_each() {
    let node = node(everything);
    let body = r#"{"commands":[{"publish":{"channel":"a","data":1}},{"nothing":{}},{"publish":{"channel":7}},
        {"presence_stats":{"channel":"a"}},{}],"parallel":true}"#;
    assert_eq!(
        node.call("batch", body).await,
        json!({"replies": [
            {"publish": {"offset": 5, "epoch": "E"}},
            error(104, "method not found"),
            error(107, "bad request"),
            {"presence_stats": {"num_clients": 2, "num_users": 1}},
            error(104, "method not found"),
        ]})
    );
    assert_eq!(
        node.post("/api/batch", "{").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_older_route_takes_a_command_a_line() {
    let node = node(everything);
    let body = "{\"method\":\"publish\",\"params\":{\"channel\":\"a\",\"data\":1}}\n{\"method\":\"nothing\"}";
    let (status, text) = node.post("/api", body).await;
    assert_eq!(status, StatusCode::OK);
    let replies: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        replies,
        [
            json!({"result": {"offset": 5, "epoch": "E"}}),
            error(104, "method not found")
        ]
    );
    assert_eq!(
        node.post("/api", "{\"method\":\"info\"}\n{").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(node.post("/api", "").await.0, StatusCode::BAD_REQUEST);
}
