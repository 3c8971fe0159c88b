//! What clients write, and the channels they meet in.

use ringway::protocol::centrifuge::Encoding;
use ringway::protocol::centrifuge::client::{Connect, connect};
use ringway::protocol::http::SUBPROTOCOL_PROTOBUF;
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::{write_masked_frame, write_upgrade_request};
use std::sync::atomic::{AtomicU64, Ordering};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x1b, 0x2c, 0x3d, 0x4e];

/// What is watched for order and loss: with history, and without.
pub const WATCHED: [&str; 6] = ["w0", "w1", "w2", "w3", "plain:w0", "plain:w1"];
/// What gets more than a client that does not read can be sent, one for each policy.
pub const FLOODED: [&str; 3] = ["flood", "skip:flood", "latest:flood"];
/// Channels of the crowd alone, which come and go with their members.
pub const PASSING: u64 = 300;

/// How far the watched channels have come, for those who recover: offsets as somebody has seen them.
#[derive(Default)]
pub struct Tops([AtomicU64; WATCHED.len()]);

impl Tops {
    pub fn set(&self, channel: usize, offset: u64) {
        self.0[channel].fetch_max(offset, Ordering::Relaxed);
    }

    pub fn get(&self, channel: usize) -> u64 {
        self.0[channel].load(Ordering::Relaxed)
    }
}

/// Appends an upgrade request.
pub fn upgrade(out: &mut Vec<u8>, encoding: Encoding) {
    let offer = match encoding {
        Encoding::Json => String::new(),
        Encoding::Protobuf => format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_PROTOBUF}\r\n"),
    };
    write_upgrade_request(out, "/connection/websocket", "localhost", KEY, &offer);
}

/// Appends one message.
pub fn message(out: &mut Vec<u8>, encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) {
    let opcode = match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::Protobuf => Opcode::Binary,
    };
    let mut payload = Vec::new();
    write(&mut payload);
    write_masked_frame(out, opcode, MASK, &payload);
}

/// Appends a close frame.
pub fn close(out: &mut Vec<u8>) {
    write_masked_frame(out, Opcode::Close, MASK, &1000u16.to_be_bytes());
}

/// Appends the first command.
pub fn greet(out: &mut Vec<u8>, encoding: Encoding) {
    message(out, encoding, |out| {
        connect(out, encoding, 1, &Connect::default());
    });
}
