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

    /// One frame with `connect` (id 1) and, when a channel is given, `subscribe` (id 2).
    pub fn join_frame(self, token: Option<&str>, channel: Option<&str>) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Json => {
                let mut connect = serde_json::json!({ "name": "ringway-bench" });
                if let Some(token) = token {
                    connect["token"] = token.into();
                }
                message.extend_from_slice(
                    serde_json::json!({ "id": 1, "connect": connect })
                        .to_string()
                        .as_bytes(),
                );
                if let Some(channel) = channel {
                    let subscribe =
                        serde_json::json!({ "id": 2, "subscribe": { "channel": channel } });
                    message.push(b'\n');
                    message.extend_from_slice(subscribe.to_string().as_bytes());
                }
            }
            Self::Protobuf => {
                let mut connect = Vec::new();
                if let Some(token) = token {
                    put_bytes(&mut connect, 1, token.as_bytes());
                }
                put_bytes(&mut connect, 4, b"ringway-bench");
                put_command(&mut message, 1, 4, &connect);
                if let Some(channel) = channel {
                    let mut subscribe = Vec::new();
                    put_bytes(&mut subscribe, 1, channel.as_bytes());
                    put_command(&mut message, 2, 5, &subscribe);
                }
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

    /// Reads a reply that is neither a ping nor one of our publications.
    pub fn read_reply(self, reply: &[u8]) -> Reply {
        match self {
            Self::Json => read_json(reply),
            Self::Protobuf => read_protobuf(reply).unwrap_or(Reply::Garbage),
        }
    }
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
        let join = unmask(&Encoding::Protobuf.join_frame(None, Some("r")));
        assert_eq!(
            join,
            b"\x13\x08\x01\x22\x0f\x22\x0dringway-bench\x07\x08\x02\x2a\x03\x0a\x01r"
        );
    }
}
