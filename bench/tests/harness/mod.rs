//! Runs the binary and reads what it found.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// `--cores` for two threads, on one core where there is no other.
pub fn two_threads() -> String {
    format!("0,{}", last_core())
}

fn last_core() -> usize {
    std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1)
}

/// Runs the binary with `arguments`, on one core unless they say otherwise; its exit code and what it wrote as JSON.
pub fn bench(arguments: &[&str]) -> (i32, Value) {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    // A few at a time: a generator spins, and they all spin on the same core.
    static TURNS: [Mutex<()>; 3] = [const { Mutex::new(()) }; 3];
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let turn = &TURNS[run as usize % TURNS.len()];
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let json =
        std::env::temp_dir().join(format!("ringway-bench-{}-{run}.json", std::process::id()));
    let core = last_core().to_string();
    let cores: &[&str] = match arguments.contains(&"--cores") {
        true => &[],
        false => &["--cores", &core],
    };
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
        .args(arguments)
        .args(cores)
        .args(["--plain-priority", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("{output:?}"));
    assert_comparable(&json);
    std::fs::remove_file(&json).unwrap();
    (
        output.status.code().unwrap(),
        serde_json::from_str(&text).unwrap(),
    )
}

/// Fails when `compare` does not know of one of the figures which way it is better.
fn assert_comparable(json: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
        .arg("compare")
        .args([json, json])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(!text.contains("is not known"), "{text}");
}

/// The count of a kind of fault.
pub fn fault(report: &Value, name: &str) -> u64 {
    report["faults"][name].as_u64().unwrap()
}

/// A figure's value.
pub fn figure(report: &Value, key: &str) -> f64 {
    let figures = report["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["key"] == key);
    found.unwrap_or_else(|| panic!("no {key}"))["value"]
        .as_f64()
        .unwrap()
}

/// What stands beside a figure.
pub fn note(report: &Value, key: &str) -> String {
    let figures = report["figures"].as_array().unwrap();
    let found = figures.iter().find(|figure| figure["key"] == key);
    let note = &found.unwrap_or_else(|| panic!("no {key}"))["note"];
    note.as_str().unwrap().to_owned()
}

/// The kinds of fault in a report.
pub fn kinds(report: &Value) -> Vec<String> {
    let faults = report["faults"].as_object().unwrap();
    faults
        .iter()
        .filter(|(_, count)| count.as_u64().is_some_and(|n| n > 0))
        .map(|(kind, _)| kind.clone())
        .collect()
}
