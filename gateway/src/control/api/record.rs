//! Publications and client infos between the API's JSON and their canonical form.

use super::{Failure, push_json};
use crate::protocol::centrifuge::publication::{
    PublicationParts, PublicationView, client_info_json, encode as encode_canonical,
    publication_json,
};
use crate::protocol::codes::ReplyError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::collections::BTreeMap;

/// The canonical form of what the API was given.
pub(super) fn encode(data: &[u8], tags: &BTreeMap<String, String>, key: &str) -> Vec<u8> {
    let tags: Vec<(&str, &str)> = tags
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut publication = Vec::with_capacity(data.len() + key.len() + 64);
    encode_canonical(
        &mut publication,
        &PublicationParts {
            data,
            tags: &tags,
            key,
            ..PublicationParts::default()
        },
    );
    publication
}

/// A publication whose payload is no JSON: `b64data` stands for `data`.
#[derive(Serialize)]
struct Binary<'a> {
    b64data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Box<serde_json::value::RawValue>>,
    offset: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
}

/// Appends a record as a JSON object.
pub(super) fn publication(json: &mut Vec<u8>, canonical: &[u8]) -> Result<(), Failure> {
    if publication_json(json, canonical).is_ok() {
        return Ok(());
    }
    let view = PublicationView::parse(canonical).map_err(|_| damaged("publication"))?;
    let info = view.info().map(|info| {
        let (mut bytes, mut text) = (Vec::new(), Vec::new());
        info.encode(&mut bytes);
        client_info(&mut text, &bytes)?;
        serde_json::from_slice(&text).map_err(|_| damaged("client info"))
    });
    push_json(
        json,
        &Binary {
            b64data: STANDARD.encode(view.data()),
            info: info.transpose()?,
            offset: view.offset(),
            tags: view.tags().collect(),
            key: view.key(),
        },
    );
    Ok(())
}

/// Appends a client info as a JSON object.
pub(super) fn client_info(json: &mut Vec<u8>, canonical: &[u8]) -> Result<(), Failure> {
    client_info_json(json, canonical).map_err(|_| damaged("client info"))
}

/// Shards keep only what was checked before: bytes that cannot be read back are our own fault.
fn damaged(what: &str) -> Failure {
    tracing::error!("a shard answered with a {what} that cannot be read");
    ReplyError::INTERNAL.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::centrifuge::publication::{
        ClientInfoRef, append_offset, encode as encode_parts,
    };

    fn json_of(canonical: &[u8]) -> serde_json::Value {
        let mut json = Vec::new();
        publication(&mut json, canonical).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn shows_a_record_with_all_it_has() {
        let tags = BTreeMap::from([("t".to_owned(), "v".to_owned())]);
        let mut canonical = encode(br#"{"a":1}"#, &tags, "k");
        append_offset(&mut canonical, 7);
        assert_eq!(
            json_of(&canonical),
            serde_json::json!({"data": {"a": 1}, "offset": 7, "tags": {"t": "v"}, "key": "k"})
        );
    }

    #[test]
    fn shows_a_binary_payload_as_base64() {
        let mut canonical = Vec::new();
        let info = ClientInfoRef {
            user: "u",
            client: "c",
            ..ClientInfoRef::default()
        };
        let parts = PublicationParts {
            data: &[0xff, 0],
            info: Some(info),
            tags: &[("t", "v")],
            ..Default::default()
        };
        encode_parts(&mut canonical, &parts);
        append_offset(&mut canonical, 3);
        assert_eq!(
            json_of(&canonical),
            serde_json::json!({"b64data": "/wA=", "info": {"user": "u", "client": "c"}, "offset": 3, "tags": {"t": "v"}})
        );
    }

    #[test]
    fn a_damaged_record_is_an_internal_error() {
        assert!(publication(&mut Vec::new(), &[0x22, 0x7f]).is_err());
        assert!(client_info(&mut Vec::new(), &[0x0a, 0x7f]).is_err());
    }
}
