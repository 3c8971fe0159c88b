use super::*;
use crate::config::{ChannelOptions, ClientLimits, Proxies, SlowPolicy};

fn machine() -> Machine {
    Machine {
        host_name: "host".into(),
        cores: vec![0, 1, 2, 5],
        open_files: 20_000,
    }
}

fn checked(text: &str, modes: Modes) -> Result<Config, String> {
    let raw: Raw = toml::from_str(text).expect("well typed");
    check(raw, &Origins::default(), modes, &machine()).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    checked(text, Modes::default()).expect_err(text)
}

fn accepted(text: &str) -> Config {
    checked(text, Modes::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

const DEV: Modes = Modes {
    dev: true,
    debug_echo: false,
};

#[test]
fn defaults_are_the_ones_promised() {
    let config = accepted("");
    assert_eq!(config.address.to_string(), "127.0.0.1:8000");
    assert_eq!(config.internal_address.to_string(), "127.0.0.1:9000");
    assert_eq!((config.shards, config.cores.len()), (4, 0));
    assert_eq!(config.node_name, "host");
    let client = &config.client;
    assert_eq!(
        (
            client.channel_limit,
            client.message_size_limit,
            client.queue_max_size
        ),
        (128, 65_536, 65_536)
    );
    assert_eq!(
        (
            client.stall_timeout.as_secs(),
            client.stale_close_delay.as_secs()
        ),
        (25, 10)
    );
    assert_eq!(
        (
            client.expired_close_delay.as_secs(),
            client.ping_interval.as_secs()
        ),
        (25, 25)
    );
    assert_eq!(client.pong_timeout.as_secs(), 8);
    assert_eq!(client.allowed_origins, Allowed::List(Vec::new()));
    assert!(client.subscription_token.is_none() && config.api_keys.is_empty());
    assert_eq!(
        (config.limits.log_bytes, config.limits.publication_bytes),
        (256 << 20, 1 << 20)
    );
    assert_eq!(
        (
            config.shutdown.delay.as_secs(),
            config.shutdown.drain.as_secs()
        ),
        (5, 20)
    );
    let expected = ChannelOptions {
        lag_bytes: 1 << 20,
        lag_time: Duration::from_secs(10),
        ..ChannelOptions::default()
    };
    assert_eq!(*config.channels.options(0), expected);
}

#[test]
fn addresses_are_an_ip_and_a_port() {
    for bad in [
        "",
        "8000",
        ":8000",
        "localhost:8000",
        "127.0.0.1",
        "127.0.0.1:65536",
        "::1:8000",
        "unix:/run/x",
    ] {
        assert!(
            refused(&format!("address = {bad:?}")).contains("want an IP address and a port"),
            "{bad}"
        );
    }
    assert!(refused("internal.address = '127.0.0.1:0'").contains("internal.address: got port 0"));
    assert_eq!(accepted("address = '[::1]:443'").address.port(), 443);
    for same in ["127.0.0.1:8000", "0.0.0.0:8000"] {
        assert!(refused(&format!("internal.address = '{same}'")).contains("want another port"));
    }
    accepted("address = '127.0.0.1:8000'\ninternal.address = '127.0.0.2:8000'");
}

#[test]
fn shards_are_1_to_512() {
    for bad in ["0", "-1", "513", "99999"] {
        assert!(refused(&format!("shards = {bad}")).ends_with("want 1 to 512, or \"auto\""));
    }
    assert_eq!(accepted("shards = 512").shards, 512);
}

#[test]
fn cores_exist_and_are_named_once() {
    assert_eq!(accepted("cores = [5, 0]").cores, [5, 0]);
    assert_eq!(
        refused("cores = [0, 3]"),
        "default: cores: got core 3, which this process may not use: want some of 0-2, 5"
    );
    assert!(refused("cores = '1,0-1'").contains("core 1 twice"));
}

#[test]
fn choices_are_listed() {
    assert!(
        refused("reactor = 'kqueue'")
            .ends_with("reactor: got \"kqueue\", want one of auto, uring, epoll")
    );
    assert!(refused("incoming_cpu = 'yes'").ends_with("want one of auto, on, off"));
    assert!(refused("log.level = 'loud'").contains("log.level: got \"loud\""));
    assert!(refused("log.format = 'xml'").contains("want one of auto, text, json"));
    assert!(
        refused("channel.without_namespace.slow.policy = 'drop'")
            .ends_with("want one of disconnect, skip, latest")
    );
    assert_eq!(
        accepted("channel.without_namespace.slow.policy = 'latest'")
            .channels
            .options(0)
            .slow,
        SlowPolicy::Latest
    );
}

#[test]
fn namespaces_have_plain_unique_names() {
    for bad in ["", "a", "a b", "a:b", "é\u{e9}", "a#b", "$ab"] {
        let message = refused(&format!("[[channel.namespaces]]\nname = {bad:?}"));
        assert!(
            message.contains("channel.namespaces[0].name: got"),
            "{message}"
        );
    }
    let twice = "[[channel.namespaces]]\nname = 'chat'\n[[channel.namespaces]]\nname = 'chat'";
    assert!(refused(twice).contains("channel.namespaces[1].name: got \"chat\" a second time"));
    let config = accepted("[[channel.namespaces]]\nname = '-_'\npresence = true");
    assert_eq!(config.channels.find("-_"), Some(1));
    assert!(config.channels.options(1).presence && !config.channels.options(0).presence);
    assert!(
        refused("channel.without_namespace.name = 'xx'")
            .contains("channel.without_namespace.name: unknown key")
    );
}

#[test]
fn what_needs_history_says_so_and_names_both_keys() {
    for key in [
        "force_recovery",
        "force_positioning",
        "allow_positioning",
        "allow_recovery",
        "allow_history_for_client",
        "allow_history_for_subscriber",
        "allow_history_for_anonymous",
    ] {
        let message = refused(&format!(
            "[[channel.namespaces]]\nname = 'chat'\n{key} = true"
        ));
        assert!(
            message.contains(&format!("channel.namespaces[0].{key}: ")),
            "{message}"
        );
        assert!(
            message.contains("channel.namespaces[0].history_size"),
            "{message}"
        );
        accepted(&format!(
            "[[channel.namespaces]]\nname='chat'\n{key}=true\nhistory_size=1\nhistory_ttl='1s'"
        ));
    }
    assert!(refused("channel.without_namespace.history_size = 1").contains("history_ttl is 0"));
    assert!(refused("channel.without_namespace.history_ttl = '1s'").contains("history_size is 0"));
}

#[test]
fn options_that_can_never_work_are_refused() {
    let namespace = |keys: &str| format!("[channel.without_namespace]\n{keys}");
    for who in ["client", "subscriber", "anonymous"] {
        let message = refused(&namespace(&format!("allow_presence_for_{who} = true")));
        assert!(
            message.contains("set channel.without_namespace.presence too"),
            "{message}"
        );
    }
    assert!(refused(&namespace("force_push_join_leave = true")).contains("join_leave too"));
    assert!(refused(&namespace("slow.silent = true")).contains("only \"skip\" can be silent"));
    accepted(&namespace("slow = { policy = 'skip', silent = true }"));
}

#[test]
fn limits_are_above_zero() {
    for key in [
        "client.channel_limit",
        "client.message_size_limit",
        "client.queue_max_size",
        "client.stall_timeout",
        "client.stale_close_delay",
        "limits.log_bytes",
        "limits.history_bytes",
        "limits.publication_bytes",
        "channel.without_namespace.lag.bytes",
        "channel.without_namespace.lag.time",
    ] {
        let message = refused(&format!("{key} = 0"));
        assert!(
            message.contains(&format!("{key}: got 0, want ")),
            "{message}"
        );
    }
    assert!(refused("client.message_size_limit = '17MiB'").ends_with("got 17MiB, want 1 to 16MiB"));
    assert!(
        refused("limits.log_bytes='2MiB'\nchannel.without_namespace.lag.bytes='3MiB'")
            .contains("want 1 to 2MiB")
    );
}

#[test]
fn pongs_come_before_the_next_ping() {
    assert!(
        refused("client.ping_interval = '8s'")
            .contains("client.pong_timeout: got 8s, want less than")
    );
    assert!(refused("client.ping_interval = '8500ms'").contains("want whole seconds"));
    accepted("client.ping_interval = '9s'");
    accepted("client = { ping_interval = '0' }");
    accepted("client = { ping_interval = '1s', pong_timeout = '0' }");
}

#[test]
fn keys_of_tokens_are_read_at_the_start() {
    use crate::testing::token::TestKey;
    let pem = |key: &str| {
        format!(
            "client.token.{key} = \"\"\"{}\"\"\"",
            TestKey::rsa().public_pem()
        )
    };
    assert!(accepted(&pem("rsa_public_key")).client.token.has_keys());
    for (text, key) in [
        (
            pem("ecdsa_public_key"),
            "client.token.ecdsa_public_key: want a PEM block",
        ),
        (
            pem("hmac_secret_key"),
            "client.token.hmac_secret_key: got a key in PEM",
        ),
        (
            "client.token.eddsa_public_key = 'x'".into(),
            "client.token.eddsa_public_key: want",
        ),
        (
            "client.token.hmac_previous_secret_key = 'x'".into(),
            "client.token.hmac_previous_secret_key: set without",
        ),
        (
            format!(
                "client.token.jwks_public_endpoint = 'https://a/k'\n{}",
                pem("rsa_public_key")
            ),
            "jwks_public_endpoint: set beside",
        ),
        (
            "client.token.jwks_refresh_interval = '9s'".into(),
            "at least 10s",
        ),
        (
            "client.subscription_token.rsa_public_key = 'x'".into(),
            "client.subscription_token.rsa_public_key",
        ),
    ] {
        let message = refused(&text);
        assert!(message.contains(key), "{message}");
        assert!(!message.contains("MII"), "{message}");
    }
    for bad in [
        "ftp://a/k",
        "a/k",
        "https://",
        "http:///k",
        "https://u:hunter2@",
    ] {
        let message = refused(&format!("client.token.jwks_public_endpoint = '{bad}'"));
        assert!(
            message.contains("want an address like") && !message.contains("hunter2"),
            "{message}"
        );
    }
    for good in [
        "http://127.0.0.1:8080/keys",
        "https://id.example.com/.well-known/jwks.json?x=1",
    ] {
        let config = accepted(&format!("client.token.jwks_public_endpoint = '{good}'"));
        assert!(
            config.client.token.has_keys()
                && !config
                    .warnings()
                    .iter()
                    .any(|line| line.contains("no client"))
        );
    }
}

#[test]
fn proxies_are_addresses_and_networks() {
    let with =
        |networks: &str| format!("proxy_protocol = {{ mode = 'require', networks = {networks} }}");
    assert_eq!(accepted("").proxies, Proxies::default());
    let proxies = accepted(&with("['10.0.0.0/8', '::1']")).proxies;
    let networks = proxies.proxy_protocol.unwrap();
    for (address, is_in) in [
        ("10.255.0.1", true),
        ("11.0.0.0", false),
        ("::1", true),
        ("::2", false),
    ] {
        assert_eq!(
            networks.contain(address.parse().unwrap()),
            is_in,
            "{address}"
        );
    }
    assert!(refused(&with("[]")).contains("proxy_protocol.networks: got none"));
    assert!(refused("proxy_protocol.mode = 'on'").contains("want one of off, require"));
    for bad in ["10.0.0.0/33", "10.0.0", "localhost", "", "*"] {
        let message = refused(&format!("client.trusted_proxies = ['{bad}']"));
        assert!(message.contains("client.trusted_proxies: got"), "{message}");
    }
}

#[test]
fn origins_are_schemes_and_hosts() {
    for bad in [
        "",
        "example.com",
        "https://a.example/",
        "https://a b",
        "://x",
    ] {
        assert!(
            refused(&format!("client.allowed_origins = [{bad:?}]")).contains("want scheme://host"),
            "{bad}"
        );
    }
    let config = accepted(
        "client.allowed_origins = ['https://*.example.com', 'http://localhost:3000', 'null']",
    );
    assert!(matches!(config.client.allowed_origins, Allowed::List(list) if list.len() == 3));
    assert_eq!(
        accepted("client.allowed_origins = ['https://a', '*']")
            .client
            .allowed_origins,
        Allowed::Any
    );
}

#[test]
fn tokens_are_checked() {
    assert!(
        refused("client.token.user_id_claim = 'user-id'")
            .contains("client.token.user_id_claim: got")
    );
    assert!(refused("client.token.user_id_claim = 'exp'").contains("want another name"));
    let message = refused("client.subscription_token.issuer = 'x'");
    assert!(
        message.contains("client.subscription_token.hmac_secret_key: not set"),
        "{message}"
    );
    let config =
        accepted("client.subscription_token = { hmac_secret_key = 's', user_id_claim = 'uid' }");
    assert_eq!(
        config.client.subscription_token.unwrap().user_id_claim,
        "uid"
    );
}

#[test]
fn dev_opens_everything_on_the_loopback_only() {
    let config = checked("http_api.key = 'mine'", DEV).unwrap();
    let options = config.channels.options(0);
    assert_eq!(
        (options.history_size, options.history_ttl.as_secs()),
        (100, 600)
    );
    assert!(
        options.presence
            && options.join_leave
            && options.allow_recovery
            && options.allow_publish_for_anonymous
    );
    assert!(config.dev && config.client.allow_anonymous_connect_without_token);
    assert_eq!(config.client.allowed_origins, Allowed::Any);
    assert_eq!(config.api_keys, ["mine", "dev"]);
    assert!(!format!("{config:?}").contains("mine"));
    let own = "channel.without_namespace = { history_size = 5, history_ttl = '1m' }";
    assert_eq!(
        checked(own, DEV).unwrap().channels.options(0).history_size,
        5
    );
    for key in ["address", "internal.address"] {
        let message = checked(&format!("{key} = '0.0.0.0:7000'"), DEV).unwrap_err();
        assert!(
            message.contains(&format!("{key}: got 0.0.0.0:7000 with --dev")),
            "{message}"
        );
    }
    checked("address = '[::1]:7000'", DEV).unwrap();
}

#[test]
fn tables_are_sized_by_the_limit_of_open_files() {
    use ReactorChoice::{Auto, Epoll, Uring};
    assert_eq!(slots_per_shard(20_000, 4, Uring, 0), 19_936);
    assert_eq!(slots_per_shard(20_000, 4, Auto, 100), 100);
    assert_eq!(slots_per_shard(20_256, 4, Epoll, 0), 4_936);
    assert_eq!(slots_per_shard(u64::MAX, 1, Uring, 0), (1 << 20) - 64);
    assert_eq!(slots_per_shard(10, 1, Epoll, 0), 1);
}

#[test]
fn warns_of_what_surprises() {
    let lines = accepted("").warnings();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("no client can connect")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("http_api.key")),
        "{lines:?}"
    );
    assert_eq!(
        accepted("client.token.hmac_secret_key='s'\nhttp_api.key='k'").warnings(),
        Vec::<&str>::new()
    );
    assert!(checked("", DEV).unwrap().warnings()[0].starts_with("--dev"));
}

#[test]
fn a_configuration_for_tests_uses_free_ports() {
    let config = Config::for_tests();
    assert_eq!(
        (
            config.address.port(),
            config.internal_address.port(),
            config.shards
        ),
        (0, 0, 2)
    );
}

#[test]
fn clients_are_limited_only_by_handshakes_of_an_address_unless_told() {
    let limits = accepted("").client_limits;
    let expected = ClientLimits {
        burst: Duration::from_secs(5),
        address_handshakes: 100,
        ..ClientLimits::default()
    };
    assert_eq!(limits, expected);
    assert!(checked("", DEV).unwrap().client_limits.exempts_loopback);
}

#[test]
fn a_burst_of_bytes_holds_a_message() {
    for name in ["connection", "user"] {
        let with = |bytes: &str, burst: &str| {
            format!("limits.{name}.bytes = {bytes}\nlimits.burst = '{burst}'")
        };
        let message = refused(&with("10_000", "5s"));
        assert!(
            message.contains(&format!("limits.{name}.bytes: got 10000 a second"))
                && message.contains("client.message_size_limit (64KiB)"),
            "{message}"
        );
        accepted(&with("0", "5s"));
        accepted(&with("13_108", "5s"));
    }
    assert!(refused("limits.burst = '0'").contains("more than 0"));
    assert!(refused("limits.burst = '11m'").contains("at most 10m"));
}

#[test]
fn a_dry_run_names_limits_by_their_keys() {
    use crate::limit::LimitSet;
    let tried = |list: &str| {
        accepted(&format!("limits.dry_run = {list}"))
            .client_limits
            .dry_run
    };
    assert_eq!(tried("[]"), LimitSet::default());
    assert_eq!(tried("['*']"), LimitSet::ALL);
    let two = tried("['limits.user.bytes', 'client.connection_limit']");
    let known = Limit::ALL.into_iter().filter(|limit| two.has(*limit));
    assert_eq!(
        known.collect::<Vec<_>>(),
        [Limit::Connections, Limit::UserBytes]
    );
    assert!(refused("limits.dry_run = ['limits.bytes']").contains("want some of client."));
    // Only tried, it takes no slot away.
    let slots = |more: &str| {
        accepted(&format!("client.connection_limit = 7\n{more}"))
            .limits
            .slots_per_shard
    };
    assert_eq!(slots(""), 7);
    assert!(slots("limits.dry_run = ['client.connection_limit']") > 7);
}
