//! TLS between the reactor and the connection: bytes that arrive are opened before anything else sees them, bytes that leave
//! are sealed when the flush is planned. A shard without TLS has none of this state, a connection never has.
//!
//! Handshakes cost a hundred times what a message does, so they wait in a queue of their own and each tick works on a few,
//! after everything that established clients sent and are sent.
//!
//! What is raw in a connection's private bytes (handshakes, alerts, the rest of a record that a send cut) goes out as it is,
//! before what is sealed.

use super::Core;
use super::receive::DEAF_MILLIS;
use super::timers::Timer;
use crate::connection::{Flags, Phase};
use crate::ids::Token;
use crate::protocol::codes::Disconnect;
use crate::protocol::http::{Refusal, write_refusal};
use crate::reactor::{CloseHow, Send};
use crate::slab::Table;
use crate::stats::TlsHandshakes;
use crate::tls::{Acceptor, Alert, Handshake, Opened, Progress, Sealed, Session};
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::ops::Range;

/// Steps of handshakes in one tick: with RSA of 2048 bits some four milliseconds, with ECDSA one.
const STEPS_A_TICK: usize = 4;
/// At most so often is it told that clients fail to speak TLS.
const TELL_MILLIS: u64 = 60_000;
/// How an HTTP request may begin: no record does.
const METHODS: [&[u8]; 5] = [b"GET ", b"POST", b"HEAD", b"OPTI", b"PUT "];

/// A shard's TLS.
pub(super) struct Tls {
    acceptor: Acceptor,
    handshakes: HashMap<u32, Handshake>,
    /// Handshakes with something to work on.
    queue: VecDeque<Token>,
    sessions: Table<Session>,
    /// A buffer for records cut by the network, reused.
    #[allow(clippy::box_collection)] // as a session holds it
    spare: Option<Box<Vec<u8>>>,
    /// When it was last told that a client does not speak TLS.
    told: Option<u64>,
    seals: Seals,
}

/// Sealed sends of a flush.
#[derive(Default)]
struct Seals {
    bytes: Vec<u8>,
    /// By part of the plan; `None`: it goes out as it is.
    parts: Vec<Option<SealedPart>>,
}

#[derive(Clone, Copy)]
struct SealedPart {
    start: usize,
    /// Bytes at the front that are raw.
    raw: usize,
    sealed: Sealed,
}

impl Tls {
    pub(super) fn new(acceptor: Acceptor) -> Self {
        Self {
            acceptor,
            handshakes: HashMap::new(),
            queue: VecDeque::new(),
            sessions: Table::new(),
            spare: None,
            told: None,
            seals: Seals::default(),
        }
    }

    /// Whether a handshake waits to be worked on.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The connection is over.
    pub(super) fn forget(&mut self, slot: u32) {
        self.handshakes.remove(&slot);
        self.sessions.remove(slot);
    }

    /// Connections for which something is kept.
    pub(super) fn len(&self) -> usize {
        self.handshakes.len() + self.sessions.len()
    }

    /// Begins to seal a plan of sends.
    pub(super) fn start_sealing(&mut self) {
        self.seals.bytes.clear();
        self.seals.parts.clear();
        self.seals.bytes.shrink_to(SCRATCH_KEPT);
    }

    /// Seals the next part of the plan: `raw` bytes at its front are left as they are.
    pub(super) fn seal_part(&mut self, slot: u32, bytes: &[u8], raw: usize) {
        let raw = raw.min(bytes.len());
        let part = self.sessions.get_mut(slot).map(|session| {
            let start = self.seals.bytes.len();
            self.seals.bytes.extend_from_slice(&bytes[..raw]);
            let sealed = session.seal(&bytes[raw..], &mut self.seals.bytes);
            SealedPart { start, raw, sealed }
        });
        debug_assert!(part.is_some() || raw == bytes.len(), "data before TLS");
        self.seals.parts.push(part);
    }

    /// Has each part of the plan that was sealed sent so.
    pub(super) fn put_sealed<'a>(&'a self, sends: &mut [Send<'a>]) {
        for (send, part) in sends.iter_mut().zip(&self.seals.parts) {
            if let Some(SealedPart { start, raw, sealed }) = part {
                send.bytes = &self.seals.bytes[*start..start + raw + sealed.len()];
            }
        }
    }

    /// The kernel took `taken` bytes of a part: how many that are of the plan, and where the rest of the record that was cut
    /// is. Records that did not begin to leave are as if they had not been sealed.
    pub(super) fn settle_part(
        &mut self,
        part: usize,
        slot: u32,
        taken: usize,
    ) -> (usize, Range<usize>) {
        let Some(seal) = self.seals.parts[part] else {
            return (taken, 0..0);
        };
        let records = taken.saturating_sub(seal.raw);
        let (plain, end) = seal.sealed.covered_by(records);
        if let Some(session) = self.sessions.get_mut(slot)
            && !crate::planted!(RecordNumberSkipped)
        {
            session.unseal(&seal.sealed, plain);
        }
        let start = seal.start + seal.raw;
        let planned = taken.min(seal.raw) + plain;
        (planned, start + records..start + end)
    }
}

/// Bytes of the scratch for sealed sends that are kept between flushes.
const SCRATCH_KEPT: usize = 2 << 20;

impl Core {
    /// Before a flush is planned: what of TLS itself must stand before the data.
    pub(super) fn prepare_sealing(&mut self) {
        for at in 0..self.gather.slots().len() {
            let slot = self.gather.slots()[at];
            let Some(tls) = &mut self.tls else { return };
            let session = tls.sessions.get_mut(slot);
            if let Some(session) = session.filter(|session| session.wants_key_update()) {
                let mut record = Vec::new();
                session.seal_key_update(&mut record);
                self.put_raw(slot, &record);
            }
        }
    }

    /// The rest of a record that a send cut goes out before all else.
    pub(super) fn keep_sealed_rest(&mut self, slot: u32, rest: Range<usize>) {
        let Some(tls) = self.tls.as_mut().filter(|_| !rest.is_empty()) else {
            return;
        };
        if crate::planted!(SealedRestLost) {
            return;
        }
        let bytes = std::mem::take(&mut tls.seals.bytes);
        self.put_raw(slot, &bytes[rest]);
        if let Some(tls) = &mut self.tls {
            tls.seals.bytes = bytes;
        }
    }

    /// Bytes of a connection that speaks TLS.
    pub(super) fn received_sealed(&mut self, token: Token, bytes: &mut [u8]) {
        let Some(conn) = self.conn(token) else { return };
        if conn.flags.has(Flags::DEAF) {
            return;
        }
        let Some(tls) = &mut self.tls else { return };
        if tls.sessions.get(token.slot).is_some() {
            self.records(token, bytes);
        } else {
            self.greeting(token, bytes);
        }
    }

    /// Bytes of a handshake: they wait for their turn.
    fn greeting(&mut self, token: Token, bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return };
        if !tls.handshakes.contains_key(&token.slot) {
            if METHODS.iter().any(|method| bytes.starts_with(method)) {
                return self.refuse_plain_http(token);
            }
            if !self.may_shake_hands() {
                return self.abandon(token, CloseHow::Reset);
            }
            let Some(tls) = &mut self.tls else { return };
            match tls.acceptor.begin() {
                Ok(begun) => drop(tls.handshakes.insert(token.slot, begun)),
                Err(error) => {
                    tracing::error!(%error, "no TLS handshake can begin");
                    return self.abandon(token, CloseHow::Reset);
                }
            }
        }
        let Some(tls) = &mut self.tls else { return };
        let Some(handshake) = tls.handshakes.get_mut(&token.slot) else {
            return;
        };
        let was_ready = handshake.is_ready();
        if !handshake.add(bytes) {
            self.stats.tls.failed += 1;
            return self.abandon(token, CloseHow::Reset);
        }
        if !was_ready && handshake.is_ready() {
            tls.queue.push_back(token);
        }
    }

    /// Works on a few of the handshakes that wait.
    pub(super) fn run_handshakes(&mut self) {
        for _ in 0..STEPS_A_TICK {
            let Some(token) = self.tls.as_mut().and_then(|tls| tls.queue.pop_front()) else {
                return;
            };
            // Who has not been let in yet comes back when it is.
            if self
                .conn(token)
                .is_some_and(|c| !c.flags.has(Flags::KNOCKS))
            {
                self.run_handshake(token);
            }
        }
    }

    /// The address of a client was let in: its handshake may go on.
    pub(super) fn resume_handshake(&mut self, token: Token) {
        let Some(tls) = &mut self.tls else { return };
        let handshake = tls.handshakes.get(&token.slot);
        if handshake.is_some_and(Handshake::is_ready) {
            tls.queue.push_back(token);
        }
    }

    fn run_handshake(&mut self, token: Token) {
        let Some(tls) = &mut self.tls else { return };
        let Some(handshake) = tls.handshakes.remove(&token.slot) else {
            return;
        };
        let mut out = Vec::new();
        let progress = handshake.advance(&tls.acceptor, &mut out);
        match progress {
            Progress::Waits(handshake) => {
                tls.handshakes.insert(token.slot, handshake);
                self.say_raw(token.slot, &out);
            }
            Progress::Done {
                session,
                mut rest,
                is_resumed,
            } => {
                tls.sessions.insert_at(token.slot, *session);
                let TlsHandshakes { full, resumed, .. } = &mut self.stats.tls;
                *(if is_resumed { resumed } else { full }) += 1;
                self.say_raw(token.slot, &out);
                self.records(token, &mut rest);
            }
            Progress::Failed(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                self.stats.tls.failed += 1;
                self.say_raw(token.slot, &out);
                self.hang_up(token);
            }
        }
    }

    /// An HTTP request on a port that speaks TLS: it is told so in words it understands.
    fn refuse_plain_http(&mut self, token: Token) {
        self.stats.tls.plaintext += 1;
        let now = self.now.millis;
        if let Some(tls) = &mut self.tls
            && tls.told.is_none_or(|told| now >= told + TELL_MILLIS)
        {
            tls.told = Some(now);
            tracing::warn!(
                "a client sends plain HTTP to the port that speaks TLS: it wants wss:// (or a proxy in front wants TLS towards here)"
            );
        }
        let mut answer = Vec::new();
        write_refusal(&mut answer, Refusal::TlsRequired);
        self.say_raw(token.slot, &answer);
        self.hang_up(token);
    }

    /// Records, or pieces of them.
    fn records(&mut self, token: Token, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            // What a record held may have ended the connection.
            if self.conn(token).is_none_or(|c| c.flags.has(Flags::DEAF)) {
                return;
            }
            let Some(tls) = &mut self.tls else { return };
            let Some(session) = tls.sessions.get_mut(token.slot) else {
                return;
            };
            let (reach, is_whole) = match session.reach(bytes) {
                Ok(reach) => reach,
                Err(alert) => return self.fail_session(token, alert),
            };
            let (front, behind) = bytes.split_at_mut(reach);
            bytes = behind;
            if session.partial().is_none() && is_whole {
                self.record(token, front);
                continue;
            }
            let spare = &mut tls.spare;
            let partial = session.partial();
            let held = partial.get_or_insert_with(|| spare.take().unwrap_or_default());
            held.extend_from_slice(front);
            if is_whole && let Some(mut held) = partial.take() {
                self.record(token, &mut held);
                held.clear();
                if let Some(tls) = &mut self.tls {
                    tls.spare = Some(held);
                }
            }
        }
        if self.has_cut_record(token) {
            self.time_message(token);
        }
    }

    fn record(&mut self, token: Token, record: &mut [u8]) {
        let Some(tls) = &mut self.tls else { return };
        let Some(session) = tls.sessions.get_mut(token.slot) else {
            return;
        };
        match session.open(record) {
            Ok(Opened::Data(data)) => self.received_plain(token, data),
            Ok(Opened::Nothing) => {}
            Ok(Opened::Closed) => self.peer_has_ended(token),
            Ok(Opened::Aborted(alert)) => {
                tracing::debug!(alert, "a client ended its TLS connection with an alert");
                self.ended(token);
            }
            Err(alert) => self.fail_session(token, alert),
        }
    }

    /// The peer will send nothing more. It is told the same, and the connection is over.
    fn peer_has_ended(&mut self, token: Token) {
        self.say_last(token, Alert::CloseNotify);
        let Some(conn) = self.conn(token) else { return };
        conn.flags.set(Flags::PEER_CLOSED, true);
        self.give_up(token);
    }

    /// The peer broke TLS.
    fn fail_session(&mut self, token: Token, alert: Alert) {
        tracing::debug!(?alert, "a client broke TLS");
        self.say_last(token, alert);
        self.hang_up(token);
    }

    /// Nothing that waits is worth saying before an alert, but the rest of a record.
    fn say_last(&mut self, token: Token, alert: Alert) {
        let Some(tls) = &mut self.tls else { return };
        let Some(session) = tls.sessions.get_mut(token.slot) else {
            return;
        };
        if session.has_ended() {
            return;
        }
        let mut record = Vec::new();
        session.seal_alert(alert, &mut record);
        if let Some(private) = self.conn(token).and_then(|c| c.private.as_mut()) {
            private.drop_all_but_raw();
        }
        self.say_raw(token.slot, &record);
    }

    /// What is queued is the last; the peer gets a moment to read it before the socket goes.
    fn hang_up(&mut self, token: Token) {
        self.give_up(token);
        let Some(conn) = self.conn(token) else { return };
        conn.flags.set(Flags::DEAF, true);
        self.timers
            .set(self.now.millis + DEAF_MILLIS, token, Timer::Deaf);
    }

    /// Without a close frame: there is no saying one any more.
    fn give_up(&mut self, token: Token) {
        let Some(conn) = self.conn(token) else { return };
        if conn.phase != Phase::Closing {
            crate::stats::count(&mut self.stats.closed, 0);
            self.leave_all(token);
            self.start_closing(token);
        }
    }

    /// Says goodbye in TLS before the socket is given up in order: whether there was something to say.
    pub(super) fn says_goodbye(&mut self, token: Token) -> bool {
        let Some(tls) = &mut self.tls else {
            return false;
        };
        let Some(session) = tls.sessions.get_mut(token.slot) else {
            return false;
        };
        let is_news = !session.has_ended();
        self.say_last(token, Alert::CloseNotify);
        is_news
    }

    /// Whether clients speak TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether a record was cut by the network and is not whole yet.
    pub(super) fn has_cut_record(&mut self, token: Token) -> bool {
        let tls = self.tls.as_mut();
        let session = tls.and_then(|tls| tls.sessions.get_mut(token.slot));
        session.is_some_and(|session| session.partial().is_some())
    }

    /// Whether the TLS handshake of a connection is not over.
    pub(super) fn is_before_tls(&self, token: Token) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.sessions.get(token.slot).is_none())
    }

    /// Ends connections whose keys have sealed all they may and cannot be changed.
    pub(super) fn retire_worn_keys(&mut self) {
        if self.tls.is_none() {
            return;
        }
        for at in 0..self.gather.slots().len() {
            let slot = self.gather.slots()[at];
            let session = self.tls.as_ref().and_then(|tls| tls.sessions.get(slot));
            if session.is_some_and(Session::is_worn_out) {
                self.close(self.token(slot), Disconnect::FORCE_RECONNECT);
            }
        }
    }

    /// Appends bytes that go out as they are.
    fn say_raw(&mut self, slot: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put_raw(slot, bytes);
            self.make_ready(slot);
        }
    }

    fn put_raw(&mut self, slot: u32, bytes: &[u8]) {
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.private_mut(&mut self.spare_private).put_raw(bytes);
        }
    }
}
