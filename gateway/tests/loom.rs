//! The wake protocol of the mailbox under loom: every interleaving and every reordering the memory model allows.
//!
//! Method: the production code ([`Parking`]) runs on loom's atomics. The ring is stood in for by one atomic word, released
//! by the publisher and acquired by the sleeper, as the ring's own index is; the eventfd by a counter under a mutex with a
//! condition variable. A lost wake leaves the sleeper waiting for ever, which loom reports as a deadlock. Two mutants,
//! each without one of the protocol's parts, show that loom would find that: the check can fail.
//!
//! Loom's types are used without its `cfg`: under `--cfg loom` Tokio has no sockets, and nothing else here would build.

use loom::sync::atomic::{self, AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use ringway::mailbox::{Flag, Parking, Wake};

/// loom's flag and loom's fence; with `FENCED` false, no fence.
struct Model<const FENCED: bool>(AtomicBool);

impl<const FENCED: bool> Flag for Model<FENCED> {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }
    fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }
    fn store(&self, raised: bool, order: Ordering) {
        self.0.store(raised, order);
    }
    fn swap(&self, raised: bool, order: Ordering) -> bool {
        self.0.swap(raised, order)
    }
    fn fence(order: Ordering) {
        if FENCED {
            atomic::fence(order);
        }
    }
}

/// An eventfd: remembers wakes until they are read.
#[derive(Default)]
struct Bell {
    rung: Mutex<u32>,
    heard: Condvar,
}

impl Wake for &'static Bell {
    fn wake(&self) {
        *self.rung.lock().unwrap() += 1;
        self.heard.notify_one();
    }
}

impl Bell {
    fn wait(&self) -> u32 {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.heard.wait(rung).unwrap();
        }
        std::mem::take(&mut *rung)
    }
}

struct World<const FENCED: bool> {
    parking: Parking<Model<FENCED>, &'static Bell>,
    bell: &'static Bell,
    /// One word a publisher, standing in for its ring: how many batches were pushed.
    rings: Vec<AtomicUsize>,
}

impl<const FENCED: bool> World<FENCED> {
    /// Leaked: loom's objects must not be dropped while loom reports a deadlock.
    fn new(publishers: usize) -> &'static Self {
        let bell: &'static Bell = Box::leak(Box::default());
        let rings = (0..publishers).map(|_| AtomicUsize::new(0)).collect();
        Box::leak(Box::new(Self {
            parking: Parking::new(bell),
            bell,
            rings,
        }))
    }

    /// Pushes a batch and notifies; 1 if that was a wake.
    fn publish(&self, publisher: usize, batches: usize) -> u32 {
        self.rings[publisher].store(batches, Ordering::Release);
        u32::from(self.parking.notify())
    }

    fn arrived(&self) -> usize {
        self.rings
            .iter()
            .map(|ring| ring.load(Ordering::Acquire))
            .sum()
    }

    /// Sleeps until `expected` batches were seen; parks and wakes used.
    fn drain(&self, expected: usize, look_again: bool) -> (u32, u32) {
        let (mut seen, mut parks, mut wakes) = (self.arrived(), 0, 0);
        while seen < expected {
            self.parking.prepare_park();
            parks += 1;
            let again = if look_again { self.arrived() } else { seen };
            if again == seen {
                wakes += self.bell.wait();
            }
            self.parking.unpark();
            seen = self.arrived();
        }
        (parks, wakes)
    }
}

/// `publishers` threads publish `batches` each, the main one sleeps until all were seen.
fn check<const FENCED: bool>(publishers: usize, batches: usize, look_again: bool) {
    let mut model = loom::model::Builder::new();
    // One publisher and one batch are searched without a bound, the larger worlds up to this many preemptions.
    model.preemption_bound = (publishers * batches > 1).then_some(3);
    model.check(move || {
        let world = World::<FENCED>::new(publishers);
        let threads: Vec<_> = (0..publishers)
            .map(|publisher| {
                thread::spawn(move || {
                    (1..=batches)
                        .map(|batch| world.publish(publisher, batch))
                        .sum::<u32>()
                })
            })
            .collect();
        let (parks, heard) = world.drain(publishers * batches, look_again);
        let rung: u32 = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert!(rung <= parks, "{rung} wakes for {parks} parks");
        assert!(heard <= rung);
    });
}

#[test]
fn no_wake_is_lost() {
    check::<true>(1, 1, true);
}

#[test]
fn no_wake_is_lost_when_parking_again() {
    check::<true>(1, 2, true);
}

#[test]
fn no_wake_is_lost_and_none_doubled_with_two_publishers() {
    check::<true>(2, 1, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fences_a_wake_is_lost() {
    check::<false>(1, 1, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_second_look_a_wake_is_lost() {
    check::<true>(1, 1, false);
}
