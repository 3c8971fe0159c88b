//! Pushes: what the server sends unasked. Each function appends one complete WebSocket frame. Nothing in one belongs to a
//! single subscriber, so a frame can go to any number of them.

use super::encode::{Message, Put, write_frame};
use super::publication::{ClientInfoRef, PublicationView, append_offset, offset_len};
use super::schema::{self, Schema};
use super::{Encoding, NotJson, frame, json, protobuf};
use crate::protocol::codes::{Disconnect, Unsubscribed};

const JSON_CHANNEL: &[u8] = br#"{"push":{"channel":"#;
const JSON_PUBLICATION: &[u8] = br#","pub":"#;
const JSON_END: &[u8] = b"}}";

/// Appends a publication, given in the canonical form. `offset` goes to the receivers when it is above 0; it must be
/// `None` when the canonical bytes hold one. `json_known`: the payload is known to be JSON; else it is checked. Appends
/// nothing when a JSON frame is asked of a payload that is no JSON.
pub fn push_publication(
    out: &mut Vec<u8>,
    encoding: Encoding,
    channel: &str,
    publication: &[u8],
    offset: Option<u64>,
    json_known: bool,
) -> Result<(), NotJson> {
    match encoding {
        Encoding::Json => {
            let view = PublicationView::parse(publication).map_err(|_| NotJson)?;
            let message = PublicationPush {
                channel,
                view,
                offset: offset.unwrap_or(view.offset()),
                json_known,
            };
            write_frame(out, encoding, &message)
        }
        Encoding::Protobuf => {
            push_protobuf(out, channel, publication, offset.unwrap_or(0));
            Ok(())
        }
    }
}

/// All lengths are known beforehand: nothing has to move.
fn push_protobuf(out: &mut Vec<u8>, channel: &str, publication: &[u8], offset: u64) {
    let field_len = |length: usize| 1 + protobuf::varint_len(length as u64) + length;
    let publication_len = publication.len() + offset_len(offset);
    let push_len = field_len(channel.len()) + field_len(publication_len);
    frame::start_protobuf(out, field_len(push_len));
    let open = |out: &mut Vec<u8>, number, length| {
        protobuf::write_tag(out, number, protobuf::BYTES);
        protobuf::write_varint(out, length as u64);
    };
    open(out, schema::Reply::Push.number(), push_len);
    open(out, schema::Push::Channel.number(), channel.len());
    out.extend_from_slice(channel.as_bytes());
    open(out, schema::Push::Publication.number(), publication_len);
    out.extend_from_slice(publication);
    append_offset(out, offset);
}

struct PublicationPush<'a> {
    channel: &'a str,
    view: PublicationView<'a>,
    offset: u64,
    json_known: bool,
}

impl Message for PublicationPush<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        put.message(schema::Reply::Push, &PublicationInPush(self));
    }
}

struct PublicationInPush<'a>(&'a PublicationPush<'a>);

impl Message for PublicationInPush<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        put.string_always(schema::Push::Channel, self.0.channel);
        put.message(schema::Push::Publication, &PublicationBody(self.0));
    }
}

struct PublicationBody<'a>(&'a PublicationPush<'a>);

impl Message for PublicationBody<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        self.0.view.put_with(put, self.0.offset, self.0.json_known);
    }
}

/// The publication inside a frame that [`push_publication`] made for `channel`: the text of the JSON object, or the bytes
/// of the Protobuf message. A subscribe reply can embed it as it is.
///
/// # Panics
/// When the frame is none of those.
pub fn publication_in_frame<'f>(frame: &'f [u8], encoding: Encoding, channel: &str) -> &'f [u8] {
    let payload = frame::payload(frame);
    match encoding {
        Encoding::Json => {
            let start = JSON_CHANNEL.len() + json::string_len(channel) + JSON_PUBLICATION.len();
            debug_assert!(payload.starts_with(JSON_CHANNEL) && payload.ends_with(JSON_END));
            &payload[start..payload.len() - JSON_END.len()]
        }
        Encoding::Protobuf => {
            publication_in_protobuf(payload).expect("a frame made by push_publication")
        }
    }
}

fn publication_in_protobuf(payload: &[u8]) -> Option<&[u8]> {
    let mut reader = protobuf::Reader::new(payload);
    let mut inside = |field: Option<u32>| {
        if let Some(number) = field {
            while reader.tag().ok()?? != number {
                reader.skip_field().ok()?;
            }
        }
        let message = reader.delimited().ok()?;
        reader = protobuf::Reader::new(message);
        Some(message)
    };
    inside(None)?;
    inside(Some(schema::Reply::Push.number()))?;
    inside(Some(schema::Push::Publication.number()))
}

/// A push about a channel, or (with an empty channel) about the connection.
struct Push<'a, F, M> {
    channel: &'a str,
    field: F,
    body: M,
}

impl<F: Schema, M: Message> Message for Push<'_, F, M> {
    fn put<P: Put>(&self, put: &mut P) {
        put.message(schema::Reply::Push, &InPush(self));
    }
}

struct InPush<'a, F, M>(&'a Push<'a, F, M>);

impl<F: Schema, M: Message> Message for InPush<'_, F, M> {
    fn put<P: Put>(&self, put: &mut P) {
        put.string(schema::Push::Channel, self.0.channel);
        put.message(self.0.field, &self.0.body);
    }
}

fn push(
    out: &mut Vec<u8>,
    encoding: Encoding,
    channel: &str,
    field: schema::Push,
    body: impl Message,
) -> Result<(), NotJson> {
    let push = Push {
        channel,
        field,
        body,
    };
    write_frame(out, encoding, &push)
}

/// Appends a push in which nothing must be JSON.
fn push_always(
    out: &mut Vec<u8>,
    encoding: Encoding,
    channel: &str,
    field: schema::Push,
    body: impl Message,
) {
    let pushed = push(out, encoding, channel, field, body);
    debug_assert!(pushed.is_ok());
}

struct JoinLeave<'a>(ClientInfoRef<'a>);

impl Message for JoinLeave<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        put.message(schema::JoinLeave::Info, &self.0);
    }
}

/// Appends: a client joined. `info` in the canonical form.
pub fn push_join(out: &mut Vec<u8>, encoding: Encoding, channel: &str, info: &[u8]) {
    let info = ClientInfoRef::parse(info).unwrap_or_default();
    push_always(out, encoding, channel, schema::Push::Join, JoinLeave(info));
}

/// Appends: a client left. `info` in the canonical form.
pub fn push_leave(out: &mut Vec<u8>, encoding: Encoding, channel: &str, info: &[u8]) {
    let info = ClientInfoRef::parse(info).unwrap_or_default();
    push_always(out, encoding, channel, schema::Push::Leave, JoinLeave(info));
}

impl Message for Unsubscribed {
    fn put<P: Put>(&self, put: &mut P) {
        put.number_always(schema::Unsubscribe::Code, u64::from(self.code));
        put.string_always(schema::Unsubscribe::Reason, self.reason);
    }
}

/// Appends: the subscription is over.
pub fn push_unsubscribe(out: &mut Vec<u8>, encoding: Encoding, channel: &str, why: Unsubscribed) {
    push_always(out, encoding, channel, schema::Push::Unsubscribe, why);
}

/// A server-side subscription that begins after the connect reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerSubscribe<'a> {
    /// Whether the client can recover.
    pub recoverable: bool,
    /// Whether the position is watched.
    pub positioned: bool,
    /// Epoch of the position.
    pub epoch: &'a str,
    /// Offset of the position.
    pub offset: u64,
    /// From the backend; left out for JSON clients when it is no JSON.
    pub data: &'a [u8],
}

impl Message for ServerSubscribe<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::Subscribe as F;
        put.boolean(F::Recoverable, self.recoverable);
        put.string(F::Epoch, self.epoch);
        put.number(F::Offset, self.offset);
        put.boolean(F::Positioned, self.positioned);
        put.raw(F::Data, self.data);
    }
}

/// Appends: the server has subscribed the client.
pub fn push_subscribe(
    out: &mut Vec<u8>,
    encoding: Encoding,
    channel: &str,
    subscribe: ServerSubscribe<'_>,
) {
    push_always(out, encoding, channel, schema::Push::Subscribe, subscribe);
}

struct Data<'a>(&'a [u8]);

impl Message for Data<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        put.data(schema::Message::Data, self.0, false);
    }
}

/// Appends a message to one connection, outside of any channel.
pub fn push_message(out: &mut Vec<u8>, encoding: Encoding, data: &[u8]) -> Result<(), NotJson> {
    push(out, encoding, "", schema::Push::Message, Data(data))
}

impl Message for Disconnect {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::Disconnect as F;
        put.number_always(F::Code, u64::from(self.code));
        put.string_always(F::Reason, self.reason);
        let stays_away = matches!(self.code, 3500..4000 | 4500..5000);
        put.boolean(F::Reconnect, !stays_away);
    }
}

/// Appends: the server is about to close the connection. On a WebSocket the close frame alone says the same.
pub fn push_disconnect(out: &mut Vec<u8>, encoding: Encoding, why: Disconnect) {
    push_always(out, encoding, "", schema::Push::Disconnect, why);
}
