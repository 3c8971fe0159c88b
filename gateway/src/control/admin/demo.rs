//! The demo page, under `--dev`: two tabs talk to each other through this node with the official JavaScript SDK.
//!
//! The page itself is part of the binary. The SDK is not ours: `scripts/fetch-demo` fetches it, it is read from disk when
//! asked for, and without it the page says so.

use super::super::Control;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The SDK's file in one of the directories.
const SDK: &str = "vendor/centrifuge.js";
/// The page runs nothing but what this port serves, and talks to nobody but this host.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws:; img-src 'self' data:; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'";

/// Where the demo's fetched files may be: `given`, then beside the executable, then the checkout it was built from.
pub fn candidates(given: Option<PathBuf>) -> Vec<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("demo")));
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    given.into_iter().chain(beside).chain([checkout]).collect()
}

pub(in super::super) fn router() -> Router<Control> {
    Router::new()
        .route(
            "/",
            get(|| async {
                page(
                    "text/html; charset=utf-8",
                    include_str!("../../../demo/index.html"),
                )
            }),
        )
        .route(
            "/demo/demo.css",
            get(|| async {
                page(
                    "text/css; charset=utf-8",
                    include_str!("../../../demo/demo.css"),
                )
            }),
        )
        .route(
            "/demo/demo.js",
            get(|| async { script(include_str!("../../../demo/demo.js")) }),
        )
        .route(
            "/demo/room.js",
            get(|| async { script(include_str!("../../../demo/room.js")) }),
        )
        .route(
            "/demo/view.js",
            get(|| async { script(include_str!("../../../demo/view.js")) }),
        )
        .route("/demo/centrifuge.js", get(sdk))
        .route("/demo/config.json", get(config))
}

fn page(content_type: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}

fn script(body: impl IntoResponse) -> Response {
    page("text/javascript; charset=utf-8", body)
}

async fn sdk(State(control): State<Control>) -> Response {
    match read_sdk(&control.0.options.demo_directories) {
        Some(text) => script(text),
        None => (
            StatusCode::NOT_FOUND,
            "the JavaScript SDK is missing: run scripts/fetch-demo\n",
        )
            .into_response(),
    }
}

/// 100 kB from the page cache, for a developer: reading it on this thread is no harm.
fn read_sdk(directories: &[PathBuf]) -> Option<String> {
    directories
        .iter()
        .find_map(|directory| std::fs::read_to_string(directory.join(SDK)).ok())
}

/// What the page must know before it connects.
#[derive(Serialize)]
struct PageConfig<'a> {
    /// The clients' port, on the host the page came from.
    port: u16,
    path: &'static str,
    node: &'a str,
    version: &'static str,
}

async fn config(State(control): State<Control>) -> Response {
    let config = control.config();
    Json(PageConfig {
        port: config.address.port(),
        path: "/connection/websocket",
        node: &config.node_name,
        version: env!("CARGO_PKG_VERSION"),
    })
    .into_response()
}
