//! `publish` and `broadcast`.

use super::super::Control;
use super::super::lock;
use super::super::peers::{PATIENCE, Pending};
use super::idempotency::{Claim, Published};
use super::{ErrorBody, Outcome, or_default, record, to_json};
use crate::backplane::Asker;
use crate::hub::message::{Request, Response};
use crate::protocol::centrifuge::json;
use crate::protocol::codes::ReplyError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Channels of one broadcast under way at a time: enough to keep every shard busy, few enough to bound the copies.
const BROADCAST_WIDTH: usize = 64;

/// Parameters of both methods: `publish` uses `channel`, `broadcast` uses `channels`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Params {
    #[serde(deserialize_with = "or_default")]
    channel: String,
    #[serde(deserialize_with = "or_default")]
    channels: Vec<String>,
    #[serde(deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(deserialize_with = "or_default")]
    b64data: String,
    #[serde(deserialize_with = "or_default")]
    tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    key: String,
    #[serde(deserialize_with = "or_default")]
    skip_history: bool,
    #[serde(deserialize_with = "or_default")]
    idempotency_key: String,
}

/// Reads `data`, where `null` is a value like any other.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// What is the same for every channel of a request.
#[derive(Clone)]
struct Prepared {
    publication: Vec<u8>,
    json: bool,
    skip_history: bool,
    idempotency_key: String,
}

#[derive(Serialize)]
struct PublishResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
}

impl From<Option<(u64, Arc<str>)>> for PublishResult {
    fn from(position: Option<(u64, Arc<str>)>) -> Self {
        let (offset, epoch) = position.unzip();
        Self {
            offset,
            epoch: epoch.map(|epoch| epoch.to_string()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum BroadcastResponse {
    Result(PublishResult),
    Error(ErrorBody),
}

#[derive(Serialize)]
struct BroadcastResult {
    responses: Vec<BroadcastResponse>,
}

pub(super) async fn publish(control: &Control, params: Params) -> Outcome {
    let prepared = prepare(control, &params)?;
    let position = begin(control, &params.channel, &prepared)
        .await
        .finish()
        .await?;
    to_json(&PublishResult::from(position))
}

pub(super) async fn broadcast(control: &Control, params: Params) -> Outcome {
    if params.channels.is_empty() {
        return Err(ReplyError::BAD_REQUEST.into());
    }
    let prepared = prepare(control, &params)?;
    let mut responses = Vec::with_capacity(params.channels.len());
    for channels in params.channels.chunks(BROADCAST_WIDTH) {
        let mut begun = Vec::with_capacity(channels.len());
        for channel in channels {
            begun.push(begin(control, channel, &prepared).await);
        }
        for one in begun {
            responses.push(match one.finish().await {
                Ok(position) => BroadcastResponse::Result(position.into()),
                Err(error) => BroadcastResponse::Error(error.into()),
            });
        }
    }
    to_json(&BroadcastResult { responses })
}

fn prepare(control: &Control, params: &Params) -> Result<Prepared, ReplyError> {
    let (data, json) = if !params.b64data.is_empty() {
        let mut data = STANDARD
            .decode(&params.b64data)
            .map_err(|_| ReplyError::BAD_REQUEST)?;
        let json = json::is_valid(&data);
        if json {
            newlines_to_spaces(&mut data);
        }
        (data, json)
    } else if let Some(data) = &params.data {
        let mut data = data.get().as_bytes().to_vec();
        newlines_to_spaces(&mut data);
        (data, true)
    } else {
        (Vec::new(), false)
    };
    if data.is_empty() || data.len() > control.config().limits.publication_bytes as usize {
        return Err(ReplyError::BAD_REQUEST);
    }
    Ok(Prepared {
        publication: record::encode(&data, &params.tags, &params.key),
        json,
        skip_history: params.skip_history,
        idempotency_key: params.idempotency_key.clone(),
    })
}

/// In valid JSON a raw newline is only ever whitespace, and the client protocol needs it for framing.
fn newlines_to_spaces(json: &mut [u8]) {
    for byte in json {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// A publish that was handed to the channel's home, or was refused before.
enum Begun {
    Over(Published),
    Sent(Sent),
    /// One with an idempotency key: made by a task of its own, which outlives a caller that hangs up.
    Shared(watch::Receiver<Option<Published>>, Instant),
}

impl Begun {
    async fn finish(self) -> Published {
        match self {
            Self::Over(published) => published,
            Self::Sent(sent) => sent.answer().await,
            Self::Shared(mut answer, deadline) => {
                // A late answer is still remembered: the caller that tries again will find it.
                match tokio::time::timeout_at(deadline, answer.wait_for(Option::is_some)).await {
                    Ok(Ok(answer)) => answer.clone().unwrap_or(Err(ReplyError::INTERNAL)),
                    Ok(Err(_)) | Err(_) => Err(ReplyError::INTERNAL),
                }
            }
        }
    }
}

/// A publication that was handed on.
enum Sent {
    /// To its channel's home.
    Home(Pending),
    /// To the other nodes.
    Linked(oneshot::Receiver<Result<(), ReplyError>>),
}

impl Sent {
    async fn answer(self) -> Published {
        match self {
            Self::Home(pending) => published(pending.answer().await),
            Self::Linked(told) => told
                .await
                .unwrap_or(Err(ReplyError::INTERNAL))
                .map(|()| None),
        }
    }
}

async fn send(
    control: &Control,
    (channel, is_linked): (Arc<str>, bool),
    prepared: &Prepared,
    patience: Duration,
) -> Sent {
    let shards = control.shards();
    let publication = prepared.publication.clone();
    if is_linked && let Some(backplane) = shards.backplane() {
        let (told, outcome) = oneshot::channel();
        return Sent::Linked(
            match backplane.publish(&channel, publication, Asker::Caller(told)) {
                Ok(()) => outcome,
                Err(error) => refused(error),
            },
        );
    }
    let home = shards.home_of(&channel);
    let request = Request::Publish {
        channel,
        publication,
        json: prepared.json,
        skip_history: prepared.skip_history,
    };
    Sent::Home(shards.start_within(home, request, patience).await)
}

fn refused(error: ReplyError) -> oneshot::Receiver<Result<(), ReplyError>> {
    let (told, outcome) = oneshot::channel();
    let _ = told.send(Err(error));
    outcome
}

fn published(answer: Response) -> Published {
    match answer {
        Response::Published { position } => Ok(position),
        Response::Failed(error) => Err(error),
        answer => {
            tracing::error!(?answer, "a shard answered another question");
            Err(ReplyError::INTERNAL)
        }
    }
}

async fn begin(control: &Control, channel: &str, prepared: &Prepared) -> Begun {
    let channel = match control.channel(channel) {
        Ok((channel, options)) => (channel, control.config().links(options)),
        Err(error) => return Begun::Over(Err(error)),
    };
    if prepared.idempotency_key.is_empty() {
        return Begun::Sent(send(control, channel, prepared, PATIENCE).await);
    }
    let deadline = Instant::now() + PATIENCE;
    let (name, claim) = {
        let mut memory = lock(&control.0.idempotency);
        let name = memory.name(&channel.0, &prepared.idempotency_key);
        (name, memory.claim(name, Instant::now()))
    };
    match claim {
        Claim::Other(answer) => Begun::Shared(answer, deadline),
        Claim::Mine {
            life,
            answer,
            waiter,
        } => {
            let (control, prepared) = (control.clone(), prepared.clone());
            tokio::spawn(async move {
                let sent = send(&control, channel, &prepared, super::idempotency::REMEMBER).await;
                let published = sent.answer().await;
                lock(&control.0.idempotency).settle(name, life, &published);
                answer.send_replace(Some(published));
            });
            Begun::Shared(waiter, deadline)
        }
    }
}
