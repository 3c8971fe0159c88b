//! What the servers on a ring share: their runtimes own the read buffer, and no WebSocket library works that way. So the
//! upgrade and the frames are read from bytes, with tungstenite's types, and what is to be sent is put into the outbox.

use std::io::{self, Cursor};
use std::rc::Rc;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::READ_BYTES;
use super::rooms::{Outbox, Rooms, Seat};

/// Submission entries: a fan-out to many members fills them more than once.
pub const ENTRIES: u32 = 4096;
const LONGEST_REQUEST: usize = 16 * 1024;
const LONGEST_MESSAGE: usize = 1024 * 1024;

const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Serves a connection by its socket's `read` into a buffer, and `write` of all bytes; returns when it is over.
pub async fn attend(
    rooms: &Rc<Rooms<Bytes>>,
    mut read: impl AsyncFnMut(Vec<u8>) -> (io::Result<usize>, Vec<u8>),
    mut write: impl AsyncFnMut(Bytes) -> io::Result<()>,
) {
    let outbox = Outbox::new();
    let mut session = Session::new(rooms, &outbox);
    let receiving = async {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            let got;
            (got, buffer) = read(buffer).await;
            match got {
                Ok(0) | Err(_) => return,
                Ok(len) => session.receive(&buffer[..len]),
            }
        }
    };
    let sending = async {
        while let Some(bytes) = outbox.joined().await {
            if write(bytes).await.is_err() {
                return;
            }
        }
    };
    outbox.attend(receiving, sending).await;
}

/// One connection without its socket.
struct Session {
    rooms: Rc<Rooms<Bytes>>,
    outbox: Rc<Outbox<Bytes>>,
    /// Once it is upgraded.
    seat: Option<Seat<Bytes>>,
    /// What came of a request or a frame that is not all there.
    cut: Vec<u8>,
    /// What came of a message in several frames.
    message: Option<(OpCode, Vec<u8>)>,
}

impl Session {
    /// A connection that has sent nothing yet.
    fn new(rooms: &Rc<Rooms<Bytes>>, outbox: &Rc<Outbox<Bytes>>) -> Self {
        Self {
            rooms: Rc::clone(rooms),
            outbox: Rc::clone(outbox),
            seat: None,
            cut: Vec::new(),
            message: None,
        }
    }

    /// Takes what has arrived. A peer that breaks the protocol is told so, and the outbox finishes.
    fn receive(&mut self, bytes: &[u8]) {
        let outcome = if self.cut.is_empty() {
            let used = self.consume(bytes);
            used.map(|used| self.cut.extend_from_slice(&bytes[used..]))
        } else {
            let mut all = std::mem::take(&mut self.cut);
            all.extend_from_slice(bytes);
            self.consume(&all).map(|used| {
                all.drain(..used);
                self.cut = all;
            })
        };
        if let Err(code) = outcome {
            self.close(&code.to_be_bytes());
        }
        if self.cut.is_empty() {
            self.cut = Vec::new();
        }
    }

    /// Takes what is complete; how many bytes that was, or the code to close with.
    fn consume(&mut self, bytes: &[u8]) -> Result<usize, u16> {
        let mut used = match self.seat {
            Some(_) => 0,
            None => self.upgrade(bytes),
        };
        while self.seat.is_some() {
            let mut head = Cursor::new(&bytes[used..]);
            let parsed = FrameHeader::parse(&mut head).map_err(|_| PROTOCOL_ERROR)?;
            let Some((header, len)) = parsed else { break };
            let len = usize::try_from(len).map_err(|_| TOO_BIG)?;
            let began = self.message.as_ref().map_or(0, |(_, data)| data.len());
            if len.saturating_add(began) > LONGEST_MESSAGE {
                return Err(TOO_BIG);
            }
            let payload_at = used + head.position() as usize;
            let Some(payload) = bytes.get(payload_at..payload_at + len) else {
                break;
            };
            self.take(&header, payload)?;
            used = payload_at + len;
        }
        Ok(used)
    }

    fn upgrade(&mut self, bytes: &[u8]) -> usize {
        let refuse = || {
            let answer =
                Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            self.outbox.push(answer);
            self.outbox.finish();
            bytes.len()
        };
        let (len, request) = match Request::try_parse(bytes) {
            Ok(Some(parsed)) => parsed,
            Ok(None) if bytes.len() < LONGEST_REQUEST => return 0,
            Ok(None) | Err(_) => return refuse(),
        };
        let Ok(response) = create_response(&request) else {
            return refuse();
        };
        let mut answer = Vec::new();
        write_response(&mut answer, &response).expect("a Vec takes all");
        self.outbox.push(answer.into());
        self.seat = Some(self.rooms.enter(request.uri().path(), &self.outbox));
        len
    }

    fn take(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), u16> {
        let reserved = header.rsv1 || header.rsv2 || header.rsv3;
        let Some(mask) = header.mask.filter(|_| !reserved) else {
            return Err(PROTOCOL_ERROR);
        };
        match header.opcode {
            OpCode::Control(_) if !header.is_final || payload.len() > 125 => Err(PROTOCOL_ERROR),
            OpCode::Control(Control::Ping) => {
                let payload = unmasked(Vec::new(), payload, mask);
                let pong = OpCode::Control(Control::Pong);
                self.outbox.push(frame(pong, &payload));
                Ok(())
            }
            OpCode::Control(Control::Pong) => Ok(()),
            OpCode::Control(Control::Close) => {
                let payload = unmasked(Vec::new(), payload, mask);
                self.close(payload.get(..2).unwrap_or_default());
                Ok(())
            }
            OpCode::Data(Data::Text | Data::Binary) if self.message.is_none() => {
                self.take_data(header, header.opcode, Vec::new(), payload, mask)
            }
            OpCode::Data(Data::Continue) => {
                let (opcode, begun) = self.message.take().ok_or(PROTOCOL_ERROR)?;
                self.take_data(header, opcode, begun, payload, mask)
            }
            OpCode::Data(_) | OpCode::Control(Control::Reserved(_)) => Err(PROTOCOL_ERROR),
        }
    }

    fn take_data(
        &mut self,
        header: &FrameHeader,
        opcode: OpCode,
        begun: Vec<u8>,
        payload: &[u8],
        mask: [u8; 4],
    ) -> Result<(), u16> {
        let data = unmasked(begun, payload, mask);
        if !header.is_final {
            self.message = Some((opcode, data));
            return Ok(());
        }
        if opcode == OpCode::Data(Data::Text) && std::str::from_utf8(&data).is_err() {
            return Err(NOT_UTF8);
        }
        if let Some(seat) = &self.seat {
            seat.say(&frame(opcode, &data));
        }
        Ok(())
    }

    /// Leaves the room, then the close frame is the last that is sent.
    fn close(&mut self, code: &[u8]) {
        self.seat = None;
        self.outbox
            .push(frame(OpCode::Control(Control::Close), code));
        self.outbox.finish();
    }
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let header = FrameHeader {
        is_final: true,
        opcode,
        ..FrameHeader::default()
    };
    let mut bytes = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
    header
        .format(payload.len() as u64, &mut bytes)
        .expect("a Vec takes all");
    bytes.extend_from_slice(payload);
    bytes.into()
}

/// `payload` behind `begun`, which is unmasked already.
fn unmasked(mut begun: Vec<u8>, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let start = begun.len();
    begun.extend_from_slice(payload);
    for four in begun[start..].chunks_mut(4) {
        four.iter_mut()
            .zip(mask)
            .for_each(|(byte, mask)| *byte ^= mask);
    }
    begun
}
