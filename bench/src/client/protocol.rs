//! What is spoken above the frames: the Centrifuge protocol in either encoding, or anything else by template.

use super::centrifuge::{Encoding, Reply, Subscribed, Wish};
use super::frames;
use super::payload;
use super::raw::{Raw, Values};

/// How to speak to the server.
#[derive(Clone, Debug)]
pub enum Protocol {
    Centrifuge(Encoding),
    Raw(Box<Raw>),
}

impl Protocol {
    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Centrifuge(Encoding::Json) => "json",
            Self::Centrifuge(Encoding::Protobuf) => "protobuf",
            Self::Raw(_) => "raw",
        }
    }

    /// The subprotocol to ask for.
    pub fn subprotocol(&self) -> Option<&str> {
        match self {
            Self::Centrifuge(encoding) => encoding.subprotocol(),
            Self::Raw(raw) => raw.subprotocol.as_deref(),
        }
    }

    /// True when the server's choice of a subprotocol is one to go on with.
    pub fn takes_subprotocol(&self, chosen: Option<&str>) -> bool {
        match self {
            Self::Centrifuge(encoding) => chosen == encoding.subprotocol(),
            // A server may choose none.
            Self::Raw(raw) => chosen.is_none() || chosen == raw.subprotocol.as_deref(),
        }
    }

    /// What a connection sends first; without a channel it only publishes. `id` is the connection's number.
    pub fn join_frames(&self, id: u64, token: Option<&str>, wish: Option<Wish<'_>>) -> Vec<u8> {
        match self {
            Self::Centrifuge(encoding) => encoding.join_frame(token, wish),
            Self::Raw(raw) => raw.hello_frames(id, token, wish.map(|wish| wish.channel)),
        }
    }

    /// How many replies make a connection joined.
    pub fn replies_to_join(&self, channel: bool) -> u8 {
        match self {
            Self::Centrifuge(_) => 1 + u8::from(channel),
            Self::Raw(raw) => raw.awaited(channel),
        }
    }

    /// One frame that publishes `data`.
    pub fn publish_frame(&self, id: u64, channel: &str, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Centrifuge(encoding) => encoding.publish_frame(id, channel, data),
            Self::Raw(raw) => {
                let values = Values {
                    channel,
                    data,
                    id,
                    token: "",
                };
                let message = raw.publish.fill(values);
                let mut frame = Vec::with_capacity(message.len() + 14);
                frames::write_masked(&mut frame, raw.opcode, &message);
                frame
            }
        }
    }

    /// One frame that subscribes, or leaves; none in a protocol that has no such thing.
    pub fn subscribe_frame(&self, id: u64, wish: Wish<'_>) -> Option<Vec<u8>> {
        match self {
            Self::Centrifuge(encoding) => Some(encoding.subscribe_frame(id, wish)),
            Self::Raw(_) => None,
        }
    }

    pub fn unsubscribe_frame(&self, id: u64, channel: &str) -> Option<Vec<u8>> {
        match self {
            Self::Centrifuge(encoding) => Some(encoding.unsubscribe_frame(id, channel)),
            Self::Raw(_) => None,
        }
    }

    /// Reads the answer to a subscribe.
    pub fn read_subscribed(&self, reply: &[u8]) -> Option<Subscribed> {
        match self {
            Self::Centrifuge(encoding) => encoding.read_subscribed(reply),
            Self::Raw(_) => None,
        }
    }

    /// The offset of a publication whose data ends where `rest` begins.
    pub fn read_offset(&self, rest: &[u8]) -> Option<u64> {
        match self {
            Self::Centrifuge(encoding) => encoding.read_offset(rest),
            Self::Raw(_) => None,
        }
    }

    /// Hands each reply of a data frame to `on`, heartbeats as empty slices.
    pub fn each_reply<'a>(&self, message: &'a [u8], on: impl FnMut(&'a [u8])) {
        match self {
            Self::Centrifuge(encoding) => encoding.each_reply(message, on),
            Self::Raw(raw) => raw.matches.each(message, on),
        }
    }

    /// The answer to a heartbeat.
    pub fn pong_frame(&self) -> Vec<u8> {
        match self {
            Self::Centrifuge(encoding) => encoding.pong_frame(),
            Self::Raw(_) => Vec::new(),
        }
    }

    /// The frame that answers `reply`, when it wants one: the raw kind of heartbeat.
    pub fn answer_frame(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let Self::Raw(raw) = self else { return None };
        let mut frame = Vec::new();
        frames::write_masked(&mut frame, raw.opcode, raw.answer_to(reply)?);
        Some(frame)
    }

    /// Where a payload starts in a reply: at `hint` if it does.
    pub fn find_payload(&self, reply: &[u8], hint: usize) -> Option<usize> {
        match self {
            Self::Centrifuge(_) => payload::find(reply, hint),
            // Matches were cut so that they start with it.
            Self::Raw(_) => reply.starts_with(payload::MARKER).then_some(0),
        }
    }

    /// True when what follows a payload is as it should be.
    pub fn payload_ends(&self, rest: &[u8]) -> bool {
        match self {
            Self::Centrifuge(_) => true,
            Self::Raw(raw) => raw.matches.ends_with(rest),
        }
    }

    /// Reads a reply that is neither a heartbeat nor one of our publications.
    pub fn read_reply(&self, reply: &[u8]) -> Reply {
        match self {
            Self::Centrifuge(encoding) => encoding.read_reply(reply),
            Self::Raw(_) => Reply::Foreign,
        }
    }

    /// True when a reply without our marker is a publication all the same. `size` is that of our payloads.
    pub fn is_publication(&self, reply: &[u8], size: usize) -> bool {
        match self {
            Self::Centrifuge(Encoding::Json) => memchr::memmem::find(reply, b"\"pub\":").is_some(),
            // A push that is as long as a payload can only be a publication of this run.
            Self::Centrifuge(Encoding::Protobuf) => reply.len() > size,
            Self::Raw(_) => false,
        }
    }
}
