//! The guard over the hot paths' instruction counts: what fails, what only warns, what a renewal keeps.

// A program of its own has no tests.
#[path = "../benches/hot_paths/baseline.rs"]
#[expect(
    dead_code,
    reason = "reading, writing and asking for versions are the program's"
)]
mod baseline;

use baseline::{Baseline, Toolchain};
use std::collections::BTreeMap;

fn toolchain(rustc: &str) -> Toolchain {
    Toolchain {
        rustc: rustc.into(),
        ..Toolchain::default()
    }
}

fn counts(counts: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let owned = counts.iter().map(|(name, count)| ((*name).into(), *count));
    owned.collect()
}

fn kept() -> Baseline {
    Baseline {
        toolchain: toolchain("1"),
        instructions: counts(&[("append", 100.0), ("sweep", 200.0)]),
    }
}

#[test]
fn a_rise_of_ten_per_cent_passes_and_more_fails() {
    for (sweep, fails) in [(1.0, false), (200.0, false), (220.0, false), (220.2, true)] {
        let now = counts(&[("append", 100.0), ("sweep", sweep)]);
        let verdict = kept().compare(&toolchain("1"), &now, true);
        assert_eq!(verdict.has_failed(), fails, "{sweep}");
        assert_eq!(verdict.to_string().contains("RISEN"), fails, "{verdict}");
        assert_eq!(verdict.advice().contains("FAILED"), fails, "{verdict}");
    }
}

#[test]
fn a_rise_is_not_made_good_by_a_fall_elsewhere() {
    let now = counts(&[("append", 10.0), ("sweep", 250.0)]);
    let verdict = kept().compare(&toolchain("1"), &now, true);
    assert!(verdict.has_failed());
    assert!(verdict.to_string().contains("fallen"), "{verdict}");
}

#[test]
fn another_toolchain_fails_nothing_and_says_so_loudly() {
    let now = counts(&[("append", 1000.0), ("sweep", 200.0)]);
    let verdict = kept().compare(&toolchain("2"), &now, true);
    assert!(!verdict.has_failed());
    assert!(verdict.advice().contains("NOTHING IS GUARDED"));
    assert!(verdict.to_string().contains("RISEN"), "{verdict}");
}

#[test]
fn what_has_no_count_on_one_side_fails_unless_only_some_were_counted() {
    let more = counts(&[("append", 100.0), ("sweep", 200.0), ("new", 1.0)]);
    assert!(kept().compare(&toolchain("1"), &more, true).has_failed());
    let less = counts(&[("append", 100.0)]);
    assert!(kept().compare(&toolchain("1"), &less, true).has_failed());
    assert!(!kept().compare(&toolchain("1"), &less, false).has_failed());
}

#[test]
fn renewing_some_keeps_the_others_and_never_mixes_toolchains() {
    let some = counts(&[("append", 50.0)]);
    let renewed = kept().renewed(toolchain("1"), some.clone(), false);
    let wanted = counts(&[("append", 50.0), ("sweep", 200.0)]);
    assert_eq!(renewed.expect("the same toolchain").instructions, wanted);
    assert!(kept().renewed(toolchain("2"), some.clone(), false).is_err());
    let all = kept().renewed(toolchain("2"), some.clone(), true);
    let all = all.expect("all are new");
    assert_eq!((all.toolchain, all.instructions), (toolchain("2"), some));
}

#[test]
fn the_committed_baseline_can_be_read_and_is_not_empty() {
    let committed = Baseline::read().expect("a right file");
    assert!(committed.instructions.values().all(|count| *count > 1.0));
    assert!(committed.instructions.len() > 20);
}
