use super::*;
use crate::stats::ShardStats;

fn stats(_: ShardId, request: &Request) -> Option<Response> {
    match request {
        Request::Stats => Some(Response::Stats(Box::new(ShardStats {
            connections: 3,
            users: 2,
            ..Default::default()
        }))),
        _ => None,
    }
}

#[tokio::test]
async fn ready_follows_the_phase() {
    let node = node(stats);
    assert_eq!(node.get("/readyz").await.0, StatusCode::OK);
    node.phase.send_replace(Phase::Draining);
    assert_eq!(
        node.get("/readyz").await,
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
    );
    node.phase.send_replace(Phase::Starting);
    assert_eq!(node.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(node.asked().is_empty(), "readiness asks no shard");
}

#[tokio::test]
async fn live_when_every_shard_answers() {
    let node = node(stats);
    assert_eq!(
        node.get("/livez").await,
        (StatusCode::OK, "ok\n".to_owned())
    );
    node.phase.send_replace(Phase::Draining);
    assert_eq!(node.get("/livez").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn dead_when_a_shard_is_silent_and_says_which() {
    let node = node(|shard, request| {
        if shard.0 == 1 {
            None
        } else {
            stats(shard, request)
        }
    });
    let (status, body) = node.get("/livez").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains('1'), "{body}");
}

#[tokio::test]
async fn metrics_come_from_every_shard() {
    let node = node(stats);
    node.call("publish", "{}").await;
    let request = axum::http::Request::get("/metrics")
        .body(Body::empty())
        .unwrap();
    let (status, headers, page) = node.request(request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "ringway_connections{shard=\"0\"} 3",
        "ringway_connections{shard=\"1\"} 3",
        "ringway_shard_up{shard=\"1\"} 1",
        "ringway_draining 0",
        "ringway_api_requests_total{method=\"publish\",code=\"107\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let node = node(stats);
    assert_eq!(node.get("/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        node.post("/readyz", "").await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        node.post("/metrics", "").await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn the_demo_page_tells_its_port_and_that_the_sdk_is_missing() {
    let node = node(stats);
    let (status, page) = node.get("/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.starts_with("<!doctype html>"));
    for path in page
        .split(['"', '\''])
        .filter(|text| text.starts_with("/demo/") && !text.ends_with("centrifuge.js"))
    {
        assert_eq!(node.get(path).await.0, StatusCode::OK, "{path}");
    }
    let config: serde_json::Value =
        serde_json::from_str(&node.get("/demo/config.json").await.1).unwrap();
    assert_eq!(config["port"], 8123);
    assert_eq!(config["path"], "/connection/websocket");
    let (status, text) = node.get("/demo/centrifuge.js").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("scripts/fetch-demo"), "{text}");
}

#[tokio::test]
async fn serves_a_listener_and_stops() {
    let node = node(stats);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = node.control.clone();
    let server = tokio::spawn(async move {
        control
            .serve(listener, async { stopped.await.unwrap_or(()) })
            .await
    });
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200 OK"));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}
