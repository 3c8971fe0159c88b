//! Entering the kernel: queueing operations, submitting them, waiting, and taking completions out of the ring.

use super::{Completion, Tag, UringReactor};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, squeue};
use std::io;
use std::time::Duration;

impl UringReactor {
    /// Queues an operation; the next enter submits it.
    ///
    /// # Safety
    /// Memory the entry names must stay valid, and untouched where the kernel writes, until its last completion.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: passed on to the caller.
        while unsafe { self.ring().submission().push(entry) }.is_err() {
            self.submit();
        }
    }

    /// Queues an operation that names no memory.
    pub(super) fn push_plain(&mut self, entry: squeue::Entry) {
        // SAFETY: by the callers in this directory: POLL, RECV from the buffer ring (which lives as long as the ring),
        // CANCEL and CLOSE name no other memory.
        unsafe { self.push(&entry) }
    }

    /// Submits all that is queued, without waiting and without running deferred work, until nothing is left.
    pub(super) fn submit(&mut self) {
        loop {
            let queued = self.ring().submission().len() as u32;
            if queued == 0 {
                return;
            }
            self.stats.enters += 1;
            // SAFETY: no argument is passed; the entries were vouched for when they were pushed.
            let answer = unsafe {
                self.ring()
                    .submitter()
                    .enter::<SubmitArgs>(queued, 0, 0, None)
            };
            match answer.map_err(|error| error.raw_os_error()) {
                // A part only: the kernel ran out of requests. Go on with the rest.
                Ok(_) => {}
                Err(Some(libc::EINTR)) => {}
                // The completion queue has overflowed, or memory is short: make room and try again.
                Err(Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM)) => self.make_room(),
                Err(errno) => {
                    // A SEND left in the queue would outlive its bytes: the queue goes, and with it the reactor.
                    self.abandon();
                    panic!("io_uring_enter cannot submit: errno {errno:?}");
                }
            }
        }
    }

    /// Closes the ring as it stands. The kernel tears it down behind our back: what it may still write to is never freed.
    pub(super) fn abandon(&mut self) {
        drop(self.ring.take());
        self.buffers.leak();
        self.accepts.leak();
    }

    /// Empties the completion queue into the stash and has the kernel refill it from its overflow list.
    pub(super) fn make_room(&mut self) {
        let mut found = std::mem::take(&mut self.stash);
        self.reap(&mut found);
        self.stash = found;
        self.run_deferred();
    }

    /// Runs deferred work and flushes the overflow list, without waiting and without submitting.
    pub(super) fn run_deferred(&mut self) {
        self.stats.enters += 1;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed and nothing is submitted. An error (EINTR) only means that nothing was run.
        let _ = unsafe {
            self.ring()
                .submitter()
                .enter::<SubmitArgs>(0, 0, flags, None)
        };
    }

    /// Submits and waits for one completion, at most `patience`.
    pub(super) fn submit_and_wait(&mut self, patience: Duration) -> io::Result<()> {
        let queued = self.ring().submission().len() as u32;
        self.stats.enters += 1;
        let time = Timespec::from(patience);
        let args = SubmitArgs::new().timespec(&time);
        let (want, flags, args) = match patience.is_zero() {
            true => (0, EnterFlags::GETEVENTS, None),
            false => (1, EnterFlags::GETEVENTS | EnterFlags::EXT_ARG, Some(&args)),
        };
        // SAFETY: `args` and the time it points to live until the call returns.
        let answer = unsafe {
            self.ring()
                .submitter()
                .enter(queued, want, flags.bits(), args)
        };
        match answer.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR)) => {}
            Err(Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM)) => self.make_room(),
            Err(errno) => return Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
        }
        self.submit(); // what was cut off, if anything
        Ok(())
    }

    /// Operations that can be queued before a submit is needed.
    pub(super) fn queue_room(&mut self) -> usize {
        let queue = self.ring().submission();
        queue.capacity() - queue.len()
    }

    /// Whether the kernel has deferred work for this ring, or completions that found no room.
    pub(super) fn is_work_pending(&mut self) -> bool {
        let queue = self.ring().submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Moves what is in the completion queue to `into`.
    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        if self.ring().submission().cq_overflow() {
            self.stats.cq_overflows += 1;
        }
        into.extend(self.ring().completion().map(|entry| Completion {
            tag: Tag::unpack(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }
}
