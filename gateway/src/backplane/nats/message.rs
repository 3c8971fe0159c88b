//! Between the canonical form of a publication and a message of NATS: the data is the payload, all else stands in headers.

use crate::protocol::centrifuge::publication::{
    ClientInfoRef, PublicationParts, PublicationView, client_info_json, encode,
};
use crate::protocol::codes::ReplyError;
use async_nats::header::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Who published, as JSON.
const INFO: &str = "Rw-Info";
/// Tags, a JSON object of strings.
const TAGS: &str = "Rw-Tags";
/// Of which thing it is the newest state.
const KEY: &str = "Rw-Key";

/// A message that no gateway has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The headers, if it needs any, and the payload of a publication.
///
/// # Errors
/// 107 when its key or its tags cannot be headers, 100 when it is none.
pub(super) fn outgoing(canonical: &[u8]) -> Result<(Option<HeaderMap>, Bytes), ReplyError> {
    let view = PublicationView::parse(canonical).map_err(|_| ReplyError::INTERNAL)?;
    let mut headers = HeaderMap::new();
    let mut insert = |name: &'static str, value: &str| {
        let value: HeaderValue = value.parse().map_err(|_| ReplyError::BAD_REQUEST)?;
        headers.insert(name, value);
        Ok(())
    };
    if let Some(info) = view.info() {
        let (mut canonical, mut json) = (Vec::new(), Vec::new());
        info.encode(&mut canonical);
        client_info_json(&mut json, &canonical).map_err(|_| ReplyError::INTERNAL)?;
        insert(
            INFO,
            std::str::from_utf8(&json).map_err(|_| ReplyError::INTERNAL)?,
        )?;
    }
    let tags: BTreeMap<&str, &str> = view.tags().collect();
    if !tags.is_empty() {
        let json = serde_json::to_string(&tags).map_err(|_| ReplyError::INTERNAL)?;
        insert(TAGS, &json)?;
    }
    if !view.key().is_empty() {
        insert(KEY, view.key())?;
    }
    let headers = (!headers.is_empty()).then_some(headers);
    Ok((headers, Bytes::copy_from_slice(view.data())))
}

/// [`ClientInfoRef`] as JSON.
#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    client: Cow<'a, str>,
    #[serde(borrow, default)]
    conn_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    chan_info: Option<&'a RawValue>,
}

/// Appends the canonical form of a message.
///
/// # Errors
/// When the headers are none that [`outgoing`] writes, or there is no data. Nothing is appended then.
pub(super) fn incoming(
    headers: Option<&HeaderMap>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    if payload.is_empty() {
        return Err(Malformed);
    }
    let header = |name| {
        headers
            .and_then(|all| all.get_last(name))
            .map(HeaderValue::as_str)
    };
    let info = header(INFO).map(serde_json::from_str::<Info<'_>>);
    let info = info.transpose().map_err(|_| Malformed)?;
    let bytes = |raw: Option<&'_ RawValue>| raw.map_or("", RawValue::get).to_owned();
    let infos = info
        .as_ref()
        .map(|i| (bytes(i.conn_info), bytes(i.chan_info)));
    let info = info
        .as_ref()
        .zip(infos.as_ref())
        .map(|(info, (conn_info, chan_info))| ClientInfoRef {
            user: &info.user,
            client: &info.client,
            conn_info: conn_info.as_bytes(),
            chan_info: chan_info.as_bytes(),
        });
    let tags = header(TAGS).map(serde_json::from_str::<BTreeMap<Cow<'_, str>, Cow<'_, str>>>);
    let tags = tags.transpose().map_err(|_| Malformed)?.unwrap_or_default();
    let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (&**k, &**v)).collect();
    let parts = PublicationParts {
        data: payload,
        info,
        tags: &tags,
        key: header(KEY).unwrap_or_default(),
        time: 0,
    };
    encode(out, &parts);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(parts: &PublicationParts<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, parts);
        bytes
    }

    #[test]
    fn a_publication_comes_back_as_it_went() {
        let info = ClientInfoRef {
            user: "ann \"q\" é",
            client: "id",
            conn_info: br#"{"a":[1]}"#,
            chan_info: b"7",
        };
        let all = PublicationParts {
            data: b"\xff\0any",
            info: Some(info),
            tags: &[("a", "1"), ("b", "x\ny")],
            key: "k",
            time: 0,
        };
        let bare = PublicationParts {
            data: b"{}",
            ..PublicationParts::default()
        };
        for (parts, headers) in [(all, 3), (bare, 0)] {
            let sent = canonical(&parts);
            let (map, payload) = outgoing(&sent).unwrap();
            assert_eq!(map.as_ref().map_or(0, |map| map.iter().count()), headers);
            let mut got = Vec::new();
            incoming(map.as_ref(), &payload, &mut got).unwrap();
            assert_eq!(got, sent);
        }
    }

    #[test]
    fn a_key_that_can_be_no_header_is_refused() {
        let parts = PublicationParts {
            data: b"1",
            key: "a\r\nNats-Msg-Id: x",
            ..PublicationParts::default()
        };
        assert_eq!(
            outgoing(&canonical(&parts)).unwrap_err(),
            ReplyError::BAD_REQUEST
        );
    }

    #[test]
    fn what_no_gateway_wrote_is_refused_whole() {
        for (name, value) in [(INFO, "7"), (INFO, "{"), (TAGS, "[]"), (TAGS, r#"{"a":1}"#)] {
            let mut map = HeaderMap::new();
            map.insert(name, value);
            let mut out = vec![1];
            assert_eq!(
                incoming(Some(&map), b"1", &mut out),
                Err(Malformed),
                "{value}"
            );
            assert_eq!(out, [1]);
        }
        assert_eq!(incoming(None, b"", &mut Vec::new()), Err(Malformed));
    }

    #[test]
    fn of_a_header_that_comes_twice_the_last_counts() {
        let mut map = HeaderMap::new();
        map.append(KEY, "forged");
        map.append(KEY, "k");
        let mut out = Vec::new();
        incoming(Some(&map), b"1", &mut out).unwrap();
        assert_eq!(PublicationView::parse(&out).unwrap().key(), "k");
    }
}
