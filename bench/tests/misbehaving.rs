//! The harness against a server that misbehaves on purpose: each misdeed must be noticed, and honesty believed.

mod harness;
mod scenarios;
mod server;

use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use harness::{bench, fault, figure, kinds, note, two_threads};
use serde_json::Value;
use server::{Misdeed, Server};

fn fan_out(misdeed: Misdeed, load: [&str; 2], more: &[&str]) -> (i32, Value) {
    fan_out_at("/connection/websocket", misdeed, load, more)
}

fn fan_out_at(path: &str, misdeed: Misdeed, load: [&str; 2], more: &[&str]) -> (i32, Value) {
    let server = Server::start(misdeed);
    let target = format!("ws://{}{path}", server.address);
    let pid = std::process::id().to_string();
    let mut arguments = vec![
        "fanout",
        "--target",
        &target,
        "--pid",
        &pid,
        "--members",
        "6",
        "--warm-up",
        "0.1",
    ];
    arguments.extend(load);
    arguments.extend(more);
    if !more.contains(&"--seconds") {
        arguments.extend(["--seconds", "0.5"]);
    }
    bench(&arguments)
}

const PACED: [&str; 2] = ["--rate", "400"];

#[test]
fn believes_an_honest_server_in_either_encoding_and_loop() {
    for encoding in ["json", "protobuf"] {
        for load in [PACED, ["--in-flight", "8"]] {
            let more = [
                "--encoding",
                encoding,
                "--channels",
                "3",
                "--publishers",
                "2",
            ];
            let (_, report) = fan_out(Misdeed::None, load, &more);
            assert_eq!(report["verified"], true, "{load:?} {encoding}: {report}");
            assert!(figure(&report, "deliveries_per_second") > 100.0);
            assert!(report["latency"]["count"].as_u64().unwrap() > 50);
        }
    }
}

#[test]
fn two_threads_see_what_one_would_in_a_room_they_share_and_in_rooms_of_their_own() {
    let cores = two_threads();
    for load in [PACED, ["--in-flight", "8"]] {
        for rooms in ["1", "6"] {
            let more = ["--cores", &cores, "--publishers", "2", "--channels", rooms];
            let (_, report) = fan_out(Misdeed::None, load, &more);
            assert_eq!(report["verified"], true, "{load:?} {rooms}: {report}");
            assert_adds_up(&report, if rooms == "1" { 6.0 } else { 1.0 });
            let seconds = report["series"]["seconds"].as_array().unwrap();
            let connections = &seconds.last().unwrap()["connections"];
            assert_eq!(*connections, if rooms == "1" { 7 } else { 8 });
            let note = note(&report, "generator_cpu");
            assert_eq!(note.matches("core ").count(), 2, "{note}");
        }
    }
}

/// Histogram and counters are those of all threads: each publication came to all `members` of its room, and each delivery
/// of the window has its latency.
fn assert_adds_up(report: &Value, members: f64) {
    let seconds = report["series"]["seconds"].as_array().unwrap();
    let sum = |phases: &[&str], name: &str| -> f64 {
        let of =
            |second: &Value| second[name].as_f64().unwrap() * second["seconds"].as_f64().unwrap();
        let seconds = seconds
            .iter()
            .filter(|second| phases.contains(&second["phase"].as_str().unwrap()));
        seconds.map(of).sum()
    };
    let latencies = report["latency"]["count"].as_f64().unwrap();
    let window = sum(&["measure"], "deliveries_per_second");
    assert!(
        latencies > 50.0 && (latencies - window).abs() < 0.5,
        "{report}"
    );
    let all = ["warm-up", "measure", "drain"];
    let owed = members * sum(&all, "publications_per_second");
    assert!(
        (owed - sum(&all, "deliveries_per_second")).abs() < 0.5,
        "{report}"
    );
}

#[test]
fn a_fault_on_the_second_threads_connections_is_found_and_named() {
    let cores = two_threads();
    for (misdeed, kind) in [
        (Misdeed::Lose, "lost"),
        (Misdeed::Duplicate, "duplicated"),
        (Misdeed::Reorder, "reordered"),
        (Misdeed::Corrupt, "corrupted"),
    ] {
        // The first thread has room 0 and the publisher, the second room 1; the publications that the server spoils have odd
        // numbers, so they go to room 1.
        let threads = ["--cores", &cores, "--channels", "2"];
        let (code, report) = fan_out(misdeed, PACED, &threads);
        assert_eq!(code, 2, "{report}");
        assert!(fault(&report, kind) >= 20, "{misdeed:?}: {report}");
        let first = report["faults"]["first"].as_str().unwrap();
        let subscriber = first.split([' ', ':']).nth(1).unwrap();
        let number: usize = subscriber.parse().expect(first);
        assert_eq!(number % 2, 1, "{first}");
    }
}

#[test]
fn a_closed_loop_of_two_threads_that_lost_everything_outstanding_ends_on_both() {
    let cores = two_threads();
    let more = ["--seconds", "60", "--cores", &cores];
    let (code, report) = fan_out(Misdeed::Lose, ["--in-flight", "2"], &more);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
    assert!(report["invalid"][0].as_str().unwrap().contains("stopped"));
    let seconds = report["series"]["seconds"].as_array().unwrap();
    assert!(seconds.last().unwrap()["end"].as_f64().unwrap() < 30.0);
}

#[test]
#[ignore = "the server of another test, until its input ends"]
fn serves_alone() {
    let server = Server::start(Misdeed::None);
    println!("\nserver at {}", server.address);
    assert_eq!(std::io::stdin().read_to_end(&mut Vec::new()).unwrap(), 0);
}

/// An honest server in a process of its own, what it prints, and its address. In this one the threads of other tests end meanwhile and take
/// their CPU time out of the sum.
fn server_alone() -> (Child, Lines<BufReader<ChildStdout>>, String) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "serves_alone"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| Some(line.unwrap().strip_prefix("server at ")?.to_owned()));
    (server, lines, address.unwrap())
}

#[test]
fn the_bare_loop_also_sends_frames_as_long_as_the_servers_were() {
    let (mut server, lines, address) = server_alone();
    let target = format!("ws://{address}/connection/websocket");
    let pid = server.id().to_string();
    let served = [
        "fanout",
        "--target",
        &target,
        "--pid",
        &pid,
        "--members",
        "6",
        "--in-flight",
        "4",
        "--warm-up",
        "0.1",
        "--seconds",
        "0.5",
    ];
    let bare = ["--size", "100", "--limit", "--runs", "1", "--run-ms", "20"];
    let (_, report) = bench(&[&served[..], &bare].concat());
    drop(server.stdin.take());
    assert!(lines.last().unwrap().is_ok());
    assert!(server.wait().unwrap().success());
    assert!(figure(&report, "limit_uring_as_served_ns") > 10.0);
    assert!(figure(&report, "ratio_to_uring_as_served") > 0.0);
    let note = note(&report, "limit_uring_as_served_ns");
    let bytes: Vec<usize> = note
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    // Frames, and their bytes: the data, and the channel's name and the offset in JSON.
    assert_eq!((bytes.len(), bytes[0]), (2, 4), "{note}");
    assert!((120..250).contains(&bytes[1]), "{note}");
}

#[test]
fn everybody_rests_before_anything_is_published() {
    let (_, report) = fan_out(Misdeed::None, PACED, &[]);
    let seconds = report["series"]["seconds"].as_array().unwrap();
    let before = seconds
        .iter()
        .position(|second| second["phase"] == "warm-up");
    let of = |name: &str| -> f64 {
        let settle = seconds[..before.unwrap()]
            .iter()
            .filter(|second| second["phase"] == "settle");
        settle.map(|second| second[name].as_f64().unwrap()).sum()
    };
    assert!(of("seconds") >= 0.3, "{report}");
    assert_eq!(of("publications_per_second"), 0.0);
}

/// The fixture's own protocol.
const RAW: [&str; 10] = [
    "--protocol",
    "raw",
    "--hello",
    "join {channel}",
    "--replies",
    "1",
    "--publish",
    "pub {id} {channel} {data}",
    "--match",
    ": {data};",
];

#[test]
fn measures_a_server_with_a_protocol_of_its_own() {
    for load in [PACED, ["--in-flight", "8"]] {
        let (_, report) = fan_out_at("/raw", Misdeed::None, load, &RAW);
        assert_eq!(report["verified"], true, "{load:?}: {report}");
        assert!(figure(&report, "deliveries_per_second") > 100.0);
    }
    for (misdeed, kind) in [
        (Misdeed::Lose, "lost"),
        (Misdeed::Duplicate, "duplicated"),
        (Misdeed::Reorder, "reordered"),
        (Misdeed::Corrupt, "corrupted"),
    ] {
        let (code, report) = fan_out_at("/raw", misdeed, PACED, &RAW);
        assert_eq!(code, 2, "{report}");
        assert!(fault(&report, kind) >= 20, "{misdeed:?}: {report}");
    }
    // Without its marker a message is a foreign one: passed over, counted, and missed.
    let (code, report) = fan_out_at("/raw", Misdeed::Deface, PACED, &RAW);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
    assert!(report["remarks"].to_string().contains("did not match"));
}

#[test]
fn a_ping_beside_a_publication_is_answered_and_no_fault() {
    for encoding in ["json", "protobuf"] {
        let server = Server::start(Misdeed::Ping);
        let target = format!("ws://{}/", server.address);
        let pid = std::process::id().to_string();
        let arguments = [
            "fanout",
            "--target",
            &target,
            "--pid",
            &pid,
            "--members",
            "3",
            "--rate",
            "400",
            "--seconds",
            "0.5",
        ];
        let (_, report) = bench(&[&arguments[..], &["--encoding", encoding]].concat());
        assert_eq!(report["verified"], true, "{report}");
        assert!(server.pongs() > 20, "{} pongs", server.pongs());
    }
}

#[test]
fn notices_losses() {
    let (code, report) = fan_out(Misdeed::Lose, PACED, &[]);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
    // One subscriber lost each eighth of about 240 publications.
    assert!(fault(&report, "lost") >= 20, "{report}");
}

#[test]
fn a_closed_loop_that_lost_everything_outstanding_ends_and_says_so() {
    let (code, report) = fan_out(Misdeed::Lose, ["--in-flight", "2"], &["--seconds", "10"]);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
    assert!(report["invalid"][0].as_str().unwrap().contains("stopped"));
}

#[test]
fn notices_duplicates() {
    let (code, report) = fan_out(Misdeed::Duplicate, PACED, &[]);
    assert_eq!((code, kinds(&report)), (2, vec!["duplicated".to_owned()]));
}

#[test]
fn notices_reordering() {
    let (code, report) = fan_out(Misdeed::Reorder, PACED, &["--encoding", "protobuf"]);
    assert_eq!(code, 2);
    assert!(fault(&report, "reordered") > 20, "{report}");
    // The last one may be held back for ever.
    assert!(fault(&report, "lost") <= 1, "{report}");
    assert_eq!(
        fault(&report, "duplicated") + fault(&report, "corrupted"),
        0
    );
}

#[test]
fn notices_corrupted_bodies_and_markers() {
    for misdeed in [Misdeed::Corrupt, Misdeed::Deface] {
        for encoding in ["json", "protobuf"] {
            let (code, report) = fan_out(misdeed, PACED, &["--encoding", encoding]);
            assert_eq!(code, 2);
            assert!(
                fault(&report, "corrupted") > 20,
                "{misdeed:?} {encoding}: {report}"
            );
            assert_eq!(
                fault(&report, "lost"),
                fault(&report, "corrupted"),
                "a corrupted one did not arrive"
            );
        }
    }
}

#[test]
fn notices_deliveries_into_the_wrong_channel() {
    let (code, report) = fan_out(Misdeed::Misroute, PACED, &["--channels", "2"]);
    assert_eq!((code, kinds(&report)), (2, vec!["misrouted".to_owned()]));
}

#[test]
fn notices_refusals_and_hangups() {
    let (code, report) = fan_out(Misdeed::Refuse, PACED, &[]);
    assert_eq!(code, 2);
    assert!(
        fault(&report, "refused") > 20
            && report["faults"]["first"].as_str().unwrap().contains("103")
    );

    let (code, report) = fan_out(Misdeed::Hangup, PACED, &[]);
    assert!(code == 2 && fault(&report, "closed") >= 1, "{report}");
}

#[test]
fn tells_when_its_own_sends_were_late() {
    // More publications than a generator on a busy debug build can write by the timetable.
    let (_, report) = fan_out(Misdeed::None, ["--rate", "3000000"], &["--seconds", "0.3"]);
    let invalid = report["invalid"].to_string();
    assert!(invalid.contains("late"), "{report}");
}

#[test]
fn idle_tells_memory_and_answers_pings_later() {
    let server = Server::start(Misdeed::None);
    let target = format!("ws://{}/", server.address);
    let pid = std::process::id().to_string();
    let arguments = [
        "idle",
        "--target",
        &target,
        "--pid",
        &pid,
        "--connections",
        "50",
        "--seconds",
        "0.2",
        "--limit",
    ];
    let (_, report) = bench(&arguments);
    assert_eq!(report["verified"], true, "{report}");
    assert!(
        figure(&report, "slab_both_ends").is_finite()
            && figure(&report, "server_pss_per_connection").is_finite()
    );
    assert_eq!(figure(&report, "pings_per_connection"), 0.0);
}

#[test]
fn the_bare_loops_run() {
    let arguments = [
        "limit",
        "--members",
        "30",
        "--in-flight",
        "4",
        "--runs",
        "1",
        "--run-ms",
        "20",
    ];
    let (code, report) = bench(&arguments);
    assert_eq!(code, 0);
    for key in ["send_ns", "uring_ns", "send_many_ns", "uring_many_ns"] {
        assert!(figure(&report, key) > 100.0, "{key}");
    }
}

#[test]
fn a_wrong_command_line_is_64_and_a_missing_server_is_1() {
    let code = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
            .args(arguments)
            .output()
            .unwrap();
        output.status.code().unwrap()
    };
    assert_eq!(code(&["fanout"]), 64);
    let common = ["fanout", "--pid", "1", "--plain-priority", "--cores", "0"];
    let with = |more: &[&str]| code(&[&common[..], more].concat());
    assert_eq!(with(&["--target", "http://x/", "--in-flight", "1"]), 64);
    assert_eq!(
        with(&[
            "--target",
            "ws://127.0.0.1:1/",
            "--in-flight",
            "1",
            "--size",
            "20"
        ]),
        64
    );
    assert_eq!(
        with(&["--target", "ws://127.0.0.1:1/", "--in-flight", "1"]),
        1
    );
    // It measures one thread, and each of several has a connection.
    assert_eq!(code(&["limit", "--cores", "0,0", "--plain-priority"]), 64);
    let few = ["--in-flight", "1", "--members", "1", "--cores", "0"];
    let target = ["--target", "ws://127.0.0.1:1/"];
    assert_eq!(with(&[&target[..], &few].concat()), 64);
    // Raw protocols know no recovery: nothing would ever answer.
    let raw = ["--target", "ws://127.0.0.1:1/", "--protocol", "raw"];
    for scenario in [&["storm", "--recover", "1"][..], &["recover"]] {
        assert_eq!(code(&[scenario, &raw].concat()), 64, "{scenario:?}");
    }
}
