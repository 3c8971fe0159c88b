//! Methods about a user's connections: `unsubscribe`, `disconnect`, `user_status`.

use super::super::Control;
use super::{Outcome, empty, or_default, to_json, unexpected};
use crate::hub::message::{Request, Response};
use crate::protocol::codes::{Disconnect, ReplyError};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Longest reason of a disconnect, bytes. A close frame holds 123; SDKs log it.
const REASON_MAX: usize = 32;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct UnsubscribeParams {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    channel: String,
    #[serde(deserialize_with = "or_default")]
    client: String,
}

pub(super) async fn unsubscribe(control: &Control, params: UnsubscribeParams) -> Outcome {
    let user = named(params.user)?;
    let channel = match params.channel.as_str() {
        "" => None,
        name => Some(control.channel(name)?.0),
    };
    let client = optional(params.client);
    tell_all(
        control,
        &Request::Unsubscribe {
            user,
            channel,
            client,
        },
    )
    .await
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct DisconnectParams {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    client: String,
    #[serde(deserialize_with = "or_default")]
    whitelist: Vec<String>,
    disconnect: Option<DisconnectCode>,
}

#[derive(Deserialize)]
struct DisconnectCode {
    code: u16,
    #[serde(default, deserialize_with = "or_default")]
    reason: String,
}

pub(super) async fn disconnect(control: &Control, params: DisconnectParams) -> Outcome {
    let user = named(params.user)?;
    let (code, reason) = match params.disconnect {
        None => (Disconnect::FORCE_NO_RECONNECT.code, String::new()),
        Some(DisconnectCode {
            code: code @ 3000..=4999,
            reason,
        }) => (code, reason),
        Some(_) => return Err(ReplyError::BAD_REQUEST.into()),
    };
    let reason = if reason.is_empty() {
        Disconnect::FORCE_NO_RECONNECT.reason.to_owned()
    } else {
        reason
    };
    // SDKs take a reason that is JSON for an old form of advice.
    if reason.len() > REASON_MAX || serde_json::from_str::<IgnoredAny>(&reason).is_ok() {
        return Err(ReplyError::BAD_REQUEST.into());
    }
    let (client, whitelist) = (optional(params.client), params.whitelist);
    tell_all(
        control,
        &Request::Disconnect {
            user,
            client,
            whitelist,
            code,
            reason,
        },
    )
    .await
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct StatusParams {
    #[serde(deserialize_with = "or_default")]
    user: String,
}

#[derive(Serialize)]
struct StatusResult {
    connections: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
}

pub(super) async fn status(control: &Control, params: StatusParams) -> Outcome {
    let user = named(params.user)?;
    let home = control.shards().home_of_user(&user);
    match control
        .shards()
        .ask(home, Request::UserStatus { user })
        .await
    {
        Response::UserStatus {
            connections,
            last_seen,
        } => to_json(&StatusResult {
            connections,
            last_seen,
        }),
        answer => Err(unexpected(answer)),
    }
}

/// Asks every shard; one that fails makes the whole fail, the others have acted.
pub(super) async fn tell_all(control: &Control, request: &Request) -> Outcome {
    for answer in control.shards().ask_all(request).await {
        if !matches!(answer, Response::Done { .. }) {
            return Err(unexpected(answer));
        }
    }
    empty()
}

fn named(user: String) -> Result<String, ReplyError> {
    if user.is_empty() {
        Err(ReplyError::BAD_REQUEST)
    } else {
        Ok(user)
    }
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
