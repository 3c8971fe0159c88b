//! A small Centrifuge-speaking server, a thread a connection, that misbehaves on purpose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
    /// Sends a ping in the same message, which is no misdeed.
    Ping,
}

struct Member {
    channel: String,
    stream: TcpStream,
    kept: Option<Vec<u8>>,
}

/// What all connections share.
struct Shared {
    misdeed: Misdeed,
    members: Mutex<Vec<Member>>,
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
            pongs: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address, shared }
    }

    pub fn pongs(&self) -> u64 {
        *self.shared.pongs.lock().unwrap()
    }
}

/// Serves until the peer is gone: then reads fail, and so the thread ends.
fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut protobuf = false;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        protobuf |= line.contains("centrifuge-protobuf");
        if line == "\r\n" {
            break;
        }
    }
    let subprotocol = if protobuf {
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
        let message = read_message(&mut reader)?;
        for command in split(&message, protobuf) {
            handle(&mut stream, shared, &command, protobuf)?;
        }
    }
}

enum Command {
    Connect,
    Subscribe(String),
    Publish(u64, String, Vec<u8>),
    Pong,
}

fn handle(
    stream: &mut TcpStream,
    shared: &Shared,
    command: &Command,
    protobuf: bool,
) -> Option<()> {
    let reply = match (command, protobuf) {
        (Command::Pong, _) => {
            *shared.pongs.lock().unwrap() += 1;
            return Some(());
        }
        (Command::Connect, false) => br#"{"id":1,"connect":{"client":"c","version":"t"}}"#.to_vec(),
        (Command::Connect, true) => delimited(b"\x08\x01\x2a\x03\x0a\x01c"),
        (Command::Subscribe(channel), _) => {
            let reply = if protobuf {
                delimited(b"\x08\x02\x32\x00")
            } else {
                br#"{"id":2,"subscribe":{}}"#.to_vec()
            };
            // The reply must precede any publication, so it is written under the lock.
            let mut members = shared.members.lock().unwrap();
            stream.write_all(&frame(&reply, protobuf)).ok()?;
            members.push(Member {
                channel: channel.clone(),
                stream: stream.try_clone().ok()?,
                kept: None,
            });
            return Some(());
        }
        (Command::Publish(id, channel, data), _) => {
            let mischief = *id % 8 == 7;
            if mischief && shared.misdeed == Misdeed::Refuse {
                format!(r#"{{"id":{id},"error":{{"code":103,"message":"permission denied"}}}}"#)
                    .into_bytes()
            } else {
                publish(shared, channel, data, mischief, protobuf);
                match protobuf {
                    true => delimited(&[&b"\x08"[..], &varint(*id), b"\x42\x00"].concat()),
                    false => format!(r#"{{"id":{id},"publish":{{}}}}"#).into_bytes(),
                }
            }
        }
    };
    stream.write_all(&frame(&reply, protobuf)).ok()
}

fn publish(shared: &Shared, channel: &str, data: &[u8], mischief: bool, protobuf: bool) {
    let mut members = shared.members.lock().unwrap();
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
        let push = push(channel, &data, protobuf);
        let mut out = match (shared.misdeed, mischief) {
            (Misdeed::Lose, true) => Vec::new(),
            (Misdeed::Duplicate, true) => [frame(&push, protobuf), frame(&push, protobuf)].concat(),
            (Misdeed::Reorder, true) => {
                member.kept = Some(frame(&push, protobuf));
                Vec::new()
            }
            (Misdeed::Ping, true) if protobuf => frame(&[&[0], &push[..], &[0]].concat(), protobuf),
            (Misdeed::Ping, true) => frame(&[b"{}\n", &push[..], b"\n{}"].concat(), protobuf),
            (Misdeed::Hangup, true) => {
                let _ = member.stream.shutdown(std::net::Shutdown::Both);
                Vec::new()
            }
            _ => frame(&push, protobuf),
        };
        if !out.is_empty() {
            out.extend(member.kept.take().unwrap_or_default());
        }
        // A member that is gone is the generator's to notice.
        let _ = member.stream.write_all(&out);
    }
}

fn push(channel: &str, data: &[u8], protobuf: bool) -> Vec<u8> {
    match protobuf {
        true => {
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
        false => {
            let head = format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":"#);
            [head.as_bytes(), data, br#","offset":1}}}"#].concat()
        }
    }
}

fn read_message(reader: &mut impl Read) -> Option<Vec<u8>> {
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
    Some(payload)
}

fn split(message: &[u8], protobuf: bool) -> Vec<Command> {
    let mut commands = Vec::new();
    if protobuf {
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
                Command::Subscribe(text(&subscribe["channel"]))
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
        5 => Command::Subscribe(channel),
        7 => Command::Publish(id, channel, strings[1].clone()),
        other => panic!("command {other}"),
    }
}

fn frame(payload: &[u8], protobuf: bool) -> Vec<u8> {
    let mut out = vec![if protobuf { 0x82 } else { 0x81 }];
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
