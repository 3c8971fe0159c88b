//! Publish, park, wake: how a thread sleeps without missing what a peer publishes.
//!
//! Each side writes one thing and then reads the other's, with a sequentially consistent fence between:
//!
//! | publisher | sleeper |
//! | --- | --- |
//! | push the batch | set `parked` |
//! | **fence** | **fence** |
//! | load `parked`; if set, swap it to false and wake | look into the inboxes once more; if empty, wait |
//!
//! One of the two fences comes first. If it is the publisher's, the sleeper's second look finds the batch; else the
//! publisher finds `parked`. Without a fence both may read what was there before, and the thread sleeps on a full inbox.
//! The swap lets one publisher of many write the wake, so a park costs at most one. A wake may come late, after the sleeper
//! found work by itself: then its next wait ends at once, for nothing. A wake never comes too early to count, since the
//! eventfd remembers it.
//!
//! The protocol is generic over its atomic and its wake, so that loom checks this very code (`tests/loom.rs`).

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool, Ordering};

/// The atomic flag of a [`Parking`], and the fence that goes with it.
pub trait Flag {
    /// A flag that is down.
    fn new() -> Self;
    /// Atomic load.
    fn load(&self, order: Ordering) -> bool;
    /// Atomic store.
    fn store(&self, raised: bool, order: Ordering);
    /// Atomic swap.
    fn swap(&self, raised: bool, order: Ordering) -> bool;
    /// Memory fence.
    fn fence(order: Ordering);
}

impl Flag for AtomicBool {
    fn new() -> Self {
        AtomicBool::new(false)
    }
    fn load(&self, order: Ordering) -> bool {
        self.load(order)
    }
    fn store(&self, raised: bool, order: Ordering) {
        self.store(raised, order);
    }
    fn swap(&self, raised: bool, order: Ordering) -> bool {
        self.swap(raised, order)
    }
    fn fence(order: Ordering) {
        atomic::fence(order);
    }
}

/// Ends the wait of a thread. Must be remembered if the thread is not waiting yet.
pub trait Wake {
    /// Wakes.
    fn wake(&self);
}

/// The protocol of this module: one sleeping thread, any number of publishers.
#[derive(Debug)]
pub struct Parking<F, W> {
    parked: F,
    wake: W,
}

impl<F: Flag, W: Wake> Parking<F, W> {
    /// Nobody is parked.
    pub fn new(wake: W) -> Self {
        Self {
            parked: F::new(),
            wake,
        }
    }

    /// Publisher: call after what was published is visible (a release store). Wakes the sleeper if it is parked; true if so.
    pub fn notify(&self) -> bool {
        F::fence(Ordering::SeqCst);
        // The load first: while the sleeper is awake, publishers only read the flag and its line stays shared.
        let woken =
            self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed);
        if woken {
            self.wake.wake();
        }
        woken
    }

    /// Sleeper: announces the wait. Every inbox must be looked into once more after it, and only then may the thread wait.
    pub fn prepare_park(&self) {
        // A swap where a store would do: a publisher's late swap for the last park is ordered before this one by being read
        // here. With a store the same follows only from the atomicity of that swap, which loom does not reason about.
        self.parked.swap(true, Ordering::Acquire);
        F::fence(Ordering::SeqCst);
    }

    /// Sleeper: after the wait, or instead of it.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }
}

/// Wakes one thread, from any other.
#[derive(Clone)]
pub struct Waker(Option<Arc<Parking<AtomicBool, EventFd>>>);

impl Waker {
    /// A waker and the eventfd it writes (non-blocking, close-on-exec). The descriptor goes to whatever the thread waits
    /// with; after each wake it must be read, see [`acknowledge`].
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn eventfd() -> std::io::Result<(Self, OwnedFd)> {
        let written = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let waited = written.try_clone()?;
        Ok((Self(Some(Arc::new(Parking::new(EventFd(written))))), waited))
    }

    /// A waker that does nothing, where nothing sleeps: the simulation.
    pub fn none() -> Self {
        Self(None)
    }

    /// Wakes the thread if it is parked; true if so. What it shall find must have been published before.
    pub fn notify(&self) -> bool {
        self.0.as_ref().is_some_and(|parking| parking.notify())
    }

    /// The sleeping side. One thread uses it: the one that waits on the eventfd.
    pub fn sleeper(&self) -> Sleeper {
        Sleeper(self.0.clone())
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Waker::eventfd"
        } else {
            "Waker::none"
        })
    }
}

/// How a thread announces that it is about to wait.
///
/// ```
/// # use ringway::mailbox::{pair, Waker};
/// # let (waker, fd) = Waker::eventfd().unwrap();
/// # let (_outbox, inbox) = pair::<u32>(64, waker.clone());
/// # let wait = |_patience: std::time::Duration| ();
/// let sleeper = waker.sleeper();
/// sleeper.prepare_park();
/// if inbox.is_empty() {
///     // every inbox, after prepare_park
///     wait(std::time::Duration::from_millis(50));
/// }
/// sleeper.unpark();
/// ```
pub struct Sleeper(Option<Arc<Parking<AtomicBool, EventFd>>>);

impl Sleeper {
    /// Announces the wait. Look into every inbox after it; wait only if all are empty.
    pub fn prepare_park(&self) {
        if let Some(parking) = &self.0 {
            parking.prepare_park();
        }
    }

    /// Ends what [`prepare_park`](Self::prepare_park) began, whether the thread waited or not.
    pub fn unpark(&self) {
        if let Some(parking) = &self.0 {
            parking.unpark();
        }
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleeper")
    }
}

/// Takes the wakes out of a [`Waker::eventfd`] descriptor, so that the next wait waits. Without a wake it does nothing.
pub fn acknowledge(eventfd: impl AsFd) {
    let mut count = [0; 8];
    while rustix::io::read(&eventfd, &mut count) == Err(Errno::INTR) {}
}

struct EventFd(OwnedFd);

impl Wake for EventFd {
    fn wake(&self) {
        // The only other failure is a counter about to overflow (EAGAIN): then the wake stands already.
        while rustix::io::write(&self.0, &1u64.to_ne_bytes()) == Err(Errno::INTR) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wakes(fd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(fd, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(Errno::AGAIN) => 0,
            Err(other) => panic!("eventfd: {other}"),
        }
    }

    #[test]
    fn an_awake_thread_is_not_woken() {
        let (waker, fd) = Waker::eventfd().expect("an eventfd");
        assert!(!waker.notify());
        let sleeper = waker.sleeper();
        sleeper.prepare_park();
        sleeper.unpark();
        assert!(!waker.notify());
        assert_eq!(wakes(&fd), 0);
    }

    #[test]
    fn a_park_costs_one_wake_however_many_publish() {
        let (waker, fd) = Waker::eventfd().expect("an eventfd");
        let other = waker.clone();
        let sleeper = waker.sleeper();
        for _ in 0..3 {
            sleeper.prepare_park();
            assert!(waker.notify());
            assert!(!other.notify());
            assert!(!waker.notify());
            assert_eq!(wakes(&fd), 1);
            sleeper.unpark();
        }
    }

    #[test]
    fn acknowledged_wakes_are_gone() {
        let (waker, fd) = Waker::eventfd().expect("an eventfd");
        acknowledge(&fd);
        waker.sleeper().prepare_park();
        waker.notify();
        acknowledge(&fd);
        assert_eq!(wakes(&fd), 0);
    }

    #[test]
    fn the_silent_waker_does_nothing() {
        let waker = Waker::none();
        let sleeper = waker.sleeper();
        sleeper.prepare_park();
        assert!(!waker.notify());
        sleeper.unpark();
    }
}
