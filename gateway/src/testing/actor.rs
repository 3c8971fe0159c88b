//! A client over many connections, with the memory an SDK has: what it wants to be subscribed to, and from where it would
//! recover.

mod acts;
mod describe;

use super::client::{Connection, Incoming};
use super::net::ServerGone;
use super::oracle::{Ask, ConnectionId, End, SubscribeAsk, Verdict, Violation};
use super::profile::{Reads, Temper};
use super::rng::Rng;
use super::stage::{Begun, Stage};
use super::wire::Wire;
use crate::protocol::centrifuge::client::{
    self as wire, ClientPush, ClientReply, Replies, ReplyKind,
};
use crate::tls::Version;
use rustls::ClientConfig;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where a wanted subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// To be asked for, not before this moment.
    Idle(u64),
    Asked,
    Active,
}

/// A subscription the application wants.
#[derive(Clone, Debug)]
struct Want {
    positioned: bool,
    recoverable: bool,
    join_leave: bool,
    standing: Standing,
    /// From where to recover: offset and epoch.
    position: Option<(u64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Upgrading,
    Connecting,
    Open,
}

/// A connection that goes on.
#[derive(Debug)]
struct Live {
    id: ConnectionId,
    link: Connection,
    wire: Wire,
    phase: Phase,
    asks: VecDeque<(u32, Ask)>,
    ws_pings: VecDeque<Vec<u8>>,
    /// Pings read and not answered.
    owed_pongs: u32,
    /// Commands not written yet.
    staged: Vec<u8>,
}

impl Live {
    /// Sends.
    fn say(&mut self, stage: &Stage, plain: &[u8]) {
        let mut out = Vec::new();
        self.wire.write(plain, &mut out);
        self.send(stage, &out);
    }

    /// Sends what is as it goes over the wire.
    fn send(&self, stage: &Stage, bytes: &[u8]) {
        let net = &mut *stage.nets[self.link.shard].borrow_mut();
        net.write(self.link.socket, bytes);
    }
}

/// One client.
#[derive(Debug)]
pub struct Actor {
    name: usize,
    temper: Temper,
    rng: Rng,
    live: Option<Live>,
    wants: BTreeMap<Arc<str>, Want>,
    /// Positions of subscriptions given up: sometimes asked for much later.
    memory: BTreeMap<Arc<str>, (u64, String)>,
    /// Command ids go on across connections.
    commands: u32,
    /// Neither reads nor connects before this moment.
    paused_until: u64,
    /// Connections that vanished without a word; their sockets stand open until they are aborted.
    vanished: Vec<ConnectionId>,
    /// What its TLS is made of, which remembers sessions.
    tls: Option<Arc<ClientConfig>>,
    /// Tickets it holds, and the shard that the last one is of.
    tickets: u32,
    ticket_of: usize,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// A close frame, then the end of the stream.
    Politely,
    /// The end of the stream.
    Eof,
    /// A reset.
    Reset,
    /// Nothing at all: its machine lost power.
    Vanish,
}

impl Actor {
    /// A client that has not connected yet.
    pub fn new(name: usize, temper: Temper, rng: Rng) -> Self {
        Self {
            name,
            temper,
            rng,
            live: None,
            wants: BTreeMap::new(),
            memory: BTreeMap::new(),
            commands: 0,
            paused_until: 0,
            vanished: Vec::new(),
            tls: None,
            tickets: 0,
            ticket_of: 0,
        }
    }

    /// The connection that goes on.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.live.as_ref().map(|live| live.id)
    }

    /// Connects, if it is not and may.
    pub fn connect(&mut self, stage: &mut Stage) {
        let now = stage.clock.millis();
        if self.live.is_some() || now < self.paused_until || stage.is_calm {
            return;
        }
        let shard = self.rng.index(stage.nets.len());
        let Some(begun) = stage.connect(shard, &self.temper, &mut self.rng) else {
            self.paused_until = now + self.rng.range(100, 1000);
            return;
        };
        let Begun { id, socket, .. } = begun;
        stage.trace(|| {
            format!(
                "client {} connects to shard {shard} as {id}: {:?}",
                self.name, self.temper
            )
        });
        let (link, mut request) = Connection::new(
            socket,
            shard,
            self.temper.encoding,
            self.temper.window_bits,
            &begun.forwarded,
            &mut self.rng,
        );
        if self.temper.mute && self.rng.chance(300) {
            request.truncate(self.rng.index(request.len()));
        }
        let mut wire = self.wire(stage);
        let mut out = begun.header;
        wire.write(&request, &mut out);
        if self.temper.mute && self.rng.chance(300) {
            out.truncate(self.rng.index(out.len().max(1)));
        }
        for want in self.wants.values_mut() {
            want.standing = Standing::Idle(now);
        }
        let live = Live {
            id,
            link,
            wire,
            phase: Phase::Upgrading,
            asks: VecDeque::new(),
            ws_pings: VecDeque::new(),
            owed_pongs: 0,
            staged: Vec::new(),
        };
        live.send(stage, &out);
        self.live = Some(live);
        if !self.temper.mute && self.rng.chance(100) {
            // Right behind the request, without waiting for the answer.
            self.say_hello(stage);
        }
    }

    /// A new connection's wire. Whether it offers a ticket is known where each is used once: in TLS 1.3.
    fn wire(&mut self, stage: &Stage) -> Wire {
        let (Some(node), Some((version, record_bytes))) = (&stage.profile.tls, self.temper.tls)
        else {
            return Wire::default();
        };
        let config = self
            .tls
            .get_or_insert_with(|| node.client(version, record_bytes));
        let offers_ticket = (version == Version::Tls13).then_some(self.tickets > 0);
        self.tickets = self.tickets.saturating_sub(1);
        Wire::secured(node.clone(), config.clone(), offers_ticket)
    }

    fn say_hello(&mut self, stage: &mut Stage) {
        let Some(live) = &mut self.live else { return };
        live.phase = Phase::Connecting;
        let token = stage.profile.connection_token(&self.temper.user);
        let connect = wire::Connect {
            token: &token,
            name: "sim",
            version: "1",
            ..wire::Connect::default()
        };
        self.commands += 1;
        wire::connect(
            &mut live.staged,
            self.temper.encoding,
            self.commands,
            &connect,
        );
        self.note(stage, Ask::Connect);
        if self.rng.chance(500) {
            self.resubscribe(stage);
        }
        self.write(stage);
    }

    /// Remembers the command staged last.
    fn note(&mut self, stage: &mut Stage, ask: Ask) {
        let Some(live) = &mut self.live else { return };
        stage.trace(|| format!("  {}: command {} {ask:?}", live.id, self.commands));
        stage.oracle.asked(live.id, self.commands, ask.clone());
        live.asks.push_back((self.commands, ask));
    }

    /// Writes what is staged as one message.
    fn write(&mut self, stage: &Stage) {
        let Some(live) = &mut self.live else { return };
        if live.staged.is_empty() {
            return;
        }
        let mut out = Vec::new();
        live.link.write(&mut self.rng, &live.staged, &mut out);
        live.staged.clear();
        live.say(stage, &out);
    }

    /// Asks for every subscription that is wanted and not asked for yet.
    fn resubscribe(&mut self, stage: &mut Stage) {
        let now = stage.clock.millis();
        let due: Vec<Arc<str>> = self
            .wants
            .iter()
            .filter(|(_, want)| matches!(want.standing, Standing::Idle(at) if at <= now))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in due {
            self.subscribe(stage, &channel);
        }
    }

    fn subscribe(&mut self, stage: &mut Stage, channel: &Arc<str>) {
        let (Some(live), Some(want)) = (&mut self.live, self.wants.get_mut(channel)) else {
            return;
        };
        let position = want.position.clone().filter(|_| want.recoverable);
        let token = stage.profile.subscription_token(&self.temper.user, channel);
        let request = wire::Subscribe {
            channel,
            token: &token,
            recover: position.as_ref().map(|(offset, epoch)| wire::Position {
                offset: *offset,
                epoch,
            }),
            positioned: want.positioned,
            recoverable: want.recoverable,
            join_leave: want.join_leave,
            ..wire::Subscribe::default()
        };
        self.commands += 1;
        wire::subscribe(
            &mut live.staged,
            self.temper.encoding,
            self.commands,
            &request,
        );
        want.standing = Standing::Asked;
        let ask = SubscribeAsk {
            channel: channel.clone(),
            positioned: want.positioned,
            recoverable: want.recoverable,
            join_leave: want.join_leave,
            recover: position,
        };
        self.note(stage, Ask::Subscribe(ask));
    }

    fn leave_somehow(&mut self, stage: &mut Stage) {
        let how = *self.rng.pick(&[
            Leave::Politely,
            Leave::Politely,
            Leave::Eof,
            Leave::Eof,
            Leave::Reset,
            Leave::Vanish,
        ]);
        self.leave(stage, how);
    }

    /// Leaves.
    pub fn leave(&mut self, stage: &mut Stage, how: Leave) {
        let Some(mut live) = self.live.take() else {
            return;
        };
        stage.trace(|| format!("  {}: leaves: {how:?}", live.id));
        stage.oracle.left(live.id);
        if how == Leave::Politely && live.phase != Phase::Upgrading {
            let mut out = Vec::new();
            live.link.write_close(1000, &mut out);
            live.say(stage, &out);
        }
        if how != Leave::Reset {
            self.say_goodbye(stage, &mut live);
        }
        let net = &mut *stage.nets[live.link.shard].borrow_mut();
        match how {
            Leave::Politely => net.close(live.link.socket),
            Leave::Eof => net.close(live.link.socket),
            Leave::Reset => net.abort(live.link.socket),
            Leave::Vanish => {
                net.set_window(live.link.socket, 16 * 1024);
                self.vanished.push(live.id);
            }
        }
        self.paused_until = stage.clock.millis() + self.rng.magnitude(1, 3000);
    }

    /// The end of TLS, said or not: what follows it on the wire is the end of the stream, or nothing.
    fn say_goodbye(&mut self, stage: &Stage, live: &mut Live) {
        let mut out = Vec::new();
        if self.temper.tls.is_some() && self.rng.chance(500) && live.wire.say_goodbye(&mut out) {
            live.send(stage, &out);
        }
    }

    /// From now on it reads everything at once and answers, what it has left unanswered too. Who never reads leaves.
    pub fn settle_down(&mut self, stage: &mut Stage) {
        for id in self.vanished.drain(..) {
            stage.abort(id);
        }
        if self.temper.reads == Reads::Never || self.temper.mute {
            self.leave(stage, Leave::Reset);
        }
        self.pong(stage);
        self.write(stage);
        if let Some(live) = &self.live {
            let net = &mut *stage.nets[live.link.shard].borrow_mut();
            net.smooth(live.link.socket);
            net.set_window(live.link.socket, usize::MAX);
        }
    }

    /// Reads what its temper lets it read, and reacts.
    ///
    /// # Errors
    /// What the oracle finds.
    pub fn read(&mut self, stage: &mut Stage) -> Verdict {
        let now = stage.clock.millis();
        let Some(live) = &mut self.live else {
            self.connect(stage);
            return Ok(());
        };
        let is_subscribed = self
            .wants
            .values()
            .any(|want| want.standing == Standing::Active);
        let most = match self.temper.reads {
            _ if stage.is_calm => usize::MAX,
            Reads::Promptly => usize::MAX,
            Reads::Never if is_subscribed => 0,
            Reads::Never => usize::MAX,
            Reads::Slowly if now < self.paused_until || !self.rng.chance(400) => 0,
            Reads::Slowly => self.rng.magnitude(1, 64 * 1024) as usize,
        };
        let (mut bytes, mut plain, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let (id, gone) = {
            let net = &mut *stage.nets[live.link.shard].borrow_mut();
            net.read(live.link.socket, most, &mut bytes);
            (live.id, net.server_gone(live.link.socket))
        };
        let before = live.wire.tickets();
        let greeting = live.wire.read(&bytes, &mut plain, &mut out);
        let greeting = greeting.map_err(|what| Violation(format!("connection {id}: {what}")))?;
        live.send(stage, &out);
        live.link.feed(&plain);
        let shard = live.link.shard;
        if let Some(greeting) = greeting {
            stage.trace(|| format!("  {id}: TLS stands, {greeting:?}"));
            let is_of_another = self.ticket_of != shard;
            stage.oracle.greeted(greeting.is_resumed, is_of_another);
            self.ticket_of = shard;
        }
        self.tickets += live.wire.tickets() - before;
        let is_truncated = live.wire.is_truncated();
        if live.wire.is_greeting() && !stage.is_calm && self.rng.chance(10) {
            self.leave(stage, Leave::Reset);
        }
        self.take_in(stage)?;
        if let Some(gone) = gone
            && (most > 0 || gone == ServerGone::Reset)
            && self.connection() == Some(id)
        {
            let end = if gone == ServerGone::Eof {
                if is_truncated {
                    return Err(Violation(format!(
                        "connection {id}: the end of the stream without the end of TLS"
                    )));
                }
                End::Eof
            } else {
                End::Reset
            };
            self.end(stage, end)?;
        }
        if self
            .live
            .as_ref()
            .is_some_and(|live| live.phase == Phase::Open)
            && !stage.is_calm
        {
            self.resubscribe(stage);
            self.write(stage);
        }
        match self.connection() {
            Some(id) => stage.oracle.time_passed(id, stage.facts(id)),
            None => Ok(()),
        }
    }

    /// Handles what has arrived whole.
    fn take_in(&mut self, stage: &mut Stage) -> Verdict {
        while let Some(live) = &mut self.live {
            let id = live.id;
            let blame = |what: String| Violation(format!("connection {id}: {what}"));
            let incoming = match live.link.next_incoming() {
                // It gets an alert, unless the node saw at once that this is HTTP.
                Err(_) if stage.profile.misunderstands(&self.temper) => {
                    return self.end(stage, End::Refused(400));
                }
                incoming => incoming.map_err(blame)?,
            };
            let Some(incoming) = incoming else {
                return Ok(());
            };
            match incoming {
                Incoming::Upgraded => {
                    if live.phase == Phase::Upgrading && !self.temper.mute {
                        self.say_hello(stage);
                    }
                }
                Incoming::Refused(status) => {
                    self.end(stage, End::Refused(status))?;
                }
                Incoming::WsPong(payload) => {
                    let Some(at) = live.ws_pings.iter().position(|sent| *sent == payload) else {
                        return Err(blame(format!(
                            "a WebSocket pong that nobody asked for: {payload:?}"
                        )));
                    };
                    live.ws_pings.drain(..=at);
                }
                Incoming::Message(bytes) => {
                    stage
                        .oracle
                        .inflated(std::mem::take(&mut live.link.inflated));
                    for reply in Replies::new(self.temper.encoding, &bytes) {
                        let reply =
                            reply.map_err(|error| blame(format!("{error} in {bytes:?}")))?;
                        stage.trace(|| format!("  {id}: {}", describe::reply(&reply)));
                        stage.oracle.replied(id, &reply, stage.facts(id))?;
                        self.react(stage, &reply);
                    }
                    self.write(stage);
                }
                Incoming::Close(code, reason) => {
                    // Nothing may stand behind it.
                    let behind = live.link.next_incoming().map_err(blame)?;
                    debug_assert_eq!(behind, None);
                    if self.rng.chance(800) {
                        let mut out = Vec::new();
                        live.link.write_close(code, &mut out);
                        live.say(stage, &out);
                        let net = &mut *stage.nets[live.link.shard].borrow_mut();
                        net.close(live.link.socket);
                    } else {
                        // It does not answer: the gateway's patience has an end.
                        self.vanished.push(id);
                    }
                    self.end(stage, End::Close(code, reason))?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, stage: &mut Stage, end: End) -> Verdict {
        let Some(live) = self.live.take() else {
            return Ok(());
        };
        stage.trace(|| format!("  {}: ended by {end:?}", live.id));
        self.paused_until = stage.clock.millis() + self.rng.range(50, 2000);
        let facts = stage.facts(live.id);
        stage.oracle.ended(live.id, &end, facts)?;
        // Whatever is left of it here.
        if !matches!(end, End::Close(..)) {
            stage.abort(live.id);
        }
        Ok(())
    }

    /// Does what an SDK does with a reply.
    fn react(&mut self, stage: &mut Stage, reply: &ClientReply<'_>) {
        let Some(live) = &mut self.live else { return };
        let now = stage.clock.millis();
        match &reply.kind {
            ReplyKind::Ping if reply.id == 0 => {
                live.owed_pongs += 1;
                if self.temper.pongs || stage.is_calm {
                    self.pong(stage);
                }
            }
            ReplyKind::Push { channel, push } => match push {
                ClientPush::Publication(publication) => self.advance(channel, publication.offset),
                ClientPush::Unsubscribe { code, .. } => {
                    let Some(want) = self.wants.get_mut(&**channel) else {
                        return;
                    };
                    if *code < 2500 {
                        self.wants.remove(&**channel);
                    } else if want.standing == Standing::Active {
                        want.standing = Standing::Idle(now);
                    }
                }
                _ => {}
            },
            kind => {
                let Some((_, ask)) = live.asks.pop_front() else {
                    return;
                };
                match (ask, kind) {
                    (Ask::Connect, ReplyKind::Connect(_)) => live.phase = Phase::Open,
                    (Ask::Connect, ReplyKind::Error(_)) => self.leave(stage, Leave::Politely),
                    (Ask::Subscribe(ask), ReplyKind::Subscribe(result)) => {
                        let Some(want) = self.wants.get_mut(&ask.channel) else {
                            return;
                        };
                        want.standing = Standing::Active;
                        want.position = result
                            .recoverable
                            .then(|| (result.offset, result.epoch.to_string()));
                        for publication in &result.publications {
                            self.advance(&ask.channel, publication.offset);
                        }
                    }
                    (Ask::Subscribe(ask), ReplyKind::Error(_)) => {
                        let is_member = stage.oracle.is_member(live.id, &ask.channel);
                        if let Some(want) = self.wants.get_mut(&ask.channel) {
                            want.standing = if is_member {
                                Standing::Active
                            } else {
                                Standing::Idle(now + 500)
                            };
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Answers every ping.
    fn pong(&mut self, stage: &mut Stage) {
        let Some(live) = &mut self.live else { return };
        for _ in 0..std::mem::take(&mut live.owed_pongs) {
            wire::pong(&mut live.staged, self.temper.encoding);
            stage.oracle.ponged(live.id);
        }
    }

    fn advance(&mut self, channel: &str, offset: u64) {
        if let Some((at, _)) = self
            .wants
            .get_mut(channel)
            .and_then(|want| want.position.as_mut())
            && offset > 0
        {
            *at = offset;
        }
    }

    /// All is quiet: nothing of its own may be outstanding.
    ///
    /// # Errors
    /// A WebSocket ping without a pong, or half a frame.
    pub fn settled(&self) -> Verdict {
        let Some(live) = &self.live else {
            return Ok(());
        };
        if live.link.is_cut() || live.wire.is_cut() {
            return Err(Violation(format!(
                "connection {}: half a frame, and nothing more comes",
                live.id
            )));
        }
        match live.ws_pings.front() {
            Some(payload) => Err(Violation(format!(
                "connection {}: no pong to {payload:?}",
                live.id
            ))),
            None => Ok(()),
        }
    }
}
