//! Publications on their way out.

use super::message;
use crate::backplane::{Asker, Health, Notice, Publish};
use crate::protocol::channel::push_subject_token;
use crate::protocol::codes::ReplyError;
use async_nats::Client;
use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::connection::State;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

/// The subject of a channel without history.
pub(super) fn subject(channel: &str) -> String {
    let mut subject = String::with_capacity(8 + channel.len());
    subject.push_str("rw.core.");
    push_subject_token(&mut subject, channel);
    subject
}

/// Hands publications over in the order in which they came, until nobody publishes any more.
pub(super) async fn run(
    client: Client,
    mut publishes: mpsc::UnboundedReceiver<Publish>,
    notices: mpsc::Sender<Notice>,
    health: Arc<Health>,
) {
    while let Some(one) = publishes.recv().await {
        let outcome = hand_over(&client, &one).await;
        if outcome.is_ok() {
            health.sent.fetch_add(1, Ordering::Relaxed);
        }
        match one.asker {
            Asker::Client(shard, reply) => {
                let error = outcome.err();
                let notice = Notice::Published {
                    shard,
                    reply,
                    error,
                };
                if notices.send(notice).await.is_err() {
                    return;
                }
            }
            // Nobody listens any more when the caller has hung up.
            Asker::Caller(told) => drop(told.send(outcome)),
        }
    }
}

async fn hand_over(client: &Client, one: &Publish) -> Result<(), ReplyError> {
    // It would wait in the client until there is a server again.
    if client.connection_state() != State::Connected {
        return Err(ReplyError::INTERNAL);
    }
    let (headers, payload) = message::outgoing(&one.publication)?;
    let subject = subject(&one.channel);
    let handed_over = async {
        match headers {
            None => client.publish(subject, payload).await,
            Some(headers) => client.publish_with_headers(subject, headers, payload).await,
        }
    };
    match timeout_at(one.deadline, handed_over).await {
        Ok(outcome) => outcome.map_err(|error| refusal(&error)),
        Err(_) => Err(ReplyError::INTERNAL),
    }
}

fn refusal(error: &PublishError) -> ReplyError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => ReplyError::LIMIT_EXCEEDED,
        kind => {
            tracing::warn!(%error, ?kind, "NATS did not take a publication");
            ReplyError::INTERNAL
        }
    }
}
