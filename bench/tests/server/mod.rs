//! A small server, a thread a connection, that misbehaves on purpose. It speaks the Centrifuge protocol in both encodings,
//! under /raw a protocol of its own (`join CHANNEL`, `pub CHANNEL DATA`), and under /echo it echoes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it does wrong to one publication in eight, at its first subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    None,
    Lose,
    Duplicate,
    Reorder,
    /// Flips a bit of the body.
    Corrupt,
    /// Flips a bit of the marker.
    Deface,
    /// Delivers into another channel.
    Misroute,
    /// Refuses it.
    Refuse,
    /// Hangs up.
    Hangup,
    /// Leaves one out of what it recovers.
    Forget,
    /// Says that it has not recovered what was missed.
    Disown,
    /// Sends a ping in the same message, which is no misdeed.
    Ping,
}

struct Member {
    connection: u64,
    channel: String,
    stream: TcpStream,
    kept: Option<Vec<u8>>,
}

/// What all connections share.
struct Shared {
    misdeed: Misdeed,
    members: Mutex<Vec<Member>>,
    /// What was published into each channel.
    history: Mutex<HashMap<String, Vec<Vec<u8>>>>,
    connections: AtomicU64,
    pongs: Mutex<u64>,
}

/// A listening server; its threads end with the test.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub fn start(misdeed: Misdeed) -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), misdeed)
    }

    pub fn start_on(address: SocketAddr, misdeed: Misdeed) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            misdeed,
            members: Mutex::default(),
            history: Mutex::default(),
            connections: AtomicU64::new(0),
            pongs: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
                    serve(stream.unwrap(), &shared, connection);
                    let mut members = shared.members.lock().unwrap();
                    members.retain(|member| member.connection != connection);
                });
            }
        });
        Self { address, shared }
    }

    pub fn pongs(&self) -> u64 {
        *self.shared.pongs.lock().unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Json,
    Protobuf,
    Raw,
    Echo,
}

/// Serves until the peer is gone: then reads fail, and so the thread ends.
fn serve(mut stream: TcpStream, shared: &Shared, connection: u64) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut dialect = Dialect::Json;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.contains("centrifuge-protobuf") {
            dialect = Dialect::Protobuf;
        } else if line.starts_with("GET /raw") {
            dialect = Dialect::Raw;
        } else if line.starts_with("GET /echo") {
            dialect = Dialect::Echo;
        }
        if line == "\r\n" {
            break;
        }
    }
    let subprotocol = if dialect == Dialect::Protobuf {
        "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"
    } else {
        ""
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{subprotocol}\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()?;
    loop {
        let (opcode, message) = read_message(&mut reader)?;
        if opcode == 8 {
            return stream.write_all(&[0x88, 0]).ok();
        }
        for command in split(&message, dialect) {
            handle(&mut stream, shared, connection, &command, dialect)?;
        }
    }
}

enum Command {
    Connect,
    /// With the offset to recover from.
    Subscribe(u64, String, Option<usize>),
    Unsubscribe(u64, String),
    Publish(u64, String, Vec<u8>),
    Pong,
    Echo(Vec<u8>),
}

fn handle(
    stream: &mut TcpStream,
    shared: &Shared,
    connection: u64,
    command: &Command,
    dialect: Dialect,
) -> Option<()> {
    let reply = match (command, dialect) {
        (Command::Pong, _) => {
            *shared.pongs.lock().unwrap() += 1;
            return Some(());
        }
        (Command::Echo(data), _) => {
            return stream.write_all(&echo(shared, data)).ok();
        }
        (Command::Connect, Dialect::Protobuf) => delimited(b"\x08\x01\x2a\x03\x0a\x01c"),
        (Command::Connect, _) => br#"{"id":1,"connect":{"client":"c","version":"t"}}"#.to_vec(),
        (Command::Subscribe(id, channel, since), _) => {
            // The reply must precede any publication, so it is written under the lock.
            let mut members = shared.members.lock().unwrap();
            let history = shared.history.lock().unwrap();
            let missed = history.get(channel).map_or(&[][..], Vec::as_slice);
            let reply = match dialect {
                Dialect::Protobuf => delimited(&[b"\x08", &varint(*id)[..], b"\x32\x00"].concat()),
                Dialect::Raw => b"joined".to_vec(),
                _ => subscribed(shared.misdeed, *id, missed, *since),
            };
            stream.write_all(&frame(&reply, dialect)).ok()?;
            members.push(Member {
                connection,
                channel: channel.clone(),
                stream: stream.try_clone().ok()?,
                kept: None,
            });
            return Some(());
        }
        (Command::Unsubscribe(id, channel), _) => {
            let mut members = shared.members.lock().unwrap();
            members.retain(|member| member.connection != connection || member.channel != *channel);
            match dialect {
                Dialect::Protobuf => delimited(&[b"\x08", &varint(*id)[..], b"\x3a\x00"].concat()),
                _ => format!(r#"{{"id":{id},"unsubscribe":{{}}}}"#).into_bytes(),
            }
        }
        (Command::Publish(id, channel, data), _) => {
            let mischief = *id % 8 == 7;
            if mischief && shared.misdeed == Misdeed::Refuse {
                format!(r#"{{"id":{id},"error":{{"code":103,"message":"permission denied"}}}}"#)
                    .into_bytes()
            } else {
                publish(shared, channel, data, mischief, dialect);
                match dialect {
                    Dialect::Protobuf => {
                        delimited(&[&b"\x08"[..], &varint(*id), b"\x42\x00"].concat())
                    }
                    Dialect::Raw => b"published".to_vec(),
                    _ => format!(r#"{{"id":{id},"publish":{{}}}}"#).into_bytes(),
                }
            }
        }
    };
    stream.write_all(&frame(&reply, dialect)).ok()
}

fn publish(shared: &Shared, channel: &str, data: &[u8], mischief: bool, dialect: Dialect) {
    let mut members = shared.members.lock().unwrap();
    let mut history = shared.history.lock().unwrap();
    let kept = history.entry(channel.to_owned()).or_default();
    kept.push(data.to_vec());
    let offset = kept.len();
    let mut victim = true;
    for member in members.iter_mut() {
        let here = member.channel == channel;
        let misroute = mischief && shared.misdeed == Misdeed::Misroute;
        if !here && !misroute {
            continue;
        }
        let mut data = data.to_vec();
        let mischief = mischief && std::mem::take(&mut victim);
        match shared.misdeed {
            Misdeed::Corrupt if mischief => data[60] ^= 1,
            Misdeed::Deface if mischief => data[2] ^= 1,
            _ => {}
        }
        let push = push(channel, &data, offset, dialect);
        let mut out = match (shared.misdeed, mischief) {
            (Misdeed::Lose, true) => Vec::new(),
            (Misdeed::Duplicate, true) => [frame(&push, dialect), frame(&push, dialect)].concat(),
            (Misdeed::Reorder, true) => {
                member.kept = Some(frame(&push, dialect));
                Vec::new()
            }
            (Misdeed::Ping, true) if dialect == Dialect::Protobuf => {
                frame(&[&[0], &push[..], &[0]].concat(), dialect)
            }
            (Misdeed::Ping, true) => frame(&[b"{}\n", &push[..], b"\n{}"].concat(), dialect),
            (Misdeed::Hangup, true) => {
                let _ = member.stream.shutdown(std::net::Shutdown::Both);
                Vec::new()
            }
            _ => frame(&push, dialect),
        };
        if !out.is_empty() {
            out.extend(member.kept.take().unwrap_or_default());
        }
        // A member that is gone is the generator's to notice.
        let _ = member.stream.write_all(&out);
    }
}

/// The misdeed befalls messages whose sequence number ends in 7.
fn echo(shared: &Shared, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    let mischief = data[28] == b'7';
    if mischief && shared.misdeed == Misdeed::Corrupt {
        data[40] ^= 1;
    }
    let once = frame(&data, Dialect::Echo);
    match shared.misdeed {
        Misdeed::Lose if mischief => Vec::new(),
        Misdeed::Duplicate if mischief => [&once[..], &once].concat(),
        _ => once,
    }
}

/// The answer to a subscribe, with what came after `since`.
fn subscribed(misdeed: Misdeed, id: u64, history: &[Vec<u8>], since: Option<usize>) -> Vec<u8> {
    let top = history.len();
    let missed: Vec<String> = history
        .iter()
        .enumerate()
        .skip(since.unwrap_or(top))
        .filter(|(at, _)| misdeed != Misdeed::Forget || at % 8 != 6)
        .filter(|_| misdeed != Misdeed::Disown)
        .map(|(at, data)| {
            let data = std::str::from_utf8(data).unwrap();
            format!(r#"{{"data":{data},"offset":{}}}"#, at + 1)
        })
        .collect();
    let recovered = since.is_some() && misdeed != Misdeed::Disown;
    format!(
        r#"{{"id":{id},"subscribe":{{"recoverable":true,"epoch":"e","offset":{top},"publications":[{}],"recovered":{recovered}}}}}"#,
        missed.join(",")
    )
    .into_bytes()
}

fn push(channel: &str, data: &[u8], offset: usize, dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Raw => [b"to ", channel.as_bytes(), b": ", data, b";"].concat(),
        Dialect::Protobuf => {
            let publication = [&b"\x22"[..], &varint(data.len() as u64), data].concat();
            let head = [
                &b"\x12"[..],
                &varint(channel.len() as u64),
                channel.as_bytes(),
            ]
            .concat();
            let push = [
                &head[..],
                b"\x22",
                &varint(publication.len() as u64),
                &publication,
            ]
            .concat();
            delimited(&[&b"\x22"[..], &varint(push.len() as u64), &push].concat())
        }
        Dialect::Json | Dialect::Echo => {
            let head = format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":"#);
            let tail = format!(r#","offset":{offset}}}}}}}"#);
            [head.as_bytes(), data, tail.as_bytes()].concat()
        }
    }
}

/// Opcode and payload.
fn read_message(reader: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head).ok()?;
    assert!(head[1] & 0x80 != 0, "clients mask");
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            reader.read_exact(&mut len).ok()?;
            u16::from_be_bytes(len).into()
        }
        len => {
            assert!(len < 126, "no test sends over 64 KiB");
            usize::from(len)
        }
    };
    let (mut mask, mut payload) = ([0; 4], vec![0; len]);
    reader.read_exact(&mut mask).ok()?;
    reader.read_exact(&mut payload).ok()?;
    payload
        .iter_mut()
        .zip(mask.iter().cycle())
        .for_each(|(byte, mask)| *byte ^= mask);
    Some((head[0] & 15, payload))
}

fn split(message: &[u8], dialect: Dialect) -> Vec<Command> {
    let mut commands = Vec::new();
    if dialect == Dialect::Echo {
        commands.push(Command::Echo(message.to_vec()));
    } else if dialect == Dialect::Raw {
        commands.push(read_raw(std::str::from_utf8(message).unwrap()));
    } else if dialect == Dialect::Protobuf {
        let mut rest = message;
        while !rest.is_empty() {
            let len = take_varint(&mut rest) as usize;
            commands.push(read_protobuf(&rest[..len]));
            rest = &rest[len..];
        }
    } else {
        for line in message.split(|&byte| byte == b'\n') {
            let command: serde_json::Value = serde_json::from_slice(line).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            commands.push(if command.get("connect").is_some() {
                Command::Connect
            } else if let Some(subscribe) = command.get("subscribe") {
                let since = subscribe["recover"].as_bool().unwrap_or(false);
                Command::Subscribe(
                    command["id"].as_u64().unwrap(),
                    text(&subscribe["channel"]),
                    since.then(|| subscribe["offset"].as_u64().unwrap_or(0) as usize),
                )
            } else if let Some(unsubscribe) = command.get("unsubscribe") {
                let id = command["id"].as_u64().unwrap();
                Command::Unsubscribe(id, text(&unsubscribe["channel"]))
            } else if let Some(publish) = command.get("publish") {
                let id = command["id"].as_u64().unwrap();
                Command::Publish(
                    id,
                    text(&publish["channel"]),
                    publish["data"].to_string().into_bytes(),
                )
            } else {
                assert_eq!(line, b"{}");
                Command::Pong
            });
        }
    }
    commands
}

fn read_raw(message: &str) -> Command {
    let mut words = message.splitn(4, ' ');
    let mut word = || words.next().unwrap_or_else(|| panic!("{message}"));
    match word() {
        "join" => Command::Subscribe(0, word().to_owned(), None),
        "pub" => Command::Publish(
            word().parse().unwrap(),
            word().to_owned(),
            word().as_bytes().to_vec(),
        ),
        _ => panic!("{message}"),
    }
}

fn read_protobuf(command: &[u8]) -> Command {
    if command.is_empty() {
        return Command::Pong;
    }
    let mut rest = &command[1..];
    let id = take_varint(&mut rest);
    let field = take_varint(&mut rest) >> 3;
    take_varint(&mut rest);
    if field == 4 {
        return Command::Connect;
    }
    let mut strings = Vec::new();
    while !rest.is_empty() {
        take_varint(&mut rest);
        let len = take_varint(&mut rest) as usize;
        strings.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    let channel = String::from_utf8(strings[0].clone()).unwrap();
    match field {
        5 => Command::Subscribe(id, channel, None),
        6 => Command::Unsubscribe(id, channel),
        7 => Command::Publish(id, channel, strings[1].clone()),
        other => panic!("command {other}"),
    }
}

fn frame(payload: &[u8], dialect: Dialect) -> Vec<u8> {
    let mut out = vec![if dialect == Dialect::Protobuf {
        0x82
    } else {
        0x81
    }];
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len => {
            out.push(126);
            out.extend((len as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

fn delimited(message: &[u8]) -> Vec<u8> {
    [&varint(message.len() as u64), message].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
