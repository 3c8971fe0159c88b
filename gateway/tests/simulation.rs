//! The simulation of one node: seeds that must break no promise, and planted faults that must be found.
//!
//! `RINGWAY_SEEDS=n` runs so many seeds instead of 300, `RINGWAY_FROM=n` begins there, `RINGWAY_SEED=n` replays one,
//! `RINGWAY_TRACE=1` prints what happens. See docs/TESTING.md.

use ringway::testing::faults::{Fault, plant};
use ringway::testing::oracle::Tally;
use ringway::testing::world::{Report, simulate};
use std::sync::mpsc;
use std::time::Duration;

/// A seed takes some ten milliseconds; one that takes this long will not end.
const PATIENCE: Duration = Duration::from_secs(30);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
    )
}

/// Runs seeds, on a thread of their own, until `look` says that it has seen enough.
fn run(
    seeds: std::ops::Range<u64>,
    fault: Option<Fault>,
    mut look: impl FnMut(u64, Result<Report, String>) -> bool,
) {
    let (say, hear) = mpsc::sync_channel(1);
    let trace = number("RINGWAY_TRACE").is_some_and(|on| on > 0);
    let these = seeds.clone();
    std::thread::spawn(move || {
        let _planted = fault.map(plant);
        for seed in these {
            if say.send(simulate(seed, trace)).is_err() {
                return;
            }
        }
    });
    for seed in seeds {
        match hear.recv_timeout(PATIENCE) {
            Ok(result) => {
                if look(seed, result) {
                    return;
                }
            }
            Err(_) => {
                // Its thread cannot be stopped, so this is the last one.
                look(seed, Err("does not end".into()));
                return;
            }
        }
    }
}

fn add(total: &mut Tally, tally: &Tally) {
    total.deliveries += tally.deliveries;
    total.recovered += tally.recovered;
    total.recovered_something += tally.recovered_something;
    total.not_recovered += tally.not_recovered;
    total.unsubscribed_2500 += tally.unsubscribed_2500;
    total.joins_and_leaves += tally.joins_and_leaves;
    total.pings += tally.pings;
    total.skipped += tally.skipped;
    total.histories += tally.histories;
    total.refused += tally.refused;
    total.put_off += tally.put_off;
    total.inflated += tally.inflated;
    total.greeted += tally.greeted;
    total.resumed += tally.resumed;
    total.resumed_elsewhere += tally.resumed_elsewhere;
    total.certificates += tally.certificates;
    total.misunderstood += tally.misunderstood;
    for (code, times) in &tally.closed {
        *total.closed.entry(*code).or_default() += times;
    }
}

#[test]
fn seeds_break_no_promise() {
    let seeds = match number("RINGWAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("RINGWAY_FROM").unwrap_or(0);
            from..from + number("RINGWAY_SEEDS").unwrap_or(300)
        }
    };
    let count = seeds.end - seeds.start;
    let mut total = Tally::default();
    run(seeds, None, |seed, result| {
        match result {
            Ok(report) => add(&mut total, &report.tally),
            Err(what) => {
                panic!("seed {seed}: {what}\nreplay with RINGWAY_SEED={seed} RINGWAY_TRACE=1")
            }
        }
        false
    });
    if count < 100 {
        return;
    }
    // What never happened was not tested.
    let reached = [
        ("deliveries", total.deliveries),
        ("recoveries", total.recovered),
        ("recoveries of something", total.recovered_something),
        ("failed recoveries", total.not_recovered),
        ("2500", total.unsubscribed_2500),
        ("joins and leaves", total.joins_and_leaves),
        ("pings", total.pings),
        ("skipped publications", total.skipped),
        ("histories", total.histories),
        ("refused upgrades", total.refused),
        ("commands put off", total.put_off),
        ("compressed messages", total.inflated),
        ("handshakes of TLS", total.greeted),
        ("resumed sessions", total.resumed),
        ("sessions of another shard", total.resumed_elsewhere),
        ("new certificates", total.certificates),
        ("plain HTTP where TLS is spoken", total.misunderstood),
        ("3001", total.closed.get(&3001).copied().unwrap_or_default()),
        ("3008", total.closed.get(&3008).copied().unwrap_or_default()),
        ("3504", total.closed.get(&3504).copied().unwrap_or_default()),
        ("3012", total.closed.get(&3012).copied().unwrap_or_default()),
    ];
    for (what, times) in reached {
        assert!(times > 0, "{count} seeds saw no {what}: {total:?}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    // Some of them have TLS.
    for seed in 0..20 {
        assert_eq!(simulate(seed, false), simulate(seed, false), "seed {seed}");
    }
}

/// Without the fault the seed is good, with it some seed is not.
fn finds(fault: Fault) {
    let mut found = None;
    run(0..300, Some(fault), |seed, result| {
        found = result.err().map(|what| (seed, what));
        found.is_some()
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("300 seeds did not find {fault:?}"));
    println!("{fault:?}: seed {seed}: {what}");
    let without = simulate(seed, false);
    assert!(
        without.is_ok(),
        "seed {seed} fails without {fault:?} too: {without:?}"
    );
}

#[test]
fn finds_a_generation_that_is_not_checked() {
    finds(Fault::GenerationNotChecked);
}

#[test]
fn finds_the_lost_tail_of_a_short_send() {
    finds(Fault::ShortSendTailLost);
}

#[test]
fn finds_a_cursor_that_is_off_by_one_frame() {
    finds(Fault::CursorOffByOne);
}

#[test]
fn finds_a_moved_member_that_is_skipped() {
    finds(Fault::MovedMemberSkipped);
}

#[test]
fn finds_an_address_whose_connections_are_never_over() {
    finds(Fault::AddressNotLeft);
}

#[test]
fn finds_an_address_with_one_connection_too_many() {
    finds(Fault::AddressLimitOffByOne);
}

#[test]
fn finds_dropped_frames_of_which_nobody_is_told() {
    finds(Fault::MissedNotTold);
}

#[test]
fn finds_a_made_up_address_that_is_believed() {
    finds(Fault::ForwardedByAnybody);
}

#[test]
fn finds_a_user_whose_connections_are_never_over() {
    finds(Fault::UserNotLeft);
}

#[test]
fn finds_a_record_number_that_is_skipped_after_a_short_send() {
    finds(Fault::RecordNumberSkipped);
}

#[test]
fn finds_the_lost_rest_of_a_sealed_record() {
    finds(Fault::SealedRestLost);
}
