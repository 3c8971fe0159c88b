//! Every fuzz target over its committed seeds, `fuzz/seeds/TARGET/`, and over some inputs near them.
//!
//! `RINGWAY_FUZZ_ROUNDS=n` tries so many of these for each target, `RINGWAY_SEED=n` others, `RINGWAY_FUZZ_TARGET=name` one
//! target alone. An input that fails is left in `CARGO_TARGET_TMPDIR`, and belongs among the seeds.

use ringway::testing::faults::{Fault, plant};
use ringway::testing::fuzz::{TARGETS, Target, connection, hub};
use ringway::testing::rng::Rng;
use std::panic::{catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The seeds of a target.
fn seeds(name: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut files: Vec<_> = std::fs::read_dir(directory.join(name))
        .unwrap_or_else(|error| panic!("the seeds of {name}: {error}"))
        .map(|entry| entry.expect("a directory that can be read").path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{name} has {} seeds", files.len());
    files
}

/// The chosen targets, each with its seeds.
fn targets() -> Vec<(Target, Vec<PathBuf>)> {
    let chosen = std::env::var("RINGWAY_FUZZ_TARGET").ok();
    let targets = TARGETS
        .into_iter()
        .filter(|(name, _)| chosen.as_ref().is_none_or(|chosen| chosen == name));
    targets.map(|target| (target, seeds(target.0))).collect()
}

#[test]
fn every_target_holds_for_its_seeds() {
    for ((_, run), files) in targets() {
        for file in files {
            let bytes = std::fs::read(&file).expect("a seed");
            if let Err(panic) = catch_unwind(|| run(&bytes)) {
                eprintln!("the seed is {}", file.display());
                resume_unwind(panic);
            }
        }
    }
}

#[test]
fn every_target_holds_for_what_is_near_its_seeds() {
    for ((name, run), files) in targets() {
        let mut rng = Rng::new(number("RINGWAY_SEED", 1));
        let seeds: Vec<Vec<u8>> = files
            .iter()
            .map(|file| std::fs::read(file).expect("a seed"))
            .collect();
        for _ in 0..number("RINGWAY_FUZZ_ROUNDS", 200) {
            let mut bytes = rng.pick(&seeds).clone();
            for _ in 0..rng.range(1, 4) {
                change(&mut rng, &seeds, &mut bytes);
            }
            if let Err(panic) = catch_unwind(|| run(&bytes)) {
                let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
                std::fs::write(&left, &bytes).expect("it can be written");
                eprintln!("the input is left in {}", left.display());
                resume_unwind(panic);
            }
        }
    }
}

/// That a target holds says something only when it does not hold for a node with a mistake.
#[test]
fn seeds_find_planted_faults() {
    let connection: Target = ("connection", connection::run);
    let hub: Target = ("hub", hub::run);
    for ((name, run), fault) in [
        (connection, Fault::ShortSendTailLost),
        (connection, Fault::CursorOffByOne),
        (hub, Fault::UserNotLeft),
    ] {
        let _planted = plant(fault);
        let is_found = seeds(name).iter().any(|file| {
            let bytes = std::fs::read(file).expect("a seed");
            catch_unwind(|| run(&bytes)).is_err()
        });
        assert!(is_found, "{name} does not find {fault:?}");
    }
}

/// Flips a bit, sets, inserts, drops or repeats bytes, or goes on as another seed does.
fn change(rng: &mut Rng, seeds: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = rng.index(bytes.len() + 1);
    let end = (at + rng.magnitude(1, 16) as usize).min(bytes.len());
    match rng.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
        2 => bytes.insert(at, rng.next_u64() as u8),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            let other = rng.pick(seeds);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.index(other.len() + 1)..]);
        }
    }
}
