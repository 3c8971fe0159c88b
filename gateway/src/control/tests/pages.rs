//! Web pages of elsewhere, at the internal port.

use super::*;

async fn asked_by(node: &Node, method: &str, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    let mut request = axum::http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    node.request(request.body(Body::from("{}")).unwrap())
        .await
        .0
}

fn info(_: ShardId, _: &Request) -> Option<Response> {
    None
}

#[tokio::test]
async fn a_rebound_name_reads_nothing() {
    let node = node(info);
    let name = ("Host", "evil.example:9000");
    for path in ["/readyz", "/metrics", "/", "/demo/config.json", "/nothing"] {
        assert_eq!(
            asked_by(&node, "GET", path, &[name]).await,
            StatusCode::FORBIDDEN
        );
    }
    // Neither does one that knows the key, as everybody knows that of `--dev`.
    let with_key = [
        name,
        ("Origin", "http://evil.example:9000"),
        ("X-API-Key", "dev"),
    ];
    assert_eq!(
        asked_by(&node, "POST", "/api/publish", &with_key).await,
        StatusCode::FORBIDDEN
    );
    let whole = "http://evil.example:9000/readyz";
    assert_eq!(
        asked_by(&node, "GET", whole, &[("Host", "127.0.0.1")]).await,
        StatusCode::FORBIDDEN
    );
    for host in ["127.0.0.1:9000", "localhost:9000", "[::1]:9000"] {
        assert_eq!(
            asked_by(&node, "GET", "/readyz", &[("Host", host)]).await,
            StatusCode::OK
        );
    }
    assert_eq!(asked_by(&node, "GET", "/readyz", &[]).await, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_send_a_form() {
    let node = node(info);
    let host = ("Host", "127.0.0.1:9000");
    let form = "/api/publish?api_key=dev";
    for origin in [
        "https://evil.example",
        "http://127.0.0.1:8080",
        "http://localhost:9000",
        "null",
        "",
    ] {
        let headers = [host, ("Origin", origin), ("Content-Type", "text/plain")];
        assert_eq!(
            asked_by(&node, "POST", form, &headers).await,
            StatusCode::FORBIDDEN,
            "{origin}"
        );
    }
    assert!(node.asked().is_empty());
    // A backend has no origin; and a page of this port is at home.
    assert_eq!(asked_by(&node, "POST", form, &[host]).await, StatusCode::OK);
    let own = [host, ("Origin", "http://127.0.0.1:9000")];
    assert_eq!(asked_by(&node, "POST", form, &own).await, StatusCode::OK);
}

#[tokio::test]
async fn a_port_that_others_reach_is_asked_by_any_name() {
    let mut config = config();
    config.internal_address = "0.0.0.0:9000".parse().unwrap();
    let node = node_with_config(config, 64, info);
    let name = ("Host", "ringway.internal:9000");
    assert_eq!(
        asked_by(&node, "GET", "/readyz", &[name]).await,
        StatusCode::OK
    );
    let page = [name, ("Origin", "https://evil.example")];
    assert_eq!(
        asked_by(&node, "POST", "/api/publish?api_key=dev", &page).await,
        StatusCode::FORBIDDEN
    );
}
