//! Making a ring: sizes, file table, restrictions, and what to say when the kernel refuses.

use super::accept::{ACCEPTS, Accepts};
use super::buffers::{BUFFER_BYTES, Buffers};
use super::probe::{kernel_lacks, kernel_release, limit};
use super::{SLOT_MAX, SelfTest, Slot, UringReactor, selftest};
use crate::reactor::clock::Clock;
use crate::reactor::{FLUSH_MAX, ReactorError, ReactorStats};
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue};
use rustix::process::Resource;
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What a [`UringReactor`] is made of.
#[derive(Debug)]
pub struct UringSetup {
    /// Where connections come from; `None`: nothing is accepted.
    pub listener: Option<TcpListener>,
    /// Slots of the file table, those kept for refusals included. At most RLIMIT_NOFILE, and at most 2^24.
    pub slots: u32,
    /// Receive buffers of 2 KiB: a power of two, at most 32,768.
    pub buffers: u16,
    /// A nonblocking eventfd. A write to it ends a poll.
    pub wake: OwnedFd,
    /// Have every send complete, as where the self-test fails. For tests of that path.
    pub sends_report: bool,
}

impl UringSetup {
    /// Receive buffers of a shard unless told otherwise: 1,024 × 2 KiB hold a burst of a packet from 1,024 connections.
    pub const BUFFERS: u16 = 1024;

    /// The usual sizes.
    pub fn new(listener: Option<TcpListener>, slots: u32, wake: OwnedFd) -> Self {
        Self {
            listener,
            slots,
            buffers: Self::BUFFERS,
            wake,
            sends_report: false,
        }
    }
}

/// Submission queue entries: a flush, the accepts, and room for what a tick opens and closes. A fuller queue is submitted.
const SUBMISSIONS: u32 = 1024;
const _: () = assert!(SUBMISSIONS as usize >= FLUSH_MAX + ACCEPTS as usize);

/// The kernel's bound on the completion queue.
const COMPLETIONS_MAX: u32 = 65_536;

/// Completion queue entries: each slot's poll once, and all of a full submission queue. An enter that runs deferred work is
/// always followed by a reap, so more is not needed; should it overflow all the same, nothing is lost (NODROP) but time.
fn completions(slots: u32) -> u32 {
    (slots + 2 * SUBMISSIONS)
        .next_power_of_two()
        .min(COMPLETIONS_MAX)
}

/// Rings of a dead process are uncharged late: how long, and how often, to ask for memory again.
const MEMORY_TRIES: u32 = 50;
const MEMORY_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn make(setup: UringSetup) -> Result<UringReactor, ReactorError> {
    let UringSetup {
        listener,
        slots,
        buffers,
        wake,
        sends_report,
    } = setup;
    assert!((1..=SLOT_MAX).contains(&slots), "{slots} slots");
    if let Some(lacks) = kernel_lacks(&kernel_release()) {
        return Err(ReactorError::TooOld {
            release: kernel_release(),
            lacks,
        });
    }
    let is_silent = !sends_report && selftest::verdict()? == &SelfTest::Silent;
    let ring = with_patience(|| build(SUBMISSIONS, completions(slots), true))?;
    if !has_features(&ring) {
        return Err(ReactorError::TooOld {
            release: kernel_release(),
            lacks: "features of the ring",
        });
    }
    let submitter = ring.submitter();
    submitter
        .register_files_sparse(slots)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => ReactorError::TableTooLarge {
                slots,
                nofile: limit(Resource::Nofile),
            },
            _ => refusal("cannot register a file table", error),
        })?;
    let buffers = Buffers::new(buffers, BUFFER_BYTES);
    buffers
        .register(&submitter)
        .map_err(|error| refusal("cannot register a buffer ring", error))?;
    submitter
        .register_restrictions(&mut restrictions())
        .map_err(|error| refusal("cannot restrict the ring to its operations", error))?;
    Ok(UringReactor {
        ring: Some(ring),
        buffers,
        accepts: Accepts::new(listener),
        slots: vec![Slot::FREE; slots as usize],
        in_use: 0,
        readable: VecDeque::with_capacity(1024),
        wake,
        is_wake_armed: false,
        is_started: false,
        clock: Clock::new(),
        stash: Vec::with_capacity(1024),
        reaped: Vec::with_capacity(1024),
        flushes: 0,
        is_silent,
        stats: ReactorStats::default(),
    })
}

/// Makes a ring with the flags of the product. `is_disabled`: it is restricted first and then enabled by its thread.
pub(super) fn build(
    submissions: u32,
    completions: u32,
    is_disabled: bool,
) -> Result<IoUring, ReactorError> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions);
    if is_disabled {
        builder.setup_r_disabled();
    }
    builder
        .build(submissions)
        .map_err(|error| refusal("cannot make a ring", error))
}

/// Retries for a second while memory is what lacks.
pub(super) fn with_patience<T>(
    mut make: impl FnMut() -> Result<T, ReactorError>,
) -> Result<T, ReactorError> {
    for _ in 0..MEMORY_TRIES {
        match make() {
            Err(ReactorError::Memory { .. }) => std::thread::sleep(MEMORY_PAUSE),
            answer => return answer,
        }
    }
    make()
}

/// Names the kernel's refusal.
pub(super) fn refusal(what: &'static str, source: io::Error) -> ReactorError {
    match source.raw_os_error() {
        Some(libc::ENOSYS) => ReactorError::Missing,
        Some(libc::EPERM | libc::EACCES) => ReactorError::Refused {
            disabled: super::probe::disabled_sysctl(),
        },
        Some(libc::ENOMEM) => ReactorError::Memory {
            memlock: limit(Resource::Memlock),
        },
        Some(libc::EINVAL) => ReactorError::TooOld {
            release: kernel_release(),
            lacks: what,
        },
        _ => ReactorError::Io { what, source },
    }
}

pub(super) fn has_features(ring: &IoUring) -> bool {
    let params = ring.params();
    params.is_feature_ext_arg()
        && params.is_feature_nodrop()
        && params.is_feature_skip_cqe_on_success()
}

/// The operations of the product, by name.
pub(super) const OPERATIONS: [(&str, u8); 7] = [
    ("ACCEPT", opcode::Accept::CODE),
    ("POLL_ADD", opcode::PollAdd::CODE),
    ("RECV", opcode::Recv::CODE),
    ("SEND", opcode::Send::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("URING_CMD", opcode::SetSockOpt::CODE),
];

/// The ring takes our operations, our flags, and no registration at all once it is enabled.
fn restrictions() -> Vec<Restriction> {
    let flags =
        squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS;
    let mut all: Vec<_> = OPERATIONS
        .iter()
        .map(|&(_, code)| Restriction::sqe_op(code))
        .collect();
    all.push(Restriction::sqe_flags_allowed(flags.bits()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_memory_is_asked_for_again() {
        let mut tries = 0;
        let answer = with_patience(|| {
            tries += 1;
            if tries < 3 {
                Err(ReactorError::Memory { memlock: Some(1) })
            } else {
                Ok(tries)
            }
        });
        assert_eq!(answer.unwrap(), 3);
    }

    #[test]
    fn a_ring_takes_nothing_but_its_operations() {
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let mut made = match make(UringSetup::new(None, 8, wake)) {
            Err(error) if error.leaves_epoll() => {
                println!("skipped: {error}");
                return;
            }
            made => made.unwrap(),
        };
        let ring = made.ring.as_mut().unwrap();
        ring.submitter().register_enable_rings().unwrap();
        let cancel = || opcode::AsyncCancel::new(u64::MAX).build();
        let path = c"/etc/passwd".as_ptr();
        let open = opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), path).build();
        for (entry, wanted) in [
            (cancel(), -libc::ENOENT),
            (opcode::Nop::new().build(), -libc::EACCES),
            (open, -libc::EACCES),
            (cancel().flags(squeue::Flags::IO_LINK), -libc::EACCES),
        ] {
            // SAFETY: the path that one of them names is static.
            unsafe { ring.submission().push(&entry) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            let result = ring.completion().next().map(|entry| entry.result());
            assert_eq!(result, Some(wanted), "{entry:?}");
        }
        let registered = ring.submitter().register_files_update(0, &[0]);
        let error = registered.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    }

    #[test]
    fn each_refusal_has_its_own_name() {
        let name = |errno| refusal("x", io::Error::from_raw_os_error(errno));
        assert!(matches!(name(libc::ENOSYS), ReactorError::Missing));
        assert!(matches!(name(libc::EPERM), ReactorError::Refused { .. }));
        assert!(matches!(name(libc::ENOMEM), ReactorError::Memory { .. }));
        assert!(matches!(name(libc::EINVAL), ReactorError::TooOld { .. }));
        assert!(matches!(name(libc::EIO), ReactorError::Io { .. }));
    }

    #[test]
    fn the_completion_queue_holds_a_poll_of_each_slot_up_to_the_kernels_bound() {
        assert_eq!(completions(1), 4096);
        assert_eq!(completions(20_000), 32_768);
        assert_eq!(completions(1_000_000), COMPLETIONS_MAX);
    }
}
