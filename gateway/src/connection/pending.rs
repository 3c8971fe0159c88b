//! Commands of one connection that have no reply yet. Commands start in the order of their arrival and may finish in any;
//! their replies leave in the order of the commands. Each has a *ticket*.

use crate::protocol::centrifuge::SubscribeResult;
use crate::protocol::codes::Unsubscribed;
use std::collections::VecDeque;

/// Most commands of one connection without a reply; further ones are answered "too many requests".
pub const TICKETS_MAX: usize = 1024;

/// What a command waits for.
#[derive(Debug)]
pub enum Slot {
    /// Nothing: its reply is ready and waits for those before it.
    Ready(Vec<u8>),
    /// Another shard's answer.
    Awaited(Awaited),
    /// Its channel's home.
    Subscribe(Box<SubscribeWait>),
    /// The homes of its server-side subscriptions, and perhaps its user's home.
    Connect(Box<ConnectWait>),
}

/// What another shard was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// To publish; the command's id.
    Publish(u32),
    /// To render the reply; the command's id.
    Answer(u32),
}

/// A subscription under way. It is in its view's count already.
#[derive(Debug, Default)]
pub struct SubscribeWait {
    /// The command's id.
    pub id: u32,
    /// The view.
    pub view: u32,
    /// It also reads joins and leaves.
    pub join_leave: bool,
    /// What it gets.
    pub positioned: bool,
    /// What it gets.
    pub recoverable: bool,
    /// The client asked to recover from this position; `None` and `wants_recovery`: its epoch is another.
    pub recover_from: Option<u64>,
    /// Its position is above the view's: the home's answer that decides whether it is a false one.
    pub ahead: Option<u32>,
    /// The client asked to recover.
    pub wants_recovery: bool,
    /// Rather an error than a subscription that was not recovered.
    pub rejects_unrecovered: bool,
    /// Made by the server.
    pub server_side: bool,
    /// For the client, from the token; empty: none.
    pub data: Vec<u8>,
    /// `chan_info`, from the token; empty: none.
    pub chan_info: Box<[u8]>,
    /// Unix seconds when it expires; 0: never.
    pub expire_at: u64,
    /// Seconds until the subscription expires, as the client is told.
    pub ttl: Option<u32>,
    /// The home keeps its presence.
    pub is_present: bool,
    /// Its join and leave are published.
    pub announces: bool,
    /// Unsubscribed meanwhile: once answered, it ends.
    pub is_cancelled: bool,
    /// The server ended it: the client is told so after the reply.
    pub ended: Option<Unsubscribed>,
}

impl SubscribeWait {
    /// The result, without what recovery adds.
    pub fn result<'a>(&'a self, epoch: &'a str, top: u64) -> SubscribeResult<'a> {
        SubscribeResult {
            expires: self.ttl.is_some(),
            ttl: self.ttl.unwrap_or(0),
            recoverable: self.recoverable,
            positioned: self.positioned,
            epoch: if self.positioned { epoch } else { "" },
            offset: if self.positioned { top } else { 0 },
            recovered: false,
            was_recovering: self.wants_recovery,
            publications: &[],
            data: &self.data,
        }
    }
}

/// A connect under way.
#[derive(Debug)]
pub struct ConnectWait {
    /// The command's id.
    pub id: u32,
    /// Its server-side subscriptions.
    pub subscriptions: Vec<SubscribeWait>,
    /// Its user's home has not let it in yet.
    pub awaits_admission: bool,
    /// Seconds until the connection expires, as the client is told.
    pub ttl: Option<u32>,
}

/// The commands, oldest first.
#[derive(Debug, Default)]
pub struct Pending {
    first_ticket: u32,
    slots: VecDeque<Slot>,
    /// Bytes of the replies that are ready.
    ready_bytes: usize,
    /// Answers that are awaited of other shards, whose size is theirs to choose.
    answers: usize,
}

impl Pending {
    /// How many.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds one; its ticket.
    pub fn push(&mut self, slot: Slot) -> u32 {
        self.account(&slot, true);
        self.slots.push_back(slot);
        self.first_ticket.wrapping_add(self.slots.len() as u32 - 1)
    }

    /// The oldest.
    pub fn front(&mut self) -> Option<&mut Slot> {
        self.slots.front_mut()
    }

    /// The oldest is answered.
    pub fn pop(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.account(&slot, false);
        self.first_ticket = self.first_ticket.wrapping_add(1);
        Some(slot)
    }

    /// Puts the oldest back, unanswered.
    pub fn unpop(&mut self, slot: Slot) {
        self.account(&slot, true);
        self.slots.push_front(slot);
        self.first_ticket = self.first_ticket.wrapping_sub(1);
    }

    /// Whether a ticket is the oldest.
    pub fn is_front(&self, ticket: u32) -> bool {
        !self.slots.is_empty() && ticket == self.first_ticket
    }

    fn account(&mut self, slot: &Slot, comes: bool) {
        let change =
            |count: &mut usize, by: usize| *count = if comes { *count + by } else { *count - by };
        match slot {
            Slot::Ready(frame) => change(&mut self.ready_bytes, frame.len()),
            Slot::Awaited(Awaited::Answer(_)) => change(&mut self.answers, 1),
            _ => {}
        }
    }

    /// Bytes of replies that wait for those before them.
    pub fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Answers awaited of other shards.
    pub fn answers(&self) -> usize {
        self.answers
    }

    /// The awaited answer of a ticket that is not the oldest has come.
    pub fn make_ready(&mut self, ticket: u32, frame: Vec<u8>) {
        let at = ticket.wrapping_sub(self.first_ticket) as usize;
        let Some(place) = self.slots.get_mut(at) else {
            return;
        };
        let before = std::mem::replace(place, Slot::Ready(frame));
        self.account(&before, false);
        if let Some(Slot::Ready(frame)) = self.slots.get(at) {
            self.ready_bytes += frame.len();
        }
    }

    /// By ticket.
    pub fn get(&mut self, ticket: u32) -> Option<&mut Slot> {
        self.slots
            .get_mut(ticket.wrapping_sub(self.first_ticket) as usize)
    }

    /// All, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }
}
