//! Several commands in one request: `POST /api/batch`, and the older `POST /api` with a command a line.
//!
//! Commands run one after the other, in order, also when `parallel` is asked for.

use super::super::Control;
use super::{Failure, dispatch, error_json, json, malformed, push_json, wrap};
use crate::protocol::codes::ReplyError;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Batch {
    /// Each with one entry: the method and its parameters.
    commands: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// Errors of commands stand in their replies, whatever the error mode: the batch itself went well.
pub(super) async fn batch(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    let Batch { commands } = match serde_json::from_slice(&body) {
        Ok(batch) => batch,
        Err(error) => return malformed(&error),
    };
    let mut replies = b"{\"replies\":[".to_vec();
    for (i, command) in commands.iter().enumerate() {
        if i > 0 {
            replies.push(b',');
        }
        let outcome = match command.first_key_value() {
            Some((method, params)) => dispatch(&control, method, params.get().as_bytes())
                .await
                .map(|result| [&b"{"[..], &name(method), b":", &result, b"}"].concat()),
            None => Err(Failure::Unknown),
        };
        match outcome {
            Ok(reply) => replies.extend_from_slice(&reply),
            Err(failure) => replies.extend_from_slice(&failed(failure)),
        }
    }
    replies.extend_from_slice(b"]}");
    json(StatusCode::OK, replies)
}

#[derive(Deserialize)]
struct Command {
    method: String,
    params: Option<Box<RawValue>>,
}

pub(super) async fn legacy(
    State(control): State<Control>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    // All are parsed before the first one runs: a malformed line must not leave a half-done request behind.
    let commands: Vec<Command> = match serde_json::Deserializer::from_slice(&body)
        .into_iter()
        .collect::<Result<_, _>>()
    {
        Ok(commands) => commands,
        Err(error) => return malformed(&error),
    };
    if commands.is_empty() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let mut replies = Vec::new();
    for (i, Command { method, params }) in commands.iter().enumerate() {
        if i > 0 {
            replies.push(b'\n');
        }
        let params = params.as_ref().map_or("{}", |params| params.get());
        match dispatch(&control, method, params.as_bytes()).await {
            Ok(result) => replies.extend_from_slice(&wrap(b"{\"result\":", &result)),
            Err(failure) => replies.extend_from_slice(&failed(failure)),
        }
    }
    json(StatusCode::OK, replies)
}

fn failed(failure: Failure) -> Vec<u8> {
    let error = match failure {
        Failure::Refused(error) => error,
        Failure::Malformed(_) => ReplyError::BAD_REQUEST,
        Failure::Unknown => ReplyError::METHOD_NOT_FOUND,
    };
    wrap(b"{\"error\":", &error_json(error))
}

fn name(method: &str) -> Vec<u8> {
    let mut json = Vec::new();
    push_json(&mut json, &method);
    json
}
