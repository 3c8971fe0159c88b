//! Waiting for a process, a moment or Ctrl-C, whichever is first.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Halt;

/// How a wait ended when nobody interrupted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Ended(ExitStatus),
    TimeOver,
}

/// Hears SIGINT, SIGTERM and SIGHUP instead of dying of them.
pub struct Watch {
    signals: UnixStream,
}

impl Watch {
    /// Begins to hear.
    pub fn new() -> io::Result<Self> {
        let (signals, written) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, written.try_clone()?)?;
        }
        Ok(Self { signals })
    }

    /// Waits for `child` to end, for at most `limit`.
    ///
    /// # Errors
    /// `Halt::Interrupted` when a signal came, now or before.
    pub fn wait(&self, child: &mut Child, limit: Option<Duration>) -> Result<Waited, Halt> {
        // Until it is reaped below its number is its own.
        let process = pidfd(child)?;
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Waited::Ended(status));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Waited::TimeOver);
            }
            let timeout = left.map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
            fds.extend(process.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => self.check()?,
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    /// # Errors
    /// `Halt::Interrupted` when a signal came since the last look.
    pub fn check(&self) -> Result<(), Halt> {
        match (&self.signals).read(&mut [0; 16]) {
            Ok(_) => Err(Halt::Interrupted),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// None when it has been reaped already.
fn pidfd(child: &mut Child) -> io::Result<Option<OwnedFd>> {
    if child.try_wait()?.is_some() {
        return Ok(None);
    }
    let pid = Pid::from_child(child);
    Ok(Some(pidfd_open(pid, PidfdFlags::empty())?))
}
