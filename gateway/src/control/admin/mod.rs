//! Health: `/livez` (the process works: every shard answers) and `/readyz` (send clients here).

pub mod demo;

use super::{Control, Phase};
use crate::backplane::Backplane;
use crate::hub::message::{Request, Response};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::time::Duration;

/// How long a shard may take to answer before the node is called dead. A shard answers between slices of work, so this is
/// thousands of times what a healthy one needs.
const LIVE_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn router() -> Router<Control> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

async fn livez(State(control): State<Control>) -> impl IntoResponse {
    let answers = control
        .shards()
        .ask_all_within(&Request::Stats, LIVE_PATIENCE)
        .await;
    let silent: Vec<usize> = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| matches!(answer, Response::Failed(_)))
        .map(|(shard, _)| shard)
        .collect();
    if silent.is_empty() {
        plain(StatusCode::OK, "ok\n".to_owned())
    } else {
        plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("no answer from shards {silent:?} in {LIVE_PATIENCE:?}\n"),
        )
    }
}

async fn readyz(State(control): State<Control>) -> impl IntoResponse {
    match control.phase() {
        Phase::Ready => match control.shards().backplane().map(Backplane::condition) {
            Some(condition) if !condition.delivers => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                match condition.is_connected {
                    true => "the backplane is connected but delivers nothing\n".to_owned(),
                    false => "the backplane is not connected\n".to_owned(),
                },
            ),
            _ => plain(StatusCode::OK, "ok\n".to_owned()),
        },
        Phase::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()),
        Phase::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
    }
}

fn plain(status: StatusCode, text: String) -> impl IntoResponse {
    (
        status,
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
}
