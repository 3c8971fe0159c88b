//! What every client must and must not see, kept in plain maps.
//!
//! The oracle is told what clients ask for, what they read, and what befell their sockets. It knows nothing of how the
//! gateway works, only what it promises:
//!
//! * Every command is answered once, in order; nothing else is answered.
//! * A member sees the publications of its channel whole, once, in the channel's one order, none missing, from the
//!   subscribe reply to the unsubscribe reply. What its policy takes from it, it is told of (2500, 3008, `recovered:
//!   false`), or the policy is a silent one, and its socket was ever short.
//! * `recovered: true` means that nothing is missing; `false` means that something could not be had any more.
//! * A client that behaves is never closed; whatever is closed has a reason that its client gave.
//! * Nobody gets more than the limits say, and nobody is refused where there are none.
//! * Pings come in time, and who does not answer them goes.
//! * When all is quiet, nothing that was accepted is missing anywhere, and presence is exactly who is there.

mod channel;
mod connection;
mod ending;
mod history;
mod limits;
mod membership;
mod order;
#[cfg(test)]
mod tests;

use super::net::{Clock, Facts};
use super::profile::{Profile, Temper};
use crate::protocol::centrifuge::Encoding;
use channel::ChannelBook;
use connection::ConnectionBook;
use membership::Membership;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

pub use ending::End;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) type Verdict = Result<(), Violation>;

pub(crate) fn violation<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// Names a connection for the whole run.
pub type ConnectionId = usize;

/// When something happened: the number of the event, which orders all of them, and the virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) event: u64,
    pub(crate) millis: u64,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named as in the protocol
pub enum Ask {
    Connect,
    Subscribe(SubscribeAsk),
    Unsubscribe(Arc<str>),
    /// A publication by its number.
    Publish(Arc<str>, u64),
    History {
        channel: Arc<str>,
        limit: i32,
        since: Option<u64>,
        reverse: bool,
    },
    Presence(Arc<str>),
    PresenceStats(Arc<str>),
    Ping,
    /// Something that must fail with this code.
    Wrong(u32),
}

/// How a client subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named as in the protocol
pub struct SubscribeAsk {
    pub channel: Arc<str>,
    pub positioned: bool,
    pub recoverable: bool,
    pub join_leave: bool,
    /// Offset and epoch to recover from.
    pub recover: Option<(u64, String)>,
}

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Publisher {
    /// A client's connection.
    Client(ConnectionId),
    /// The control thread.
    Control,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No answer yet, or none ever.
    Unknown,
    /// Its publisher was told so at this moment.
    Accepted(Stamp),
    Refused,
}

/// One publication.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) channel: Arc<str>,
    pub(crate) publisher: Publisher,
    pub(crate) key: String,
    pub(crate) skip_history: bool,
    pub(crate) sent: Stamp,
    pub(crate) fate: Fate,
    pub(crate) data: Vec<u8>,
}

impl Published {
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.fate, Fate::Accepted(_))
    }
}

/// How often things happened: a run that never saw a thing has not tested it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tally {
    pub connections: u64,
    pub publications: u64,
    pub deliveries: u64,
    pub subscribed: u64,
    pub recovered: u64,
    pub recovered_something: u64,
    pub not_recovered: u64,
    pub unsubscribed_2500: u64,
    pub closed: BTreeMap<u16, u64>,
    pub ended_without_close: u64,
    pub reply_errors: BTreeMap<u32, u64>,
    pub joins_and_leaves: u64,
    pub pings: u64,
    pub skipped: u64,
    pub histories: u64,
    pub refused: u64,
    pub put_off: u64,
    pub inflated: u64,
    /// Handshakes of TLS, those by a ticket, and those of them by one of another shard.
    pub greeted: u64,
    pub resumed: u64,
    pub resumed_elsewhere: u64,
    /// Certificates taken into use.
    pub certificates: u64,
    /// Clients that did not know of TLS.
    pub misunderstood: u64,
}

/// The shadow of the whole node.
#[derive(Debug)]
pub struct Oracle {
    profile: Arc<Profile>,
    clock: Clock,
    events: u64,
    publications: HashMap<u64, Published>,
    channels: BTreeMap<Arc<str>, ChannelBook>,
    connections: Vec<ConnectionBook>,
    memberships: Vec<Membership>,
    client_ids: HashMap<String, ConnectionId>,
    tally: Tally,
    digest: u64,
    /// How long shards have been stopped so far, all together, milliseconds.
    stalled_millis: u64,
}

impl Oracle {
    /// Nothing has happened yet.
    pub fn new(profile: Arc<Profile>, clock: Clock) -> Self {
        let channels = profile
            .channels
            .iter()
            .map(|name| {
                (
                    name.clone(),
                    ChannelBook::new(
                        name.clone(),
                        profile.options(name).clone(),
                        usize::from(profile.config.shards),
                    ),
                )
            })
            .collect();
        Self {
            profile,
            clock,
            events: 0,
            publications: HashMap::new(),
            channels,
            connections: Vec::new(),
            memberships: Vec::new(),
            client_ids: HashMap::new(),
            tally: Tally::default(),
            digest: 0,
            stalled_millis: 0,
        }
    }

    /// The world stops a shard for a while: what it is to do in time may be late by that.
    pub fn stalling(&mut self, millis: u64) {
        self.stalled_millis += millis;
    }

    fn stamp(&mut self) -> Stamp {
        self.events += 1;
        Stamp {
            event: self.events,
            millis: self.clock.millis(),
        }
    }

    /// Mixes what was seen into the run's digest: two runs of a seed must see the same.
    fn digest(&mut self, value: u64) {
        self.digest = (self.digest.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// So many compressed messages were read.
    pub fn inflated(&mut self, messages: u64) {
        self.tally.inflated += messages;
    }

    /// A handshake of TLS is over.
    pub fn greeted(&mut self, is_resumed: bool, is_of_another_shard: bool) {
        self.tally.greeted += 1;
        self.tally.resumed += u64::from(is_resumed);
        self.tally.resumed_elsewhere += u64::from(is_resumed && is_of_another_shard);
    }

    /// Another certificate is in use.
    pub fn certificate_changed(&mut self) {
        self.tally.certificates += 1;
    }

    /// How often things happened.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// A number that two runs of a seed share.
    pub fn run_digest(&self) -> u64 {
        self.digest
    }

    /// A connection to a shard begins, from an address.
    pub fn opened(&mut self, temper: &Temper, shard: usize, address: u32) -> ConnectionId {
        let now = self.stamp();
        self.connections
            .push(ConnectionBook::new(temper.clone(), shard, address, now));
        self.tally.connections += 1;
        self.connections.len() - 1
    }

    /// Somebody is about to publish.
    pub fn publishing(
        &mut self,
        id: u64,
        publisher: Publisher,
        channel: &Arc<str>,
        key: &str,
        skip_history: bool,
        data: &[u8],
    ) {
        let sent = self.stamp();
        self.book(channel).sent.push(id);
        self.book(channel).has_binary |= data.first() == Some(&0xff);
        let published = Published {
            channel: channel.clone(),
            publisher,
            key: key.to_owned(),
            skip_history,
            sent,
            fate: Fate::Unknown,
            data: data.to_owned(),
        };
        self.publications.insert(id, published);
        self.tally.publications += 1;
    }

    /// The control thread was answered: the publication stands at `position`, in a channel with history.
    pub fn published(&mut self, id: u64, position: Option<(u64, &str)>) -> Verdict {
        let now = self.stamp();
        let published = self
            .publications
            .get_mut(&id)
            .expect("only what was sent is answered");
        published.fate = Fate::Accepted(now);
        let (channel, stored) = (published.channel.clone(), !published.skip_history);
        let book = self.book(&channel);
        match position {
            Some((offset, epoch)) if book.has_history => {
                book.know_epoch(epoch)?;
                book.know_top(now, None, offset);
                if stored {
                    book.place(offset, id)
                } else {
                    Ok(())
                }
            }
            None if book.has_history && stored => {
                violation(format!("{channel}: publication {id} has no position"))
            }
            Some(_) if !book.has_history => {
                violation(format!("{channel}: publication {id} has a position"))
            }
            _ => Ok(()),
        }
    }

    /// The control thread's publication was refused.
    pub fn publish_failed(&mut self, id: u64) {
        self.publications
            .get_mut(&id)
            .expect("only what was sent is answered")
            .fate = Fate::Refused;
    }

    fn book(&mut self, channel: &str) -> &mut ChannelBook {
        self.channels
            .get_mut(channel)
            .expect("profiles name every channel")
    }

    /// Client ids that must be present in a channel, when all is quiet.
    pub fn present(&self, channel: &str) -> BTreeSet<String> {
        self.connections
            .iter()
            .filter(|connection| !connection.is_over() && connection.members.contains_key(channel))
            .filter_map(|connection| connection.client.clone())
            .collect()
    }

    /// The users of these.
    pub fn users_present(&self, channel: &str) -> BTreeSet<&str> {
        self.connections
            .iter()
            .filter(|connection| !connection.is_over() && connection.members.contains_key(channel))
            .map(|connection| &*connection.temper.user)
            .collect()
    }

    /// How many connections a user has, when all is quiet.
    pub fn connections_of(&self, user: &str) -> u32 {
        let there = self.connections.iter();
        there
            .filter(|connection| !connection.is_over() && connection.client.is_some())
            .filter(|connection| connection.temper.user == user)
            .count() as u32
    }

    /// Whether a connection is a member of a channel, as far as it knows.
    pub fn is_member(&self, connection: ConnectionId, channel: &str) -> bool {
        self.connections[connection].members.contains_key(channel)
    }

    /// Whether a connection waits for an answer.
    pub fn awaits_replies(&self, connection: ConnectionId) -> bool {
        !self.connections[connection].pending.is_empty()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// A connection's client id, once it is connected.
    pub fn client_id(&self, connection: ConnectionId) -> Option<&str> {
        self.connections[connection].client.as_deref()
    }

    /// The world has a channel's history removed.
    pub fn removing_history(&mut self, channel: &str) {
        self.book(channel).removals += 1;
    }

    /// It is removed.
    pub fn history_removed(&mut self, channel: &str) {
        let now = self.stamp();
        let book = self.book(channel);
        book.removals -= 1;
        book.removed = now.event;
    }

    fn encoding(&self, connection: ConnectionId) -> Encoding {
        self.connections[connection].temper.encoding
    }

    /// All is quiet: every client has read all there was, nothing is under way. Nothing may be missing now.
    pub fn settled(&mut self, facts: impl Fn(ConnectionId) -> Facts) -> Verdict {
        for id in 0..self.connections.len() {
            if self.connections[id].is_over() {
                continue;
            }
            if let Some((command, ask, _)) = self.connections[id].pending.front() {
                return violation(format!(
                    "connection {id}: command {command} was never answered: {ask:?}"
                ));
            }
            let members: Vec<usize> = self.connections[id].members.values().copied().collect();
            for member in members {
                self.nothing_is_missing(member, facts(id))?;
            }
        }
        Ok(())
    }

    /// The run is over: what can be said only now.
    pub fn finished(&mut self) -> Verdict {
        for channel in self.profile.channels.clone() {
            self.one_order(&channel)?;
        }
        for member in 0..self.memberships.len() {
            self.publishers_in_order(member)?;
        }
        Ok(())
    }
}
