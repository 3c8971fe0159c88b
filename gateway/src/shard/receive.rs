//! What arrives: connections, upgrade requests, frames.

use super::{Ask, Core};
use crate::connection::{Connection, Flags, Phase};
use crate::ids::Token;
use crate::limit::Ruling;
use crate::protocol::centrifuge::Encoding;
use crate::protocol::codes::Disconnect;
use crate::protocol::http::{
    Refusal, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTOBUF, UpgradeRequest, parse_upgrade_at, query_has,
    write_refusal, write_switching,
};
use crate::protocol::websocket::{Limits, Message, Opcode, write_frame};
use crate::reactor::CloseHow;
use crate::shard::timers::Timer;
use std::net::IpAddr;

/// Where clients connect.
const PATH: &str = "/connection/websocket";
/// Where `--debug-echo` sends every message back.
const ECHO_PATH: &str = "/echo";
pub(super) const HANDSHAKE_MILLIS: u64 = 10_000;
/// How long the peer of a connection that broke the frame format may take to read why it is closed.
pub(super) const DEAF_MILLIS: u64 = 1000;
/// Enough for conformance suites on `/echo`: bytes of a message, and its fragments.
const ECHO_MESSAGE_BYTES: usize = 16 << 20;
const ECHO_FRAGMENTS_MAX: u32 = 65_537;
/// Most fragments of a client's message.
const FRAGMENTS_MAX: u32 = 1024;
/// Echoes that may wait; a peer that sends on without reading is closed.
const ECHO_QUEUE_MAX: usize = 64 << 20;

impl Core {
    pub(super) fn accepted(&mut self, slot: u32, peer: IpAddr) {
        let generation = &mut self.generations[slot as usize];
        *generation = generation.wrapping_add(1);
        let token = self.token(slot);
        let old = self
            .conns
            .insert_at(slot, Connection::new(token.generation));
        debug_assert!(old.is_none(), "a slot is free before it is accepted into");
        self.stats.opened += 1;
        self.asks.push(Ask::Open(token));
        self.timers.accepted(self.now.millis, token);
        self.arrive(token, peer);
    }

    pub(super) fn slot_closed(&mut self, slot: u32) {
        debug_assert!(!self.blocked.contains(slot));
        self.conns.remove(slot);
    }

    /// The peer will send nothing more (or the connection broke): whatever the phase, it is over.
    pub(super) fn ended(&mut self, token: Token) {
        if self.conn(token).is_some() {
            self.abandon(token, CloseHow::Orderly);
        }
    }

    pub(super) fn received(&mut self, token: Token, bytes: &mut [u8]) {
        self.stats.bytes_received += bytes.len() as u64;
        if self.tls.is_none() {
            return self.received_plain(token, bytes);
        }
        // A proxy's header is not sealed.
        let sealed = self.take_proxy_header(token, bytes);
        if let Some(sealed) = sealed.filter(|sealed| !sealed.is_empty()) {
            self.received_sealed(token, sealed);
        }
    }

    pub(super) fn received_plain(&mut self, token: Token, bytes: &mut [u8]) {
        let Some(phase) = self.conn(token).map(|conn| conn.phase) else {
            return;
        };
        match phase {
            Phase::Handshake => self.before_upgrade(token, bytes),
            // What comes behind a close is read to find the peer's own.
            Phase::Closing => self.frames(token, bytes),
            _ if self.may_receive(token, bytes.len()) => self.frames(token, bytes),
            _ => {}
        }
    }

    /// What comes before the upgrade is answered: a proxy's header, then the request.
    fn before_upgrade(&mut self, token: Token, bytes: &mut [u8]) {
        let request = self.take_proxy_header(token, bytes);
        let Some(request) = request.filter(|request| !request.is_empty()) else {
            return;
        };
        if self.knocks(token) {
            self.keep_head(token, request);
        } else {
            self.handshake(token, request);
        }
    }

    pub(super) fn handshake(&mut self, token: Token, bytes: &mut [u8]) {
        let Some(conn) = self.conn(token) else { return };
        // Usually the whole request is in one piece, and nothing is copied.
        let (used, held) = match &mut conn.held {
            None => match self.upgrade(token, bytes) {
                Some(used) => (used, 0),
                None => {
                    if let Some(conn) = self.conn(token).filter(|c| c.phase == Phase::Handshake) {
                        conn.held = Some(Box::new(bytes.to_vec()));
                    }
                    return;
                }
            },
            Some(head) => {
                let held = head.len();
                head.extend_from_slice(bytes);
                let head = std::mem::take(&mut **head);
                let used = self.upgrade(token, &head);
                let Some(conn) = self.conn(token) else { return };
                match used {
                    Some(used) => {
                        conn.held = None;
                        (used, held)
                    }
                    None => {
                        if conn.phase == Phase::Handshake {
                            conn.held = Some(Box::new(head));
                        }
                        return;
                    }
                }
            }
        };
        // Frames may follow in the same piece. What was held before did not complete the request, so it holds none.
        let rest = &mut bytes[used - held..];
        if !rest.is_empty() {
            self.frames(token, rest);
        }
    }

    /// Answers an upgrade request if it is whole: how many bytes it had.
    fn upgrade(&mut self, token: Token, head: &[u8]) -> Option<usize> {
        let echoes = self.config.debug_echo;
        let parsed = parse_upgrade_at(head, |path| path == PATH || (echoes && path == ECHO_PATH));
        let refusal = match parsed {
            Ok(None) => return None,
            Ok(Some((request, used))) => {
                self.hear_request(token, &request);
                // Only the request has named the client, whose address may be dropped now or has still to be let in.
                let conn = self.conn(token);
                if conn.is_none_or(|c| c.flags.has(Flags::KNOCKS) || c.phase != Phase::Handshake) {
                    return None;
                }
                match self.admit(token, &request) {
                    Ok(()) => {
                        self.greet(token, &request);
                        return Some(used);
                    }
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        self.refuse_upgrade(token, refusal);
        None
    }

    pub(super) fn refuse_upgrade(&mut self, token: Token, refusal: Refusal) {
        crate::stats::count(&mut self.stats.refused, refusal.status());
        self.say(token.slot, |out, _| write_refusal(out, refusal));
        let Some(conn) = self.conn(token) else { return };
        conn.held = None;
        conn.flags.set(Flags::REFUSED, true);
        self.start_closing(token);
    }

    fn greet(&mut self, token: Token, request: &UpgradeRequest<'_>) {
        let is_echo = request.path == ECHO_PATH;
        let by_query = query_has(request.query, "format", "protobuf")
            || query_has(request.query, "cf_protocol", "protobuf");
        let (encoding, subprotocol) = match (request.offers_protobuf, request.offers_json) {
            (true, _) => (Encoding::Protobuf, Some(SUBPROTOCOL_PROTOBUF)),
            (false, true) => (Encoding::Json, Some(SUBPROTOCOL_JSON)),
            (false, false) if by_query => (Encoding::Protobuf, None),
            (false, false) => (Encoding::Json, None),
        };
        let frame_pings = query_has(request.query, "cf_ws_frame_ping_pong", "true");
        let deflate = request
            .deflate
            .filter(|_| is_echo || self.config.channels.any_compresses());
        self.open += 1;
        self.say(token.slot, |out, _| {
            let subprotocol = subprotocol.filter(|_| !is_echo);
            write_switching(out, request.key, subprotocol, deflate)
        });
        self.stats.upgraded += 1;
        let Some(conn) = self.conn(token) else { return };
        conn.encoding = encoding;
        conn.flags.set(Flags::FRAME_PINGS, frame_pings);
        conn.window_bits = deflate.map_or(0, |offer| offer.window_bits());
        if is_echo {
            conn.phase = Phase::Echo;
        } else {
            conn.phase = Phase::Greeted;
            self.timers.upgraded(self.now.millis, token);
        }
    }

    fn frames(&mut self, token: Token, mut bytes: &mut [u8]) {
        if self.conn(token).is_none_or(|c| c.flags.has(Flags::DEAF)) {
            return;
        }
        let message_bytes = self.config.client.message_size_limit as usize;
        let Some(conn) = self.conn(token) else { return };
        let (message_bytes, fragments) = match conn.phase {
            Phase::Echo => (ECHO_MESSAGE_BYTES, ECHO_FRAGMENTS_MAX),
            _ => (message_bytes, FRAGMENTS_MAX),
        };
        let limits = Limits {
            message_bytes,
            fragments,
            deflate: conn.window_bits > 0,
        };
        // Decoder and inflater lend what they have decoded, so they are taken out while commands are worked on.
        let mut decoder = std::mem::take(&mut conn.decoder);
        let mut inflater = std::mem::take(&mut self.inflater);
        let mut is_over = false;
        while !is_over {
            match decoder.decode(&limits, &mut inflater, bytes) {
                Ok((_, None)) => break,
                Ok((used, Some(message))) => {
                    // What came compressed counts as what it is.
                    let len = match &message {
                        Message::Text(payload) | Message::Binary(payload) => payload.len(),
                        _ => 0,
                    };
                    let more = len.saturating_sub(used);
                    let counts = limits.deflate && more > 0 && !self.is_closing(token);
                    is_over =
                        counts && !self.may_receive(token, more) || !self.message(token, &message);
                    bytes = &mut bytes[used..];
                }
                Err(error) => {
                    self.stats.frames_invalid += 1;
                    self.close(token, error.disconnect());
                    // Where its next frame begins is not known, so its close frame would not be found either.
                    if let Some(conn) = self.conn(token) {
                        conn.flags.set(Flags::DEAF, true);
                        self.timers
                            .set(self.now.millis + DEAF_MILLIS, token, Timer::Deaf);
                    }
                    is_over = true;
                }
            }
        }
        self.inflater = inflater;
        // After a close or an error nothing more is decoded: what still arrives is read and dropped.
        if let Some(conn) = self.conn(token).filter(|_| !is_over) {
            let is_cut = !decoder.is_idle();
            conn.decoder = decoder;
            if is_cut {
                self.time_message(token);
            }
        }
    }

    fn is_closing(&mut self, token: Token) -> bool {
        self.conn(token).is_none_or(|c| c.phase == Phase::Closing)
    }

    /// Handles one message. `false`: this was the last that matters.
    fn message(&mut self, token: Token, message: &Message<'_>) -> bool {
        let Some(conn) = self.conn(token) else {
            return false;
        };
        if conn.phase == Phase::Closing {
            if matches!(message, Message::Close { .. }) {
                self.peer_closed(token);
                return false;
            }
            // The peer may not have seen our close yet.
            return true;
        }
        match message {
            Message::Close { code, .. } => {
                // RFC 6455 section 5.5.1: the answer carries the code that was received.
                let code = code.unwrap_or(1000);
                self.close(token, Disconnect { code, reason: "" });
                self.peer_closed(token);
                return false;
            }
            Message::Ping(payload) => {
                let waits = conn.private_bytes() > self.config.client.queue_max_size as usize;
                if waits && self.blocked.contains(token.slot) {
                    self.close(token, Disconnect::SLOW);
                    return false;
                }
                match self.measure(token, false) {
                    Ruling::Goes => {}
                    // Some pings without a pong: not every one has to be answered (RFC 6455 section 5.5.3).
                    Ruling::Refused => return true,
                    Ruling::Closed => return false,
                }
                self.say(token.slot, |out, _| write_frame(out, Opcode::Pong, payload));
            }
            // One may answer several pings. Who is pinged by the protocol's own may send them unasked (RFC 6455 section 5.5.3).
            Message::Pong(_) if conn.flags.has(Flags::FRAME_PINGS) => conn.pings = 0,
            Message::Pong(_) => {}
            Message::Text(payload) | Message::Binary(payload) => {
                conn.flags.set(Flags::MESSAGE_OLD, false);
                self.stats.messages_received += 1;
                let is_text = matches!(message, Message::Text(_));
                return self.data(token, payload, is_text);
            }
        }
        true
    }

    fn data(&mut self, token: Token, payload: &[u8], is_text: bool) -> bool {
        let Some(conn) = self.conn(token) else {
            return false;
        };
        if conn.phase == Phase::Echo {
            if conn.private_bytes() > ECHO_QUEUE_MAX {
                self.close(token, Disconnect::SLOW);
                return false;
            }
            let opcode = if is_text {
                Opcode::Text
            } else {
                Opcode::Binary
            };
            self.say(token.slot, |out, _| write_frame(out, opcode, payload));
            return true;
        }
        let encoding = conn.encoding;
        if is_text && encoding == Encoding::Protobuf {
            self.close(token, Disconnect::WS_UNSUPPORTED);
            return false;
        }
        // JSON in a binary frame is accepted when it is text all the same.
        if !is_text && encoding == Encoding::Json && !crate::protocol::websocket::is_utf8(payload) {
            self.close(token, Disconnect::WS_UNSUPPORTED);
            return false;
        }
        if conn.held.is_some() {
            return self.hold(token, payload);
        }
        self.commands(token, payload)
    }
}
