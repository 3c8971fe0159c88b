//! Replies in the trace.

use crate::protocol::centrifuge::client::{ClientPublication, ClientPush, ClientReply, ReplyKind};
use crate::testing::payload;

/// A reply in a line: publications by their numbers and offsets.
pub(super) fn reply(reply: &ClientReply<'_>) -> String {
    let show = |publication: &ClientPublication<'_>| {
        let number = payload::identify(publication.data).map_or("?".into(), |id| id.to_string());
        format!(
            "publication {number} @{} ({} B)",
            publication.offset,
            publication.data.len()
        )
    };
    match &reply.kind {
        ReplyKind::Push {
            channel,
            push: ClientPush::Publication(publication),
        } => {
            format!("{channel}: {}", show(publication))
        }
        ReplyKind::Push { channel, push } => format!("{channel}: {push:?}"),
        ReplyKind::Subscribe(result) => format!(
            "reply {}: subscribed @{} {:?}{}{}{}{} {:?}",
            reply.id,
            result.offset,
            result.epoch,
            if result.positioned { " positioned" } else { "" },
            if result.recoverable {
                " recoverable"
            } else {
                ""
            },
            if result.was_recovering {
                " was_recovering"
            } else {
                ""
            },
            if result.recovered { " recovered" } else { "" },
            result.publications.iter().map(show).collect::<Vec<_>>(),
        ),
        ReplyKind::History {
            publications,
            epoch,
            offset,
        } => format!(
            "reply {}: history @{offset} {epoch:?} {:?}",
            reply.id,
            publications.iter().map(|it| it.offset).collect::<Vec<_>>()
        ),
        kind => format!("reply {}: {kind:?}", reply.id),
    }
}
