//! What an arrival does to a connection, while the ring it came from is borrowed.

use super::{Connection, Errand, News, Stage};
use crate::client::centrifuge::Reply;
use crate::client::frames::{self, Frame, Opcode};
use crate::client::handshake;
use crate::client::inflate::Inflater;
use crate::client::ledger::Faults;
use crate::client::protocol::Protocol;
use crate::client::share::Share;

/// The parts of a fleet that may change meanwhile.
pub(super) struct Floor<'a> {
    pub(super) share: Share,
    pub(super) protocol: &'a Protocol,
    pub(super) scratch: &'a mut Vec<u8>,
    /// permessage-deflate is offered.
    pub(super) deflate: bool,
    pub(super) inflater: &'a mut Inflater,
    pub(super) connections: &'a mut [Connection],
    pub(super) faults: &'a mut Faults,
    pub(super) errands: &'a mut Vec<Errand>,
    pub(super) opening: &'a mut usize,
    pub(super) open: &'a mut usize,
    pub(super) pings: &'a mut u64,
    pub(super) received: &'a mut u64,
}

impl Floor<'_> {
    pub(super) fn received(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        if self.connections[index].subscribes {
            *self.received += bytes.len() as u64;
        }
        let Some(mut tls) = self.connections[index].tls.take() else {
            return self.plain(index, bytes, on);
        };
        let (mut plain, mut wire) = (std::mem::take(self.scratch), Vec::new());
        plain.clear();
        let opened = tls.open(bytes, &mut plain, &mut wire);
        self.connections[index].tls = Some(tls);
        if !wire.is_empty() {
            self.errands.push(Errand::Wire(index, wire));
        }
        if !plain.is_empty() {
            self.plain(index, &plain, on);
        }
        *self.scratch = plain;
        if let Err(words) = opened {
            self.faults.malformed += 1;
            self.closed(index, &words, on);
        }
    }

    fn plain(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        match self.connections[index].stage {
            Stage::Closed => {}
            Stage::Upgrading => self.upgrading(index, bytes, on),
            Stage::Joining(_) | Stage::Open | Stage::Closing => self.frames(index, bytes, on),
        }
    }

    fn upgrading(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        let mut answer = std::mem::take(&mut self.connections[index].answer);
        answer.extend_from_slice(bytes);
        match handshake::answer_length(&answer, self.protocol, self.deflate) {
            Ok(None) => self.connections[index].answer = answer,
            Ok(Some(end)) => {
                self.errands.push(Errand::Join(index));
                self.connections[index].deframer.deflate = self.deflate;
                // Some servers speak first, so replies count from here.
                match self.connections[index].replies {
                    0 => self.joined(index, &[], on),
                    replies => self.connections[index].stage = Stage::Joining(replies),
                }
                self.frames(index, &answer[end..], on);
            }
            Err(words) => self.closed(index, &words, on),
        }
    }

    fn frames(
        &mut self,
        index: usize,
        bytes: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        let mut deframer = std::mem::take(&mut self.connections[index].deframer);
        // It lends what it has inflated.
        let mut inflater = std::mem::take(self.inflater);
        let walked = deframer.walk(bytes, |frame| match frame {
            Frame::Data(message) => self.message(index, message, on),
            Frame::Deflated(payload) => match inflater.inflate(payload) {
                Some(message) => self.message(index, message, on),
                None => {
                    self.faults.malformed += 1;
                    self.closed(index, "what it was sent does not inflate", on);
                }
            },
            Frame::Ping(payload) => {
                let mut frame = Vec::new();
                frames::write_masked(&mut frame, Opcode::Pong, payload);
                self.errands.push(Errand::Answer(index, frame));
            }
            Frame::Pong => {}
            // Whoever said goodbye first, the server ends the socket.
            Frame::Close(_) if self.connections[index].stage == Stage::Closing => {}
            Frame::Close(code) => {
                self.closed(index, &format!("the server closed with {code}"), on);
            }
        });
        *self.inflater = inflater;
        self.connections[index].deframer = deframer;
        if let Err(fault) = walked {
            self.faults.malformed += 1;
            self.closed(index, &fault.to_string(), on);
        }
    }

    fn message(
        &mut self,
        index: usize,
        message: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        self.protocol.each_reply(message, |reply| {
            if reply.is_empty() {
                *self.pings += 1;
                self.errands.push(Errand::Pong(index));
            } else if let Some(frame) = self.protocol.answer_frame(reply) {
                *self.pings += 1;
                self.errands.push(Errand::Answer(index, frame));
            } else {
                match self.connections[index].stage {
                    Stage::Open | Stage::Closing => on(index, News::Reply(reply), self.faults),
                    Stage::Joining(left) => self.joining(index, left, reply, on),
                    Stage::Upgrading | Stage::Closed => {}
                }
            }
        });
    }

    fn joining(
        &mut self,
        index: usize,
        left: u8,
        reply: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        match self.protocol.read_reply(reply) {
            Reply::Done(_) | Reply::Foreign if left > 1 => {
                self.connections[index].stage = Stage::Joining(left - 1);
            }
            Reply::Done(_) | Reply::Foreign => self.joined(index, reply, on),
            // Joins of others.
            Reply::Push => {}
            Reply::Refused(id, code, message) => {
                let words = format!("command {id}: error {code} {message}");
                let counts = !self.connections[index].expendable;
                self.faults.refused += u64::from(counts);
                self.end(index, &words, counts, on);
            }
            Reply::Garbage => {
                self.faults.malformed += 1;
                let (text, number) = (String::from_utf8_lossy(reply), self.share.connection(index));
                self.faults
                    .explain(|| format!("connection {number}: no reply: {text}"));
            }
        }
    }

    fn joined(
        &mut self,
        index: usize,
        reply: &[u8],
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        let connection = &mut self.connections[index];
        connection.stage = Stage::Open;
        // It was so for its way back.
        connection.expendable = false;
        *self.opening -= 1;
        *self.open += 1;
        on(index, News::Joined(reply), self.faults);
    }

    pub(super) fn closed(
        &mut self,
        index: usize,
        words: &str,
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        let connection = &self.connections[index];
        let counts =
            !connection.expendable && !matches!(connection.stage, Stage::Closing | Stage::Closed);
        self.faults.closed += u64::from(counts);
        self.end(index, words, counts, on);
    }

    /// `words` explain a fault when it counts as one.
    fn end(
        &mut self,
        index: usize,
        words: &str,
        counts: bool,
        on: &mut impl FnMut(usize, News<'_>, &mut Faults),
    ) {
        match std::mem::replace(&mut self.connections[index].stage, Stage::Closed) {
            Stage::Closed => return,
            Stage::Upgrading | Stage::Joining(_) => *self.opening -= 1,
            Stage::Open | Stage::Closing => *self.open -= 1,
        }
        if counts {
            let number = self.share.connection(index);
            self.faults
                .explain(|| format!("connection {number}: {words}"));
        }
        self.errands.push(Errand::Release(index));
        on(index, News::Closed(words), self.faults);
    }
}
