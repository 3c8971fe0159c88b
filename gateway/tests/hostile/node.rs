//! The gateway as a process, with the limits of a scenario.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at something that gives no notice.
const LOOK: Duration = Duration::from_millis(20);
pub const SECRET: &str = "a secret for tests";

/// Everybody may do everything; what is kept for a time is kept for a short one.
const SETTINGS: [(&str, &str); 8] = [
    // Both shards are to get connections.
    ("RINGWAY_INCOMING_CPU", "off"),
    (
        "RINGWAY_CLIENT__ALLOW_ANONYMOUS_CONNECT_WITHOUT_TOKEN",
        "true",
    ),
    ("RINGWAY_CLIENT__TOKEN__HMAC_SECRET_KEY", SECRET),
    ("RINGWAY_CLIENT__INSECURE", "true"),
    ("RINGWAY_SHUTDOWN__DELAY", "0"),
    ("RINGWAY_SHUTDOWN__DRAIN", "100ms"),
    ("RINGWAY_LOG__LEVEL", "error"),
    (
        "RINGWAY_CHANNEL__NAMESPACES",
        r#"[
          {"name": "kept", "history_size": 1000, "history_ttl": "1m", "allow_recovery": true},
          {"name": "social", "presence": true, "join_leave": true, "force_push_join_leave": true}
        ]"#,
    ),
];

/// For clients, and the internal one.
pub fn free_addresses() -> [SocketAddr; 2] {
    let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    ports.map(|port| port.local_addr().unwrap())
}

/// A running gateway. One that a failed test leaves is killed.
pub struct Node {
    process: Child,
    pub clients: SocketAddr,
    internal: SocketAddr,
    /// Resident bytes when it was ready.
    fresh: u64,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// With two shards, `files` descriptors (0: as many as may be), and more settings.
    pub fn start(reactor: &str, files: u64, settings: &[(&str, &str)]) -> Self {
        Self::start_under(&[], reactor, files, settings, |_| {})
    }

    /// The same under another program, that runs what follows its own arguments.
    pub fn start_under(
        wrapper: &[&str],
        reactor: &str,
        files: u64,
        settings: &[(&str, &str)],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let [clients, internal] = free_addresses();
        let lower = r#"[ "$1" = 0 ] || ulimit -n "$1"; shift; exec "$@""#;
        let mut command = Command::new("sh");
        command
            .args(["-c", lower, "sh", &files.to_string()])
            .args(wrapper)
            .args([env!("CARGO_BIN_EXE_ringway"), "serve", "--shards", "2"])
            .args(["--reactor", reactor])
            .args(["--address", &clients.to_string()])
            .args(["--internal-address", &internal.to_string()])
            .env_clear()
            .envs(SETTINGS)
            .envs(settings.iter().copied())
            .stdin(Stdio::null());
        prepare(&mut command);
        let process = command.spawn().unwrap();
        let mut node = Self {
            process,
            clients,
            internal,
            fresh: 0,
        };
        node.until("ready", |node| {
            node.get("/readyz")
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        node.fresh = node.resident();
        node
    }

    /// Looks until it holds, or the deadline has passed.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(
                start.elapsed() < DEADLINE,
                "waited in vain: {what}\n{}",
                self.get("/metrics").unwrap_or_default()
            );
            std::thread::sleep(LOOK);
        }
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.internal).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A family's samples whose labels contain all of `labels`, added up.
    pub fn metric(&self, family: &str, labels: &[&str]) -> u64 {
        let page = self.get("/metrics").expect("the gateway tells its metrics");
        let samples = page.lines().filter_map(|line| line.rsplit_once(' '));
        let meant = samples.filter(|(series, _)| {
            series.split('{').next() == Some(family)
                && labels.iter().all(|label| series.contains(label))
        });
        meant
            .map(|(_, value)| value.parse::<f64>().unwrap() as u64)
            .sum()
    }

    /// How often a limit was met, with this outcome.
    pub fn hits(&self, limit: &str, outcome: &str) -> u64 {
        let labels = [
            format!("limit=\"{limit}\""),
            format!("outcome=\"{outcome}\""),
        ];
        self.metric(
            "ringway_limit_hits_total",
            &labels.each_ref().map(|l| &l[..]),
        )
    }

    /// Asks it to stop, and waits for it: how it ended.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap()
    }

    pub fn connections(&self) -> u64 {
        self.metric("ringway_connections", &[])
    }

    fn resident(&self) -> u64 {
        self.metric("process_resident_memory_bytes", &[])
    }

    /// Asserts that it has not grown by more than `mebibytes` since it was ready.
    pub fn assert_small(&self, mebibytes: u64) {
        let grown = self.resident().saturating_sub(self.fresh) >> 20;
        assert!(grown <= mebibytes, "grown by {grown} MiB of {mebibytes}");
    }
}
