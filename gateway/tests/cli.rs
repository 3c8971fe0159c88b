//! The binary from outside: exit codes, and the one line that says why.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const CONFIGURATION: i32 = 64;
const ENVIRONMENT: i32 = 1;

/// `ringway` with these arguments and variables, and no other variable.
fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    command(arguments, variables)
        .output()
        .expect("the binary runs")
}

/// Asserts the code and returns standard error, which must be one line.
fn refused(code: i32, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.matches('\n').count(), 1, "one line: {message}");
    assert!(output.stdout.is_empty());
    message.trim_end().to_owned()
}

fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A configuration file of a test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn refused_file(name: &str, text: &str) -> String {
    let path = file(name, text);
    let path = path.to_str().unwrap();
    let message = refused(CONFIGURATION, &["check-config", "--config", path], &[]);
    assert_eq!(
        message,
        refused(CONFIGURATION, &["serve", "--config", path], &[]),
        "serve and check-config agree"
    );
    message
        .strip_prefix(&format!("ringway: {path}"))
        .expect("names the file")
        .to_owned()
}

#[test]
fn refuses_unknown_keys_of_every_source() {
    assert_eq!(
        refused_file("unknown.toml", "shards = 1\n[client]\npong_timout = '8s'\n"),
        ":3: client.pong_timout: unknown key, did you mean pong_timeout?"
    );
    assert_eq!(
        refused(
            CONFIGURATION,
            &["serve"],
            &[("RINGWAY_CLIENT__PONG_TIMOUT", "8s")]
        ),
        "ringway: environment variable RINGWAY_CLIENT__PONG_TIMOUT: client.pong_timout: unknown key, did you mean pong_timeout?"
    );
    let usage = run(&["serve", "--shard-count", "2"], &[]);
    assert_eq!(usage.status.code(), Some(CONFIGURATION));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("--shard-count"));
}

#[test]
fn refuses_values_and_says_what_is_wanted() {
    assert_eq!(
        refused_file("duration.toml", "shutdown.delay = '5 seconds'"),
        ":1: shutdown.delay: got \"5 seconds\", want a duration such as \"500ms\", \"25s\", \"10m\", \"1h\" or \"0\""
    );
    assert_eq!(
        refused_file("size.toml", "[limits]\nlog_bytes = '256MB'"),
        ":2: limits.log_bytes: got \"256MB\", want a number of bytes such as 65536, \"64KiB\", \"1MiB\" or \"2GiB\""
    );
    assert_eq!(
        refused_file(
            "twice.toml",
            "[[channel.namespaces]]\nname = 'chat'\n\n[[channel.namespaces]]\nname = 'chat'\n"
        ),
        ":5: channel.namespaces[1].name: got \"chat\" a second time, want each namespace once"
    );
    assert_eq!(
        refused_file(
            "recovery.toml",
            "[[channel.namespaces]]\nname = 'chat'\nforce_recovery = true\n"
        ),
        ":3: channel.namespaces[0].force_recovery: on without history: set channel.namespaces[0].history_size and \
         channel.namespaces[0].history_ttl too"
    );
    assert_eq!(
        refused(CONFIGURATION, &["serve", "--shards", "0"], &[]),
        "ringway: flag --shards: shards: got 0, want 1 to 512, or \"auto\""
    );
    assert_eq!(
        refused(CONFIGURATION, &["serve", "--reactor", "kqueue"], &[]),
        "ringway: flag --reactor: reactor: got \"kqueue\", want one of auto, uring, epoll"
    );
    assert!(
        refused(CONFIGURATION, &["serve", "--cores", "x"], &[])
            .starts_with("ringway: flag --cores: cores: got \"x\"")
    );
    assert!(
        refused(CONFIGURATION, &["serve"], &[("RINGWAY_ADDRESS", "localhost:1")])
            .starts_with("ringway: environment variable RINGWAY_ADDRESS: address: got \"localhost:1\", want an IP address")
    );
}

#[test]
fn refuses_files_that_are_not_there_or_not_toml() {
    for (arguments, variables) in [
        (&["serve", "--config", "/nonexistent/r.toml"][..], &[][..]),
        (
            &["serve"][..],
            &[("RINGWAY_CONFIG", "/nonexistent/r.toml")][..],
        ),
    ] {
        let message = refused(CONFIGURATION, arguments, variables);
        assert!(
            message
                .starts_with("ringway: cannot read the configuration file /nonexistent/r.toml: "),
            "{message}"
        );
    }
    assert!(refused_file("broken.toml", "shards = 1\n[client\n").starts_with(":2: not TOML: "));
}

#[test]
fn refuses_what_this_build_does_not_have() {
    assert!(
        refused_file("nats.toml", "[nats]\nregion = 'eu'")
            .ends_with("this build does not have it yet: leave it out")
    );
    assert!(
        refused_file("tls.toml", "internal.tls = true")
            .starts_with(":1: internal.tls: this build does not have it yet")
    );
}

#[test]
fn refuses_nats_servers_that_cannot_be_and_shows_no_password() {
    for servers in [
        "http://user:hunter2@host",
        "nats://user:hunter2@host,,",
        "user:hunter2",
    ] {
        let message = refused(CONFIGURATION, &["serve", "--backplane", servers], &[]);
        let is_told = message.contains("flag --backplane: nats.url: want nats://host:port");
        assert!(is_told && !message.contains("hunter2"), "{message}");
    }
    let history = "[channel.without_namespace]\nhistory_size = 1\nhistory_ttl = '1s'\n[nats]\nurl = 'nats://x'";
    assert!(
        refused_file("history.toml", history).contains("does not link channels with history yet")
    );
}

#[test]
fn dev_stays_on_the_loopback() {
    let message = refused(
        CONFIGURATION,
        &["serve", "--dev", "--address", "0.0.0.0:8000"],
        &[],
    );
    assert_eq!(
        message,
        "ringway: flag --address: address: got 0.0.0.0:8000 with --dev, which lets everyone in: want a loopback address, \
         like 127.0.0.1"
    );
}

#[test]
fn usage_errors_are_configuration_and_help_is_not() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["serve", "extra"],
        &["token"],
        &["serve", "--shards", "two"],
    ] {
        assert_eq!(
            run(arguments, &[]).status.code(),
            Some(CONFIGURATION),
            "{arguments:?}"
        );
    }
    assert!(printed(&["--help"], &[]).contains("default-config"));
    assert!(printed(&["serve", "--help"], &[]).contains("--backplane"));
}

#[test]
fn the_default_configuration_is_valid() {
    let path = file("default.toml", &printed(&["default-config"], &[]));
    let path = path.to_str().unwrap();
    assert_eq!(
        printed(&["check-config", "--config", path], &[]),
        format!("{path}: the configuration is valid\n")
    );
    assert!(printed(&["check-config", "--dev"], &[("RINGWAY_CONFIG", path)]).contains(path));
}

#[test]
fn prints_tokens() {
    let secret = [("RINGWAY_CLIENT__TOKEN__HMAC_SECRET_KEY", "s3cret")];
    for arguments in [
        &[
            "token",
            "--user",
            "42",
            "--channels",
            "a,b",
            "--ttl",
            "10m",
            "--info",
            r#"{"name":"x"}"#,
        ][..],
        &["token", "--user", ""],
        &[
            "sub-token",
            "--user",
            "42",
            "--channel",
            "chat:x",
            "--ttl",
            "0",
        ],
    ] {
        let token = printed(arguments, &secret);
        let parts: Vec<&str> = token.trim_end().split('.').collect();
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        assert!(
            parts.len() == 3 && parts.iter().all(|part| plain(part)),
            "{token}"
        );
    }
    assert_eq!(
        refused(CONFIGURATION, &["token", "--user", "42"], &[]),
        "ringway: client.token.hmac_secret_key: not set, so nothing can be signed"
    );
    assert_eq!(
        refused(
            CONFIGURATION,
            &["token", "--user", "42", "--info", "{"],
            &secret
        ),
        "ringway: flag --info: want JSON"
    );
    assert_eq!(
        run(&["token", "--user", "42", "--ttl", "500ms"], &secret)
            .status
            .code(),
        Some(CONFIGURATION)
    );
}

#[test]
fn prints_its_version_and_the_machine() {
    assert_eq!(
        printed(&["version"], &[]),
        format!("ringway {}\n", env!("CARGO_PKG_VERSION"))
    );
    let report = printed(&["probe"], &[]);
    assert!(report.contains("\nkernel TLS "), "{report}");
    for fact in [
        "kernel",
        "cores",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "io_uring",
    ] {
        assert!(
            report
                .lines()
                .any(|line| line.split_whitespace().next() == Some(fact)),
            "{report}"
        );
    }
}

#[test]
fn a_port_in_use_is_the_environments_fault() {
    let (taken, free) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let (taken_at, free_at) = (taken.local_addr().unwrap(), free.local_addr().unwrap());
    drop(free);
    for (key, arguments) in [
        (
            "address",
            [
                "--address",
                &taken_at.to_string(),
                "--internal-address",
                &free_at.to_string(),
            ],
        ),
        (
            "internal.address",
            [
                "--address",
                &free_at.to_string(),
                "--internal-address",
                &taken_at.to_string(),
            ],
        ),
    ] {
        let arguments = [&["serve"][..], &arguments[..]].concat();
        let message = refused(ENVIRONMENT, &arguments, &[("RINGWAY_LOG__LEVEL", "off")]);
        assert!(
            message.starts_with(&format!(
                "ringway: {key}: {taken_at} is in use by another process: "
            )),
            "{message}"
        );
    }
}

/// A running node, and the socket on which it says how it is.
struct Node {
    process: std::process::Child,
    says: UnixDatagram,
    socket: PathBuf,
    /// Its internal address.
    internal: String,
}

/// A failed test leaves nothing behind.
impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Node {
    fn start(name: &str, delay: &str) -> Node {
        let socket = std::env::temp_dir().join(format!("ringway-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let says = UnixDatagram::bind(&socket).unwrap();
        says.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [clients, internal] = ports.map(|port| port.local_addr().unwrap().to_string());
        let arguments = [
            "serve",
            "--dev",
            "--address",
            &clients,
            "--internal-address",
            &internal,
        ];
        let variables = [
            ("NOTIFY_SOCKET", socket.to_str().unwrap()),
            ("RINGWAY_SHUTDOWN__DELAY", delay),
            ("RINGWAY_SHUTDOWN__DRAIN", "100ms"),
        ];
        let process = command(&arguments, &variables)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut node = Node {
            process,
            says,
            socket,
            internal,
        };
        node.wait_for("READY=1");
        node
    }

    fn wait_for(&mut self, message: &str) {
        let mut buffer = [0; 512];
        loop {
            let length = match self.says.recv(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                received => received.expect(message),
            };
            if &buffer[..length] == message.as_bytes() {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn exit_code(mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

#[test]
fn drains_on_sigterm_and_exits_0() {
    let mut node = Node::start("drain", "0");
    node.signal(Signal::HUP);
    node.signal(Signal::TERM);
    node.wait_for("STOPPING=1");
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_long_drain_with_0() {
    let mut node = Node::start("second", "1h");
    node.signal(Signal::TERM);
    node.wait_for("STOPPING=1");
    node.signal(Signal::INT);
    assert_eq!(node.exit_code(), Some(0));
}

#[test]
fn half_a_request_on_the_internal_port_does_not_keep_the_process() {
    let mut node = Node::start("half-request", "0");
    let half = [
        "GET /metrics HTTP/1.1\r\nHost",
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: dev\r\nContent-Length: 100\r\n\r\n{",
    ];
    let open = half.map(|request| {
        let mut client = TcpStream::connect(&node.internal).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        client
    });
    // A whole one behind them: its answer says that the others are being read.
    let mut whole = TcpStream::connect(&node.internal).unwrap();
    whole
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    whole.read_to_end(&mut Vec::new()).unwrap();
    node.signal(Signal::TERM);
    node.wait_for("STOPPING=1");
    assert_eq!(node.exit_code(), Some(0));
    drop(open);
}

#[test]
fn too_few_descriptors_are_the_environments_fault() {
    let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [clients, internal] = ports.map(|port| port.local_addr().unwrap().to_string());
    // A process cannot lower its own limits for a child, a shell can.
    let script = format!(
        "ulimit -n 40; exec {} serve --dev --shards 40 --address {clients} --internal-address {internal}",
        env!("CARGO_BIN_EXE_ringway")
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .env_clear()
        .env("RINGWAY_LOG__LEVEL", "off")
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(ENVIRONMENT), "{message}");
    assert!(message.contains("LimitNOFILE"), "{message}");
}
