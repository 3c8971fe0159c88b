//! A client that behaves, beside those that do not: it publishes and gets its publication back, all the while.

use crate::client::{Client, place};
use crate::node::{DEADLINE, Node};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A round trip takes no longer, whatever others do.
const ROUND_TRIP: Duration = Duration::from_secs(5);
/// Slow enough for every limit of the scenarios.
const EVERY: Duration = Duration::from_millis(250);

pub struct Healthy {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Healthy {
    pub fn start(node: &Node) -> Self {
        let mut client = Client::connected(place(255), node, "healthy");
        assert_eq!(client.subscribe("healthy"), Ok(()));
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = std::thread::spawn({
            let (stop, rounds) = (stop.clone(), rounds.clone());
            move || {
                let mut slowest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let round = rounds.load(Ordering::Relaxed) + 1;
                    assert_eq!(client.publish("healthy", &round.to_string()), Ok(()));
                    client.until_pushed(round);
                    slowest = slowest.max(start.elapsed());
                    assert!(slowest < ROUND_TRIP, "a round trip took {slowest:?}");
                    rounds.store(round, Ordering::Relaxed);
                    std::thread::sleep(EVERY);
                }
                println!(
                    "{} round trips, {slowest:?} at most",
                    rounds.load(Ordering::Relaxed)
                );
            }
        });
        Self {
            stop,
            rounds,
            thread: Some(thread),
        }
    }

    /// Two round trips more: the last one began after this was asked for.
    pub fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        let start = Instant::now();
        while self.rounds.load(Ordering::Relaxed) < before + 2 {
            let lives = self.thread.as_ref().is_some_and(|it| !it.is_finished());
            assert!(
                lives && start.elapsed() < DEADLINE,
                "the healthy client suffers"
            );
            std::thread::sleep(EVERY / 10);
        }
    }

    /// It has not suffered.
    pub fn stop(mut self) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("the healthy client does not suffer");
    }
}
