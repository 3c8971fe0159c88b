//! How far apart two cores are: the round trip of one cache line between them.
//!
//! On a virtual machine the host decides where two cores lie, and changes its mind. Whether they share a cache decides
//! what every send on loopback costs (3.2 or 4.9 µs where this was found), and this number tells which it is: 61 or
//! 305 ns there, within 10 %, even while other work had the cores.

use std::hint::spin_loop;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::cpu;

/// The figures' names.
pub const BEFORE: &str = "core_round_trip_ns";
pub const AFTER: &str = "core_round_trip_after_ns";

const TURNS_A_BATCH: u64 = 100;
const BATCHES: usize = 1000;
/// With fewer than this the fastest are chance.
const ENOUGH: usize = 50;
/// Other work on a core may make it slow, but not endless.
const PATIENCE: Duration = Duration::from_secs(2);
/// Readings further apart than this are two states of the machine.
const SAME: f64 = 1.3;

/// What the cell holds when nobody waits for it any more.
const OVER: u64 = u64::MAX;

/// On a line of its own, and its neighbour's.
#[repr(align(128))]
struct Line(AtomicU64);

/// Nanoseconds there and back; none when it is one core, or the two were too busy to tell.
///
/// The tenth part of batches that were fastest decides: the others were interrupted.
///
/// # Errors
/// When there is no such core.
pub fn between(near: usize, far: usize) -> io::Result<Option<f64>> {
    if near == far {
        return Ok(None);
    }
    let line = Line(AtomicU64::new(0));
    thread::scope(|scope| {
        let far = scope.spawn(|| {
            let pinned = cpu::pin(&[far]);
            match pinned {
                Ok(()) => answer(&line.0),
                Err(_) => line.0.store(OVER, Ordering::Release),
            }
            pinned
        });
        let near = scope.spawn(|| {
            let pinned = cpu::pin(&[near]);
            let batches = pinned.as_ref().map(|()| ask(&line.0)).unwrap_or_default();
            line.0.store(OVER, Ordering::Release);
            pinned.map(|()| batches)
        });
        let mut batches = near.join().expect("a loop does not panic")?;
        far.join().expect("a loop does not panic")?;
        batches.sort_by(f64::total_cmp);
        Ok((batches.len() >= ENOUGH).then(|| batches[batches.len() / 10]))
    })
}

/// True when readings are of different states of the machine.
pub fn differ(readings: &[f64]) -> bool {
    let low = readings.iter().copied().fold(f64::INFINITY, f64::min);
    readings.iter().any(|&reading| reading > low * SAME)
}

/// Odd numbers are questions, the even ones after them answers.
fn answer(line: &AtomicU64) {
    loop {
        match line.load(Ordering::Acquire) {
            OVER => return,
            // The other side may be over meanwhile: its word stays.
            n if n % 2 == 1 => {
                let _ = line.compare_exchange(n, n + 1, Ordering::AcqRel, Ordering::Acquire);
            }
            _ => spin_loop(),
        }
    }
}

/// Nanoseconds a turn, batch by batch.
fn ask(line: &AtomicU64) -> Vec<f64> {
    let (start, mut batches, mut next) = (Instant::now(), Vec::with_capacity(BATCHES), 1);
    while batches.len() < BATCHES {
        let batch = Instant::now();
        for _ in 0..TURNS_A_BATCH {
            if line.load(Ordering::Acquire) == OVER {
                return batches;
            }
            line.store(next, Ordering::Release);
            let mut spins = 0u32;
            while line.load(Ordering::Acquire) == next {
                spin_loop();
                spins = spins.wrapping_add(1);
                if spins.is_multiple_of(1 << 16) && start.elapsed() > PATIENCE {
                    return batches;
                }
            }
            next += 2;
        }
        batches.push(batch.elapsed().as_nanos() as f64 / TURNS_A_BATCH as f64);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_have_a_distance_and_one_has_none() {
        assert!(between(0, 0).unwrap().is_none());
        assert!(between(0, 100_000).is_err() && between(100_000, 0).is_err());
        if thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            // Two cores with much other work may meet too seldom for one reading.
            let ns = (0..20).find_map(|_| between(0, 1).unwrap());
            let ns = ns.expect("they meet at some time");
            assert!((5.0..100_000.0).contains(&ns), "{ns}");
        }
    }

    #[test]
    fn a_third_more_is_another_state() {
        assert!(!differ(&[61.0, 63.0, 75.0]));
        assert!(differ(&[305.0, 303.0, 61.0]));
        assert!(!differ(&[]));
    }
}
