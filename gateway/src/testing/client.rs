//! One connection of a client, free of I/O: commands in, masked frames out; server bytes in, messages out.

use super::net::SocketId;
use super::rng::Rng;
use crate::protocol::centrifuge::Encoding;
use crate::protocol::http::SUBPROTOCOL_PROTOBUF;
use crate::protocol::websocket::client::{
    ClientDecoder, UpgradeFailed, mark_deflated, parse_switching, write_masked_fragment,
    write_masked_frame, write_upgrade_request,
};
use crate::protocol::websocket::{Deflater, Inflater, Opcode, frame_header_len, write_frame};

/// Any 16 bytes in base64: the answer to it is checked.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What it inflates at most. The server's messages are smaller.
const INFLATED_MAX: usize = 8 << 20;
/// What it compresses at most: the filler of publications is so even that larger ones would be taken for bombs.
const DEFLATED_MAX: usize = 8 << 10;

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The upgrade was refused with an HTTP status.
    Refused(u16),
    /// The upgrade was agreed to.
    Upgraded,
    /// A whole message.
    Message(Vec<u8>),
    /// The answer to a WebSocket ping.
    WsPong(Vec<u8>),
    /// The end: code (1005 without one) and reason.
    Close(u16, String),
}

/// The client's half of one connection.
#[derive(Debug)]
pub struct Connection {
    /// Its socket.
    pub socket: SocketId,
    /// The shard it is connected to.
    pub shard: usize,
    /// How it talks.
    pub encoding: Encoding,
    /// Bytes of the HTTP response, until it is whole.
    head: Option<Vec<u8>>,
    frames: ClientDecoder,
    /// Fragments of a message.
    message: Vec<u8>,
    /// That message is compressed.
    deflated: bool,
    closed: bool,
    /// The window it offers permessage-deflate with, in bits; 0: it does not offer it.
    window_bits: u8,
    /// The offer was accepted.
    deflates: bool,
    inflater: Inflater,
    deflater: Deflater,
    /// Compressed messages read.
    pub inflated: u64,
}

impl Connection {
    /// A connection, and the bytes that ask for it. `forwarded`: header lines about whose it is.
    pub fn new(
        socket: SocketId,
        shard: usize,
        encoding: Encoding,
        window_bits: u8,
        forwarded: &str,
        rng: &mut Rng,
    ) -> (Self, Vec<u8>) {
        let subprotocol = format!("Sec-WebSocket-Protocol: {SUBPROTOCOL_PROTOBUF}\r\n");
        let (target, lines) = match encoding {
            Encoding::Json => ("/connection/websocket", ""),
            Encoding::Protobuf if rng.chance(200) => ("/connection/websocket?format=protobuf", ""),
            Encoding::Protobuf => ("/connection/websocket", &subprotocol[..]),
        };
        let mut lines = lines.to_owned() + forwarded;
        if window_bits > 0 {
            lines += "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
            lines += &format!("; server_max_window_bits={window_bits}\r\n");
        }
        let mut request = Vec::new();
        write_upgrade_request(&mut request, target, "localhost:8000", KEY, &lines);
        let connection = Self {
            socket,
            shard,
            encoding,
            head: Some(Vec::new()),
            frames: ClientDecoder::new(),
            message: Vec::new(),
            deflated: false,
            closed: false,
            window_bits,
            deflates: false,
            inflater: Inflater::for_server(),
            deflater: Deflater::new(1),
            inflated: 0,
        };
        (connection, request)
    }

    /// Bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        match &mut self.head {
            Some(head) => head.extend_from_slice(bytes),
            None => self.frames.push(bytes),
        }
    }

    /// The next thing that arrived whole.
    ///
    /// # Errors
    /// What a server must not send.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, String> {
        if let Some(head) = &self.head {
            return match parse_switching(head, KEY) {
                Ok(None) => Ok(None),
                Ok(Some(switched)) => {
                    if let Some(extensions) = switched.extensions {
                        let agreed = format!(
                            "permessage-deflate; server_no_context_takeover; \
                             client_no_context_takeover; server_max_window_bits={}",
                            self.window_bits
                        );
                        if extensions != agreed {
                            return Err(format!("it agreed to {extensions:?}"));
                        }
                        self.deflates = true;
                        self.frames.allow_deflate();
                    }
                    self.frames.push(&head[switched.head_len..]);
                    self.head = None;
                    Ok(Some(Incoming::Upgraded))
                }
                Err(UpgradeFailed::Refused(status)) => {
                    self.head = Some(Vec::new());
                    Ok(Some(Incoming::Refused(status)))
                }
                Err(other) => Err(format!("the upgrade failed: {other}")),
            };
        }
        let data = self.opcode();
        while let Some(frame) = self
            .frames
            .next_frame()
            .map_err(|error| format!("a bad frame: {error}"))?
        {
            if self.closed {
                return Err(format!("a {:?} frame behind the close frame", frame.opcode));
            }
            match frame.opcode {
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    let expected = if self.message.is_empty() {
                        data
                    } else {
                        Opcode::Continuation
                    };
                    if frame.opcode != expected {
                        return Err(format!(
                            "a {:?} frame in place of {expected:?}",
                            frame.opcode
                        ));
                    }
                    self.deflated |= frame.deflated;
                    self.message.extend_from_slice(frame.payload);
                    if frame.fin {
                        let mut message = std::mem::take(&mut self.message);
                        if std::mem::take(&mut self.deflated) {
                            let inflated = self.inflater.inflate(&message, INFLATED_MAX);
                            message = inflated.map_err(|error| error.to_string())?.to_vec();
                            self.inflated += 1;
                            if self.window_bits < 15 && message.len() > 1 << self.window_bits {
                                return Err("a message that may need a larger window".into());
                            }
                        }
                        return Ok(Some(Incoming::Message(message)));
                    }
                }
                Opcode::Ping => return Err("a WebSocket ping".into()),
                Opcode::Pong => return Ok(Some(Incoming::WsPong(frame.payload.to_vec()))),
                Opcode::Close => {
                    self.closed = true;
                    let code = frame
                        .payload
                        .first_chunk()
                        .map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason =
                        String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default())
                            .into_owned();
                    return Ok(Some(Incoming::Close(code, reason)));
                }
            }
        }
        Ok(None)
    }

    /// Whether a frame has arrived in part.
    pub fn is_cut(&self) -> bool {
        self.frames.pending_bytes() > 0
    }

    fn opcode(&self) -> Opcode {
        match self.encoding {
            Encoding::Json => Opcode::Text,
            Encoding::Protobuf => Opcode::Binary,
        }
    }

    /// Appends commands as a message, now and then in fragments, compressed if that was agreed and makes them smaller.
    pub fn write(&mut self, rng: &mut Rng, commands: &[u8], out: &mut Vec<u8>) {
        let mask = (rng.next_u64() as u32).to_le_bytes();
        let (mut plain, mut deflated) = (Vec::new(), Vec::new());
        if self.deflates && commands.len() <= DEFLATED_MAX {
            write_frame(&mut plain, self.opcode(), commands);
            self.deflater.deflate(&mut deflated, &plain);
        }
        let header_len = frame_header_len(&deflated).unwrap_or_default();
        let (commands, start) = match &deflated[header_len..] {
            [] => (commands, None),
            payload => (payload, Some(out.len())),
        };
        self.write_payload(rng, mask, commands, out);
        if let Some(start) = start {
            mark_deflated(&mut out[start..]);
        }
    }

    fn write_payload(&self, rng: &mut Rng, mask: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
        if rng.chance(950) || payload.is_empty() {
            write_masked_frame(out, self.opcode(), mask, payload);
            return;
        }
        let mut opcode = self.opcode();
        let mut rest = payload;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.range(1, rest.len() as u64) as usize);
            write_masked_fragment(out, opcode, behind.is_empty(), mask, piece);
            opcode = Opcode::Continuation;
            rest = behind;
        }
    }

    /// Appends a WebSocket ping.
    pub fn write_ping(&self, payload: &[u8], out: &mut Vec<u8>) {
        write_masked_frame(out, Opcode::Ping, [1, 2, 3, 4], payload);
    }

    /// Appends a close frame: the first, or the answer to the server's.
    pub fn write_close(&self, code: u16, out: &mut Vec<u8>) {
        let payload = code.to_be_bytes();
        let payload = if code == 1005 { &[][..] } else { &payload[..] };
        write_masked_frame(out, Opcode::Close, [9, 8, 7, 6], payload);
    }
}
