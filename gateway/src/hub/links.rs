//! The way out: a staged batch for every peer, one of them this shard itself.

use super::message::{Message, Span};
use crate::ids::ShardId;
use crate::mailbox::{Batch, Inbox, Outbox};

/// The batches of one tick. Nothing here blocks: what a peer's ring does not take stays staged.
pub struct Links {
    me: ShardId,
    /// By peer; `None` for this shard. The last one is the control thread.
    outboxes: Vec<Option<Outbox<Message>>>,
    inboxes: Vec<Option<Inbox<Message>>>,
    /// What this shard tells itself: handled in the same tick.
    local: Box<Batch<Message>>,
    spare: Option<Box<Batch<Message>>>,
}

/// Staged bytes for a peer from which on client commands that need it are answered "too many requests".
pub const INTAKE_BYTES: usize = 1024 * 1024;

impl Links {
    /// Links of shard `me`. Both vectors are indexed by peer, the control thread being the last; entries of `me` are
    /// `None`.
    pub fn new(
        me: ShardId,
        outboxes: Vec<Option<Outbox<Message>>>,
        inboxes: Vec<Option<Inbox<Message>>>,
    ) -> Self {
        Self {
            me,
            outboxes,
            inboxes,
            local: Box::default(),
            spare: None,
        }
    }

    /// This shard.
    pub fn me(&self) -> ShardId {
        self.me
    }

    /// The control thread as a peer.
    pub fn control(&self) -> ShardId {
        ShardId(self.outboxes.len() as u16 - 1)
    }

    /// The staged batch for a peer.
    pub fn to(&mut self, peer: ShardId) -> &mut Batch<Message> {
        match self.outboxes.get_mut(peer.index()) {
            Some(Some(outbox)) => outbox.batch(),
            _ => &mut self.local,
        }
    }

    /// Whether a command that needs this peer should be refused for now.
    pub fn is_congested(&self, peer: ShardId) -> bool {
        self.outboxes
            .get(peer.index())
            .and_then(Option::as_ref)
            .is_some_and(|outbox| outbox.backlog_bytes() > INTAKE_BYTES)
    }

    /// Hands every staged batch over that its ring takes. Returns whether some are still staged.
    pub fn publish(&mut self) -> bool {
        let mut left = false;
        for outbox in self.outboxes.iter_mut().flatten() {
            left |= !outbox.publish();
        }
        left
    }

    /// Whether this shard has told itself nothing.
    pub fn is_local_empty(&self) -> bool {
        self.local.is_empty()
    }

    /// Takes what this shard told itself, or `None`. Give it back with [`Links::recycle_local`].
    pub fn take_local(&mut self) -> Option<Box<Batch<Message>>> {
        if self.local.is_empty() {
            return None;
        }
        let fresh = self.spare.take().unwrap_or_default();
        Some(std::mem::replace(&mut self.local, fresh))
    }

    /// Gives a batch of [`Links::take_local`] back.
    pub fn recycle_local(&mut self, mut batch: Box<Batch<Message>>) {
        batch.recycle();
        self.spare = Some(batch);
    }

    /// Number of peers, the control thread and this shard included.
    pub fn peers(&self) -> u16 {
        self.outboxes.len() as u16
    }

    /// The next batch of a peer.
    pub fn take_from(&mut self, peer: ShardId) -> Option<Box<Batch<Message>>> {
        self.inboxes[peer.index()].as_mut()?.take()
    }

    /// Gives a batch of [`Links::take_from`] back to its sender.
    pub fn recycle(&mut self, peer: ShardId, batch: Box<Batch<Message>>) {
        if let Some(inbox) = &mut self.inboxes[peer.index()] {
            inbox.recycle(batch);
        }
    }

    /// Whether no batch waits, from a peer or from this shard itself.
    pub fn is_quiet(&self) -> bool {
        self.local.is_empty() && self.inboxes.iter().flatten().all(Inbox::is_empty)
    }
}

/// Copies bytes into a batch.
pub fn put(batch: &mut Batch<Message>, bytes: &[u8]) -> Span {
    let (start, len) = batch.push_bytes(bytes);
    Span { start, len }
}

/// What was appended to a batch since it was `start` bytes long.
pub fn span_from(batch: &Batch<Message>, start: usize) -> Span {
    Span {
        start: start as u32,
        len: (batch.bytes.len() - start) as u32,
    }
}
