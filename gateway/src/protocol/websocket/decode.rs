//! From the bytes of a client to messages.

use super::close::parse_close;
use super::deflate::Inflater;
use super::error::WsError;
use super::frame::{CONTROL_MAX, HEADER_MAX, Header, Opcode, Sender};
use super::mask::{apply_mask, rotate_mask};
use super::utf8::{is_utf8, utf8_valid_up_to};
use std::ops::Range;

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most payload bytes of a message, all its fragments together; inflated, if it is compressed.
    pub message_bytes: usize,
    /// The most frames a message may come in, at least 1.
    pub fragments: u32,
    /// permessage-deflate was agreed: messages may be compressed.
    pub deflate: bool,
}

impl Limits {
    /// The most payload bytes that may arrive of a message. What does not shrink grows a little when it is compressed; the
    /// worst encoder, one that knows only the fixed codes, makes nine bits of eight.
    fn arriving_bytes(&self, deflated: bool) -> usize {
        if deflated {
            self.message_bytes + self.message_bytes / 8 + 64
        } else {
            self.message_bytes
        }
    }
}

/// Something a client said, lent until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'b> {
    /// A text message; valid UTF-8.
    Text(&'b [u8]),
    /// A binary message.
    Binary(&'b [u8]),
    /// Wants a pong with the same bytes, at most 125.
    Ping(&'b [u8]),
    /// At most 125 bytes.
    Pong(&'b [u8]),
    /// The client ends the connection; what follows must not be decoded.
    Close {
        /// The code, if it gave one; one that may be on the wire.
        code: Option<u16>,
        /// The reason, often empty.
        reason: &'b str,
    },
}

/// Decodes the frames of one client. Whatever is cut waits in a box that exists only while something is cut.
///
/// # Use
/// ```
/// # use ringway::protocol::websocket::{Decoder, Inflater, Limits, WsError};
/// # fn example(decoder: &mut Decoder, limits: &Limits, inflater: &mut Inflater, input: &mut [u8]) -> Result<(), WsError> {
/// let mut at = 0;
/// loop {
///     let (used, message) = decoder.decode(limits, inflater, &mut input[at..])?;
///     at += used;
///     let Some(message) = message else { break };
///     # let _ = message;
///     // act on the message; stop after a close
/// }
/// # Ok(())
/// # }
/// ```
/// The last call, the one that returns no message, also frees what the message before it was lent from.
#[derive(Debug, Default)]
pub struct Decoder {
    assembly: Option<Box<Assembly>>,
}

const _: () = assert!(size_of::<Decoder>() == 8);
const _: () = assert!(size_of::<Assembly>() <= 224);

/// What is cut: a header, a frame, a message, or several of them.
#[derive(Debug)]
struct Assembly {
    /// The payload of the message so far, unmasked.
    payload: Vec<u8>,
    /// How much of `payload` is known to be UTF-8; only for text that is not compressed.
    valid: usize,
    /// The frame whose payload is coming in.
    frame: Option<Incoming>,
    /// The kind of the message that has begun and not ended.
    message: Option<DataKind>,
    /// Whether that message is compressed.
    deflated: bool,
    /// Frames of the message so far.
    fragments: u32,
    header_len: u8,
    control_len: u8,
    /// A header that is cut: its first `header_len` bytes.
    header: [u8; HEADER_MAX],
    /// The payload of a control frame that is cut: its first `control_len` bytes.
    control: [u8; CONTROL_MAX],
}

/// A frame of which the header is known.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    /// Payload bytes that have not arrived.
    remaining: usize,
    /// Rotated for the first of them.
    mask: [u8; 4],
    fin: bool,
    /// `Some` for close, ping and pong.
    control: Option<Opcode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataKind {
    Text,
    Binary,
}

/// Where the bytes of an event are, and what it is; all checks are done.
#[derive(Debug)]
enum Found {
    /// A whole frame in the input.
    Input(Opcode, Range<usize>),
    /// A control frame that was cut.
    Control(Opcode),
    /// A data message that was cut or fragmented.
    Message(DataKind),
    /// A compressed message, in the input or else in the assembly. What it inflates to is not checked yet.
    Deflated(DataKind, Option<Range<usize>>),
}

impl Decoder {
    /// A decoder at the start of a connection, right behind the upgrade request.
    pub const fn new() -> Self {
        Self { assembly: None }
    }

    /// Whether nothing is cut, so that nothing is owned.
    pub fn is_idle(&self) -> bool {
        self.assembly.is_none()
    }

    /// Bytes owned for what is cut; 0 when idle.
    pub fn owned_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| {
            size_of::<Assembly>() + assembly.payload.capacity()
        })
    }

    /// Consumes bytes from the front of `input` up to the end of the next message, and says how many. Without a message
    /// all of `input` was consumed. Bytes of `input` are unmasked where they lie; a compressed message is inflated when all
    /// of it is there, so that nothing but its own bytes is held until then.
    ///
    /// # Errors
    /// The first thing wrong in the stream, as soon as its bytes show it (in a compressed message: at its end); every whole
    /// message in front of it has been returned before. The decoder owns nothing afterwards and must not be given more.
    pub fn decode<'b>(
        &'b mut self,
        limits: &Limits,
        inflater: &'b mut Inflater,
        input: &'b mut [u8],
    ) -> Result<(usize, Option<Message<'b>>), WsError> {
        let (used, found) = match self.advance(limits, input) {
            Ok(step) => step,
            Err(error) => {
                self.assembly = None;
                return Err(error);
            }
        };
        let Some(found) = found else {
            return Ok((used, None));
        };
        let message = match found {
            Found::Input(opcode, range) => Message::from_frame(opcode, &input[range]),
            Found::Control(opcode) => Message::from_frame(opcode, self.held().control()),
            Found::Message(kind) => kind.message(&self.held().payload),
            Found::Deflated(kind, range) => {
                let payload = range.map_or_else(|| &self.held().payload[..], |range| &input[range]);
                match inflate(limits, inflater, kind, payload) {
                    Ok(message) => message,
                    Err(error) => {
                        self.assembly = None;
                        return Err(error);
                    }
                }
            }
        };
        Ok((used, Some(message)))
    }

    /// [`Decoder::decode`] without borrows: finds the next message and leaves its bytes, checked, where `Found` says.
    fn advance(
        &mut self,
        limits: &Limits,
        input: &mut [u8],
    ) -> Result<(usize, Option<Found>), WsError> {
        if self
            .assembly
            .as_ref()
            .is_some_and(|assembly| assembly.is_idle())
        {
            // Its message was returned by the call before this one.
            self.assembly = None;
        }
        let mut at = 0;
        loop {
            let rest = &mut input[at..];
            match &mut self.assembly {
                Some(assembly) if assembly.frame.is_some() => {
                    let (used, found) = assembly.take_payload(rest)?;
                    at += used;
                    if found.is_some() || at == input.len() {
                        return Ok((at, found));
                    }
                }
                Some(assembly) if assembly.header_len > 0 => {
                    at += assembly.complete_header(limits, rest)?;
                    if assembly.frame.is_none() {
                        return Ok((at, None));
                    }
                }
                // At the border between two frames.
                _ => {
                    if rest.is_empty() {
                        return Ok((at, None));
                    }
                    let Some(header) = Header::parse(rest, Sender::Client, limits.deflate)? else {
                        self.assembly().keep_header(rest);
                        return Ok((input.len(), None));
                    };
                    admit(self.assembly.as_deref(), &header, limits)?;
                    let available = rest.len() - header.header_len;
                    if available >= header.payload_len && self.is_whole_message(&header) {
                        let range =
                            at + header.header_len..at + header.header_len + header.payload_len;
                        let payload = &mut input[range.clone()];
                        apply_mask(payload, header.mask);
                        let end = range.end;
                        let found = if header.deflated {
                            Found::Deflated(DataKind::of(header.opcode), Some(range))
                        } else {
                            check_payload(header.opcode, payload)?;
                            Found::Input(header.opcode, range)
                        };
                        return Ok((end, Some(found)));
                    }
                    self.assembly().begin_frame(&header);
                    at += header.header_len;
                }
            }
        }
    }

    /// Whether the frame is an event by itself: control, or a data message in one frame.
    fn is_whole_message(&self, header: &Header) -> bool {
        header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation)
    }

    /// Where what was found lies.
    fn held(&self) -> &Assembly {
        self.assembly.as_deref().expect("found in an assembly")
    }

    fn assembly(&mut self) -> &mut Assembly {
        self.assembly.get_or_insert_default()
    }
}

/// Checks a well-formed header against what came before it and against the limits.
fn admit(assembly: Option<&Assembly>, header: &Header, limits: &Limits) -> Result<(), WsError> {
    if header.opcode.is_control() {
        return Ok(());
    }
    let begun = assembly.filter(|assembly| assembly.message.is_some());
    match (header.opcode, begun.is_some()) {
        (Opcode::Continuation, false) => return Err(WsError::UnexpectedContinuation),
        (Opcode::Text | Opcode::Binary, true) => return Err(WsError::InterruptedMessage),
        _ => {}
    }
    let (held, fragments, deflated) = begun.map_or((0, 0, header.deflated), |assembly| {
        (
            assembly.payload.len(),
            assembly.fragments,
            assembly.deflated,
        )
    });
    if header.payload_len > limits.arriving_bytes(deflated).saturating_sub(held) {
        return Err(WsError::MessageTooBig);
    }
    if fragments >= limits.fragments {
        return Err(WsError::TooManyFragments);
    }
    Ok(())
}

/// Checks the unmasked payload of a frame that is an event by itself.
fn check_payload(opcode: Opcode, payload: &[u8]) -> Result<(), WsError> {
    match opcode {
        Opcode::Text if !is_utf8(payload) => Err(WsError::InvalidUtf8),
        Opcode::Close => parse_close(payload).map(|_| ()),
        _ => Ok(()),
    }
}

/// The message whose compressed bytes are `payload`, checked.
fn inflate<'b>(
    limits: &Limits,
    inflater: &'b mut Inflater,
    kind: DataKind,
    payload: &[u8],
) -> Result<Message<'b>, WsError> {
    let inflated = inflater.inflate(payload, limits.message_bytes)?;
    if kind == DataKind::Text && !is_utf8(inflated) {
        return Err(WsError::InvalidUtf8);
    }
    Ok(kind.message(inflated))
}

impl DataKind {
    fn of(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Text => Self::Text,
            _ => Self::Binary,
        }
    }

    fn message(self, payload: &[u8]) -> Message<'_> {
        match self {
            Self::Text => Message::Text(payload),
            Self::Binary => Message::Binary(payload),
        }
    }
}

impl Default for Assembly {
    fn default() -> Self {
        Self {
            payload: Vec::new(),
            valid: 0,
            frame: None,
            message: None,
            deflated: false,
            fragments: 0,
            header_len: 0,
            control_len: 0,
            header: [0; HEADER_MAX],
            control: [0; CONTROL_MAX],
        }
    }
}

impl Assembly {
    /// Whether nothing is cut any more: what is left are the bytes of a message that was returned.
    fn is_idle(&self) -> bool {
        self.frame.is_none() && self.message.is_none() && self.header_len == 0
    }

    fn control(&self) -> &[u8] {
        &self.control[..usize::from(self.control_len)]
    }

    /// Keeps a header that goes on behind the input.
    fn keep_header(&mut self, start: &[u8]) {
        self.header[..start.len()].copy_from_slice(start);
        self.header_len = start.len() as u8;
    }

    /// Takes bytes until the header is whole and its frame begun, or all are taken; says how many.
    fn complete_header(&mut self, limits: &Limits, input: &[u8]) -> Result<usize, WsError> {
        for (i, &byte) in input.iter().enumerate() {
            self.header[usize::from(self.header_len)] = byte;
            self.header_len += 1;
            let held = &self.header[..usize::from(self.header_len)];
            if let Some(header) = Header::parse(held, Sender::Client, limits.deflate)? {
                admit(Some(self), &header, limits)?;
                self.header_len = 0;
                self.begin_frame(&header);
                return Ok(i + 1);
            }
        }
        Ok(input.len())
    }

    /// Starts receiving the payload of a frame that was admitted.
    fn begin_frame(&mut self, header: &Header) {
        let mut control = None;
        match header.opcode {
            Opcode::Continuation => self.fragments += 1,
            Opcode::Text | Opcode::Binary => self.begin_message(header),
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.control_len = 0;
                control = Some(header.opcode);
            }
        }
        self.frame = Some(Incoming {
            remaining: header.payload_len,
            mask: header.mask,
            fin: header.fin,
            control,
        });
    }

    fn begin_message(&mut self, header: &Header) {
        debug_assert!(
            self.payload.is_empty() && self.valid == 0,
            "the last message was given up with its assembly"
        );
        self.message = Some(DataKind::of(header.opcode));
        self.deflated = header.deflated;
        self.fragments = 1;
    }

    /// Takes payload of the frame that is coming in: how many bytes, and the event if it completed one.
    fn take_payload(&mut self, input: &mut [u8]) -> Result<(usize, Option<Found>), WsError> {
        let Some(mut frame) = self.frame else {
            return Ok((0, None));
        };
        let len = frame.remaining.min(input.len());
        let piece = &mut input[..len];
        apply_mask(piece, frame.mask);
        frame.remaining -= len;
        frame.mask = rotate_mask(frame.mask, len);
        self.frame = (frame.remaining > 0).then_some(frame);

        let found = match frame.control {
            Some(opcode) => {
                let held = usize::from(self.control_len);
                self.control[held..held + len].copy_from_slice(piece);
                self.control_len += len as u8;
                if self.frame.is_some() {
                    return Ok((len, None));
                }
                check_payload(opcode, self.control())?;
                Some(Found::Control(opcode))
            }
            None => {
                self.payload.extend_from_slice(piece);
                self.check_text(frame.fin)?;
                let ended = frame.fin && self.frame.is_none();
                self.message.take_if(|_| ended).map(|kind| {
                    if self.deflated {
                        Found::Deflated(kind, None)
                    } else {
                        Found::Message(kind)
                    }
                })
            }
        };
        Ok((len, found))
    }

    /// Checks what has arrived of a text message; with the last frame over, nothing unfinished may be left.
    fn check_text(&mut self, last_frame: bool) -> Result<(), WsError> {
        if self.message != Some(DataKind::Text) || self.deflated {
            return Ok(());
        }
        self.valid =
            utf8_valid_up_to(&self.payload, self.valid).map_err(|_| WsError::InvalidUtf8)?;
        let ended = last_frame && self.frame.is_none();
        if ended && self.valid < self.payload.len() {
            Err(WsError::InvalidUtf8)
        } else {
            Ok(())
        }
    }
}

impl<'b> Message<'b> {
    /// The event of a frame that [`check_payload`] has passed.
    fn from_frame(opcode: Opcode, payload: &'b [u8]) -> Self {
        match opcode {
            Opcode::Continuation | Opcode::Binary => Self::Binary(payload),
            Opcode::Text => Self::Text(payload),
            Opcode::Ping => Self::Ping(payload),
            Opcode::Pong => Self::Pong(payload),
            Opcode::Close => {
                let (code, reason) =
                    parse_close(payload).expect("checked when the frame was complete");
                Self::Close { code, reason }
            }
        }
    }
}
