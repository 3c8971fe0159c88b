//! The threads of a run: one a core, each with rings, source addresses and a share of the connections of its own.
//!
//! All of them run the same scenario on their shares. Where it goes from one part to the next they meet, and go on
//! receiving meanwhile. They tell each other what is published: a thread that has members in a channel hears of each
//! publication before the server does, so nothing can arrive that is not known to be owed; and in a closed loop it says when
//! the last of its members has one, so that what is counted a delivery never leaves a thread. Everything else is added up
//! when the run is over.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::client::share::Share;
use crate::measure::cpu;
use crate::measure::recorder::Recorder;

/// The most threads: each has a second byte of 127.0.0.0/8.
pub const MOST: usize = 128;

/// One thread's part in a run.
pub(crate) struct Worker {
    pub(crate) share: Share,
    pub(crate) core: usize,
    /// Where the run's clock begins.
    pub(crate) epoch: Instant,
    pub(crate) mailbox: Mailbox,
    pub(crate) barrier: Barrier,
    pub(crate) recorder: Recorder,
}

/// Runs `work` on a thread for each of `cores`; what came of it, in their order. The first of them leads: it reads the
/// server's counters for all.
///
/// # Errors
/// That of the thread that failed first; the others end when they next meet.
pub(crate) fn run<T: Send>(
    cores: &[usize],
    pids: &[u32],
    work: impl Fn(Worker) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    let (epoch, meeting) = (Instant::now(), Arc::new(Meeting::of(cores.len())));
    let (peers, inboxes): (Vec<_>, Vec<_>) = cores.iter().map(|_| channel()).unzip();
    let recorders = Recorder::start(pids, cores.len())?;
    let failure = Mutex::new(None);
    let parts: Vec<Option<T>> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, (inbox, recorder)) in inboxes.into_iter().zip(recorders).enumerate() {
            let worker = Worker {
                share: Share::new(number, cores.len()),
                core: cores[number],
                epoch,
                mailbox: Mailbox {
                    inbox,
                    peers: peers.clone(),
                },
                barrier: Barrier {
                    meeting: Arc::clone(&meeting),
                    number,
                    met: 0,
                },
                recorder,
            };
            let (work, failure, meeting) = (&work, &failure, &meeting);
            threads.push(scope.spawn(move || {
                let _alarm = Alarm(meeting);
                match cpu::pin(&[worker.core]).and_then(|()| work(worker)) {
                    Ok(part) => Some(part),
                    Err(e) => {
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        failure.get_or_insert(e);
                        meeting.failed.store(true, Ordering::Release);
                        None
                    }
                }
            }));
        }
        let parts = threads.into_iter().map(|thread| thread.join());
        parts.map(|part| part.expect("no panic")).collect()
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(parts.into_iter().flatten().collect()),
    }
}

/// Nobody waits for a thread that has panicked.
struct Alarm<'a>(&'a Meeting);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
    }
}

/// What one thread tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The next publication into this channel is about to leave.
    Published(usize),
    /// The sender's members all have it. To the thread that published it.
    Complete { channel: usize, sequence: u32 },
}

/// What the others have to tell, and the way to them.
pub(crate) struct Mailbox {
    inbox: Receiver<Notice>,
    /// By number, this thread among them.
    peers: Vec<Sender<Notice>>,
}

impl Mailbox {
    /// Tells thread `number`.
    pub(crate) fn tell(&self, number: usize, notice: Notice) {
        // Refused only by a thread that has failed, which ends the run.
        let _ = self.peers[number].send(notice);
    }

    /// The next notice, if there is one.
    pub(crate) fn take(&self) -> Option<Notice> {
        if self.peers.len() == 1 {
            return None;
        }
        // Not disconnected: one of the senders is its own.
        self.inbox.try_recv().ok()
    }
}

/// On a line of its own, and its neighbour's: only one thread writes it.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

struct Meeting {
    /// How often a thread has arrived.
    arrived: AtomicU64,
    /// The meeting before which everybody was asked to stop.
    stopped: AtomicU64,
    failed: AtomicBool,
    /// When each thread last had a delivery, by the run's clock.
    deliveries: Vec<Line>,
}

impl Meeting {
    fn of(threads: usize) -> Self {
        Self {
            arrived: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            deliveries: (0..threads).map(|_| Line::default()).collect(),
        }
    }
}

/// Where all threads meet, none of them asleep, and what they must know of each other in between.
pub(crate) struct Barrier {
    meeting: Arc<Meeting>,
    number: usize,
    /// How often this thread has arrived.
    met: u64,
}

impl Barrier {
    /// This thread is here; then ask `all_are_here` until they are.
    pub(crate) fn arrive(&mut self) {
        self.met += 1;
        self.meeting.arrived.fetch_add(1, Ordering::AcqRel);
    }

    /// True when everybody has arrived as often as this thread.
    ///
    /// # Errors
    /// When one has failed, and never will.
    pub(crate) fn all_are_here(&self) -> io::Result<bool> {
        let threads = self.meeting.deliveries.len() as u64;
        if self.meeting.arrived.load(Ordering::Acquire) >= self.met * threads {
            return Ok(true);
        }
        self.check().map(|()| false)
    }

    /// This thread has had a delivery at this time.
    pub(crate) fn delivered(&self, now_ns: u64) {
        let line = &self.meeting.deliveries[self.number];
        line.0.store(now_ns, Ordering::Relaxed);
    }

    /// When any thread last had one.
    pub(crate) fn last_delivery_ns(&self) -> u64 {
        let lines = self.meeting.deliveries.iter();
        let times = lines.map(|line| line.0.load(Ordering::Relaxed));
        times.max().unwrap_or(0)
    }

    /// Asks everybody to go to the next meeting at once.
    pub(crate) fn stop(&self) {
        self.meeting.stopped.store(self.met + 1, Ordering::Release);
    }

    /// True when somebody asked for that.
    ///
    /// # Errors
    /// As `all_are_here`.
    pub(crate) fn is_stopped(&self) -> io::Result<bool> {
        self.check()?;
        Ok(self.meeting.stopped.load(Ordering::Relaxed) == self.met + 1)
    }

    /// # Errors
    /// When a thread has failed.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.meeting.failed.load(Ordering::Relaxed) {
            true => Err(io::Error::other("another thread has failed")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many threads as a test needs, wherever there is a core.
    fn cores(count: usize) -> Vec<usize> {
        vec![0; count]
    }

    fn meet(worker: &mut Worker) -> io::Result<()> {
        worker.barrier.arrive();
        while !worker.barrier.all_are_here()? {
            thread::yield_now();
        }
        Ok(())
    }

    #[test]
    fn what_one_tells_before_a_meeting_all_know_after_it() {
        let heard = run(&cores(3), &[], |mut worker| {
            let mut heard = Vec::new();
            for round in 0..50 {
                if round % 3 == worker.share.number() {
                    for number in 0..3 {
                        worker.mailbox.tell(number, Notice::Published(round));
                    }
                }
                meet(&mut worker)?;
                while let Some(notice) = worker.mailbox.take() {
                    heard.push(notice);
                }
                meet(&mut worker)?;
            }
            Ok(heard)
        });
        let all: Vec<Notice> = (0..50).map(Notice::Published).collect();
        assert_eq!(heard.unwrap(), vec![all; 3]);
    }

    #[test]
    fn the_first_failure_is_told_and_nobody_waits_for_who_failed() {
        let failed = run(&cores(3), &[], |mut worker| {
            if worker.share.number() == 1 {
                return Err(io::Error::other("no server"));
            }
            meet(&mut worker)
        });
        assert_eq!(failed.unwrap_err().to_string(), "no server");
        assert!(run(&[usize::MAX], &[], |_| Ok(())).is_err());
    }

    #[test]
    fn a_stop_lasts_until_the_next_meeting() {
        let stops = run(&cores(2), &[], |mut worker| {
            if worker.share.number() == 1 {
                worker.barrier.stop();
            }
            while !worker.barrier.is_stopped()? {
                thread::yield_now();
            }
            meet(&mut worker)?;
            worker.barrier.is_stopped()
        });
        assert_eq!(stops.unwrap(), [false, false]);
    }
}
