//! Methods that read or clear a channel: `presence`, `presence_stats`, `history`, `history_remove`, `channels`.

use super::super::Control;
use super::glob::Glob;
use super::record;
use super::users::tell_all;
use super::{Failure, Outcome, empty, or_default, push_json, to_json, unexpected};
use crate::config::ChannelOptions;
use crate::hub::message::{Request, Response};
use crate::protocol::codes::ReplyError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ChannelParams {
    #[serde(deserialize_with = "or_default")]
    channel: String,
}

pub(super) async fn presence(control: &Control, params: ChannelParams) -> Outcome {
    let channel = channel_with(control, &params.channel, |options| options.presence)?;
    let clients = match ask_home(
        control,
        &channel,
        Request::Presence {
            channel: channel.clone(),
        },
    )
    .await
    {
        Response::Presence { clients } => clients,
        answer => return Err(unexpected(answer)),
    };
    let mut json = b"{\"presence\":{".to_vec();
    for (i, (client, info)) in clients.iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        push_json(&mut json, client);
        json.push(b':');
        record::client_info(&mut json, info)?;
    }
    json.extend_from_slice(b"}}");
    Ok(json)
}

#[derive(Serialize)]
struct PresenceStatsResult {
    num_clients: u32,
    num_users: u32,
}

pub(super) async fn presence_stats(control: &Control, params: ChannelParams) -> Outcome {
    let channel = channel_with(control, &params.channel, |options| options.presence)?;
    match ask_home(
        control,
        &channel,
        Request::PresenceStats {
            channel: channel.clone(),
        },
    )
    .await
    {
        Response::PresenceStats { clients, users } => to_json(&PresenceStatsResult {
            num_clients: clients,
            num_users: users,
        }),
        answer => Err(unexpected(answer)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct HistoryParams {
    #[serde(deserialize_with = "or_default")]
    channel: String,
    /// 0: only the position; below: all.
    #[serde(deserialize_with = "or_default")]
    limit: i64,
    since: Option<Position>,
    #[serde(deserialize_with = "or_default")]
    reverse: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Position {
    #[serde(deserialize_with = "or_default")]
    offset: u64,
    #[serde(deserialize_with = "or_default")]
    epoch: String,
}

pub(super) async fn history(control: &Control, params: HistoryParams) -> Outcome {
    let channel = channel_with(control, &params.channel, ChannelOptions::has_history)?;
    let limit = (params.limit >= 0).then(|| u32::try_from(params.limit).unwrap_or(u32::MAX));
    let since = params
        .since
        .map(|position| (position.offset, position.epoch));
    let request = Request::History {
        channel: channel.clone(),
        limit,
        since,
        reverse: params.reverse,
    };
    let (publications, offset, epoch) = match ask_home(control, &channel, request).await {
        Response::History {
            publications,
            offset,
            epoch,
        } => (publications, offset, epoch),
        answer => return Err(unexpected(answer)),
    };
    let mut json = b"{\"publications\":[".to_vec();
    for (i, publication) in publications.iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        record::publication(&mut json, publication)?;
    }
    json.extend_from_slice(b"],\"epoch\":");
    push_json(&mut json, &&*epoch);
    json.extend_from_slice(b",\"offset\":");
    push_json(&mut json, &offset);
    json.push(b'}');
    Ok(json)
}

pub(super) async fn history_remove(control: &Control, params: ChannelParams) -> Outcome {
    let channel = channel_with(control, &params.channel, ChannelOptions::has_history)?;
    let removal = Request::HistoryRemove {
        channel: channel.clone(),
    };
    match ask_home(control, &channel, removal).await {
        Response::HistoryRemoved { top: 0 } => empty(),
        // What shards hold of it for recovery, and what is on its way to them, ends at what the home had.
        Response::HistoryRemoved { top: upto } => {
            tell_all(control, &Request::HistoryForget { channel, upto }).await
        }
        answer => Err(unexpected(answer)),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ChannelsParams {
    #[serde(deserialize_with = "or_default")]
    pattern: String,
}

#[derive(Serialize)]
struct ChannelsResult {
    channels: BTreeMap<String, ChannelInfo>,
}

#[derive(Serialize)]
struct ChannelInfo {
    num_clients: u64,
}

pub(super) async fn channels(control: &Control, params: ChannelsParams) -> Outcome {
    let glob = match params.pattern.as_str() {
        "" => None,
        pattern => Some(Glob::new(pattern).map_err(|_| ReplyError::BAD_REQUEST)?),
    };
    let mut channels = BTreeMap::new();
    for answer in control.shards().ask_all(&Request::Channels).await {
        let members = match answer {
            Response::Channels { channels } => channels,
            answer => return Err(unexpected(answer)),
        };
        for (channel, count) in members {
            if glob.as_ref().is_none_or(|glob| glob.matches(&channel)) {
                channels
                    .entry(channel.to_string())
                    .or_insert(ChannelInfo { num_clients: 0 })
                    .num_clients += u64::from(count);
            }
        }
    }
    to_json(&ChannelsResult { channels })
}

/// The checked name of a channel whose namespace has a feature.
fn channel_with(
    control: &Control,
    name: &str,
    has: fn(&ChannelOptions) -> bool,
) -> Result<Arc<str>, Failure> {
    let (channel, options) = control.channel(name)?;
    if has(options) {
        Ok(channel)
    } else {
        Err(ReplyError::NOT_AVAILABLE.into())
    }
}

async fn ask_home(control: &Control, channel: &str, request: Request) -> Response {
    control
        .shards()
        .ask(control.shards().home_of(channel), request)
        .await
}
