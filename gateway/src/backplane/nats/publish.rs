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

/// Publications written at a time.
const BATCH: usize = 256;

/// The subject of a channel without history.
pub(super) fn subject(channel: &str) -> String {
    let mut subject = String::with_capacity(8 + channel.len());
    subject.push_str("rw.core.");
    push_subject_token(&mut subject, channel);
    subject
}

/// Hands publications over in the order in which they came, until nobody publishes any more. They are answered when they
/// have been written to the connection, and take up room until then.
pub(super) async fn run(
    client: Client,
    mut publishes: mpsc::UnboundedReceiver<Publish>,
    notices: mpsc::Sender<Notice>,
    health: Arc<Health>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut outcomes = Vec::with_capacity(BATCH);
    while publishes.recv_many(&mut batch, BATCH).await > 0 {
        for one in &batch {
            outcomes.push(hand_over(&client, one).await);
        }
        let is_written = match batch.iter().map(|one| one.deadline).max() {
            Some(deadline) if outcomes.iter().any(Result::is_ok) => {
                matches!(timeout_at(deadline, client.flush()).await, Ok(Ok(())))
            }
            _ => true,
        };
        for (one, mut outcome) in batch.drain(..).zip(outcomes.drain(..)) {
            // Nobody knows whether it will still be written.
            if !is_written && outcome.is_ok() {
                outcome = Err(ReplyError::INTERNAL);
            }
            if outcome.is_ok() {
                health.sent.fetch_add(1, Ordering::Relaxed);
            }
            if tell(one.asker, outcome, &notices).await.is_err() {
                return;
            }
        }
    }
}

/// Nobody takes notices any more.
struct Over;

async fn tell(
    asker: Asker,
    outcome: Result<(), ReplyError>,
    notices: &mpsc::Sender<Notice>,
) -> Result<(), Over> {
    match asker {
        Asker::Client(shard, reply) => {
            let error = outcome.err();
            let notice = Notice::Published {
                shard,
                reply,
                error,
            };
            notices.send(notice).await.map_err(|_| Over)
        }
        Asker::Caller(told) => {
            // Nobody listens any more when the caller has hung up.
            let _ = told.send(outcome);
            Ok(())
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
