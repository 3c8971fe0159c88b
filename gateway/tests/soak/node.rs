//! The gateway as a process, and what can be known of it from outside: its metrics and the kernel's tables.

use ringway::shard::REFUSAL_SLOTS;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub const SHARDS: usize = 3;
/// Slots of a shard's table. Few, so that lost ones are soon missed.
pub const SLOTS: u64 = 1600;
/// What epoll's one table keeps for other files than connections, and more than it keeps.
const FILES_BESIDE: u64 = 256;
/// Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that gives no notice.
const LOOK: Duration = Duration::from_millis(50);

/// The server's timeouts are short, so that whoever only stays away is found out while the soak runs; everything that is kept
/// for a time is kept for a short one.
const SETTINGS: [(&str, &str); 11] = [
    ("RINGWAY_CLIENT__PING_INTERVAL", "6s"),
    ("RINGWAY_CLIENT__PONG_TIMEOUT", "4s"),
    ("RINGWAY_CLIENT__STALE_CLOSE_DELAY", "3s"),
    ("RINGWAY_CLIENT__STALL_TIMEOUT", "3s"),
    ("RINGWAY_CHANNEL__WITHOUT_NAMESPACE__HISTORY_SIZE", "50"),
    ("RINGWAY_CHANNEL__WITHOUT_NAMESPACE__HISTORY_TTL", "5s"),
    ("RINGWAY_CHANNEL__WITHOUT_NAMESPACE__LAG__BYTES", "256KiB"),
    (
        "RINGWAY_CHANNEL__NAMESPACES",
        r#"[
          {"name": "plain", "allow_subscribe_for_anonymous": true, "allow_subscribe_for_client": true,
           "allow_publish_for_anonymous": true, "allow_publish_for_client": true, "lag": {"bytes": "256KiB"}},
          {"name": "skip", "allow_subscribe_for_anonymous": true, "allow_subscribe_for_client": true,
           "allow_publish_for_anonymous": true, "allow_publish_for_client": true, "lag": {"bytes": "256KiB"},
           "slow": {"policy": "skip"}},
          {"name": "latest", "allow_subscribe_for_anonymous": true, "allow_subscribe_for_client": true,
           "allow_publish_for_anonymous": true, "allow_publish_for_client": true, "lag": {"bytes": "256KiB"},
           "slow": {"policy": "latest"}}
        ]"#,
    ),
    ("RINGWAY_SHUTDOWN__DELAY", "0"),
    ("RINGWAY_SHUTDOWN__DRAIN", "100ms"),
    ("RINGWAY_LOG__LEVEL", "warn"),
];

/// A running gateway. One that a failed test leaves is killed.
pub struct Node {
    process: Child,
    pub clients: SocketAddr,
    internal: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already when all went well, and then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// `RINGWAY_BIN`, else the binary that cargo built for this test.
    pub fn start(reactor: &str) -> Self {
        let descriptors = match reactor {
            "epoll" => SLOTS * SHARDS as u64 + FILES_BESIDE,
            _ => SLOTS,
        };
        let binary = std::env::var("RINGWAY_BIN")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringway").to_owned());
        let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [clients, internal] = ports.map(|port| port.local_addr().unwrap());
        let process = Command::new("sh")
            .args(["-c", r#"ulimit -n "$1" && shift && exec "$@""#, "sh"])
            .arg(descriptors.to_string())
            .args([&binary, "serve", "--dev", "--reactor", reactor])
            .args(["--shards", &SHARDS.to_string()])
            .args(["--address", &clients.to_string()])
            .args(["--internal-address", &internal.to_string()])
            .env_clear()
            .envs(SETTINGS)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut node = Self {
            process,
            clients,
            internal,
        };
        node.until("ready", |node| {
            node.get("/readyz")
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        node
    }

    /// Looks until it holds, or the deadline has passed, or the process has ended.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            self.assert_lives();
            assert!(
                start.elapsed() < DEADLINE,
                "waited in vain: {what}\n{}\n{} sockets",
                self.get("/metrics").unwrap_or_default(),
                self.sockets()
            );
            std::thread::sleep(LOOK);
        }
    }

    pub fn assert_lives(&mut self) {
        if let Some(status) = self.process.try_wait().unwrap() {
            panic!("the gateway ended by itself: {status}");
        }
    }

    /// The whole answer, or nothing when nobody answers.
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

    pub fn metrics(&self) -> Metrics {
        let page = self.get("/metrics").expect("the gateway tells its metrics");
        let samples = page
            .lines()
            .filter(|line| line.starts_with("ringway_") || line.starts_with("process_"));
        Metrics(
            samples
                .filter_map(|line| line.rsplit_once(' '))
                .map(|(series, value)| (series.to_owned(), value.parse().expect(series)))
                .collect(),
        )
    }

    /// Sockets of all connections, at either end.
    pub fn sockets(&self) -> usize {
        ends(self.clients).iter().map(Vec::len).sum()
    }

    /// Asks it to stop and waits for it.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not stop");
            std::thread::sleep(LOOK);
        }
    }
}

/// Of connections to the server: each end's address at the client, and its state as the kernel numbers it. Those in TIME_WAIT
/// are not among them. First the server's ends, then the clients'.
fn ends(server: SocketAddr) -> [Vec<(SocketAddr, String)>; 2] {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut ends = [Vec::new(), Vec::new()];
    for line in table.lines().skip(1) {
        let mut words = line.split_ascii_whitespace().skip(1);
        let [local, remote, state] = [(); 3].map(|()| words.next().expect("a column"));
        if state == TIME_WAIT || state == LISTEN {
            continue;
        }
        let (local, remote) = (address(local), address(remote));
        if local == server {
            ends[0].push((remote, state.to_owned()));
        } else if remote == server {
            ends[1].push((local, state.to_owned()));
        }
    }
    ends
}

/// As the kernel prints it: the address as a number of this machine, the port as a number.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("an address");
    let ip = u32::from_str_radix(ip, 16)
        .expect("an address")
        .to_ne_bytes();
    let port = u16::from_str_radix(port, 16).expect("a port");
    (Ipv4Addr::from(ip), port).into()
}

/// Whose connections have an end at the server still, and in which state.
pub fn server_ends(server: SocketAddr) -> HashMap<SocketAddr, String> {
    let [server_ends, _] = ends(server);
    server_ends.into_iter().collect()
}

/// A page of metrics: values by series.
pub struct Metrics(HashMap<String, f64>);

impl Metrics {
    /// Of one series; absent is zero.
    pub fn value(&self, series: &str) -> u64 {
        self.0.get(series).map_or(0, |value| *value as u64)
    }

    /// Of all series of a family.
    pub fn sum(&self, family: &str) -> u64 {
        let of_family = |series: &str| series.split('{').next() == Some(family);
        let values = self.0.iter().filter(|(series, _)| of_family(series));
        values.map(|(_, value)| *value as u64).sum()
    }

    pub fn by_shard(&self, family: &str) -> [u64; SHARDS] {
        std::array::from_fn(|shard| self.value(&format!("{family}{{shard=\"{shard}\"}}")))
    }

    /// Connections that were accepted and neither closed nor refused.
    pub fn unfinished(&self) -> u64 {
        let accepted = self.sum("ringway_connections_opened_total");
        let refused = self.sum("ringway_handshakes_total")
            - self.value("ringway_handshakes_total{result=\"101\"}");
        accepted - self.sum("ringway_connections_closed_total") - refused
    }
}

/// Connections that the gateway admits, and those whose handshake it takes in all.
pub const ADMITTED: u64 = (SLOTS - REFUSAL_SLOTS as u64) * SHARDS as u64;
pub const HELD: u64 = SLOTS * SHARDS as u64;
