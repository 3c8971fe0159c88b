//! What a seed draws: the configuration, the channels, the tempers of clients, the weather.

use super::net::Weather;
use super::rng::Rng;
use super::stage::PROXY;
use super::tls::NodeTls;
use super::token::TestKey;
use crate::config::{
    BackplaneChoice, ChannelOptions, Channels, Client, ClientLimits, Config, IncomingCpu, Limits,
    LogConfig, LogFormat, Nats, Origins, Proxies, Rates, ReactorChoice, Shutdown, SlowPolicy,
    TokenConfig,
};
use crate::hub::links::Bounds;
use crate::protocol::centrifuge::Encoding;
use crate::tls::Version;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Everything about a run but its course.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The gateway's configuration.
    pub config: Arc<Config>,
    /// Channels that clients use.
    pub channels: Vec<Arc<str>>,
    /// Who takes part.
    pub tempers: Vec<Temper>,
    /// What befalls rough sockets.
    pub weather: Weather,
    /// Batches a mailbox has room for.
    pub mailbox: usize,
    /// Receive buffers of each shard, and their size.
    pub buffers: (usize, usize),
    /// Longest that a batch between shards is held up, milliseconds.
    pub link_millis: u64,
    /// Longest that anything is on its way to the servers that link nodes, or back, milliseconds.
    pub broker_millis: u64,
    /// Steps of the busy part.
    pub steps: u64,
    /// Longest step, milliseconds.
    pub step_millis: u64,
    /// Whether records may be dropped for want of room: a recovery may fail without another reason.
    pub history_is_short: bool,
    /// Publications whose data is not JSON occur, per mille of those by Protobuf clients.
    pub binary: u32,
    /// How often a shard stalls, per mille of steps.
    pub stalls: u32,
    /// How far a shard may fall behind.
    pub bounds: Bounds,
    /// Addresses that clients come from, in turns.
    pub addresses: u32,
    /// Signs the tokens of clients; `None`: they have none.
    pub key: Option<Arc<TestKey>>,
    /// Users there are beside the anonymous one.
    pub users: Vec<String>,
    /// Who stands in front of the node.
    pub front: Front,
    /// What it makes TLS of; `None`: it does not speak it.
    pub tls: Option<Arc<NodeTls>>,
}

/// Who stands in front of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// Nobody.
    None,
    /// Of some connections a proxy that names the client in the request.
    Forwarding,
    /// Of all connections a proxy that names the client in a header of the PROXY protocol.
    Header,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Temper {
    /// How it talks.
    pub encoding: Encoding,
    /// The window it offers permessage-deflate with, in bits; 0: it does not offer it.
    pub window_bits: u8,
    /// Its sockets suffer from the weather.
    pub rough: bool,
    /// What may lie unread on the way to it, bytes.
    pub window: usize,
    /// How it reads.
    pub reads: Reads,
    /// Whether it answers pings.
    pub pongs: bool,
    /// It opens sockets and says nothing.
    pub mute: bool,
    /// Whose its connections are; empty: the anonymous user's.
    pub user: String,
    /// Its TLS: the version, and the most bytes that it puts into a record. Without, where the node speaks TLS, it is told
    /// so and goes.
    pub tls: Option<(Version, Option<usize>)>,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All there is, at each step.
    Promptly,
    /// A piece now and then, with pauses.
    Slowly,
    /// Nothing after it has subscribed to something.
    Never,
}

impl Temper {
    /// Whether it gives the gateway no reason to treat it badly.
    pub fn is_healthy(&self) -> bool {
        !self.rough && self.reads == Reads::Promptly && self.pongs && !self.mute
    }
}

/// Of all namespaces: everybody may do everything.
fn open(mut options: ChannelOptions) -> Arc<ChannelOptions> {
    options.allow_positioning = true;
    options.allow_recovery = true;
    options.allow_subscribe_for_client = true;
    options.allow_subscribe_for_anonymous = true;
    options.allow_publish_for_client = true;
    options.allow_publish_for_subscriber = true;
    options.allow_publish_for_anonymous = true;
    options.allow_presence_for_client = true;
    options.allow_presence_for_subscriber = true;
    options.allow_presence_for_anonymous = true;
    options.allow_history_for_client = true;
    options.allow_history_for_subscriber = true;
    options.allow_history_for_anonymous = true;
    Arc::new(options)
}

fn namespaces(rng: &mut Rng) -> Vec<(String, Arc<ChannelOptions>)> {
    let mut namespace = |name: &str, slow: SlowPolicy, history: Option<(u32, Duration)>| {
        let (history_size, history_ttl) = history.unwrap_or_default();
        let options = ChannelOptions {
            slow,
            history_size,
            history_ttl,
            lag_bytes: rng.magnitude(4 * 1024, 256 * 1024) as u32,
            lag_time: Duration::from_millis(rng.magnitude(1000, 10_000)),
            presence: true,
            compress: rng.chance(500),
            ..ChannelOptions::default()
        };
        (name.to_owned(), options)
    };
    let small = Some((10, Duration::from_secs(20)));
    let large = Some((1000, Duration::from_secs(600)));
    let mut all = [
        namespace("", SlowPolicy::Disconnect, None),
        namespace("skip", SlowPolicy::Skip, None),
        namespace("lossy", SlowPolicy::Skip, None),
        namespace("last", SlowPolicy::Latest, None),
        namespace("short", SlowPolicy::Disconnect, small),
        namespace("deep", SlowPolicy::Skip, large),
        namespace("force", SlowPolicy::Skip, large),
        namespace("social", SlowPolicy::Disconnect, small),
        namespace("state", SlowPolicy::Latest, large),
    ];
    for (name, options) in &mut all {
        options.slow_silent = name == "lossy";
        options.force_recovery = name == "force";
        options.force_positioning = name == "force";
        options.join_leave = matches!(&name[..], "social" | "deep");
        options.force_push_join_leave = name == "social";
    }
    all.into_iter()
        .map(|(name, options)| (name, open(options)))
        .collect()
}

/// Mostly none; else so few that they are met.
fn client_limits(rng: &mut Rng) -> ClientLimits {
    if !rng.chance(300) {
        return ClientLimits::default();
    }
    let mut maybe = |few: u64, many: u64| match rng.chance(400) {
        true => rng.magnitude(few, many) as u32,
        false => 0,
    };
    ClientLimits {
        handshakes: maybe(2, 20),
        address_connections: maybe(1, 8),
        address_handshakes: maybe(1, 10),
        connection: Rates {
            commands: maybe(2, 50),
            publications: maybe(1, 20),
            bytes: maybe(66_000, 200_000),
        },
        burst: Duration::from_millis(rng.range(1000, 3000)),
        ..ClientLimits::default()
    }
}

impl Profile {
    /// Whether the logs' budget can run out in a burst: the oldest bytes then go, whoever still needs them.
    pub fn logs_are_small(&self) -> bool {
        self.config.limits.log_bytes < 1 << 20
    }

    /// What this seed draws.
    pub fn draw(rng: &mut Rng) -> Self {
        let shards = *rng.pick(&[3, 3, 3, 3, 1, 2, 4]);
        let history_is_short = rng.chance(100);
        let few_slots = rng.chance(100);
        let ping_secs = rng.range(10, 25);
        let mut config = Config {
            tls: None,
            backplane: BackplaneChoice::Embedded,
            address: ([127, 0, 0, 1], 8000).into(),
            internal_address: ([127, 0, 0, 1], 9000).into(),
            shards,
            cores: Vec::new(),
            reactor: ReactorChoice::Auto,
            incoming_cpu: IncomingCpu::Off,
            dev: false,
            debug_echo: false,
            node_name: "sim".into(),
            proxies: Proxies::default(),
            client: Client {
                allowed_origins: Origins::Any,
                insecure: rng.chance(500),
                allow_anonymous_connect_without_token: true,
                channel_limit: 128,
                message_size_limit: 65_536,
                queue_max_size: 65_536,
                stall_timeout: Duration::from_secs(rng.range(5, 25)),
                stale_close_delay: Duration::from_secs(rng.range(3, 10)),
                expired_close_delay: Duration::from_secs(25),
                ping_interval: Duration::from_secs(ping_secs),
                pong_timeout: Duration::from_secs(rng.range(5, 8)),
                user_connection_limit: 0,
                connection_limit: 0,
                token: TokenConfig::default(),
                subscription_token: None,
            },
            channels: Channels {
                namespaces: namespaces(rng),
            },
            limits: Limits {
                log_bytes: if rng.chance(300) {
                    rng.magnitude(64 * 1024, 512 * 1024)
                } else {
                    64 << 20
                },
                history_bytes: if history_is_short {
                    rng.magnitude(8 * 1024, 128 * 1024)
                } else {
                    256 << 20
                },
                publication_bytes: 1 << 20,
                slots_per_shard: if few_slots {
                    rng.range(2, 8) as u32
                } else {
                    64
                },
            },
            client_limits: client_limits(rng),
            shutdown: Shutdown {
                delay: Duration::from_secs(5),
                drain: Duration::from_secs(20),
            },
            api_keys: Vec::new(),
            log: LogConfig {
                level: "off".into(),
                format: LogFormat::Text,
            },
        };
        let key = rng.chance(300).then(|| Arc::new(TestKey::ed25519()));
        if let Some(key) = &key {
            config.client.token.eddsa_public_key = key.public_pem().to_owned();
        }
        if rng.chance(300) {
            config.backplane = BackplaneChoice::Nats(Nats::default());
        }
        let binary = if rng.chance(150) { 20 } else { 0 };
        let mut profile = Self {
            channels: Self::channels(rng, &config.channels),
            config: Arc::new(config),
            tempers: (0..rng.range(4, 20)).map(|_| Temper::draw(rng)).collect(),
            weather: Weather {
                cut: *rng.pick(&[0, 20, 100, 400]),
                refuse: *rng.pick(&[0, 10, 50, 200]),
                reset: *rng.pick(&[0, 0, 1, 3]),
                spurious_writable: *rng.pick(&[0, 10, 100]),
                read_late: *rng.pick(&[0, 100, 500]),
                ghost: *rng.pick(&[0, 5, 30]),
                close_millis: *rng.pick(&[0, 10, 300]),
                writable_millis: *rng.pick(&[0, 20, 200]),
            },
            mailbox: *rng.pick(&[1, 1, 2, 4, 16, 64]),
            buffers: *rng.pick(&[(2, 8192), (4, 4096), (8, 1024), (16, 512), (64, 128)]),
            link_millis: *rng.pick(&[0, 0, 5, 50, 400]),
            broker_millis: *rng.pick(&[0, 5, 50, 400]),
            steps: rng.range(150, 500),
            step_millis: *rng.pick(&[2, 10, 40, 100]),
            history_is_short,
            binary,
            stalls: 0,
            bounds: Bounds::default(),
            addresses: *rng.pick(&[1, 3, 10_000]),
            key,
            users: Vec::new(),
            front: Front::None,
            tls: None,
        };
        if profile.config.shards > 1 && rng.chance(300) {
            profile.stalls = *rng.pick(&[10, 50]);
            // Few batches under way, and few bytes: a stall is short.
            profile.mailbox = profile.mailbox.min(2);
            profile.bounds = Bounds {
                intake_bytes: rng.magnitude(1024, 64 * 1024) as usize,
                lost_bytes: rng.magnitude(1024, 64 * 1024) as usize,
                answers_bytes: rng.magnitude(1024, 64 * 1024) as usize,
                lost_millis: rng.range(100, 1500),
            };
        }
        profile.draw_users(rng);
        profile.draw_front(rng);
        profile.draw_tls(rng);
        profile
    }

    fn draw_users(&mut self, rng: &mut Rng) {
        if self.key.is_none() || rng.chance(400) {
            return;
        }
        self.users = ["ann", "ben", "cleo"].map(str::to_owned).to_vec();
        for temper in &mut self.tempers {
            let user = rng.index(self.users.len() + 1);
            temper.user = self.users.get(user).cloned().unwrap_or_default();
        }
        let config = Arc::make_mut(&mut self.config);
        config.client.user_connection_limit = *rng.pick(&[0, 1, 2, 4]);
    }

    fn draw_front(&mut self, rng: &mut Rng) {
        self.front = *rng.pick(&[
            Front::None,
            Front::None,
            Front::None,
            Front::Forwarding,
            Front::Header,
        ]);
        let config = Arc::make_mut(&mut self.config);
        if self.front != Front::None && rng.chance(500) {
            // Whoever is taken for another is one too many there.
            config.client_limits.address_connections = rng.range(1, 4) as u32;
            self.addresses = 3;
        }
        let proxies = &mut config.proxies;
        let network = [ipnet::IpNet::from(std::net::IpAddr::from(PROXY))];
        match self.front {
            Front::None => {}
            Front::Forwarding => proxies.trusted = network.into_iter().collect(),
            Front::Header => proxies.proxy_protocol = Some(network.into_iter().collect()),
        }
    }

    /// A handshake costs as much as hundreds of messages: few runs have them.
    fn draw_tls(&mut self, rng: &mut Rng) {
        if !rng.chance(200) {
            return;
        }
        self.tls = Some(Arc::new(NodeTls::new()));
        for temper in &mut self.tempers {
            if rng.chance(50) {
                continue;
            }
            let version = *rng.pick(&[Version::Tls13, Version::Tls13, Version::Tls12]);
            temper.tls = Some((version, *rng.pick(&[None, None, Some(64), Some(512)])));
        }
    }

    /// Whether a client speaks another language than the node.
    pub fn misunderstands(&self, temper: &Temper) -> bool {
        self.tls.is_some() && temper.tls.is_none()
    }

    fn channels(rng: &mut Rng, namespaces: &Channels) -> Vec<Arc<str>> {
        let wanted = rng.range(2, 9);
        (0..wanted)
            .map(|number| match &rng.pick(&namespaces.namespaces).0[..] {
                "" => format!("plain{number}").into(),
                namespace => format!("{namespace}:{number}").into(),
            })
            .collect()
    }

    /// A client's connection token; empty: it has none.
    pub fn connection_token(&self, user: &str) -> String {
        self.token(user, json!({}))
    }

    /// A client's token for a channel; empty: it has none.
    pub fn subscription_token(&self, user: &str, channel: &str) -> String {
        self.token(user, json!({"channel": channel}))
    }

    fn token(&self, user: &str, mut claims: serde_json::Value) -> String {
        if !user.is_empty() {
            claims["sub"] = json!(user);
        }
        let key = self.key.as_ref();
        key.map_or_else(String::new, |key| key.sign(None, &claims))
    }

    /// The options of a channel.
    pub fn options(&self, channel: &str) -> &ChannelOptions {
        let name = channel
            .split_once(':')
            .map_or("", |(namespace, _)| namespace);
        self.config.channels.options(
            self.config
                .channels
                .find(name)
                .expect("profiles know their namespaces"),
        )
    }
}

impl Temper {
    fn draw(rng: &mut Rng) -> Self {
        let encoding = *rng.pick(&Encoding::ALL);
        let window_bits = *rng.pick(&[0, 0, 0, 15, 15, 15, 9, 12]);
        if rng.chance(400) {
            return Self {
                encoding,
                window_bits,
                rough: false,
                window: usize::MAX,
                reads: Reads::Promptly,
                pongs: true,
                mute: false,
                user: String::new(),
                tls: None,
            };
        }
        Self {
            encoding,
            window_bits,
            rough: rng.chance(700),
            window: rng.magnitude(256, 200 * 1024) as usize,
            reads: *rng.pick(&[
                Reads::Promptly,
                Reads::Promptly,
                Reads::Slowly,
                Reads::Slowly,
                Reads::Never,
            ]),
            pongs: rng.chance(900),
            mute: rng.chance(30),
            user: String::new(),
            tls: None,
        }
    }
}
