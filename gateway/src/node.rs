//! A node: its ports, its shards, its control thread (the one that calls [`run`]) and its end.

use crate::backplane::nats::{self, NatsError};
use crate::backplane::{Backplane, Notice};
use crate::config::check::slots_per_shard;
use crate::config::{BackplaneChoice, Config, IncomingCpu, Machine, ReactorChoice};
use crate::control::admin::demo;
use crate::control::peers::{self, Driver, Link, Shards};
use crate::control::{Control, Options, Phase};
use crate::hub::Keys;
use crate::hub::links::Links;
use crate::hub::message::{Message, Request, Response};
use crate::ids::ShardId;
use crate::lifecycle::drain::{Drain, Drained, GRACE, drain};
use crate::lifecycle::notify::Notifier;
use crate::lifecycle::signals::Signals;
use crate::lifecycle::{Lifecycle, State};
use crate::limit::Handshakes;
use crate::mailbox::{Inbox, Outbox, Sleeper, Waker, pair};
use crate::reactor::epoll::{EpollReactor, EpollSetup};
use crate::reactor::listener::{self, ListenError};
use crate::reactor::uring::{UringReactor, UringSetup};
use crate::reactor::{Reactor, ReactorError};
use crate::shard::{Permits, REFUSAL_SLOTS, Setup, Shard};
use crate::tls::{self, Acceptor};
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::io::Errno;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Batches under way between two threads, at most.
const MAILBOX_BATCHES: usize = 64;

/// Connections sent to between two looks at what arrives. As cheap a send as with 256, and a publication that comes in the
/// middle of a lap over a large room waits a quarter as long: more publications a send when many are in flight.
const SENDS_PER_FLUSH: usize = 64;

/// What the checks of tokens between two looks at what arrives may take, nanoseconds: as much as those sends.
const CHECK_NANOS: u32 = 300_000;

/// Requests of the internal port get this long to end when all else has. One whose rest never comes, or whose answer
/// nobody reads, must not keep the process.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// Why a node cannot run: its environment. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The clients' address cannot be had.
    #[error("address: {0}")]
    Clients(ListenError),
    /// The internal address cannot be had.
    #[error("internal.address: {0}")]
    Internal(ListenError),
    /// A shard has no reactor.
    #[error("shard {shard}: {error}")]
    Reactor {
        /// Which.
        shard: u16,
        /// Why.
        error: ReactorError,
    },
    /// TLS cannot be had: there are no random numbers.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The backplane cannot be started.
    #[error("{0}")]
    Backplane(#[from] NatsError),
    /// No runtime, no signals, no threads.
    #[error("cannot start: {0}{hint}", hint = hint(.0))]
    Start(std::io::Error),
}

/// What to do about a limit that was met at the start.
fn hint(error: &std::io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => ": raise LimitNOFILE, or use fewer shards",
        Some(Errno::AGAIN) => ": raise TasksMax or LimitNPROC, or use fewer shards",
        _ => "",
    }
}

/// Runs a node until it is drained. Blocks; the calling thread becomes the control thread.
///
/// # Errors
/// When the environment does not let it start.
pub fn run(config: Config, notifier: &Notifier) -> Result<Drained, NodeError> {
    let config = Arc::new(config);
    refuse_huge_pages();
    let internal =
        listener::claim(config.internal_address, &[None]).map_err(NodeError::Internal)?;
    let internal = internal
        .into_iter()
        .next()
        .ok_or_else(|| NodeError::Start(std::io::ErrorKind::Other.into()))?;
    let cores = pinned_cores(&config);
    let listeners =
        listener::claim(config.address, &steering(&config, &cores)).map_err(NodeError::Clients)?;
    for listener in &listeners {
        if let Err(error) = listener::defer_accepts(listener) {
            tracing::warn!(%error, "accepts are not deferred");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NodeError::Start)?;
    runtime.block_on(live(config, internal, listeners, cores, notifier))
}

/// A connection's memory comes in pieces of some hundred bytes from many places of the heap. With huge pages each place
/// that is touched costs 2 MiB: measured with 15,000 idle connections 551 to 840 B each instead of 222 to 238 B, a fresh
/// process 22 instead of 11 MiB, and no gain in CPU a delivery.
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::info!("huge pages stay on, memory will be higher: {error}");
    }
}

/// The core of each shard.
fn pinned_cores(config: &Config) -> Vec<usize> {
    let cores = if config.cores.is_empty() {
        core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect()
    } else {
        config.cores.clone()
    };
    (0..usize::from(config.shards))
        .map(|shard| cores.get(shard % cores.len().max(1)).copied().unwrap_or(0))
        .collect()
}

/// The CPU that each listener asks connections of. Only with a shard a core is the kernel's choice the better one.
fn steering(config: &Config, cores: &[usize]) -> Vec<Option<usize>> {
    let mut distinct = cores.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let online = std::thread::available_parallelism().map_or(1, usize::from);
    let steers = match config.incoming_cpu {
        IncomingCpu::On => true,
        IncomingCpu::Off => false,
        IncomingCpu::Auto => distinct.len() == cores.len() && cores.len() == online,
    };
    cores.iter().map(|core| steers.then_some(*core)).collect()
}

async fn live(
    config: Arc<Config>,
    internal: TcpListener,
    listeners: Vec<TcpListener>,
    cores: Vec<usize>,
    notifier: &Notifier,
) -> Result<Drained, NodeError> {
    let mut signals = Signals::listen().map_err(NodeError::Start)?;
    let lifecycle = Lifecycle::default();
    let mut rng = rand::make_rng::<StdRng>();
    let keys = Keys {
        hash: rng.random(),
        shards: config.shards,
    };
    let epoch: Arc<str> = format!("{:08x}", rng.random::<u32>()).into();
    let kind = choose(&config)?;
    let slots = slots(&config, kind);

    let backplane = match &config.backplane {
        BackplaneChoice::Embedded => None,
        BackplaneChoice::Nats(options) => Some(nats::start(options, &config.node_name).await?),
    };
    let (mut threads, shards, driver) = start(
        &config,
        listeners,
        &cores,
        keys,
        &epoch,
        (kind, slots),
        backplane,
    )?;
    let driving = tokio::spawn(driver.run());

    let (phase, watched) = watch::channel(Phase::Starting);
    tokio::spawn({
        let lifecycle = lifecycle.clone();
        async move {
            lifecycle.reached(State::Ready).await;
            let _ = phase.send(Phase::Ready);
            lifecycle.reached(State::Draining).await;
            let _ = phase.send(Phase::Draining);
            lifecycle.reached(State::Stopped).await;
        }
    });
    let control = Control::new(Options {
        config: config.clone(),
        shards: shards.clone(),
        phase: watched,
        node_uid: format!("{:016x}", rng.random::<u64>()),
        hash_key: rng.random(),
        demo_directories: demo::candidates(None),
    });
    control.fetch_keys().map_err(NodeError::Start)?;
    let serving = tokio::spawn({
        let stopped = lifecycle.clone();
        async move {
            control
                .serve(
                    internal,
                    async move { stopped.reached(State::Stopped).await },
                )
                .await
        }
    });

    // A shard that answers has its reactor and listens.
    for shard in 0..config.shards {
        shards.ask(ShardId(shard), Request::Stats).await;
    }
    lifecycle.advance(State::Ready);
    notifier.ready();
    tracing::info!(clients = %config.address, internal = %config.internal_address, shards = config.shards, "ready");

    let reload = || reload(&config);
    signals.stop(reload).await;
    let mut node = Node {
        shards,
        open: 0,
        threads: std::mem::take(&mut threads),
    };
    node.count().await;
    let drained = drain(
        &mut node,
        &lifecycle,
        notifier,
        config.shutdown,
        signals.stop(reload),
    )
    .await;
    // Nobody answers any more: requests that wait for a shard fail now instead of when their patience ends.
    driving.abort();
    match tokio::time::timeout(REQUESTS_GRACE, serving).await {
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the internal port ended early"),
        Err(_) => tracing::warn!("requests of the internal port that did not end are cut"),
        Ok(_) => {}
    }
    Ok(drained)
}

/// Reads the certificates again. Handshakes from now on get the new ones; nobody is dropped. Where they cannot be used, those
/// from before stay.
fn reload(config: &Config) {
    match config
        .tls
        .as_ref()
        .map(|certificates| certificates.reload())
    {
        None => tracing::warn!(
            "SIGHUP: there are no certificates to reload; other changes of the configuration need a restart"
        ),
        Some(Ok(names)) => tracing::info!(names, "certificates reloaded"),
        Some(Err(error)) => {
            tracing::error!("certificates not reloaded, those from before stay: {error}")
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Uring,
    Epoll,
}

/// Which reactor all shards use.
fn choose(config: &Config) -> Result<Kind, NodeError> {
    match config.reactor {
        ReactorChoice::Epoll => Ok(Kind::Epoll),
        ReactorChoice::Uring => Ok(Kind::Uring),
        ReactorChoice::Auto => match try_ring() {
            Ok(()) => Ok(Kind::Uring),
            Err(error) if error.leaves_epoll() => {
                tracing::warn!(
                    "io_uring cannot be used, so epoll is (about 15 % more CPU a delivery): {error}"
                );
                Ok(Kind::Epoll)
            }
            Err(error) => Err(NodeError::Reactor { shard: 0, error }),
        },
    }
}

/// Connections of each shard. With epoll all shards share the process's table: where it stands in for the ring, there is
/// room for fewer than was reckoned with.
fn slots(config: &Config, kind: Kind) -> u32 {
    let reckoned = config.limits.slots_per_shard;
    if kind == Kind::Uring {
        return reckoned;
    }
    let open_files = Machine::observe().open_files;
    reckoned.min(slots_per_shard(
        open_files,
        config.shards,
        ReactorChoice::Epoll,
        0,
    ))
}

/// Makes a small ring with all that the shards' rings have, and lets it go again. One buffer: memory that was touched stays
/// with the allocator, and would be counted as the process's own until the first connections take it.
fn try_ring() -> Result<(), ReactorError> {
    let (_, wake) = Waker::eventfd().map_err(no_descriptor)?;
    let setup = UringSetup {
        buffers: 1,
        ..UringSetup::new(None, 64, wake)
    };
    UringReactor::new(setup).map(drop)
}

type Threads = Vec<JoinHandle<()>>;

/// Makes the mailboxes between all threads, and starts the shards.
fn start(
    config: &Arc<Config>,
    listeners: Vec<TcpListener>,
    cores: &[usize],
    keys: Keys,
    epoch: &Arc<str>,
    (kind, slots): (Kind, u32),
    backplane: Option<(Backplane, mpsc::Receiver<Notice>)>,
) -> Result<(Threads, Shards, Driver), NodeError> {
    let shards = usize::from(config.shards);
    // The control thread is the last peer.
    let peers = shards + 1;
    let wakers: Vec<(Waker, OwnedFd)> = (0..peers)
        .map(|_| Waker::eventfd())
        .collect::<Result<_, _>>()
        .map_err(NodeError::Start)?;
    let mut outboxes: Vec<Vec<Option<Outbox<Message>>>> = (0..peers)
        .map(|_| (0..peers).map(|_| None).collect())
        .collect();
    let mut inboxes: Vec<Vec<Option<Inbox<Message>>>> = (0..peers)
        .map(|_| (0..peers).map(|_| None).collect())
        .collect();
    for from in 0..peers {
        for to in (0..peers).filter(|to| *to != from) {
            let (outbox, inbox) = pair(MAILBOX_BATCHES, wakers[to].0.clone());
            outboxes[from][to] = Some(outbox);
            inboxes[to][from] = Some(inbox);
        }
    }
    let control = outboxes
        .remove(shards)
        .into_iter()
        .zip(inboxes.remove(shards));
    let links = control
        .filter_map(|(outbox, inbox)| {
            Some(Link {
                outbox: outbox?,
                inbox: inbox?,
            })
        })
        .collect();

    let tls = config.tls.clone().map(tls::Server::new).transpose();
    let tls = tls.map_err(NodeError::Tls)?;
    let (started, starting) = std::sync::mpsc::channel();
    let mut threads = Vec::with_capacity(shards);
    let mut rng = rand::make_rng::<StdRng>();
    let mut wakers = wakers.into_iter();
    let parts = outboxes
        .into_iter()
        .zip(inboxes)
        .zip(listeners)
        .zip(cores)
        .zip(Permits::of_node(
            config.client.connection_limit,
            config.shards,
        ))
        .zip(Handshakes::of_node(
            config.client_limits.handshakes,
            config.client_limits.burst,
            config.shards,
        ))
        .enumerate();
    for (id, (((((outboxes, inboxes), listener), core), permits), handshakes)) in parts {
        let Some((waker, eventfd)) = wakers.next() else {
            break;
        };
        let id = ShardId(id as u16);
        let plan = ThreadPlan {
            id,
            core: *core,
            kind,
            slots,
            listener,
            eventfd,
            sleeper: waker.sleeper(),
            links: Links::new(id, outboxes, inboxes),
            config: config.clone(),
            keys,
            permits,
            handshakes,
            seed: rng.random(),
            epoch: epoch.clone(),
            acceptor: tls.as_ref().map(tls::Server::acceptor),
        };
        let started = started.clone();
        let thread = std::thread::Builder::new().name(format!("shard-{}", id.0));
        threads.push(
            thread
                .spawn(move || plan.run(started))
                .map_err(NodeError::Start)?,
        );
    }
    for _ in 0..shards {
        if let Ok(Err((shard, error))) = starting.recv() {
            return Err(NodeError::Reactor { shard, error });
        }
    }
    let Some((waker, eventfd)) = wakers.next() else {
        return Err(NodeError::Start(std::io::ErrorKind::Other.into()));
    };
    let homes = peers::Homes::new(
        move |channel| keys.home_of(channel),
        move |user| keys.home_of(user),
    );
    let (shards, driver) = peers::shards(links, &waker, eventfd, homes, backplane);
    Ok((threads, shards, driver))
}

fn no_descriptor(source: std::io::Error) -> ReactorError {
    ReactorError::Io {
        what: "cannot copy a descriptor",
        source,
    }
}

/// What a shard's thread takes with it.
struct ThreadPlan {
    id: ShardId,
    core: usize,
    kind: Kind,
    slots: u32,
    listener: TcpListener,
    eventfd: OwnedFd,
    sleeper: Sleeper,
    links: Links,
    config: Arc<Config>,
    keys: Keys,
    permits: Permits,
    handshakes: Handshakes,
    seed: u64,
    epoch: Arc<str>,
    acceptor: Option<Acceptor>,
}

type Started = std::sync::mpsc::Sender<Result<(), (u16, ReactorError)>>;

impl ThreadPlan {
    fn run(self, started: Started) {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: self.core }) {
            tracing::warn!(
                shard = self.id.0,
                core = self.core,
                "cannot pin the shard to its core"
            );
        }
        let slots = self.slots + REFUSAL_SLOTS;
        let take = |fd: &OwnedFd| fd.try_clone().map_err(no_descriptor);
        let listener = match self.listener.try_clone() {
            Ok(listener) => listener,
            Err(error) => {
                let _ = started.send(Err((self.id.0, no_descriptor(error))));
                return;
            }
        };
        match self.kind {
            Kind::Uring => {
                let made = take(&self.eventfd).and_then(|wake| {
                    UringReactor::new(UringSetup::new(Some(listener), slots, wake))
                });
                self.go(made, started);
            }
            Kind::Epoll => {
                let made = take(&self.eventfd).and_then(|wake| {
                    EpollReactor::new(EpollSetup::new(Some(listener), slots, wake))
                });
                self.go(made, started);
            }
        }
    }

    fn go<R: Reactor>(self, made: Result<R, ReactorError>, started: Started) {
        // Only the reactor's copy stays, so that closing it closes the port.
        drop(self.listener);
        let reactor = match made {
            Ok(reactor) => reactor,
            Err(error) => {
                let _ = started.send(Err((self.id.0, error)));
                return;
            }
        };
        let _ = started.send(Ok(()));
        let mut shard = Shard::new(Setup {
            id: self.id,
            config: self.config,
            reactor,
            links: self.links,
            sleeper: self.sleeper,
            keys: self.keys,
            permits: self.permits,
            handshakes: self.handshakes,
            sends_per_flush: SENDS_PER_FLUSH,
            check_nanos: CHECK_NANOS,
            seed: self.seed,
            epoch: self.epoch,
            acceptor: self.acceptor,
        });
        if let Err(error) = shard.run() {
            // No half-alive node: whoever supervises the process starts a whole one.
            tracing::error!(shard = self.id.0, %error, "a shard cannot go on; the process ends");
            std::process::exit(1);
        }
    }
}

/// All shards together, as the drain sees them.
struct Node {
    shards: Shards,
    /// Connections when they were last counted.
    open: u64,
    threads: Threads,
}

impl Node {
    async fn count(&mut self) {
        let answers = self.shards.ask_all(&Request::Stats).await;
        let connections = answers.iter().map(|answer| match answer {
            Response::Stats(stats) => stats.connections,
            _ => 0,
        });
        self.open = connections.sum();
    }
}

impl Drain for Node {
    async fn drain(&mut self, window: Duration) {
        let request = Request::Drain {
            millis: window.as_millis() as u64,
        };
        self.shards.ask_all_within(&request, window + GRACE).await;
        self.count().await;
    }

    fn open_connections(&self) -> u64 {
        self.open
    }

    async fn stop(&mut self) {
        self.shards.ask_all(&Request::Stop).await;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
