//! `suite` with small servers: this very file run again.

// Each test file uses its part of the server.
#[allow(dead_code)]
mod server;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use server::{Misdeed, Server};

const ADDRESS: &str = "SUITE_TEST_ADDRESS";
const LOSSY: &str = "SUITE_TEST_LOSSY";

#[test]
#[ignore = "no test: the server that the suites below start"]
fn serve() {
    let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let misdeed = match std::env::var_os(LOSSY) {
        Some(_) => Misdeed::Lose,
        None => Misdeed::None,
    };
    let _server = Server::start_on(address, misdeed);
    loop {
        std::thread::park();
    }
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The generators spin on one core: two at once would find each other late.
static ALONE: Mutex<()> = Mutex::new(());

/// A suite's directory, and the machine for itself.
struct Suite(PathBuf, #[expect(dead_code)] MutexGuard<'static, ()>);

impl Drop for Suite {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Suite {
    /// Servers `(name, command, more lines)`, where no command means `serve`.
    fn new(test: &str, seconds: f64, servers: &[(&str, &[&str], &str)]) -> (Self, SocketAddr) {
        let directory = std::env::temp_dir().join(format!("ringway-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let address = free_port();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let scenario = format!(
            "fanout --members 4 --rate 200 --warm-up 0.1 --seconds {seconds} --plain-priority --cores {}",
            cores - 1
        );
        let arguments: Vec<&str> = scenario.split(' ').collect();
        let mut text =
            format!("rounds = 2\n[[scenario]]\nname = \"fan\"\narguments = {arguments:?}\n");
        let this = std::env::current_exe().unwrap();
        let serve = [this.to_str().unwrap(), "--ignored", "--exact", "serve"];
        for (name, command, more) in servers {
            let command = [*command, &serve].concat();
            text += &format!(
                "[[server]]\nname = \"{name}\"\ncommand = {command:?}\nready = \"{address}\"\n\
                 environment.{ADDRESS} = \"{address}\"\n\
                 arguments = [\"--target\", \"ws://{address}/\"]\n{more}\n"
            );
        }
        std::fs::write(directory.join("suite.toml"), text).unwrap();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        (Self(directory, alone), address)
    }

    fn start(&self, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
            .arg("suite")
            .arg(self.0.join("suite.toml"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Exit code, standard output, standard error.
    fn run(&self, more: &[&str]) -> (i32, String, String) {
        let output = self.start(more).wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

/// The numbers of the servers a suite says it started.
fn started(stderr: &str) -> Vec<u32> {
    let number = |line: &str| line.split_once(": up as process ")?.1.parse().ok();
    stderr.lines().filter_map(number).collect()
}

fn assert_gone(stderr: &str, servers: usize) {
    let pids = started(stderr);
    assert_eq!(pids.len(), servers, "{stderr}");
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} lives on"
        );
    }
}

#[test]
fn alternates_servers_and_sums_up() {
    let (suite, _) = Suite::new("alternates", 0.3, &[("one", &[], ""), ("two", &[], "")]);
    let (json, html, markdown) = (
        suite.path("s.json"),
        suite.path("s.html"),
        suite.path("s.md"),
    );
    let (code, stdout, stderr) =
        suite.run(&["--json", &json, "--html", &html, "--markdown", &markdown]);
    // A busy machine may make the generator late, which the suite has to say.
    assert!(matches!(code, 0 | 3), "{code} {stderr}");
    assert_gone(&stderr, 4);
    let text = std::fs::read_to_string(&json).unwrap();
    let outcome: Value = serde_json::from_str(&text).unwrap();
    let runs = outcome["runs"].as_array().unwrap();
    let order: Vec<&str> = runs
        .iter()
        .map(|run| run["server"].as_str().unwrap())
        .collect();
    assert_eq!(order, ["one", "two", "two", "one"]);
    assert!(
        runs.iter()
            .all(|run| (run["code"] == 3) == (code == 3) || run["code"] == 0)
    );
    for run in runs {
        // Cores with much other work may not meet for it.
        let trips = run["round_trips"].as_array().unwrap();
        assert!(
            trips.len() <= 2 && trips.iter().all(|ns| ns.as_f64().unwrap() > 1.0),
            "{run}"
        );
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>"));
    let table = std::fs::read_to_string(&markdown).unwrap();
    assert!(table.contains("## fan"));
    if code == 0 {
        let lines = outcome["tables"][0]["lines"].as_array().unwrap();
        let line = lines
            .iter()
            .find(|line| line["key"] == "server_ns_per_delivery")
            .unwrap();
        let ratio = &line["cells"][1]["ratio"];
        assert_eq!(ratio["runs"].as_array().unwrap().len(), 2, "{line}");
        assert!(stdout.contains("two / one") && table.contains("two / one"));
    }
}

#[test]
fn a_server_that_loses_ends_it_with_2() {
    let lossy = format!("environment.{LOSSY} = \"1\"");
    let (suite, _) = Suite::new("loses", 0.3, &[("lossy", &[], &lossy)]);
    let (code, stdout, stderr) = suite.run(&["--rounds", "1"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stdout.contains("NOT VERIFIED") && stdout.contains("does not count"),
        "{stdout}"
    );
    assert_gone(&stderr, 1);
}

#[test]
fn a_server_that_does_not_come_up_is_told_with_its_last_words() {
    let silent = ["sh", "-c", "echo no luck; sleep 600", "sh"];
    let (suite, _) = Suite::new("silent", 0.3, &[("silent", &silent, "ready_seconds = 1")]);
    let (code, _, stderr) = suite.run(&[]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("took no connection") && stderr.contains("no luck"),
        "{stderr}"
    );

    drop(suite);
    let (suite, _) = Suite::new(
        "ends",
        0.3,
        &[("ends", &["sh", "-c", "echo bye; exit 7", "sh"], "")],
    );
    let (code, _, stderr) = suite.run(&[]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("exit status: 7") && stderr.contains("bye"),
        "{stderr}"
    );
}

#[test]
fn a_port_that_is_taken_is_not_measured() {
    let (suite, address) = Suite::new("taken", 0.3, &[("late", &[], "")]);
    let _listener = TcpListener::bind(address).unwrap();
    let (code, _, stderr) = suite.run(&[]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("something else listens") && started(&stderr).is_empty(),
        "{stderr}"
    );
}

#[test]
fn what_a_server_leaves_behind_is_ended() {
    let note = std::env::temp_dir().join(format!("ringway-left-{}", std::process::id()));
    let script = format!("sleep 600 & echo $! >{}; exec \"$@\"", note.display());
    let (suite, _) = Suite::new(
        "behind",
        0.3,
        &[("messy", &["sh", "-c", &script, "sh"], "")],
    );
    let (code, stdout, stderr) = suite.run(&["--rounds", "1"]);
    assert!(matches!(code, 0 | 3), "{stderr}");
    assert!(stdout.contains("left 1 processes behind"), "{stdout}");
    let pid = std::fs::read_to_string(&note).unwrap();
    std::fs::remove_file(&note).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
    assert_gone(&stderr, 1);
}

#[test]
fn told_to_keep_going_it_lists_a_failure_and_renews_a_documents_tables_all_the_same() {
    let silent = ["sh", "-c", "echo no luck; sleep 600", "sh"];
    let servers: [(&str, &[&str], &str); 2] =
        [("silent", &silent, "ready_seconds = 1"), ("good", &[], "")];
    let (suite, _) = Suite::new("keeps-going", 0.3, &servers);
    let keep = suite.path("keep");
    let flags = ["--keep-going", "--keep", &keep, "--label", "commit abc"];
    let (code, stdout, stderr) = suite.run(&[&flags[..], &["--rounds", "3"]].concat());
    // The good one may have been late on a busy machine.
    assert!(matches!(code, 1 | 3), "{code} {stderr}");
    assert!(stdout.contains("(does not count): failed: silent: took no connection"));
    assert!(stderr.contains("silent: given up"), "{stderr}");
    let mut kept: Vec<String> = std::fs::read_dir(&keep)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    kept.sort();
    let expected = [
        "fan-good-1.json",
        "fan-good-2.json",
        "fan-good-3.json",
        "fan-silent-1.json",
        "fan-silent-2.json",
    ];
    assert_eq!(kept, expected);
    let text = std::fs::read_to_string(format!("{keep}/fan-good-2.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["place"]["server"], "good");
    assert_eq!(
        (&report["place"]["round"], &report["label"]),
        (&2.into(), &"commit abc".into())
    );
    assert!(report["latency"]["count"].as_u64() > Some(0) && report["latency_histogram"].is_null());

    let names = ["measured", "numbers", "peers", "further", "not counted"];
    let table = |name| format!("<!-- table {name} -->old<!-- end of table {name} -->");
    let document = suite.path("document.md");
    let text = names.map(table).join("\nbetween\n");
    std::fs::write(&document, format!("before\n{text}\nafter")).unwrap();
    let tables = |document: &str| {
        Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
            .args(["tables", &keep, "--write", document])
            .output()
            .unwrap()
    };
    assert!(tables(&document).status.success());
    let renewed = std::fs::read_to_string(&document).unwrap();
    assert!(renewed.starts_with("before\n") && renewed.ends_with("\nafter"));
    assert!(renewed.matches("\nbetween\n").count() == 4 && !renewed.contains("old"));
    assert!(renewed.contains("- fan, silent, round 2: failed: silent: took no connection"));
    assert!(renewed.contains("| hot room, 18,000 members"), "{renewed}");
    assert!(renewed.contains("**missing**: there was no run") && renewed.contains("commit abc"));

    std::fs::write(&document, "no markers").unwrap();
    assert_eq!(tables(&document).status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&document).unwrap(), "no markers");
}

#[test]
fn only_what_was_asked_for_runs_and_what_it_is_compared_with() {
    let (suite, _) = Suite::new("only", 0.3, &[("one", &[], ""), ("two", &[], "")]);
    let (code, stdout, stderr) = suite.run(&["--only", "two", "--rounds", "1"]);
    assert!(matches!(code, 0 | 3), "{stderr}");
    // What it is compared with, too: a ratio is of one round.
    assert_gone(&stderr, 2);
    assert!(code == 3 || stdout.contains("two / one"), "{stdout}");
    assert_eq!(suite.run(&["--only", "three"]).0, 64);
}

#[test]
fn ctrl_c_ends_all_it_started() {
    let (suite, address) = Suite::new("interrupted", 120.0, &[("one", &[], "")]);
    let mut child = suite.start(&[]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    // The generator's own line: it runs, too.
    while !said.contains("open") {
        said += &(lines.next().expect("it goes on").unwrap() + "\n");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    said.extend(lines.map(|line| line.unwrap() + "\n"));
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_gone(&said, 1);
    TcpListener::bind(address).expect("the port is free again");
}
