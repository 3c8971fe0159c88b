//! Each scenario against the server that misbehaves on purpose: what it is for must be noticed there too.

use serde_json::Value;

use crate::harness::{bench, fault, figure, kinds, two_threads};
use crate::server::{Misdeed, Server};

/// Runs a scenario against a server of its own.
fn run(scenario: &str, path: &str, misdeed: Misdeed, more: &[&str]) -> (i32, Value) {
    let server = Server::start(misdeed);
    let target = format!("ws://{}{path}", server.address);
    let pid = std::process::id().to_string();
    bench(&[&[scenario, "--target", &target, "--pid", &pid], more].concat())
}

/// Verified, whatever a busy machine did to the timetable.
fn assert_verified((code, report): (i32, Value)) -> Value {
    assert!([0, 3].contains(&code), "{report}");
    assert_eq!(report["verified"], true, "{report}");
    report
}

const SHORT: [&str; 4] = ["--seconds", "0.5", "--warm-up", "0.1"];

#[test]
fn echo_notices_lost_doubled_and_changed_echoes() {
    let paced = [&["--connections", "5", "--rate", "400"][..], &SHORT].concat();
    let closed = [&["--connections", "5", "--in-flight", "3"][..], &SHORT].concat();
    for load in [&paced, &closed] {
        let load = [&load[..], &["--limit", "--runs", "1", "--run-ms", "10"]].concat();
        let report = assert_verified(run("echo", "/echo", Misdeed::None, &load));
        assert!(figure(&report, "echoes_per_second") > 0.0);
    }
    for (misdeed, expected) in [
        (Misdeed::Lose, vec!["lost"]),
        (Misdeed::Duplicate, vec!["duplicated"]),
        (Misdeed::Corrupt, vec!["corrupted", "lost"]),
    ] {
        let (code, report) = run("echo", "/echo", misdeed, &paced);
        let mut kinds = kinds(&report);
        kinds.sort();
        assert_eq!(
            (code, kinds),
            (2, expected.iter().map(|kind| kind.to_string()).collect())
        );
    }
}

#[test]
fn hot_room_holds_its_rate_or_says_what_was_lost() {
    let load = [&["--members", "6", "--rate", "400"][..], &SHORT].concat();
    let report = assert_verified(run("hot-room", "/", Misdeed::None, &load));
    assert!(figure(&report, "rate_held") > 0.0, "{report}");
    let (code, report) = run("hot-room", "/", Misdeed::Lose, &load);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
}

#[test]
fn hot_room_tells_each_misdeed_by_its_name() {
    let load = [&["--members", "6", "--rate", "400"][..], &SHORT].concat();
    for (misdeed, kind) in [
        (Misdeed::Duplicate, "duplicated"),
        (Misdeed::Reorder, "reordered"),
        (Misdeed::Corrupt, "corrupted"),
        (Misdeed::Refuse, "refused"),
    ] {
        let (code, report) = run("hot-room", "/", misdeed, &load);
        assert_eq!(code, 2);
        assert!(fault(&report, kind) > 0, "{misdeed:?}: {report}");
    }
}

#[test]
fn every_timetable_tells_when_the_generator_could_not_keep_it() {
    // More publications than a generator can write by the timetable.
    let load = ["--rate", "3000000", "--seconds", "0.2", "--warm-up", "0"];
    let members = ["--members", "2"];
    let mix = std::env::temp_dir().join(format!("ringway-bench-fast-{}.toml", std::process::id()));
    let group = "[[group]]\nname = \"a\"\nconnections = 2\nrate = 3000000\n";
    std::fs::write(&mix, group).unwrap();
    let definition = ["--definition", mix.to_str().unwrap()];
    for (scenario, path, flags) in [
        ("hot-room", "/", [&members[..], &load].concat()),
        (
            "echo",
            "/echo",
            [&["--connections", "2"][..], &load].concat(),
        ),
        (
            "slow",
            "/",
            [&members[..], &load, &["--slow", "50"]].concat(),
        ),
        (
            "churn",
            "/",
            [&members[..], &load, &["--comers", "2"]].concat(),
        ),
        ("mixed", "/", [&definition[..], &load[2..]].concat()),
    ] {
        let (_, report) = run(scenario, path, Misdeed::None, &flags);
        let invalid = report["invalid"].to_string();
        assert!(invalid.contains("late"), "{scenario}: {report}");
    }
    std::fs::remove_file(&mix).unwrap();
}

#[test]
fn a_storm_ends_with_everybody_back_and_proves_it() {
    for drop in ["reset", "close"] {
        let load = [
            "--members",
            "30",
            "--rounds",
            "2",
            "--channels",
            "3",
            "--drop",
            drop,
        ];
        let report = assert_verified(run("storm", "/", Misdeed::None, &load));
        assert!(figure(&report, "all_back") > 0.0);
        // A comeback for each member and round.
        assert_eq!(report["latency"]["count"], 60);
    }
    let raw = [
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
    let load = [
        &["--members", "30", "--rounds", "1", "--limit", "--runs", "1"][..],
        &raw,
    ]
    .concat();
    let report = assert_verified(run("storm", "/raw", Misdeed::None, &load));
    assert!(figure(&report, "bare_us_per_connection") > 1.0);
}

#[test]
fn a_storm_with_recovery_notices_what_was_not_recovered() {
    let load = [
        "--members",
        "10",
        "--rounds",
        "2",
        "--recover",
        "16",
        "--jitter",
        "50",
    ];
    let report = assert_verified(run("storm", "/", Misdeed::None, &load));
    assert_eq!(figure(&report, "recovered"), 320.0);
    let (code, report) = run("storm", "/", Misdeed::Forget, &load);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
    let (code, report) = run("storm", "/", Misdeed::Disown, &load);
    assert_eq!((code, fault(&report, "lost")), (2, 320), "{report}");
    assert_eq!(figure(&report, "unrecovered"), 20.0);
}

#[test]
fn the_established_are_owed_everything_through_a_storm() {
    let load = [
        "--members",
        "12",
        "--rounds",
        "2",
        "--recover",
        "16",
        "--established",
        "4",
        "--rate",
        "200",
        "--token-secret",
        "secret",
    ];
    for cores in [None, Some(two_threads())] {
        let mut load = load.to_vec();
        if let Some(cores) = &cores {
            load.extend(["--cores", cores]);
        }
        let report = assert_verified(run("storm", "/", Misdeed::None, &load));
        assert_eq!(figure(&report, "recovered"), 384.0);
        assert_eq!(report["latency"]["count"], 24);
        assert!(figure(&report, "established_p99_calm") > 0.0, "{report}");
        assert!(figure(&report, "established_p99") > 0.0, "{report}");
        for (misdeed, kind) in [(Misdeed::Lose, "lost"), (Misdeed::Forget, "lost")] {
            let (code, report) = run("storm", "/", misdeed, &load);
            assert_eq!((code, kinds(&report)), (2, vec![kind.to_owned()]));
        }
    }
}

#[test]
fn recovery_from_several_offsets_is_counted_and_checked() {
    let load = [
        "--members",
        "12",
        "--missed",
        "24",
        "--offsets",
        "4",
        "--channels",
        "2",
        "--rounds",
        "2",
    ];
    let report = assert_verified(run("recover", "/", Misdeed::None, &load));
    // Three members each miss 24, 18, 12 and 6, twice.
    assert_eq!(figure(&report, "recovered"), 360.0);
    let (code, report) = run("recover", "/", Misdeed::Forget, &load);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));
}

#[test]
fn churn_owes_comers_what_is_published_while_they_are_there() {
    let load = [
        "--members",
        "5",
        "--comers",
        "10",
        "--joins",
        "100",
        "--rate",
        "300",
    ];
    for (kind, encoding) in [
        (None, "json"),
        (None, "protobuf"),
        (Some("--reconnect"), "json"),
    ] {
        let more: Vec<&str> = kind.into_iter().chain(["--encoding", encoding]).collect();
        let load = [&load[..], &SHORT, &more].concat();
        let report = assert_verified(run("churn", "/", Misdeed::None, &load));
        assert!(figure(&report, "joins_per_second") > 0.0, "{report}");
    }
    for (misdeed, kind) in [(Misdeed::Lose, "lost"), (Misdeed::Duplicate, "duplicated")] {
        let (code, report) = run("churn", "/", misdeed, &[&load[..], &SHORT].concat());
        assert_eq!(
            (code, kinds(&report)),
            (2, vec![kind.to_owned()]),
            "{report}"
        );
    }
}

#[test]
fn slow_members_are_owed_nothing_and_healthy_ones_everything() {
    for reads in ["0", "3000"] {
        let load = [
            "--members",
            "10",
            "--slow",
            "20",
            "--reads",
            reads,
            "--rate",
            "200",
        ];
        let load = [&load[..], &SHORT].concat();
        let report = assert_verified(run("slow", "/", Misdeed::None, &load));
        assert_eq!(figure(&report, "healthy_lost"), 0.0);
        let (code, report) = run("slow", "/", Misdeed::Lose, &load);
        assert_eq!(
            (code, kinds(&report)),
            (2, vec!["lost".to_owned()]),
            "{report}"
        );
    }
}

#[test]
fn every_scenario_runs_on_two_threads_and_counts_what_both_did() {
    let cores = two_threads();
    let run = |scenario: &str, path: &str, misdeed: Misdeed, load: &[&str]| {
        run(
            scenario,
            path,
            misdeed,
            &[load, &["--cores", &cores]].concat(),
        )
    };
    let echo = [&["--connections", "5", "--in-flight", "3"][..], &SHORT].concat();
    let report = assert_verified(run("echo", "/echo", Misdeed::None, &echo));
    assert!(figure(&report, "echoes_per_second") > 0.0);
    let (code, report) = run("echo", "/echo", Misdeed::Duplicate, &echo);
    assert_eq!((code, kinds(&report)), (2, vec!["duplicated".to_owned()]));

    let storm = [
        "--members",
        "15",
        "--rounds",
        "2",
        "--recover",
        "16",
        "--channels",
        "2",
    ];
    let report = assert_verified(run("storm", "/", Misdeed::None, &storm));
    assert_eq!(report["latency"]["count"], 30);
    assert_eq!(figure(&report, "recovered"), 480.0);
    let (code, report) = run("storm", "/", Misdeed::Forget, &storm);
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));

    let recover = [
        "--members",
        "12",
        "--missed",
        "24",
        "--offsets",
        "4",
        "--rounds",
        "1",
    ];
    let report = assert_verified(run("recover", "/", Misdeed::None, &recover));
    assert_eq!(figure(&report, "recovered"), 180.0);

    let churn = [
        "--members",
        "5",
        "--comers",
        "9",
        "--joins",
        "100",
        "--rate",
        "300",
    ];
    for more in [&[][..], &["--reconnect"]] {
        let load = [&churn[..], &SHORT, more].concat();
        let report = assert_verified(run("churn", "/", Misdeed::None, &load));
        assert!(figure(&report, "joins_per_second") > 0.0, "{report}");
    }
    let (code, report) = run("churn", "/", Misdeed::Lose, &[&churn[..], &SHORT].concat());
    assert_eq!((code, kinds(&report)), (2, vec!["lost".to_owned()]));

    let slow = [
        "--members",
        "10",
        "--slow",
        "30",
        "--reads",
        "3000",
        "--rate",
        "200",
    ];
    let report = assert_verified(run(
        "slow",
        "/",
        Misdeed::None,
        &[&slow[..], &SHORT].concat(),
    ));
    assert_eq!(figure(&report, "healthy_lost"), 0.0);

    let hot = [&["--members", "7", "--rate", "400"][..], &SHORT].concat();
    let report = assert_verified(run("hot-room", "/", Misdeed::None, &hot));
    assert!(figure(&report, "rate_held") > 0.0, "{report}");

    let idle = ["--connections", "51", "--seconds", "0.3", "--limit"];
    let report = assert_verified(run("idle", "/", Misdeed::None, &idle));
    let seconds = report["series"]["seconds"].as_array().unwrap();
    assert_eq!(seconds.last().unwrap()["connections"], 51);
}

#[test]
fn a_mix_runs_from_a_definition_and_unknown_keys_are_errors() {
    let file = std::env::temp_dir().join(format!("ringway-bench-mix-{}.toml", std::process::id()));
    let groups = "[[group]]\nname = \"room\"\nconnections = 6\nrate = 200\n\
                  [[group]]\nname = \"small\"\nconnections = 8\nchannels = 4\nrate = 200\nreconnects = 50\n\
                  [[group]]\nname = \"slow\"\nconnections = 2\nrate = 50\nreads = 1000\n";
    let path = file.to_str().unwrap().to_owned();
    let load = [&["--definition", &path][..], &SHORT].concat();
    std::fs::write(&file, groups).unwrap();
    let report = assert_verified(run("mixed", "/", Misdeed::None, &load));
    assert!(figure(&report, "p99_of_small") > 0.0 && figure(&report, "reconnects") > 0.0);
    let cores = two_threads();
    let on_two = [&load[..], &["--cores", &cores]].concat();
    let report = assert_verified(run("mixed", "/", Misdeed::None, &on_two));
    assert!(figure(&report, "p99_of_small") > 0.0 && figure(&report, "reconnects") > 0.0);
    let (code, report) = run("mixed", "/", Misdeed::Duplicate, &load);
    assert_eq!(
        (code, kinds(&report)),
        (2, vec!["duplicated".to_owned()]),
        "{report}"
    );
    std::fs::write(&file, format!("{groups}colour = 1\n")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
        .args([
            "mixed",
            "--target",
            "ws://127.0.0.1:1/",
            "--definition",
            &path,
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("colour"));
    std::fs::remove_file(&file).unwrap();
}
