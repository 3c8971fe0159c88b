//! The little of the Centrifuge client protocol a load generator speaks, in both encodings.
//!
//! Receiving splits a data frame into replies and looks into few of them: publications are found by their marker
//! (`payload`), the rest is read slowly.

use super::frames::{self, Opcode};

/// How commands and replies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    Json,
    Protobuf,
}

/// Where a channel stood: what a returning member recovers from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub epoch: String,
    pub offset: u64,
}

/// What a member wants of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub channel: &'a str,
    /// Be told positions, to be able to recover later.
    pub recoverable: bool,
    /// Recover what came after.
    pub since: Option<&'a Position>,
}

/// What the answer to a subscribe tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribed {
    pub position: Position,
    /// Recovery was asked for, and everything since is in the answer.
    pub recovered: bool,
}

/// A reply that is not a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer to the command with this id.
    Done(u64),
    /// A refusal: the command's id, the code and the message.
    Refused(u64, u64, String),
    /// A push: join, leave, unsubscribe, a publication without our marker.
    Push,
    /// A message of a protocol that is not read: counted and passed over.
    Foreign,
    /// Not a reply at all.
    Garbage,
}

impl Encoding {
    /// The subprotocol to ask for.
    pub fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::Protobuf => Some("centrifuge-protobuf"),
        }
    }

    fn opcode(self) -> Opcode {
        match self {
            Self::Json => Opcode::Text,
            Self::Protobuf => Opcode::Binary,
        }
    }

    /// One frame with `connect` (id 1) and, when a channel is wanted, `subscribe` (id 2).
    pub fn join_frame(self, token: Option<&str>, wish: Option<Wish<'_>>) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Json => {
                let mut connect = serde_json::json!({ "name": "ringway-bench" });
                if let Some(token) = token {
                    connect["token"] = token.into();
                }
                let command = serde_json::json!({ "id": 1, "connect": connect });
                message.extend_from_slice(command.to_string().as_bytes());
            }
            Self::Protobuf => {
                let mut connect = Vec::new();
                if let Some(token) = token {
                    put_bytes(&mut connect, 1, token.as_bytes());
                }
                put_bytes(&mut connect, 4, b"ringway-bench");
                put_command(&mut message, 1, 4, &connect);
            }
        }
        if let Some(wish) = wish {
            if self == Self::Json {
                message.push(b'\n');
            }
            self.put_subscribe(&mut message, 2, wish);
        }
        self.frame(&message)
    }

    /// One frame that subscribes.
    pub fn subscribe_frame(self, id: u64, wish: Wish<'_>) -> Vec<u8> {
        let mut message = Vec::new();
        self.put_subscribe(&mut message, id, wish);
        self.frame(&message)
    }

    fn put_subscribe(self, out: &mut Vec<u8>, id: u64, wish: Wish<'_>) {
        match self {
            Self::Json => {
                let mut subscribe = serde_json::json!({ "channel": wish.channel });
                if wish.recoverable {
                    subscribe["recoverable"] = true.into();
                }
                if let Some(Position { epoch, offset }) = wish.since {
                    subscribe["recover"] = true.into();
                    subscribe["epoch"] = epoch.as_str().into();
                    subscribe["offset"] = (*offset).into();
                }
                let command = serde_json::json!({ "id": id, "subscribe": subscribe });
                out.extend_from_slice(command.to_string().as_bytes());
            }
            Self::Protobuf => {
                let mut subscribe = Vec::new();
                put_bytes(&mut subscribe, 1, wish.channel.as_bytes());
                if let Some(Position { epoch, offset }) = wish.since {
                    put_number(&mut subscribe, 3, 1);
                    put_bytes(&mut subscribe, 6, epoch.as_bytes());
                    put_number(&mut subscribe, 7, *offset);
                }
                if wish.recoverable {
                    put_number(&mut subscribe, 10, 1);
                }
                put_command(out, id, 5, &subscribe);
            }
        }
    }

    /// One frame that leaves a channel.
    pub fn unsubscribe_frame(self, id: u64, channel: &str) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Json => {
                let command =
                    serde_json::json!({ "id": id, "unsubscribe": { "channel": channel } });
                message.extend_from_slice(command.to_string().as_bytes());
            }
            Self::Protobuf => {
                let mut unsubscribe = Vec::new();
                put_bytes(&mut unsubscribe, 1, channel.as_bytes());
                put_command(&mut message, id, 6, &unsubscribe);
            }
        }
        self.frame(&message)
    }

    /// One frame that publishes `data`, which is JSON in either encoding.
    pub fn publish_frame(self, id: u64, channel: &str, data: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(data.len() + channel.len() + 64);
        match self {
            Self::Json => {
                let head =
                    format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":");
                message.extend_from_slice(head.as_bytes());
                message.extend_from_slice(data);
                message.extend_from_slice(b"}}");
            }
            Self::Protobuf => {
                let mut publish = Vec::with_capacity(data.len() + channel.len() + 16);
                put_bytes(&mut publish, 1, channel.as_bytes());
                put_bytes(&mut publish, 2, data);
                put_command(&mut message, id, 7, &publish);
            }
        }
        self.frame(&message)
    }

    /// The answer to a ping: an empty command.
    pub fn pong_frame(self) -> Vec<u8> {
        match self {
            Self::Json => self.frame(b"{}"),
            Self::Protobuf => self.frame(&[0]),
        }
    }

    fn frame(self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 14);
        frames::write_masked(&mut out, self.opcode(), message);
        out
    }

    /// Hands each reply of a data frame to `on`, empty ones as empty slices: they are pings.
    pub fn each_reply<'a>(self, mut message: &'a [u8], mut on: impl FnMut(&'a [u8])) {
        match self {
            Self::Json => {
                let mut start = 0;
                for end in memchr::memchr_iter(b'\n', message).chain([message.len()]) {
                    match &message[start..end] {
                        b"{}" => on(&[]),
                        b"" => {}
                        reply => on(reply),
                    }
                    start = end + 1;
                }
            }
            Self::Protobuf => {
                while let Some((len, rest)) = take_varint(message) {
                    let Some((reply, rest)) = rest.split_at_checked(len as usize) else {
                        return on(message);
                    };
                    on(reply);
                    message = rest;
                }
                if !message.is_empty() {
                    on(message);
                }
            }
        }
    }

    /// Reads the answer to a subscribe; none when `reply` is something else.
    pub fn read_subscribed(self, reply: &[u8]) -> Option<Subscribed> {
        match self {
            Self::Json => {
                let reply: JsonSubscribed = serde_json::from_slice(reply).ok()?;
                let JsonPosition {
                    epoch,
                    offset,
                    recovered,
                } = reply.subscribe?;
                Some(Subscribed {
                    position: Position { epoch, offset },
                    recovered,
                })
            }
            Self::Protobuf => read_protobuf_subscribed(reply),
        }
    }

    /// The offset of a publication whose data ends where `rest` begins.
    pub fn read_offset(self, mut rest: &[u8]) -> Option<u64> {
        match self {
            Self::Json => {
                const KEY: &[u8] = b"\"offset\":";
                let digits = &rest[memchr::memmem::find(rest, KEY)? + KEY.len()..];
                let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
                std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
            }
            Self::Protobuf => {
                while !rest.is_empty() {
                    if let (6, Field::Number(offset)) = take_field(&mut rest)? {
                        return Some(offset);
                    }
                }
                None
            }
        }
    }

    /// Reads a reply that is neither a ping nor one of our publications.
    pub fn read_reply(self, reply: &[u8]) -> Reply {
        match self {
            Self::Json => read_json(reply),
            Self::Protobuf => read_protobuf(reply).unwrap_or(Reply::Garbage),
        }
    }
}

#[derive(serde::Deserialize)]
struct JsonSubscribed {
    subscribe: Option<JsonPosition>,
}

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct JsonPosition {
    epoch: String,
    offset: u64,
    recovered: bool,
}

fn read_protobuf_subscribed(mut reply: &[u8]) -> Option<Subscribed> {
    while !reply.is_empty() {
        let (6, Field::Bytes(mut bytes)) = take_field(&mut reply)? else {
            continue;
        };
        let mut subscribed = Subscribed::default();
        while !bytes.is_empty() {
            match take_field(&mut bytes)? {
                (6, Field::Bytes(epoch)) => {
                    subscribed.position.epoch = String::from_utf8(epoch.to_vec()).ok()?;
                }
                (9, Field::Number(offset)) => subscribed.position.offset = offset,
                (8, Field::Number(recovered)) => subscribed.recovered = recovered == 1,
                _ => {}
            }
        }
        return Some(subscribed);
    }
    None
}

fn read_json(reply: &[u8]) -> Reply {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(reply) else {
        return Reply::Garbage;
    };
    let id = value["id"].as_u64().unwrap_or(0);
    if let Some(error) = value.get("error") {
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        return Reply::Refused(id, error["code"].as_u64().unwrap_or(0), message);
    }
    match (id, value.get("push")) {
        (_, Some(_)) => Reply::Push,
        (0, None) => Reply::Garbage,
        (id, None) => Reply::Done(id),
    }
}

fn read_protobuf(mut reply: &[u8]) -> Option<Reply> {
    let (mut id, mut push, mut error) = (0, false, None);
    while !reply.is_empty() {
        let (field, value) = take_field(&mut reply)?;
        match (field, value) {
            (1, Field::Number(n)) => id = n,
            (2, Field::Bytes(bytes)) => error = Some(bytes),
            (4, _) => push = true,
            _ => {}
        }
    }
    if let Some(mut error) = error {
        let (mut code, mut message) = (0, String::new());
        while !error.is_empty() {
            match take_field(&mut error)? {
                (1, Field::Number(n)) => code = n,
                (2, Field::Bytes(bytes)) => message = String::from_utf8_lossy(bytes).into_owned(),
                _ => {}
            }
        }
        return Some(Reply::Refused(id, code, message));
    }
    match (id, push) {
        (_, true) => Some(Reply::Push),
        (0, false) => None,
        (id, false) => Some(Reply::Done(id)),
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let (tag, rest) = take_varint(bytes)?;
    let (value, rest) = take_varint(rest)?;
    let (value, rest) = match tag & 7 {
        0 => (Field::Number(value), rest),
        2 => {
            let (bytes, rest) = rest.split_at_checked(value as usize)?;
            (Field::Bytes(bytes), rest)
        }
        _ => return None,
    };
    *bytes = rest;
    Some((tag >> 3, value))
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A length-delimited `Command` with `id` and one request.
fn put_command(out: &mut Vec<u8>, id: u64, field: u64, request: &[u8]) {
    let mut command = Vec::with_capacity(request.len() + 16);
    put_varint(&mut command, 1 << 3);
    put_varint(&mut command, id);
    put_bytes(&mut command, field, request);
    put_varint(out, command.len() as u64);
    out.extend_from_slice(&command);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(encoding: Encoding, message: &[u8]) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        encoding.each_reply(message, |reply| got.push(reply.to_vec()));
        got
    }

    #[test]
    fn splits_json_lines_and_sees_pings_among_them() {
        assert_eq!(replies(Encoding::Json, b"{}"), [b""]);
        let got = replies(Encoding::Json, b"{\"id\":1}\n{}\n{\"id\":2}\n");
        assert_eq!(got, [b"{\"id\":1}".as_slice(), b"", b"{\"id\":2}"]);
    }

    #[test]
    fn splits_protobuf_replies() {
        assert_eq!(replies(Encoding::Protobuf, &[0]), [b""]);
        assert_eq!(
            replies(Encoding::Protobuf, &[2, 8, 1, 0, 2, 8, 2]),
            [b"\x08\x01".as_slice(), b"", b"\x08\x02"]
        );
        assert_eq!(
            replies(Encoding::Protobuf, &[9, 8, 1]),
            [&[9, 8, 1]],
            "a cut reply is shown whole"
        );
    }

    #[test]
    fn reads_answers_of_both_encodings() {
        let json = |text: &str| Encoding::Json.read_reply(text.as_bytes());
        assert_eq!(json(r#"{"id":2,"subscribe":{}}"#), Reply::Done(2));
        assert_eq!(json(r#"{"push":{"channel":"a","join":{}}}"#), Reply::Push);
        let refused = Reply::Refused(4, 103, "permission denied".to_owned());
        assert_eq!(
            json(r#"{"id":4,"error":{"code":103,"message":"permission denied"}}"#),
            refused
        );
        assert_eq!(json("nonsense"), Reply::Garbage);

        let protobuf = |bytes: &[u8]| Encoding::Protobuf.read_reply(bytes);
        assert_eq!(protobuf(b"\x08\x02\x32\x00"), Reply::Done(2));
        assert_eq!(
            protobuf(b"\x08\x04\x12\x06\x08\x67\x12\x02no"),
            Reply::Refused(4, 103, "no".to_owned())
        );
        assert_eq!(protobuf(b"\x22\x00"), Reply::Push);
        assert_eq!(protobuf(b"\x22\x09"), Reply::Garbage);
    }

    #[test]
    fn writes_commands_the_protocol_knows() {
        let unmask = |frame: &[u8]| -> Vec<u8> {
            assert!(frame[1] & 0x7f < 126, "a short frame");
            let mask = &frame[2..6];
            frame[6..]
                .iter()
                .zip(mask.iter().cycle())
                .map(|(a, b)| a ^ b)
                .collect()
        };
        let json = unmask(&Encoding::Json.publish_frame(7, "a", b"\"x\""));
        assert_eq!(json, br#"{"id":7,"publish":{"channel":"a","data":"x"}}"#);
        // Command{id: 7, publish: {channel: "a", data: "\"x\""}}.
        let protobuf = unmask(&Encoding::Protobuf.publish_frame(7, "a", b"\"x\""));
        assert_eq!(protobuf, b"\x0c\x08\x07\x3a\x08\x0a\x01a\x12\x03\"x\"");
        let wish = Wish {
            channel: "r",
            recoverable: false,
            since: None,
        };
        let join = unmask(&Encoding::Protobuf.join_frame(None, Some(wish)));
        assert_eq!(
            join,
            b"\x13\x08\x01\x22\x0f\x22\x0dringway-bench\x07\x08\x02\x2a\x03\x0a\x01r"
        );
    }

    #[test]
    fn asks_to_recover_and_reads_where_it_stands() {
        let since = Position {
            epoch: "e".to_owned(),
            offset: 9,
        };
        let wish = Wish {
            channel: "r",
            recoverable: true,
            since: Some(&since),
        };
        let mut json = Vec::new();
        Encoding::Json.put_subscribe(&mut json, 3, wish);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let expected = serde_json::json!({ "id": 3, "subscribe":
            { "channel": "r", "recoverable": true, "recover": true, "epoch": "e", "offset": 9 } });
        assert_eq!(json, expected);
        let mut protobuf = Vec::new();
        Encoding::Protobuf.put_subscribe(&mut protobuf, 3, wish);
        assert_eq!(
            protobuf,
            b"\x10\x08\x03\x2a\x0c\x0a\x01r\x18\x01\x32\x01e\x38\x09\x50\x01"
        );

        let subscribed = Subscribed {
            position: since,
            recovered: true,
        };
        let reply = br#"{"id":2,"subscribe":{"recoverable":true,"epoch":"e","offset":9,"publications":[{"data":1}],"recovered":true}}"#;
        assert_eq!(
            Encoding::Json.read_subscribed(reply),
            Some(subscribed.clone())
        );
        let reply = b"\x08\x02\x32\x07\x32\x01e\x40\x01\x48\x09";
        assert_eq!(Encoding::Protobuf.read_subscribed(reply), Some(subscribed));
        assert_eq!(Encoding::Json.read_subscribed(br#"{"id":1}"#), None);
        assert_eq!(Encoding::Json.read_offset(br#","offset":12}}}"#), Some(12));
        assert_eq!(
            Encoding::Protobuf.read_offset(b"\x2a\x00\x30\x0c"),
            Some(12)
        );
    }
}
