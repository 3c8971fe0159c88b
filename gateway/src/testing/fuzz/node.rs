//! A node for a target, made as the simulation makes it, and its clients.

use crate::config::{ChannelOptions, Config, SlowPolicy};
use crate::testing::client::{Connection, Incoming};
use crate::testing::net::{Clock, Net, SharedNet, SocketId, Weather};
use crate::testing::node::SimNode;
use crate::testing::profile::Profile;
use crate::testing::rng::Rng;
use crate::testing::world::Server;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Everybody may do everything; `deep` has a history of [`HISTORY`] and is compressed, `skip` tells who is too slow.
static CONFIG: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let mut config = Config::for_tests();
    config.debug_echo = true;
    config.client.insecure = true;
    // Pings come when time has passed, and that is for a target to say.
    config.client.ping_interval = Duration::ZERO;
    config.client.queue_max_size = 64 << 20;
    config.client_limits.address_handshakes = 0;
    config.limits.slots_per_shard = 16;
    let plain = ChannelOptions {
        presence: true,
        join_leave: true,
        lag_bytes: 64 << 20,
        lag_time: Duration::from_secs(60),
        ..ChannelOptions::default()
    };
    let deep = ChannelOptions {
        history_size: HISTORY,
        history_ttl: Duration::from_secs(3600),
        allow_recovery: true,
        allow_positioning: true,
        compress: true,
        ..plain.clone()
    };
    let skip = ChannelOptions {
        slow: SlowPolicy::Skip,
        lag_bytes: 4096,
        join_leave: false,
        ..deep.clone()
    };
    config.channels.namespaces = [("", plain), ("deep", deep), ("skip", skip)]
        .map(|(name, options)| (name.to_owned(), Arc::new(options)))
        .to_vec();
    Arc::new(config)
});

/// Publications that a channel with history keeps.
pub(super) const HISTORY: u32 = 5;

/// Its shards, and what is outside.
pub(super) struct Node {
    server: SimNode,
    pub(super) nets: Vec<SharedNet>,
    pub(super) clock: Clock,
    rng: Rng,
}

impl Node {
    /// A node of so many shards; the seed decides what the weather does, and when.
    pub(super) fn new(shards: u16, seed: u64, weather: Weather, buffers: (usize, usize)) -> Self {
        static PROFILE: LazyLock<Profile> = LazyLock::new(|| Profile::draw(&mut Rng::new(0)));
        let mut rng = Rng::new(seed);
        let mut config = (**CONFIG).clone();
        config.shards = shards;
        let profile = Profile {
            config: Arc::new(config),
            mailbox: 4,
            buffers,
            link_millis: 0,
            bounds: Default::default(),
            tls: None,
            ..PROFILE.clone()
        };
        let clock = Clock::default();
        let nets: Vec<SharedNet> = (0..shards)
            .map(|_| Net::new(rng.fork(), clock.clone(), 80, weather))
            .collect();
        let server = SimNode::build(&profile, &nets, &mut Rng::new(7));
        Self {
            server,
            nets,
            clock,
            rng,
        }
    }

    /// Each shard turns once, and what they say to each other arrives.
    pub(super) fn turn(&mut self) {
        for shard in 0..self.nets.len() {
            self.server.tick(shard);
        }
        self.server.carry(&mut self.rng, true);
    }

    /// Turns until nothing can be left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..40 {
            self.turn();
        }
    }

    /// Asserts that nothing is held of clients that are gone: after a while for what is kept a while, and for ever for
    /// histories.
    pub(super) fn is_left_clean(&mut self) {
        self.settle();
        for millis in [2_000, 12_000, 60_000, 4_000_000, 4_000_000] {
            self.clock.advance(millis);
            self.settle();
        }
        assert_eq!(self.server.leftovers(true), None);
    }
}

/// One connection of a client.
pub(super) struct Client {
    pub(super) link: Connection,
    pub(super) socket: SocketId,
    net: SharedNet,
}

impl Client {
    /// Connects a socket to a shard.
    pub(super) fn new(link: Connection, net: &SharedNet) -> Self {
        Self {
            socket: link.socket,
            link,
            net: net.clone(),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        self.net.borrow_mut().write(self.socket, bytes);
    }

    /// Reads all that is there; panics when it is nothing that a server may send.
    pub(super) fn read(&mut self) -> Vec<Incoming> {
        let mut bytes = Vec::new();
        self.net
            .borrow_mut()
            .read(self.socket, usize::MAX, &mut bytes);
        self.link.feed(&bytes);
        let mut heard = Vec::new();
        while let Some(incoming) = self.link.next_incoming().expect("good frames") {
            heard.push(incoming);
        }
        heard
    }

    pub(super) fn is_gone(&self) -> bool {
        self.net.borrow().server_gone(self.socket).is_some()
    }

    pub(super) fn close(&self) {
        self.net.borrow_mut().close(self.socket);
    }
}
