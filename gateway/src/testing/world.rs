//! All of it together: the schedule of a run.
//!
//! A run has busy rounds, in which everything happens at once and at the wrong moment, lulls, in which time passes, and
//! ends of rounds, in which all is let go quiet and nothing may be missing. Then everybody leaves, time passes, and nothing
//! may be left.

use super::actor::{Actor, Leave};
use super::net::{Clock, Net, SharedNet, Weather};
use super::node::SimNode;
use super::oracle::{ConnectionId, Oracle, Publisher, Tally, Verdict, Violation};
use super::payload;
use super::profile::Profile;
use super::rng::Rng;
use super::stage::Stage;
use crate::hub::message::{Request, RequestId, Response};
use crate::protocol::centrifuge::publication::{self, PublicationParts};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What is simulated: all shards of a node, and the links between them and to the control thread.
pub trait Server {
    /// One turn of a shard. Asserts its invariants.
    fn tick(&mut self, shard: usize);

    /// Moves batches between the shards, or holds them up. `hurry`: moves all.
    fn carry(&mut self, rng: &mut Rng, hurry: bool);

    /// The control thread asks: the home of what the request names, or every shard.
    fn ask(&mut self, id: RequestId, request: Request);

    /// What has been answered since.
    fn answers(&mut self) -> Vec<(RequestId, Response)>;

    /// What is held that should have been released: everything but channels with history, or, when that is `forgotten`
    /// too, everything.
    fn leftovers(&self, forgotten: bool) -> Option<String>;
}

/// What came of a run that broke no promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How often things happened.
    pub tally: Tally,
    /// Two runs of a seed have the same.
    pub digest: u64,
    /// How long it lasted, virtual milliseconds.
    pub millis: u64,
}

/// Makes the node of a run: of its profile, with a reactor over each of the nets.
pub type Build<S> = fn(&Profile, &[SharedNet], &mut Rng) -> S;

/// What the control thread waits for.
#[derive(Clone, Debug)]
enum Waiting {
    Publication,
    Presence(Arc<str>),
    PresenceStats(Arc<str>),
    Channels,
    Removal(Arc<str>),
    /// How many connections a user has.
    User(String),
    /// The channel, and how many shards have not answered.
    Forgetting(Arc<str>, usize),
    Other,
}

/// Request ids from here on are no publication numbers.
const OTHER_REQUESTS: RequestId = 1 << 40;

/// A run.
pub struct World<S> {
    stage: Stage,
    server: S,
    actors: Vec<Actor>,
    rng: Rng,
    requests: RequestId,
    waiting: HashMap<RequestId, Waiting>,
    presence: BTreeMap<Arc<str>, BTreeSet<String>>,
    present_counts: BTreeMap<Arc<str>, (u32, u32)>,
    members: BTreeMap<Arc<str>, u32>,
    users: BTreeMap<String, u32>,
    /// By shard: it does not turn before this moment.
    stalled_until: Vec<u64>,
}

/// Runs a seed over real shards. Whatever goes wrong comes back as the error: a broken promise, or what an assertion said.
///
/// # Errors
/// See above.
pub fn simulate(seed: u64, trace: bool) -> Result<Report, String> {
    let run = || run(seed, trace, SimNode::build);
    match std::panic::catch_unwind(run) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(violation)) => Err(violation.0),
        Err(panic) => Err(
            match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(said), _) => format!("panicked: {said}"),
                (_, Some(said)) => format!("panicked: {said}"),
                _ => "panicked".into(),
            },
        ),
    }
}

/// Runs a seed.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// When the server asserts something, or breaks the reactor's contract.
pub fn run<S: Server>(seed: u64, trace: bool, build: Build<S>) -> Result<Report, Violation> {
    let mut world = World::new(seed, trace, build);
    world.course()?;
    Ok(world.report())
}

impl<S: Server> World<S> {
    fn new(seed: u64, trace: bool, build: Build<S>) -> Self {
        let mut rng = Rng::new(seed);
        let profile = Arc::new(Profile::draw(&mut rng.fork()));
        let clock = Clock::default();
        // As the node has it: 64 more than may be open, for refusals.
        let slots = profile.config.limits.slots_per_shard as usize + 64;
        let nets: Vec<SharedNet> = (0..profile.config.shards)
            .map(|_| Net::new(rng.fork(), clock.clone(), slots, profile.weather))
            .collect();
        let server = build(&profile, &nets, &mut rng.fork());
        let actors = profile
            .tempers
            .iter()
            .enumerate()
            .map(|(name, temper)| Actor::new(name, temper.clone(), rng.fork()))
            .collect();
        let stage = Stage::new(profile.clone(), clock, nets, trace);
        stage.trace(|| format!("seed {seed}: {profile:#?}"));
        Self {
            stalled_until: vec![0; stage.nets.len()],
            stage,
            server,
            actors,
            rng,
            requests: OTHER_REQUESTS,
            waiting: HashMap::new(),
            presence: BTreeMap::new(),
            present_counts: BTreeMap::new(),
            members: BTreeMap::new(),
            users: BTreeMap::new(),
        }
    }

    fn report(&self) -> Report {
        Report {
            tally: self.oracle().tally().clone(),
            digest: self.oracle().run_digest(),
            millis: self.stage.clock.millis(),
        }
    }

    fn oracle(&self) -> &Oracle {
        &self.stage.oracle
    }

    fn course(&mut self) -> Verdict {
        let rounds = if self.rng.chance(300) { 2 } else { 1 };
        for _ in 0..rounds {
            self.busy(self.stage.profile.steps / rounds)?;
            self.settle()?;
        }
        self.depart()?;
        self.stage.oracle.finished()
    }

    fn busy(&mut self, steps: u64) -> Verdict {
        self.stage.is_calm = false;
        self.weather(self.stage.profile.weather);
        let mut lull = 0;
        for _ in 0..steps {
            if lull == 0 && self.rng.chance(10) {
                lull = self.rng.range(5, 60);
                self.stage.trace(|| format!("a lull of {lull} steps"));
            }
            if lull > 0 {
                lull -= 1;
                let millis = self.rng.range(100, 500);
                self.step(millis)?;
                continue;
            }
            for _ in 0..self.rng.below(4) {
                let actor = self.rng.index(self.actors.len());
                self.actors[actor].act(&mut self.stage);
            }
            if self.rng.chance(300) {
                self.interfere();
            }
            if self.stage.profile.stalls > 0 && self.rng.chance(self.stage.profile.stalls) {
                self.stall();
            }
            let millis = self.rng.range(0, self.stage.profile.step_millis);
            self.step(millis)?;
        }
        Ok(())
    }

    /// A shard does not turn for a while: too short for its clients to be blamed for it.
    fn stall(&mut self) {
        let shard = self.rng.index(self.stage.nets.len());
        let millis = self.rng.range(200, 2000);
        self.stage
            .trace(|| format!("shard {shard} stalls for {millis} ms"));
        self.stalled_until[shard] = self.stage.clock.millis() + millis;
        self.stage.oracle.stalling(millis);
    }

    /// Time passes, batches and bytes move, shards turn, clients read.
    fn step(&mut self, millis: u64) -> Verdict {
        self.stage.clock.advance(millis);
        let hurry = self.stage.is_calm;
        let turns = self.rng.range(1, 6);
        for _ in 0..turns {
            self.server.carry(&mut self.rng, hurry);
            let first = self.rng.index(self.stage.nets.len());
            for at in 0..self.stage.nets.len() {
                let shard = (first + at) % self.stage.nets.len();
                if !hurry && self.stage.clock.millis() < self.stalled_until[shard] {
                    continue;
                }
                if self.stage.nets[shard].borrow().is_awake() || self.rng.chance(10) {
                    self.server.tick(shard);
                }
            }
        }
        self.hear_answers()?;
        for actor in &mut self.actors {
            actor.read(&mut self.stage)?;
        }
        Ok(())
    }

    /// The control thread does something.
    fn interfere(&mut self) {
        if let Some(tls) = &self.stage.profile.tls
            && self.rng.chance(20)
        {
            self.stage.trace(|| "control: another certificate".into());
            tls.reload();
            return self.stage.oracle.certificate_changed();
        }
        let channel = self.rng.pick(&self.stage.profile.channels).clone();
        match self.rng.below(1000) {
            0..15 => {
                self.stage.oracle.removing_history(&channel);
                let waiting = Waiting::Removal(channel.clone());
                self.request(Request::HistoryRemove { channel }, waiting);
            }
            15..25 => {
                let Some((connection, client)) = self.somebody() else {
                    return;
                };
                self.stage
                    .trace(|| format!("control: disconnect {connection}"));
                self.stage.oracle.expelled(connection, 3503);
                let request = Request::Disconnect {
                    user: String::new(),
                    client: Some(client),
                    whitelist: Vec::new(),
                    code: 3503,
                    reason: "force disconnect".into(),
                };
                self.request(request, Waiting::Other);
            }
            25..40 => {
                let Some((connection, client)) = self.somebody() else {
                    return;
                };
                self.stage
                    .trace(|| format!("control: unsubscribe {connection} from {channel}"));
                self.stage.oracle.expelled_from(connection, &channel);
                let request = Request::Unsubscribe {
                    user: String::new(),
                    channel: Some(channel),
                    client: Some(client),
                };
                self.request(request, Waiting::Other);
            }
            _ => {
                for _ in 0..self.rng.range(1, 4) {
                    self.publish(&channel);
                }
            }
        }
    }

    fn publish(&mut self, channel: &Arc<str>) {
        let id = self.stage.number_publication();
        let pad = self.rng.magnitude(0, 2000) as usize;
        let data = payload::json(id, pad);
        let options = self.stage.profile.options(channel);
        let has_keys = options.slow == crate::config::SlowPolicy::Latest;
        let key = if has_keys {
            *self.rng.pick(&["", "a", "b", "c"])
        } else {
            ""
        };
        let skip_history = options.has_history() && self.rng.chance(100);
        self.stage.trace(|| {
            format!(
                "control: publication {id} in {channel}, key {key:?}, skip_history {skip_history}"
            )
        });
        self.stage
            .oracle
            .publishing(id, Publisher::Control, channel, key, skip_history, &data);
        let mut encoded = Vec::new();
        publication::encode(
            &mut encoded,
            &PublicationParts {
                data: &data,
                key,
                ..PublicationParts::default()
            },
        );
        let request = Request::Publish {
            channel: channel.clone(),
            publication: encoded,
            json: true,
            skip_history,
        };
        self.waiting.insert(id, Waiting::Publication);
        self.server.ask(id, request);
    }

    fn somebody(&mut self) -> Option<(ConnectionId, String)> {
        let actor = self.rng.index(self.actors.len());
        let connection = self.actors[actor].connection()?;
        Some((
            connection,
            self.stage.oracle.client_id(connection)?.to_owned(),
        ))
    }

    fn request(&mut self, request: Request, waiting: Waiting) {
        self.requests += 1;
        self.waiting.insert(self.requests, waiting);
        self.server.ask(self.requests, request);
    }

    fn hear_answers(&mut self) -> Verdict {
        for (id, response) in self.server.answers() {
            let Some(waiting) = self.waiting.get(&id).cloned() else {
                return Err(Violation(format!(
                    "an answer to request {id}, which nobody made: {response:?}"
                )));
            };
            match (waiting, response) {
                (Waiting::Publication, Response::Published { position }) => {
                    self.waiting.remove(&id);
                    let position = position.as_ref().map(|(offset, epoch)| (*offset, &**epoch));
                    self.stage.oracle.published(id, position)?;
                }
                (Waiting::Publication, Response::Failed(_)) => self.stage.oracle.publish_failed(id),
                (Waiting::Presence(channel), Response::Presence { clients }) => {
                    self.presence.insert(
                        channel,
                        clients.into_iter().map(|(client, _)| client).collect(),
                    );
                }
                (Waiting::PresenceStats(channel), Response::PresenceStats { clients, users }) => {
                    self.present_counts.insert(channel, (clients, users));
                }
                (Waiting::Channels, Response::Channels { channels }) => {
                    for (channel, members) in channels {
                        *self.members.entry(channel).or_default() += members;
                    }
                }
                (Waiting::User(user), Response::UserStatus { connections, .. }) => {
                    self.users.insert(user, connections);
                }
                (Waiting::Removal(channel), Response::HistoryRemoved { top: upto }) => {
                    let shards = usize::from(self.stage.profile.config.shards);
                    let waiting = Waiting::Forgetting(channel.clone(), shards);
                    self.request(Request::HistoryForget { channel, upto }, waiting);
                }
                (Waiting::Forgetting(channel, 1), Response::Done { .. }) => {
                    self.stage.oracle.history_removed(&channel);
                }
                (Waiting::Forgetting(channel, left), Response::Done { .. }) => {
                    self.waiting
                        .insert(id, Waiting::Forgetting(channel, left - 1));
                }
                (Waiting::Other, Response::Done { .. }) => {}
                (waiting, response) => {
                    return Err(Violation(format!(
                        "request {id} ({waiting:?}) is answered {response:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn weather(&mut self, weather: Weather) {
        for net in &self.stage.nets {
            net.borrow_mut().set_weather(weather);
        }
    }

    /// Everything comes to rest, and then nothing may be missing.
    fn settle(&mut self) -> Verdict {
        self.stage.trace(|| "all goes quiet".into());
        self.stage.is_calm = true;
        self.weather(Weather::CALM);
        for actor in &mut self.actors {
            actor.settle_down(&mut self.stage);
        }
        for _ in 0..160 {
            self.step(50)?;
        }
        self.presence.clear();
        self.present_counts.clear();
        self.members.clear();
        for channel in self.stage.profile.channels.clone() {
            self.request(
                Request::Presence {
                    channel: channel.clone(),
                },
                Waiting::Presence(channel.clone()),
            );
            self.request(
                Request::PresenceStats {
                    channel: channel.clone(),
                },
                Waiting::PresenceStats(channel),
            );
        }
        self.request(Request::Channels, Waiting::Channels);
        self.count_users()?;
        let stage = &mut self.stage;
        let facts: Vec<_> = (0..stage.oracle.connections())
            .map(|id| stage.facts(id))
            .collect();
        stage.oracle.settled(|id| facts[id])?;
        for actor in &self.actors {
            actor.settled()?;
        }
        self.everybody_is_present()
    }

    /// Each user's home has counted what there is of its connections, on all shards.
    fn count_users(&mut self) -> Verdict {
        self.users.clear();
        for user in self.stage.profile.users.clone() {
            let request = Request::UserStatus { user: user.clone() };
            self.request(request, Waiting::User(user));
        }
        for _ in 0..20 {
            self.step(10)?;
        }
        for (user, said) in &self.users {
            let there = self.oracle().connections_of(user);
            if *said != there {
                return Err(Violation(format!(
                    "user {user} is said to have {said} connections, but has {there}"
                )));
            }
        }
        match self.users.len() == self.stage.profile.users.len() {
            true => Ok(()),
            false => Err(Violation("a user's home does not answer".into())),
        }
    }

    fn everybody_is_present(&self) -> Verdict {
        for channel in &self.stage.profile.channels {
            let expected = self.oracle().present(channel);
            let said = self.presence.get(channel);
            if said != Some(&expected) {
                return Err(Violation(format!(
                    "{channel}: presence says {said:?}, but there are {expected:?}"
                )));
            }
            let users = self.oracle().users_present(channel);
            let counts = (expected.len() as u32, users.len() as u32);
            let said = self.present_counts.get(channel);
            if said != Some(&counts) {
                return Err(Violation(format!(
                    "{channel}: presence counts {said:?}, but there are {counts:?}"
                )));
            }
            let members = self.members.get(channel).copied().unwrap_or_default();
            if members != counts.0 {
                return Err(Violation(format!(
                    "{channel}: said to have {members} members, but has {}",
                    counts.0
                )));
            }
        }
        Ok(())
    }

    /// Everybody leaves, or is made to; then nothing may be left.
    fn depart(&mut self) -> Verdict {
        if self.rng.chance(250) {
            let millis = self.rng.range(0, 10_000);
            self.stage
                .trace(|| format!("control: drain within {millis} ms"));
            for actor in &self.actors {
                if let Some(connection) = actor.connection() {
                    self.stage.oracle.expelled(connection, 3001);
                }
            }
            self.request(Request::Drain { millis }, Waiting::Other);
            for _ in 0..millis / 50 + 140 {
                self.step(50)?;
            }
            if let Some(actor) = self
                .actors
                .iter()
                .find(|actor| actor.connection().is_some())
            {
                return Err(Violation(format!(
                    "still connected after the drain: {:?}",
                    actor.connection()
                )));
            }
        }
        for at in 0..self.actors.len() {
            let how = *self.rng.pick(&[Leave::Politely, Leave::Eof, Leave::Reset]);
            self.actors[at].settle_down(&mut self.stage);
            self.actors[at].leave(&mut self.stage, how);
        }
        for _ in 0..300 {
            self.step(250)?;
        }
        self.count_users()?;
        self.nothing_is_left(false)?;
        // Beyond every history's age.
        for _ in 0..160 {
            self.step(5000)?;
        }
        self.nothing_is_left(true)
    }

    fn nothing_is_left(&self, forgotten: bool) -> Verdict {
        for (shard, net) in self.stage.nets.iter().enumerate() {
            let slots = net.borrow().slots_in_use();
            if slots > 0 {
                return Err(Violation(format!(
                    "shard {shard}: {slots} slots are not free, but everybody left"
                )));
            }
        }
        match self.server.leftovers(forgotten) {
            Some(what) => Err(Violation(format!("everybody left, but there are {what}"))),
            None => Ok(()),
        }
    }
}
