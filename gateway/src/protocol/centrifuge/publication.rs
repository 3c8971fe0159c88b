//! The one form in which publications are kept and handed around: the bytes of a Protobuf `Publication`, whatever the
//! encoding of who published and of who receives. The offset may be appended at the end; fields may stand in any order.

use super::decode::{DecodeError, Fields};
use super::encode::{Message, Put, write};
use super::protobuf::{self, Reader};
use super::schema::{self, Schema};
use super::{Encoding, NotJson};

/// What a publication is made of, before it has an offset.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublicationParts<'a> {
    /// The payload, any bytes; JSON subscribers need valid JSON.
    pub data: &'a [u8],
    /// The client that published, if it was one.
    pub info: Option<ClientInfoRef<'a>>,
    /// Tags, each key once.
    pub tags: &'a [(&'a str, &'a str)],
    /// Of which thing this is the newest state; empty: none.
    pub key: &'a str,
    /// Unix time in milliseconds; 0: not told.
    pub time: i64,
}

impl Message for PublicationParts<'_> {
    fn put<P: Put>(&self, put: &mut P) {
        use schema::Publication as F;
        put.data(F::Data, self.data, false);
        if let Some(info) = &self.info {
            put.message(F::Info, info);
        }
        put.strings(F::Tags, self.tags.iter().copied());
        put.signed(F::Time, self.time);
        put.string(F::Key, self.key);
    }
}

/// Appends a publication in the canonical form, without an offset.
pub fn encode(out: &mut Vec<u8>, parts: &PublicationParts<'_>) {
    append(out, parts);
}

/// Appends the offset to a canonical publication that has none. 0 stands for none.
pub fn append_offset(out: &mut Vec<u8>, offset: u64) {
    if offset > 0 {
        protobuf::write_number(out, schema::Publication::Offset.number(), offset);
    }
}

/// How many bytes [`append_offset`] appends.
pub(super) fn offset_len(offset: u64) -> usize {
    if offset > 0 {
        1 + protobuf::varint_len(offset)
    } else {
        0
    }
}

fn append(out: &mut Vec<u8>, message: &impl Message) {
    // Only JSON can fail.
    let written = write(out, Encoding::Protobuf, message);
    debug_assert!(written.is_ok());
}

/// A canonical publication, checked and read in place.
#[derive(Clone, Copy, Debug)]
pub struct PublicationView<'a> {
    bytes: &'a [u8],
    data: &'a [u8],
    info: Option<ClientInfoRef<'a>>,
    offset: u64,
    time: i64,
    key: &'a str,
    has_tags: bool,
}

impl<'a> PublicationView<'a> {
    /// Checks the bytes and finds the fields; of a field that comes twice the last counts.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        use schema::Publication as F;
        let mut view = Self {
            bytes,
            data: &[],
            info: None,
            offset: 0,
            time: 0,
            key: "",
            has_tags: false,
        };
        let mut fields = Reader::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                F::Data => view.data = fields.delimited()?,
                F::Info => view.info = Some(ClientInfoRef::parse(fields.delimited()?)?),
                F::Offset => view.offset = fields.u64()?,
                F::Tags => {
                    tag(&mut fields)?;
                    view.has_tags = true;
                }
                F::Time => view.time = fields.i64()?,
                F::Key => view.key = fields.str()?,
            }
        }
        Ok(view)
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The client that published, if it was one.
    pub fn info(&self) -> Option<ClientInfoRef<'a>> {
        self.info
    }

    /// The number in the channel; 0: none.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Unix time in milliseconds; 0: not told.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// Of which thing this is the newest state; empty: none.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The tags, in the order in which they stand.
    pub fn tags(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut fields = Reader::new(if self.has_tags { self.bytes } else { &[] });
        std::iter::from_fn(move || {
            // `parse` has seen every field: none fails.
            while let Ok(Some(field)) = fields.next() {
                match field {
                    schema::Publication::Tags => return tag(&mut fields).ok(),
                    _ => fields.skip_field().ok()?,
                }
            }
            None
        })
    }

    /// Writes the fields, with `offset` (0: none) in place of its own. `json`: the payload is known to be JSON.
    pub(super) fn put_with<P: Put>(&self, put: &mut P, offset: u64, json: bool) {
        use schema::Publication as F;
        put.data(F::Data, self.data, json);
        if let Some(info) = &self.info {
            put.message(F::Info, info);
        }
        put.number(F::Offset, offset);
        if self.has_tags {
            put.strings(F::Tags, self.tags());
        }
        put.signed(F::Time, self.time);
        put.string(F::Key, self.key);
    }
}

/// One entry of the tags.
fn tag<'a>(fields: &mut Reader<'a>) -> Result<(&'a str, &'a str), DecodeError> {
    let mut entry = Reader::new(fields.delimited()?);
    let mut tag = ("", "");
    while let Some(number) = entry.tag()? {
        match number {
            1 => tag.0 = entry.str()?,
            2 => tag.1 = entry.str()?,
            _ => entry.skip_field()?,
        }
    }
    Ok(tag)
}

/// Who a client is. In the canonical form: the bytes of a Protobuf `ClientInfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientInfoRef<'a> {
    /// The user; empty: anonymous.
    pub user: &'a str,
    /// The connection.
    pub client: &'a str,
    /// From the connection's token or the backend; any bytes, left out for JSON clients when it is no JSON.
    pub conn_info: &'a [u8],
    /// From the subscription's token or the backend; likewise.
    pub chan_info: &'a [u8],
}

impl<'a> ClientInfoRef<'a> {
    /// Appends the canonical form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        append(out, self);
    }

    /// Reads the canonical form.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        use schema::ClientInfo as F;
        let mut info = Self::default();
        let mut fields = Reader::new(bytes);
        while let Some(field) = fields.next()? {
            match field {
                F::User => info.user = fields.str()?,
                F::Client => info.client = fields.str()?,
                F::ConnInfo => info.conn_info = fields.delimited()?,
                F::ChanInfo => info.chan_info = fields.delimited()?,
            }
        }
        Ok(info)
    }
}

/// Appends a canonical publication as a JSON object, with the offset that it has; nothing when it cannot.
pub fn publication_json(out: &mut Vec<u8>, canonical: &[u8]) -> Result<(), NotJson> {
    let start = out.len();
    let view = PublicationView::parse(canonical).map_err(|_| NotJson)?;
    write(out, Encoding::Json, &view).inspect_err(|_| out.truncate(start))
}

/// Appends a canonical client info as a JSON object. Infos inside that are no JSON are left out.
pub fn client_info_json(out: &mut Vec<u8>, canonical: &[u8]) -> Result<(), DecodeError> {
    let info = ClientInfoRef::parse(canonical)?;
    let written = write(out, Encoding::Json, &info);
    debug_assert!(written.is_ok(), "nothing in it must be JSON");
    Ok(())
}
