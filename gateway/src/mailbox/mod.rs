//! Batches between threads: what one thread hands another in a tick, owned by one of them at a time, never shared.
//!
//! [`pair`] makes one direction between two threads: a ring of batch pointers one way and a ring of empty batches back, so
//! that the steady state allocates nothing. An [`Outbox`] is appended to freely and published once a slice; an [`Inbox`] is
//! drained before anything else is done. Between two threads the order is FIFO; across pairs there is none.
//!
//! # Invariants
//! * Nothing here waits. There is no blocking send: what does not fit stays with the sender, in order, and the sender reads
//!   from [`Outbox::behind`] and [`Outbox::backlog_bytes`] that it must take in less. So two shards that are both full
//!   cannot deadlock.
//! * A batch is reached by one thread at a time; a message's bytes stand in the batch that carries it.
//! * A publish is never missed by a thread that parks as [`Sleeper`] says; a park costs its peers at most one wake.
//!
//! Taking from an inbox does not wake the sender. A thread that is [`behind`](Outbox::behind) therefore waits at most
//! [`BEHIND_PATIENCE`] before it publishes again: being behind means that the peer is some sixty ticks late, so this costs
//! nothing that matters, and the return path needs no second wake protocol.

mod batch;
mod park;

pub use batch::Batch;
pub use park::{Flag, Parking, Sleeper, Wake, Waker, acknowledge};

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a thread with an outbox that is behind may wait before it publishes again.
pub const BEHIND_PATIENCE: Duration = Duration::from_millis(1);

/// A staged batch that could not be handed over and has this many bytes is closed and another one begun, so that a peer
/// that is behind later receives many batches of a bounded size, not one of 64 MiB.
const SEAL_BYTES: usize = 256 * 1024;

/// After so many publishes the spare batches that were not needed since the last time are freed.
const SPARES_WINDOW: u32 = 1024;

/// Makes one direction of a mailbox with room for `capacity` batches under way (64 is usual, 1 works). `waker` wakes the
/// thread that holds the inbox.
///
/// # Panics
/// If `capacity` is 0.
pub fn pair<M>(capacity: usize, waker: Waker) -> (Outbox<M>, Inbox<M>) {
    assert!(capacity > 0, "a mailbox holds at least one batch");
    let (full_in, full_out) = RingBuffer::new(capacity);
    // One more than can be under way, for the batch in the receiver's hands.
    let (empty_in, empty_out) = RingBuffer::new(capacity + 1);
    let outbox = Outbox {
        full: full_in,
        empty: empty_out,
        waker,
        staged: Box::default(),
        sealed: VecDeque::new(),
        sealed_bytes: 0,
        behind: false,
        stuck: false,
        spares: Vec::with_capacity(capacity + 1),
        spares_least: 0,
        publishes: 0,
    };
    (
        outbox,
        Inbox {
            full: full_out,
            empty: empty_in,
        },
    )
}

/// The sending end.
#[derive(Debug)]
pub struct Outbox<M> {
    full: Producer<Box<Batch<M>>>,
    empty: Consumer<Box<Batch<M>>>,
    waker: Waker,
    staged: Box<Batch<M>>,
    /// Older than `staged`, waiting for room; empty unless the peer is behind.
    sealed: VecDeque<Box<Batch<M>>>,
    sealed_bytes: usize,
    behind: bool,
    stuck: bool,
    /// Empty batches that came back. Last in, first out: a burst's other batches are left alone, and freed in time.
    #[expect(clippy::vec_box, reason = "what the rings carry is the box")]
    spares: Vec<Box<Batch<M>>>,
    /// The fewest spares since the window began.
    spares_least: usize,
    publishes: u32,
}

impl<M> Outbox<M> {
    /// The staged batch, to append to. Never blocks. A message and its bytes go into it between two publishes.
    pub fn batch(&mut self) -> &mut Batch<M> {
        &mut self.staged
    }

    /// Hands over what is staged, as far as the ring has room, and wakes the peer if it is parked. True when nothing is
    /// left staged.
    pub fn publish(&mut self) -> bool {
        let mut handed_over = false;
        while let Some(batch) = self.sealed.pop_front() {
            let size = batch.size();
            match self.full.push(batch) {
                Ok(()) => {
                    self.sealed_bytes -= size;
                    handed_over = true;
                }
                Err(PushError::Full(batch)) => {
                    self.sealed.push_front(batch);
                    break;
                }
            }
        }
        if !self.staged.is_empty() {
            // With sealed batches left the ring is full, or was a moment ago: order comes first.
            if self.sealed.is_empty() && !self.full.is_full() {
                let batch = self.take_staged();
                handed_over |= self.full.push(batch).is_ok();
            } else if self.staged.size() >= SEAL_BYTES {
                let batch = self.take_staged();
                self.sealed_bytes += batch.size();
                self.sealed.push_back(batch);
            }
        }
        if handed_over {
            self.waker.notify();
        }
        self.free_unneeded_spares();
        self.behind = !(self.sealed.is_empty() && self.staged.is_empty());
        self.stuck = self.behind && !handed_over;
        !self.behind
    }

    /// Whether the last publish could not hand everything over.
    pub fn behind(&self) -> bool {
        self.behind
    }

    /// Whether the last publish could hand nothing over, though something is staged. How long this has been so is for the
    /// caller, who has the clock, to measure.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Bytes staged, messages themselves included, while [`behind`](Self::behind); else 0.
    pub fn backlog_bytes(&self) -> usize {
        if self.behind { self.staged_bytes() } else { 0 }
    }

    /// Bytes staged, messages themselves included: also those that only wait for the next publish.
    pub fn staged_bytes(&self) -> usize {
        self.sealed_bytes + self.staged.size()
    }

    fn take_staged(&mut self) -> Box<Batch<M>> {
        while self.spares.len() < self.spares.capacity()
            && let Ok(batch) = self.empty.pop()
        {
            self.spares.push(batch);
        }
        let next = self.spares.pop().unwrap_or_default();
        self.spares_least = self.spares_least.min(self.spares.len());
        std::mem::replace(&mut self.staged, next)
    }

    fn free_unneeded_spares(&mut self) {
        self.publishes += 1;
        if self.publishes == SPARES_WINDOW {
            self.publishes = 0;
            self.spares.drain(..self.spares_least);
            self.spares_least = self.spares.len();
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Inbox<M> {
    full: Consumer<Box<Batch<M>>>,
    empty: Producer<Box<Batch<M>>>,
}

impl<M> Inbox<M> {
    /// The oldest batch that was handed over. Never blocks. Give it back with [`recycle`](Self::recycle).
    pub fn take(&mut self) -> Option<Box<Batch<M>>> {
        self.full.pop().ok()
    }

    /// Empties a batch and sends it home. If it finds no room it is freed.
    pub fn recycle(&mut self, mut batch: Box<Batch<M>>) {
        batch.recycle();
        // Full only if more batches come back than this pair has under way: then one less is no loss.
        let _ = self.empty.push(batch);
    }

    /// Whether there is nothing to take right now. This is the look a thread takes between
    /// [`Sleeper::prepare_park`] and waiting.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::AsFd;

    fn say(outbox: &mut Outbox<u64>, message: u64) {
        outbox.batch().messages.push(message);
    }

    fn hear(inbox: &mut Inbox<u64>) -> Vec<u64> {
        let mut heard = Vec::new();
        while let Some(batch) = inbox.take() {
            heard.extend_from_slice(&batch.messages);
            inbox.recycle(batch);
        }
        heard
    }

    #[test]
    fn hands_batches_over_in_order() {
        let (mut outbox, mut inbox) = pair(4, Waker::none());
        assert!(inbox.is_empty());
        for round in 0..3 {
            say(&mut outbox, 2 * round);
            say(&mut outbox, 2 * round + 1);
            assert!(outbox.publish());
        }
        assert!(!inbox.is_empty());
        assert_eq!(hear(&mut inbox), [0, 1, 2, 3, 4, 5]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn an_empty_batch_is_not_published() {
        let (mut outbox, inbox) = pair::<u64>(1, Waker::none());
        assert!(outbox.publish());
        assert!(inbox.is_empty());
        assert!(!outbox.behind());
    }

    #[test]
    fn a_full_ring_keeps_the_rest_staged_and_says_so() {
        let (mut outbox, mut inbox) = pair(1, Waker::none());
        say(&mut outbox, 1);
        assert!(outbox.publish());
        assert_eq!(outbox.backlog_bytes(), 0);
        say(&mut outbox, 2);
        assert_eq!(
            outbox.backlog_bytes(),
            0,
            "not known to be behind before the next publish"
        );
        assert!(!outbox.publish());
        assert!(outbox.behind() && outbox.is_stuck());
        assert_eq!(outbox.backlog_bytes(), 8);
        outbox.batch().push_bytes(b"more");
        assert_eq!(outbox.backlog_bytes(), 12);
        say(&mut outbox, 3);
        assert!(!outbox.publish());

        assert_eq!(hear(&mut inbox), [1]);
        assert!(outbox.publish());
        assert!(!outbox.behind());
        assert_eq!(outbox.backlog_bytes(), 0);
        assert_eq!(hear(&mut inbox), [2, 3]);
    }

    #[test]
    fn a_large_backlog_is_cut_into_batches_of_bounded_size() {
        let (mut outbox, mut inbox) = pair(1, Waker::none());
        let body = vec![7u8; 10_000];
        for message in 0..200 {
            outbox.batch().push_bytes(&body);
            say(&mut outbox, message);
            outbox.publish();
        }
        assert!(outbox.backlog_bytes() > 199 * 10_000);
        let mut heard = Vec::new();
        while heard.len() < 200 {
            let batch = inbox.take().expect("publish refilled the ring");
            assert!(batch.bytes.len() < SEAL_BYTES + 2 * body.len());
            assert_eq!(batch.bytes.len(), batch.messages.len() * body.len());
            heard.extend_from_slice(&batch.messages);
            inbox.recycle(batch);
            outbox.publish();
        }
        assert!(heard.iter().copied().eq(0..200));
        assert!(!outbox.behind());
        assert_eq!(outbox.sealed_bytes, 0);
    }

    #[test]
    fn the_steady_state_reuses_its_batches() {
        let (mut outbox, mut inbox) = pair(4, Waker::none());
        let mut seen = std::collections::HashSet::new();
        for message in 0..10_000 {
            say(&mut outbox, message);
            outbox.batch().push_bytes(&[1; 100]);
            assert!(outbox.publish());
            let batch = inbox.take().expect("published");
            seen.insert(std::ptr::from_ref(&*batch) as usize);
            inbox.recycle(batch);
        }
        assert!(seen.len() <= 3, "{} batches", seen.len());
    }

    #[test]
    fn the_spares_of_a_burst_are_freed_in_time() {
        let (mut outbox, mut inbox) = pair(32, Waker::none());
        for message in 0..32 {
            say(&mut outbox, message);
            assert!(outbox.publish());
        }
        assert_eq!(hear(&mut inbox).len(), 32);
        for message in 0..3 * u64::from(SPARES_WINDOW) {
            say(&mut outbox, message);
            assert!(outbox.publish());
            hear(&mut inbox);
        }
        assert!(outbox.spares.len() <= 2, "{} spares", outbox.spares.len());
    }

    #[test]
    fn both_full_both_ways_goes_on_without_waiting() {
        // The classic deadlock: each has more to say than the other's ring takes. Nobody waits, so draining first suffices.
        let (mut a_out, mut b_in) = pair(1, Waker::none());
        let (mut b_out, mut a_in) = pair(1, Waker::none());
        let (mut a_heard, mut b_heard) = (Vec::new(), Vec::new());
        for message in 0..100 {
            a_heard.extend(hear(&mut a_in));
            say(&mut a_out, message);
            a_out.publish();
            say(&mut b_out, message);
            b_out.publish();
            if message % 3 == 0 {
                b_heard.extend(hear(&mut b_in));
            }
        }
        for _ in 0..100 {
            a_heard.extend(hear(&mut a_in));
            b_heard.extend(hear(&mut b_in));
            a_out.publish();
            b_out.publish();
        }
        assert!(a_heard.iter().copied().eq(0..100));
        assert!(b_heard.iter().copied().eq(0..100));
    }

    /// Waits for a wake; a wake that does not come within a generous time is a lost one.
    fn wait(fd: &impl AsFd) {
        let limit = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        let ready = loop {
            match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.expect("poll works"),
            }
        };
        assert_eq!(ready, 1, "a wake was lost");
        acknowledge(fd);
    }

    /// Two threads throw one token back and forth, both parked most of the time, with room for one batch: a lost wake
    /// stops the game, and `wait` says so.
    #[test]
    fn two_threads_never_lose_a_wake() {
        const ROUNDS: u64 = 20_000;
        let (left_waker, left_fd) = Waker::eventfd().expect("an eventfd");
        let (right_waker, right_fd) = Waker::eventfd().expect("an eventfd");
        let (mut to_right, mut from_left) = pair::<u64>(1, right_waker.clone());
        let (mut to_left, mut from_right) = pair::<u64>(1, left_waker.clone());

        fn next(inbox: &mut Inbox<u64>, sleeper: &Sleeper, fd: &impl AsFd) -> Box<Batch<u64>> {
            loop {
                if let Some(batch) = inbox.take() {
                    return batch;
                }
                sleeper.prepare_park();
                if inbox.is_empty() {
                    wait(fd);
                }
                sleeper.unpark();
            }
        }

        std::thread::scope(|threads| {
            threads.spawn(|| {
                let sleeper = right_waker.sleeper();
                for round in 0..ROUNDS {
                    let batch = next(&mut from_left, &sleeper, &right_fd);
                    assert_eq!(batch.messages, [round]);
                    from_left.recycle(batch);
                    say(&mut to_left, round);
                    assert!(to_left.publish());
                }
            });
            let sleeper = left_waker.sleeper();
            for round in 0..ROUNDS {
                say(&mut to_right, round);
                assert!(to_right.publish());
                let batch = next(&mut from_right, &sleeper, &left_fd);
                assert_eq!(batch.messages, [round]);
                from_right.recycle(batch);
            }
        });
    }

    /// One thread says as much as it can through a ring of one, the other parks whenever it finds nothing.
    #[test]
    fn a_flood_through_a_ring_of_one_arrives_whole_and_in_order() {
        const MESSAGES: u64 = 200_000;
        let (waker, fd) = Waker::eventfd().expect("an eventfd");
        let (mut outbox, mut inbox) = pair::<(u64, u32, u32)>(1, waker.clone());
        std::thread::scope(|threads| {
            threads.spawn(move || {
                for message in 0..MESSAGES {
                    let batch = outbox.batch();
                    let (start, len) = batch.push_bytes(&message.to_le_bytes());
                    batch.messages.push((message, start, len));
                    outbox.publish();
                }
                while !outbox.publish() {
                    std::thread::yield_now();
                }
            });
            let sleeper = waker.sleeper();
            let mut expected = 0;
            while expected < MESSAGES {
                let Some(batch) = inbox.take() else {
                    sleeper.prepare_park();
                    if inbox.is_empty() {
                        wait(&fd);
                    }
                    sleeper.unpark();
                    continue;
                };
                for &(message, start, len) in &batch.messages {
                    assert_eq!(message, expected);
                    assert_eq!(
                        batch.bytes[start as usize..(start + len) as usize],
                        message.to_le_bytes()
                    );
                    expected += 1;
                }
                inbox.recycle(batch);
            }
        });
    }
}
