//! The server API: `POST /api/{method}`, compatible with Centrifugo's.
//!
//! A bad key gets a bare 401, malformed JSON a 400. Everything else is a 200 with `{"result": …}` or
//! `{"error": {"code": …, "message": …}}`; a caller that prefers HTTP statuses sends `X-Centrifugo-Error-Mode: transport`.
//! Unknown fields of a request are ignored, a `null` is as good as an absent field.

pub mod glob;
pub mod idempotency;

mod batch;
mod channels;
mod key;
mod node;
mod publish;
mod record;
mod users;

use super::{Control, lock};
use crate::config::ChannelOptions;
use crate::hub::message::Response as Answer;
use crate::protocol::channel::{ChannelName, ChannelNameError};
use crate::protocol::codes::ReplyError;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;

/// What a request body may hold beside one publication of the largest size, bytes.
const BODY_EXTRA: usize = 1 << 20;

/// Every method, as a label of metrics.
const METHODS: [&str; 11] = [
    "publish",
    "broadcast",
    "unsubscribe",
    "disconnect",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "user_status",
];

/// Why there is no result.
#[derive(Debug)]
enum Failure {
    /// The body is not the JSON the method asks for.
    Malformed(serde_json::Error),
    /// The method said no.
    Refused(ReplyError),
    /// There is no such method.
    Unknown,
}

impl From<ReplyError> for Failure {
    fn from(error: ReplyError) -> Self {
        Self::Refused(error)
    }
}

/// A result as JSON, or why there is none.
type Outcome = Result<Vec<u8>, Failure>;

pub(super) fn router(control: &Control) -> Router<Control> {
    // Base64 makes 4 bytes of 3.
    let body_max = control.config().limits.publication_bytes as usize / 3 * 4 + BODY_EXTRA;
    Router::new()
        .route("/api", post(batch::legacy))
        .route("/api/batch", post(batch::batch))
        .route("/api/{method}", post(call))
        .layer(DefaultBodyLimit::max(body_max))
        .route_layer(middleware::from_fn_with_state(control.clone(), key::check))
}

async fn call(
    State(control): State<Control>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return rejection.into_response(),
    };
    respond(
        dispatch(&control, &method, &body).await,
        wants_transport_errors(&headers),
    )
}

/// Runs one method on its JSON parameters and counts it.
async fn dispatch(control: &Control, method: &str, params: &[u8]) -> Outcome {
    let outcome = run(control, method, params).await;
    if let Some(method) = METHODS.into_iter().find(|known| *known == method) {
        let code = match &outcome {
            Ok(_) => 0,
            Err(Failure::Malformed(_)) => 400,
            Err(Failure::Refused(error)) => error.code,
            Err(Failure::Unknown) => ReplyError::METHOD_NOT_FOUND.code,
        };
        *lock(&control.0.requests).entry((method, code)).or_insert(0) += 1;
    }
    outcome
}

async fn run(control: &Control, method: &str, params: &[u8]) -> Outcome {
    match method {
        "publish" => publish::publish(control, parse(params)?).await,
        "broadcast" => publish::broadcast(control, parse(params)?).await,
        "unsubscribe" => users::unsubscribe(control, parse(params)?).await,
        "disconnect" => users::disconnect(control, parse(params)?).await,
        "user_status" => users::status(control, parse(params)?).await,
        "presence" => channels::presence(control, parse(params)?).await,
        "presence_stats" => channels::presence_stats(control, parse(params)?).await,
        "history" => channels::history(control, parse(params)?).await,
        "history_remove" => channels::history_remove(control, parse(params)?).await,
        "channels" => channels::channels(control, parse(params)?).await,
        "info" => node::info(control, parse(params)?).await,
        _ => Err(Failure::Unknown),
    }
}

fn parse<T: DeserializeOwned>(params: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(params).map_err(Failure::Malformed)
}

/// Reads a field whose `null` means what its absence means.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn to_json(result: &impl Serialize) -> Outcome {
    serde_json::to_vec(result).map_err(|error| {
        tracing::error!(%error, "an API result cannot be written as JSON");
        ReplyError::INTERNAL.into()
    })
}

/// `{}`: done, nothing to say.
fn empty() -> Outcome {
    Ok(b"{}".to_vec())
}

/// A shard's answer of the wrong kind is a bug; one that failed says why.
fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Failed(error) => error.into(),
        answer => {
            tracing::error!(?answer, "a shard answered another question");
            ReplyError::INTERNAL.into()
        }
    }
}

impl Control {
    /// A channel's name, checked, and the options of its namespace.
    fn channel(&self, name: &str) -> Result<(Arc<str>, &ChannelOptions), ReplyError> {
        let channels = &self.config().channels;
        let parsed = ChannelName::parse(name).map_err(ChannelNameError::reply)?;
        let namespace = channels
            .find(parsed.namespace())
            .ok_or(ReplyError::UNKNOWN_CHANNEL)?;
        Ok((Arc::from(name), channels.options(namespace)))
    }
}

/// An error as the API shows it.
#[derive(Serialize)]
struct ErrorBody {
    code: u32,
    message: &'static str,
}

impl From<ReplyError> for ErrorBody {
    fn from(error: ReplyError) -> Self {
        Self {
            code: error.code,
            message: error.message,
        }
    }
}

fn wants_transport_errors(headers: &HeaderMap) -> bool {
    headers
        .get("x-centrifugo-error-mode")
        .is_some_and(|mode| mode.as_bytes() == b"transport")
}

fn respond(outcome: Outcome, transport_errors: bool) -> Response {
    match outcome {
        Ok(result) => json(StatusCode::OK, wrap(b"{\"result\":", &result)),
        Err(Failure::Malformed(error)) => malformed(&error),
        Err(Failure::Refused(error)) if transport_errors => {
            json(transport_status(error.code), error_json(error))
        }
        Err(Failure::Refused(error)) => {
            json(StatusCode::OK, wrap(b"{\"error\":", &error_json(error)))
        }
        Err(Failure::Unknown) => {
            let error = error_json(ReplyError::METHOD_NOT_FOUND);
            let body = if transport_errors {
                error
            } else {
                wrap(b"{\"error\":", &error)
            };
            json(StatusCode::NOT_FOUND, body)
        }
    }
}

/// The body is not JSON, or not of the right shape. The words say where; they quote nothing.
fn malformed(error: &serde_json::Error) -> Response {
    tracing::debug!(%error, "malformed API request");
    (
        StatusCode::BAD_REQUEST,
        format!("malformed JSON: {error}\n"),
    )
        .into_response()
}

/// The status of an error for callers that asked for one.
fn transport_status(code: u32) -> StatusCode {
    match code {
        102 | 104 => StatusCode::NOT_FOUND,
        107 | 108 => StatusCode::BAD_REQUEST,
        111 => StatusCode::TOO_MANY_REQUESTS,
        112 => StatusCode::RANGE_NOT_SATISFIABLE,
        113 => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn error_json(error: ReplyError) -> Vec<u8> {
    let mut json = Vec::with_capacity(64);
    push_json(&mut json, &ErrorBody::from(error));
    json
}

/// Appends a value that always has a JSON form: numbers and strings.
fn push_json(json: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(json, value).expect("plain values always serialise");
}

fn wrap(open: &[u8], json: &[u8]) -> Vec<u8> {
    [open, json, b"}"].concat()
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
