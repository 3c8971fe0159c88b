//! One thread, one reactor, its connections, and [`Shard::tick`]: the whole program on one screen.
//!
//! A tick looks outside once, drains the inboxes, handles what arrived, runs the hands of the clock, and sends one slice.
//! `Core` is everything but the reactor: what it wants of the reactor it writes into a list of `Ask`s.
//!
//! Never: waiting for another shard; a clock read anywhere but at the head of the tick.

mod admit;
mod arrive;
mod close;
mod command;
mod connect;
mod deliver;
mod drain;
mod inbox;
mod limit;
mod meter;
mod permit;
mod publish;
mod receive;
mod reply;
mod request;
mod subscribe;
mod timers;
mod tls;
mod tokens;

use crate::config::Config;
use crate::connection::{Connection, Pending, Private};
use crate::heartbeat::{Beat, Heartbeat};
use crate::hub::home::Homes;
use crate::hub::links::Links;
use crate::hub::sweep::{Findings, Gather, SlotSet};
use crate::hub::users::Users;
use crate::hub::{Hub, Keys};
use crate::ids::{Now, ShardId, Token};
use crate::limit::{Addresses, Handshakes, Hits, Meters};
use crate::mailbox::Sleeper;
use crate::protocol::websocket::{Deflater, Inflater};
use crate::reactor::{CloseHow, Event, Reactor, Short};
use crate::slab::Table;
use crate::stats::ShardStats;
use crate::tls::Acceptor;
use deliver::Plan;
use hashbrown::HashTable;
pub use limit::Permits;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use timers::Timers;
use tls::Tls;
use tokens::Tokens;

/// Slots of every table that are kept for telling connections above the limit so.
pub const REFUSAL_SLOTS: u32 = 64;
/// Longest wait: housekeeping and the watchdog want a look now and then.
const PATIENCE_MAX: Duration = Duration::from_millis(1000);
/// Time between two housekeepings.
const HOUSEKEEPING_MILLIS: u64 = 250;

/// Rounds of messages to this shard itself in one tick.
const WORK_ROUNDS: u32 = 32;

/// What a shard is made of.
pub struct Setup<R> {
    /// Its number.
    pub id: ShardId,
    /// The node's configuration.
    pub config: Arc<Config>,
    /// Sockets and time.
    pub reactor: R,
    /// The mailboxes, by peer; the last peer is the control thread.
    pub links: Links,
    /// Parks this thread's waker.
    pub sleeper: Sleeper,
    /// The node's hash key.
    pub keys: Keys,
    /// Its part in the node's limit of connections.
    pub permits: Permits,
    /// Its part in the node's limit of handshakes.
    pub handshakes: Handshakes,
    /// Connections sent to in one flush, at most [`crate::reactor::FLUSH_MAX`].
    pub sends_per_flush: usize,
    /// What the checks of tokens in one tick may take, nanoseconds, more than 0.
    pub check_nanos: u32,
    /// Seed of client ids and jitter.
    pub seed: u64,
    /// Names this boot.
    pub epoch: Arc<str>,
    /// Begins TLS handshakes; `None`: clients speak plain WebSocket.
    pub acceptor: Option<Acceptor>,
}

/// What a tick left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    Running,
    /// The shard was told to stop.
    Stopped,
}

/// One thread of the data plane.
pub struct Shard<R: Reactor> {
    reactor: R,
    core: Core,
    sleeper: Sleeper,
    events: Vec<Event>,
}

/// What the core wants of the reactor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Open(Token),
    WaitWritable(Token),
    Close(Token, CloseHow),
    StopAccepting,
}

/// Everything of a shard but its reactor.
pub(crate) struct Core {
    id: ShardId,
    config: Arc<Config>,
    keys: Keys,
    now: Now,
    /// When the turn's work began, nanoseconds; `None` before the first.
    working_since: Option<u64>,
    links: Links,
    hub: Hub,
    homes: Homes,
    users: Users,
    tokens: Tokens,
    arrivals: arrive::Arrivals,
    rng: StdRng,
    conns: Table<Connection>,
    /// What connections keep of TLS; `None`: nothing.
    tls: Option<Box<Tls>>,
    /// Lives of each slot so far.
    generations: Vec<u32>,
    /// Connections by user.
    by_user: HashTable<connect::UserSlots>,
    /// Connections that count against the limit.
    open: u32,
    permits: Permits,
    handshakes: Handshakes,
    /// Addresses whose home this shard is.
    addresses: Addresses,
    /// By slot: the address whose home counts the connection. Empty while connections of addresses are not limited.
    counted: Vec<Option<u64>>,
    meters: Meters,
    timers: Timers,
    heartbeat: Heartbeat,
    next_housekeeping: u64,
    asks: Vec<Ask>,
    /// Connections to be looked at again because a home has answered.
    waiters: Vec<Token>,
    /// Connections with something to send that no sweep will find.
    ready: std::collections::VecDeque<u32>,
    is_ready: SlotSet,
    /// Of these: those whose members are to be looked through.
    rescan: SlotSet,
    blocked: SlotSet,
    /// Connections that were ever cut short: they get smaller sends.
    was_short: SlotSet,
    gather: Gather,
    findings: Findings,
    plan: Plan,
    short: Vec<Short>,
    /// Reused for frames that are rendered before it is known where they go.
    frame: Vec<u8>,
    inflater: Inflater,
    deflater: Deflater,
    beats: Vec<Beat>,
    stalled: Vec<u32>,
    /// Connections that recover what they cannot have.
    not_json: Vec<u32>,
    // Boxed in connections: a spare one is handed over, not moved.
    #[allow(clippy::vec_box)]
    spare_private: Vec<Box<Private>>,
    #[allow(clippy::vec_box)]
    spare_pending: Vec<Box<Pending>>,
    stats: ShardStats,
    drain: drain::Drain,
    is_stopped: bool,
    /// Staged batches are left: come back soon.
    is_behind: bool,
}

impl<R: Reactor> Shard<R> {
    /// A shard that has nothing to do yet.
    pub fn new(setup: Setup<R>) -> Self {
        let Setup {
            id,
            config,
            reactor,
            links,
            sleeper,
            keys,
            permits,
            handshakes,
            sends_per_flush,
            check_nanos,
            seed,
            epoch,
            acceptor,
        } = setup;
        let slots = reactor.slots();
        let heartbeat = Heartbeat::new(
            config.client.ping_interval.as_millis() as u64,
            config.client.pong_timeout.as_millis() as u64,
        );
        let limits = &config.client_limits;
        let addresses = Addresses::new(
            limits.address_connections,
            limits.address_handshakes,
            limits.burst,
            slots as usize * usize::from(config.shards),
        );
        let counted = if limits.address_connections > 0 {
            slots
        } else {
            0
        };
        let core = Core {
            id,
            keys,
            now: Now::default(),
            working_since: None,
            hub: Hub::new(keys, config.clone()),
            homes: Homes::new(keys, config.clone(), epoch),
            users: Users::default(),
            tokens: Tokens::new(&config, check_nanos),
            arrivals: arrive::Arrivals::new(),
            rng: StdRng::seed_from_u64(seed),
            conns: Table::new(),
            tls: acceptor.map(|acceptor| Box::new(Tls::new(acceptor))),
            generations: vec![0; slots as usize],
            by_user: HashTable::new(),
            open: 0,
            permits,
            handshakes,
            addresses,
            counted: vec![None; counted as usize],
            meters: Meters::new(limits, slots as usize),
            timers: Timers::new(config.client.stale_close_delay.as_millis() as u64),
            heartbeat,
            next_housekeeping: 0,
            asks: Vec::new(),
            waiters: Vec::new(),
            ready: std::collections::VecDeque::new(),
            is_ready: SlotSet::new(slots),
            rescan: SlotSet::new(slots),
            blocked: SlotSet::new(slots),
            was_short: SlotSet::new(slots),
            gather: Gather::new(slots, sends_per_flush),
            findings: Findings::default(),
            plan: Plan::new(),
            short: Vec::new(),
            frame: Vec::new(),
            inflater: Inflater::new(),
            deflater: Deflater::new(reply::DEFLATE_LEVEL),
            beats: Vec::new(),
            stalled: Vec::new(),
            not_json: Vec::new(),
            spare_private: Vec::new(),
            spare_pending: Vec::new(),
            stats: ShardStats {
                limits: Hits::new(limits.dry_run),
                ..ShardStats::default()
            },
            drain: drain::Drain::default(),
            is_stopped: false,
            is_behind: false,
            links,
            config,
        };
        Self {
            reactor,
            core,
            sleeper,
            events: Vec::with_capacity(1024),
        }
    }

    /// One turn: look outside, handle what came, send one slice.
    ///
    /// # Errors
    /// When the reactor is broken. The process must end: there is no half-alive node.
    pub fn tick(&mut self) -> io::Result<Turn> {
        let now = self.reactor.now();
        self.core.count_turn(now);
        self.core.now = now;
        let mut patience = self.core.patience();
        if !patience.is_zero() {
            // Between saying "I sleep" and sleeping, look once more: whoever publishes after this look wakes us.
            self.sleeper.prepare_park();
            if !self.core.links.is_quiet() {
                patience = Duration::ZERO;
            }
        }
        self.events.clear();
        self.reactor.poll(patience, &mut self.events)?;
        self.sleeper.unpark();
        self.core.now = self.reactor.now();
        self.core.working_since = Some(self.core.now.nanos);

        self.core.drain_inboxes();
        self.core.run_checks();
        self.handle_events();
        self.core.run_timers();
        self.core.work();
        self.answer_asks();
        self.core.flush(&mut self.reactor);
        self.core.run_handshakes();
        self.answer_asks();
        self.core.is_behind = self.core.links.publish(self.core.now.millis);
        self.core.stats.ticks += 1;
        Ok(if self.core.is_stopped {
            Turn::Stopped
        } else {
            Turn::Running
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// See [`Shard::tick`].
    pub fn run(&mut self) -> io::Result<()> {
        while self.tick()? == Turn::Running {}
        Ok(())
    }

    fn handle_events(&mut self) {
        for at in 0..self.events.len() {
            match self.events[at] {
                Event::Accepted { slot, peer } => self.core.accepted(slot, peer.ip()),
                Event::Received { token, buffer, len } => {
                    let bytes = self.reactor.buffer(buffer, len);
                    self.core.received(token, bytes);
                    self.reactor.recycle(buffer);
                }
                Event::Ended { token, .. } => self.core.ended(token),
                Event::Writable { token } => self.core.writable(token),
                Event::Closed { slot } => self.core.slot_closed(slot),
            }
            self.answer_asks();
        }
    }

    fn answer_asks(&mut self) {
        for ask in self.core.asks.drain(..) {
            match ask {
                Ask::Open(token) => self.reactor.open(token),
                Ask::WaitWritable(token) => self.reactor.wait_writable(token),
                Ask::Close(token, how) => self.reactor.close(token, how),
                Ask::StopAccepting => self.reactor.stop_accepting(),
            }
        }
        self.core.stats.reactor = self.reactor.stats();
    }

    /// The reactor.
    pub fn reactor(&self) -> &R {
        &self.reactor
    }

    /// The reactor, for the simulation.
    pub fn reactor_mut(&mut self) -> &mut R {
        &mut self.reactor
    }

    /// What the shard holds.
    pub fn footprint(&self) -> Footprint {
        self.core.footprint()
    }

    /// Asserts what must be true between two ticks. For tests: it looks at everything.
    pub fn check_invariants(&self) {
        self.core.check_invariants();
    }
}

/// What a shard holds, so that a test can see everything released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Slots that are not free.
    pub connections: usize,
    /// Channels with members here, or a moment ago.
    pub views: usize,
    /// Lanes of those.
    pub lanes: usize,
    /// Channels this shard is home of.
    pub homes: usize,
    /// Chunks in logs.
    pub chunks: usize,
    /// Their bytes.
    pub log_bytes: u64,
    /// Bytes of records.
    pub history_bytes: u64,
    /// Blocked connections.
    pub blocked: u32,
    /// Users with a connection, as their home counts.
    pub users: usize,
    /// Entries of those whose doings are measured.
    pub measured: usize,
    /// Connections of which something of TLS is kept.
    pub tls: usize,
}

impl Core {
    fn token(&self, slot: u32) -> Token {
        Token {
            slot,
            generation: self.generations[slot as usize],
        }
    }

    /// The connection of a token, unless that life is over.
    fn conn(&mut self, token: Token) -> Option<&mut Connection> {
        let stale_allowed = crate::planted!(GenerationNotChecked);
        self.conns
            .get_mut(token.slot)
            .filter(|c| stale_allowed || c.generation == token.generation)
    }

    /// Counts what the turn before has cost, the wait left out.
    fn count_turn(&mut self, now: Now) {
        let Some(since) = self.working_since else {
            return;
        };
        let nanos = now.nanos.saturating_sub(since);
        self.stats.busy_nanos += nanos;
        self.stats.tick_micros.record(nanos / 1000);
    }

    /// How long the reactor may wait.
    fn patience(&self) -> Duration {
        let has_work = self.hub.is_dirty() || self.hub.wants_fetch() || !self.ready.is_empty();
        let has_work = has_work || self.tokens.has_work();
        let has_work = has_work || self.tls.as_ref().is_some_and(|tls| tls.has_work());
        if has_work || !self.waiters.is_empty() || !self.links.is_quiet() {
            return Duration::ZERO;
        }
        if self.is_behind {
            return crate::mailbox::BEHIND_PATIENCE;
        }
        let mut wait = PATIENCE_MAX;
        let mut until = |millis: u64| {
            wait = wait.min(Duration::from_millis(
                millis.saturating_sub(self.now.millis),
            ));
        };
        if let Some(deadline) = self.timers.next() {
            until(deadline);
        }
        let beats = if self.conns.is_empty() {
            0
        } else {
            self.conns.slots()
        };
        if let Some(deadline) = self.heartbeat.next_deadline(beats) {
            until(deadline);
        }
        let is_measuring = !self.addresses.is_empty() || !self.meters.is_empty();
        if is_measuring || self.hub.needs_housekeeping() || !self.homes.is_empty() {
            until(self.next_housekeeping);
        }
        if let Some(deadline) = self.drain.next_deadline() {
            until(deadline);
        }
        wait
    }

    /// What this shard told itself, until there is nothing more, and the fetches that came of it. What is left after a
    /// number of rounds comes in the next tick.
    fn work(&mut self) {
        for _ in 0..WORK_ROUNDS {
            self.drain_local();
            self.hub.send_fetches(&mut self.links);
            if self.waiters.is_empty() && self.links.is_local_empty() {
                return;
            }
            self.settle_waiters();
        }
    }

    fn housekeep(&mut self) {
        if self.now.millis < self.next_housekeeping {
            return;
        }
        self.next_housekeeping = self.now.millis + HOUSEKEEPING_MILLIS;
        self.hub.housekeep(self.now.millis, &mut self.links);
        self.homes.housekeep(self.now, &mut self.links);
        self.addresses.sweep(self.now.nanos);
        self.meters.sweep(self.now.nanos);
        self.report_users();
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            connections: self.conns.len(),
            views: self.hub.views.len(),
            lanes: self.hub.lanes.len(),
            homes: self.homes.len(),
            chunks: self.hub.pool.chunks_in_use(),
            log_bytes: self.hub.pool.bytes_in_use(),
            history_bytes: self.homes.history_bytes(),
            blocked: self.blocked.len(),
            users: self.users.online(),
            measured: self.addresses.len() + self.meters.len(),
            tls: self.tls.as_ref().map_or(0, |tls| tls.len()),
        }
    }

    fn check_invariants(&self) {
        for (slot, conn) in self.conns.iter() {
            let is_blocked = self.blocked.contains(slot);
            let waits = conn.private.as_ref().is_some_and(|p| !p.is_empty());
            assert!(
                conn.held.is_none()
                    || conn.phase == crate::connection::Phase::Handshake
                    || self.tokens.is_waiting(self.token(slot)),
                "slot {slot}: commands that nobody will handle"
            );
            assert!(
                !waits || is_blocked || self.is_ready.contains(slot),
                "slot {slot}: private bytes that nobody will send"
            );
            assert!(
                !is_blocked || conn.is_blocked(),
                "slot {slot}: blocked since"
            );
            for (at, sub) in conn.subs.iter().enumerate() {
                let lane = &self.hub.lanes[sub.lane];
                let member = &lane.members[sub.place() as usize];
                assert_eq!(
                    (member.slot, member.sub()),
                    (slot, at as u32),
                    "slot {slot}: member and subscription disagree"
                );
                if member.backfill().is_none() {
                    assert!(
                        member.cursor <= lane.head,
                        "slot {slot}: a cursor beyond the head"
                    );
                    let is_behind = member.cursor < lane.head;
                    let will_be_seen = lane.is_dirty || is_blocked || self.is_ready.contains(slot);
                    assert!(
                        !is_behind || will_be_seen,
                        "slot {slot}: behind, and no sweep will come: {member:?} of {:?} {lane:?} phase {:?}",
                        self.hub.views[lane.view].name,
                        conn.phase,
                    );
                }
            }
        }
        for (index, lane) in self.hub.lanes.iter() {
            assert!(
                !lane.is_dirty || self.hub.dirty.contains(&index),
                "lane {index}: dirty and not queued"
            );
            for (place, member) in lane.members.iter().enumerate() {
                let conn = self
                    .conns
                    .get(member.slot)
                    .expect("a member's connection is open");
                let sub = &conn.subs[member.sub() as usize];
                assert_eq!(
                    (sub.lane, sub.place()),
                    (index, place as u32),
                    "lane {index}: member and subscription disagree"
                );
            }
        }
        self.links.check_bounds();
        let budget = self.config.limits.log_bytes + crate::log::CHUNK_MAX as u64;
        assert!(
            self.hub.pool.bytes_in_use() <= budget.max(2 * 1024 * 1024),
            "logs hold more than their budget"
        );
    }
}
