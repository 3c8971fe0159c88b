//! The checks of tokens, and those that wait for one.
//!
//! A signature by RSA or on a curve takes as long as sending to a dozen sockets. So that a storm of connects does not hold up
//! those who are connected, a tick has a budget for such checks: a command that finds it spent waits, and all that its
//! connection sends after it waits behind it. Nobody is refused for that; those who wait take turns.
//!
//! A token may name a key that was not fetched yet. Its command waits, too, until the control thread has looked for the key.

use super::Core;
use crate::config::Config;
use crate::connection::Phase;
use crate::hub::message::Message;
use crate::ids::{Now, Token};
use crate::protocol::centrifuge::{Command, Encoding};
use crate::protocol::codes::Disconnect;
use crate::protocol::token::{
    ConnectionClaims, Demand, KeySet, SubscriptionClaims, TokenError, TokenKind, TokenVerifier,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What a turn takes beside the check.
const TURN_NANOS: i64 = 5000;
/// Bytes of commands that may wait behind a token, in messages' limits: who sends on and on meanwhile is closed.
const HELD_MESSAGES: usize = 2;
/// Ids of keys that are known not to be there.
const MISSING_MAX: usize = 1024;
/// How long an id that a fetch has not found is not looked for again, milliseconds.
const GONE_MILLIS: u64 = 60_000;
/// The same when the keys could not be fetched.
const UNAVAILABLE_MILLIS: u64 = 1000;

/// Connection and subscription tokens.
pub(super) struct Tokens {
    connection: Checker,
    /// `None`: subscription tokens are checked like connection tokens.
    subscription: Option<Checker>,
    /// What the checks of one tick may take, nanoseconds. The last one may exceed it.
    a_tick: i64,
    /// What is left of it in this tick.
    budget: i64,
    /// It is the turn of somebody who has waited: its next command is the one.
    is_turn: bool,
    /// Who has the turn has waited for the key of this id, which is not there; whether that is certain.
    has_missed: Option<(String, bool)>,
    /// Connections whose next command waits for its turn, and what [`Self::has_missed`] is then. Some may be gone.
    queue: VecDeque<(Token, Option<(String, bool)>)>,
}

/// One kind of token: its keys, and who waits for one.
struct Checker {
    verifier: TokenVerifier,
    /// Wait for keys that nobody has been asked for yet.
    waiting: Vec<(Token, String)>,
    /// Wait for keys that the control thread looks for.
    asked: Vec<(Token, String)>,
    /// The control thread has been asked and has not answered.
    is_asking: bool,
    /// Ids that name no key until a moment, in milliseconds, and whether that is certain.
    missing: HashMap<String, (u64, bool)>,
}

impl Checker {
    fn new(verifier: TokenVerifier) -> Self {
        Self {
            verifier,
            waiting: Vec::new(),
            asked: Vec::new(),
            is_asking: false,
            missing: HashMap::new(),
        }
    }

    fn miss(&mut self, id: String, until: u64, is_certain: bool, now: u64) {
        if self.missing.len() >= MISSING_MAX {
            self.missing.retain(|_, (until, _)| *until > now);
        }
        if self.missing.len() >= MISSING_MAX {
            // More made up ids a minute than are worth knowing: each is looked for again.
            self.missing.clear();
        }
        self.missing.insert(id, (until, is_certain));
    }

    /// What is known of an id that is not in the key set: whether it is certain that there is no such key.
    fn missing(&self, id: &str, now: u64) -> Option<bool> {
        let (until, is_certain) = self.missing.get(id)?;
        (*until > now).then_some(*is_certain)
    }
}

impl Tokens {
    pub(super) fn new(config: &Config, nanos_a_tick: u32) -> Self {
        let checker = |config| Checker::new(TokenVerifier::new(config));
        Self {
            connection: checker(&config.client.token),
            subscription: config.client.subscription_token.as_ref().map(checker),
            a_tick: i64::from(nanos_a_tick),
            budget: i64::from(nanos_a_tick),
            is_turn: false,
            has_missed: None,
            queue: VecDeque::new(),
        }
    }

    /// Subscription tokens are checked like connection tokens unless they have keys of their own.
    fn checker(&mut self, kind: TokenKind) -> &mut Checker {
        match (kind, &mut self.subscription) {
            (TokenKind::Subscription, Some(own)) => own,
            _ => &mut self.connection,
        }
    }

    pub(super) fn verify_connection(
        &self,
        token: &str,
        now: Now,
    ) -> Result<ConnectionClaims, TokenError> {
        let checker = &self.connection;
        let verified = checker
            .verifier
            .verify_connection(token, now.unix_seconds());
        verified.map_err(|error| self.explain(checker, error, token, now))
    }

    pub(super) fn verify_subscription(
        &self,
        token: &str,
        now: Now,
    ) -> Result<SubscriptionClaims, TokenError> {
        let checker = self.subscription.as_ref().unwrap_or(&self.connection);
        let verified = checker
            .verifier
            .verify_subscription(token, now.unix_seconds());
        verified.map_err(|error| self.explain(checker, error, token, now))
    }

    /// An unknown key is one that cannot be had now, unless it is certain that there is none.
    fn explain(&self, checker: &Checker, error: TokenError, token: &str, now: Now) -> TokenError {
        let missing = |id: &str| self.missed(id).or(checker.missing(id, now.millis));
        match (error, checker.verifier.demand(token)) {
            (TokenError::UnknownKey, Demand::Key(id)) if missing(&id) != Some(true) => {
                TokenError::Unavailable
            }
            _ => error,
        }
    }

    /// Whether it is certain that there is no key of this id, for who has waited for it.
    fn missed(&self, id: &str) -> Option<bool> {
        let (missed, is_certain) = self.has_missed.as_ref()?;
        (missed == id).then_some(*is_certain)
    }

    /// Whether the next command is the one that has waited.
    pub(super) fn take_turn(&mut self) -> bool {
        std::mem::take(&mut self.is_turn)
    }

    /// Whether somebody can be checked now.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a connection waits for something.
    pub(super) fn is_waiting(&self, token: Token) -> bool {
        let checkers = [Some(&self.connection), self.subscription.as_ref()];
        let mut for_keys = checkers
            .into_iter()
            .flatten()
            .flat_map(|c| c.waiting.iter().chain(&c.asked));
        self.queue.iter().any(|(waits, _)| *waits == token)
            || for_keys.any(|(waits, _)| *waits == token)
    }

    /// New keys, or none. Whoever waits for one that came has its turn now; who has asked and waits in vain, too.
    pub(super) fn receive_keys(
        &mut self,
        kind: TokenKind,
        keys: Option<Arc<KeySet>>,
        answers: bool,
        now: Now,
    ) {
        let is_certain = keys.is_some();
        let checker = match (kind, &mut self.subscription) {
            (TokenKind::Subscription, Some(own)) => own,
            _ => &mut self.connection,
        };
        if let Some(keys) = keys {
            checker.verifier.set_fetched(keys);
        }
        let asked = if answers {
            checker.is_asking = false;
            std::mem::take(&mut checker.asked)
        } else {
            Vec::new()
        };
        for (token, id) in asked {
            let is_there = checker.verifier.fetched().is_some_and(|keys| keys.has(&id));
            let missed = (!is_there).then(|| (id.clone(), is_certain));
            self.queue.push_back((token, missed));
            if !is_there {
                let life = if is_certain {
                    GONE_MILLIS
                } else {
                    UNAVAILABLE_MILLIS
                };
                checker.miss(id, now.millis + life, is_certain, now.millis);
            }
        }
        let Some(keys) = checker.verifier.fetched() else {
            return;
        };
        for waiting in [&mut checker.waiting, &mut checker.asked] {
            for (token, _) in waiting.extract_if(.., |(_, id)| keys.has(id)) {
                self.queue.push_back((token, None));
            }
        }
    }
}

impl Core {
    /// Whether a command's token must wait for its check. It then has a place among those who wait.
    pub(super) fn waits_for_check(
        &mut self,
        token: Token,
        command: &Command<'_>,
        has_turn: bool,
    ) -> bool {
        let Some((kind, jwt)) = command.method.token() else {
            return false;
        };
        let now = self.now.millis;
        let tokens = &mut self.tokens;
        match tokens.checker(kind).verifier.demand(jwt) {
            Demand::Nanos(0) => false,
            Demand::Nanos(nanos) => {
                // A turn is given while there is budget, and is not lost for what giving it took.
                if has_turn || (tokens.queue.is_empty() && tokens.budget > 0) {
                    tokens.budget -= i64::from(nanos);
                    return false;
                }
                tokens.queue.push_back((token, None));
                self.stats.token_checks_deferred += 1;
                true
            }
            Demand::Key(id) => {
                let was_missed = tokens.missed(&id).is_some();
                let checker = tokens.checker(kind);
                if was_missed || checker.missing(&id, now).is_some() {
                    return false;
                }
                checker.waiting.push((token, id));
                true
            }
        }
    }

    /// Keeps what a client sends while its token waits. `false`: it sends too much.
    pub(super) fn hold(&mut self, token: Token, payload: &[u8]) -> bool {
        let limit = HELD_MESSAGES * self.config.client.message_size_limit as usize;
        let Some(conn) = self.conn(token) else {
            return false;
        };
        let held = conn.held.get_or_insert_default();
        if held.len() + payload.len() >= limit {
            self.close(token, Disconnect::TOO_MANY_REQUESTS);
            return false;
        }
        // Payloads one behind the other are a payload; those of JSON with a line feed between them.
        if conn.encoding == Encoding::Json && !held.is_empty() && held.last() != Some(&b'\n') {
            held.push(b'\n');
        }
        held.extend_from_slice(payload);
        true
    }

    /// Spends a tick's budget on those who wait, the oldest first, and asks for the keys that are wanted.
    pub(super) fn run_checks(&mut self) {
        self.tokens.budget = self.tokens.a_tick;
        for _ in 0..self.tokens.queue.len() {
            if self.tokens.budget <= 0 {
                break;
            }
            let Some((token, has_missed)) = self.tokens.queue.pop_front() else {
                break;
            };
            self.tokens.budget -= TURN_NANOS;
            self.tokens.has_missed = has_missed;
            self.resume(token);
            self.tokens.has_missed = None;
        }
        if self.tokens.queue.is_empty() {
            // After a storm its room is given back.
            self.tokens.queue.shrink_to(1024);
        }
        for kind in TokenKind::ALL {
            let checker = match (kind, &mut self.tokens.subscription) {
                (TokenKind::Subscription, None) => continue,
                (TokenKind::Subscription, Some(own)) => own,
                (TokenKind::Connection, _) => &mut self.tokens.connection,
            };
            // One question at a time; those who come meanwhile ask the next.
            if !checker.is_asking && !checker.waiting.is_empty() {
                checker.is_asking = true;
                std::mem::swap(&mut checker.asked, &mut checker.waiting);
                self.tell_control(Message::KeyWanted { kind });
            }
        }
    }

    /// Handles what a connection has sent while it waited.
    fn resume(&mut self, token: Token) {
        let Some(conn) = self.conn(token).filter(|c| c.phase != Phase::Closing) else {
            return;
        };
        let Some(held) = conn.held.take() else { return };
        self.tokens.is_turn = true;
        self.commands(token, &held);
        debug_assert!(!self.tokens.is_turn, "what is held begins with a command");
    }
}
