//! Writing messages, once for both encodings: a [`Message`] says its fields, a [`Put`] writes them. Zero values are left
//! out, except by the methods that say otherwise.

use super::protobuf;
use super::publication::{ClientInfoRef, PublicationView};
use super::schema::Schema;
use super::{Encoding, NotJson, json};

/// What can be written.
pub(super) trait Message {
    /// Writes the fields, in any order.
    fn put<P: Put>(&self, put: &mut P);
}

/// A message without fields.
pub(super) struct Nothing;

impl Message for Nothing {
    fn put<P: Put>(&self, _: &mut P) {}
}

/// Where the fields of a message go.
pub(super) trait Put {
    /// Text, left out when empty.
    fn string(&mut self, field: impl Schema, value: &str);
    /// Text, in JSON never left out.
    fn string_always(&mut self, field: impl Schema, value: &str);
    /// A number, left out when zero.
    fn number(&mut self, field: impl Schema, value: u64);
    /// A number, in JSON never left out.
    fn number_always(&mut self, field: impl Schema, value: u64);
    /// A number that may be negative, left out when zero.
    fn signed(&mut self, field: impl Schema, value: i64);
    /// Left out when false.
    fn boolean(&mut self, field: impl Schema, value: bool);
    /// Bytes, left out when empty; in JSON an embedded value, left out too when it is no JSON.
    fn raw(&mut self, field: impl Schema, value: &[u8]);
    /// Bytes that a JSON message cannot do without: [`NotJson`] when they are no JSON. `known`: they are.
    fn data(&mut self, field: impl Schema, value: &[u8], known: bool);
    /// A message, never left out.
    fn message(&mut self, field: impl Schema, message: &impl Message);
    /// Repeated messages that are rendered already in this encoding.
    fn rendered(&mut self, field: impl Schema, messages: &[&[u8]]);
    /// Repeated publications in the canonical form; in JSON never left out.
    fn publications<'p>(&mut self, field: impl Schema, canonical: impl Iterator<Item = &'p [u8]>);
    /// A map of messages; in JSON never left out.
    fn map<'k, M: Message>(
        &mut self,
        field: impl Schema,
        entries: impl Iterator<Item = (&'k str, M)>,
    );
    /// A map of strings, left out when empty.
    fn strings<'k>(
        &mut self,
        field: impl Schema,
        entries: impl Iterator<Item = (&'k str, &'k str)>,
    );
}

/// Appends a message without any frame. In JSON an embedded value that must be and is not JSON is an error; `out` then
/// holds a part of the message.
pub(super) fn write(
    out: &mut Vec<u8>,
    encoding: Encoding,
    message: &impl Message,
) -> Result<(), NotJson> {
    match encoding {
        Encoding::Json => {
            let mut put = JsonPut::new(out);
            put.object(message);
            if put.not_json { Err(NotJson) } else { Ok(()) }
        }
        Encoding::Protobuf => {
            message.put(&mut ProtobufPut { out });
            Ok(())
        }
    }
}

/// Appends a message as one complete WebSocket frame, or nothing when it fails.
pub(super) fn write_frame(
    out: &mut Vec<u8>,
    encoding: Encoding,
    message: &impl Message,
) -> Result<(), NotJson> {
    let start = out.len();
    let mut result = Ok(());
    super::frame::frame(out, encoding, |out| result = write(out, encoding, message));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

struct JsonPut<'o> {
    out: &'o mut Vec<u8>,
    /// The next member is the first of its object.
    first: bool,
    not_json: bool,
}

impl<'o> JsonPut<'o> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        Self {
            out,
            first: true,
            not_json: false,
        }
    }

    fn object(&mut self, message: &impl Message) {
        self.open(b'{');
        message.put(self);
        self.close(b'}');
    }

    fn open(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.first = true;
    }

    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.first = false;
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    fn key(&mut self, field: impl Schema) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(field.name().as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

impl Put for JsonPut<'_> {
    fn string(&mut self, field: impl Schema, value: &str) {
        if !value.is_empty() {
            self.string_always(field, value);
        }
    }

    fn string_always(&mut self, field: impl Schema, value: &str) {
        self.key(field);
        json::write_string(self.out, value);
    }

    fn number(&mut self, field: impl Schema, value: u64) {
        if value != 0 {
            self.number_always(field, value);
        }
    }

    fn number_always(&mut self, field: impl Schema, value: u64) {
        self.key(field);
        json::write_number(self.out, value);
    }

    fn signed(&mut self, field: impl Schema, value: i64) {
        if value != 0 {
            self.key(field);
            if value < 0 {
                self.out.push(b'-');
            }
            json::write_number(self.out, value.unsigned_abs());
        }
    }

    fn boolean(&mut self, field: impl Schema, value: bool) {
        if value {
            self.key(field);
            self.out.extend_from_slice(b"true");
        }
    }

    fn raw(&mut self, field: impl Schema, value: &[u8]) {
        if !value.is_empty() && json::is_valid(value) {
            self.key(field);
            json::write_raw(self.out, value);
        }
    }

    fn data(&mut self, field: impl Schema, value: &[u8], known: bool) {
        if value.is_empty() || !(known || json::is_valid(value)) {
            self.not_json = true;
            return;
        }
        self.key(field);
        json::write_raw(self.out, value);
    }

    fn message(&mut self, field: impl Schema, message: &impl Message) {
        self.key(field);
        self.object(message);
    }

    fn rendered(&mut self, field: impl Schema, messages: &[&[u8]]) {
        if messages.is_empty() {
            return;
        }
        self.key(field);
        self.open(b'[');
        for message in messages {
            self.comma();
            self.out.extend_from_slice(message);
        }
        self.close(b']');
    }

    fn publications<'p>(&mut self, field: impl Schema, canonical: impl Iterator<Item = &'p [u8]>) {
        self.key(field);
        self.open(b'[');
        for publication in canonical {
            self.comma();
            match PublicationView::parse(publication) {
                Ok(view) => self.object(&view),
                Err(_) => self.not_json = true,
            }
        }
        self.close(b']');
    }

    fn map<'k, M: Message>(
        &mut self,
        field: impl Schema,
        entries: impl Iterator<Item = (&'k str, M)>,
    ) {
        self.key(field);
        self.open(b'{');
        for (key, message) in entries {
            self.comma();
            json::write_string(self.out, key);
            self.out.push(b':');
            self.object(&message);
        }
        self.close(b'}');
    }

    fn strings<'k>(
        &mut self,
        field: impl Schema,
        entries: impl Iterator<Item = (&'k str, &'k str)>,
    ) {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return;
        }
        self.key(field);
        self.open(b'{');
        for (key, value) in entries {
            self.comma();
            json::write_string(self.out, key);
            self.out.push(b':');
            json::write_string(self.out, value);
        }
        self.close(b'}');
    }
}

struct ProtobufPut<'o> {
    out: &'o mut Vec<u8>,
}

const MAP_KEY: u32 = 1;
const MAP_VALUE: u32 = 2;

impl Put for ProtobufPut<'_> {
    fn string(&mut self, field: impl Schema, value: &str) {
        self.raw(field, value.as_bytes());
    }

    fn string_always(&mut self, field: impl Schema, value: &str) {
        self.raw(field, value.as_bytes());
    }

    fn number(&mut self, field: impl Schema, value: u64) {
        if value != 0 {
            protobuf::write_number(self.out, field.number(), value);
        }
    }

    fn number_always(&mut self, field: impl Schema, value: u64) {
        self.number(field, value);
    }

    fn signed(&mut self, field: impl Schema, value: i64) {
        self.number(field, value as u64);
    }

    fn boolean(&mut self, field: impl Schema, value: bool) {
        self.number(field, u64::from(value));
    }

    fn raw(&mut self, field: impl Schema, value: &[u8]) {
        if !value.is_empty() {
            protobuf::write_delimited(self.out, field.number(), value);
        }
    }

    fn data(&mut self, field: impl Schema, value: &[u8], _: bool) {
        self.raw(field, value);
    }

    fn message(&mut self, field: impl Schema, message: &impl Message) {
        protobuf::write_message(self.out, field.number(), |out| {
            message.put(&mut ProtobufPut { out });
        });
    }

    fn rendered(&mut self, field: impl Schema, messages: &[&[u8]]) {
        for message in messages {
            protobuf::write_delimited(self.out, field.number(), message);
        }
    }

    fn publications<'p>(&mut self, field: impl Schema, canonical: impl Iterator<Item = &'p [u8]>) {
        for publication in canonical {
            protobuf::write_delimited(self.out, field.number(), publication);
        }
    }

    fn map<'k, M: Message>(
        &mut self,
        field: impl Schema,
        entries: impl Iterator<Item = (&'k str, M)>,
    ) {
        for (key, message) in entries {
            protobuf::write_message(self.out, field.number(), |out| {
                protobuf::write_delimited(out, MAP_KEY, key.as_bytes());
                protobuf::write_message(out, MAP_VALUE, |out| {
                    message.put(&mut ProtobufPut { out });
                });
            });
        }
    }

    fn strings<'k>(
        &mut self,
        field: impl Schema,
        entries: impl Iterator<Item = (&'k str, &'k str)>,
    ) {
        for (key, value) in entries {
            protobuf::write_message(self.out, field.number(), |out| {
                protobuf::write_delimited(out, MAP_KEY, key.as_bytes());
                protobuf::write_delimited(out, MAP_VALUE, value.as_bytes());
            });
        }
    }
}

impl Message for ClientInfoRef<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use super::schema::ClientInfo as C;
        put.string_always(C::User, self.user);
        put.string_always(C::Client, self.client);
        put.raw(C::ConnInfo, self.conn_info);
        put.raw(C::ChanInfo, self.chan_info);
    }
}

impl Message for PublicationView<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        self.put_with(put, self.offset(), false);
    }
}
