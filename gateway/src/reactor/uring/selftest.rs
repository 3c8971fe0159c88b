//! Proves on the running kernel what [`flush`](crate::reactor::Reactor::flush) rests on: that a send which went out whole
//! completes silently, that a cut one says how much it took before the submit returns, and that nothing comes later.

use super::send::SEND_FLAGS;
use super::setup::{build, refusal, with_patience};
use crate::reactor::ReactorError;
use crate::reactor::listener::NOTSENT_LOWAT;
use io_uring::types::{Fixed, SubmitArgs};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use std::fmt;
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

/// What the self-test found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// Sends are over when the submit returns, and full ones say nothing.
    Silent,
    /// They are not, or it could not be proved: every send completes and is waited for.
    Reports {
        /// What was not as expected.
        why: String,
    },
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str(
                "passed: a send is over when the submit returns, silent when it went whole",
            ),
            Self::Reports { why } => {
                write!(f, "failed ({why}): every send completes and is waited for")
            }
        }
    }
}

static VERDICT: OnceLock<SelfTest> = OnceLock::new();

/// The verdict on this kernel, tested once a process.
///
/// # Errors
/// When no ring can be made.
pub fn verdict() -> Result<&'static SelfTest, ReactorError> {
    if let Some(verdict) = VERDICT.get() {
        return Ok(verdict);
    }
    let verdict = run()?;
    Ok(VERDICT.get_or_init(|| verdict))
}

fn run() -> Result<SelfTest, ReactorError> {
    let ring = with_patience(|| build(8, 64, false))?;
    // Who may make a ring may not enter it where a seccomp filter says so, and then no trial tells anything.
    ring.submitter()
        .submit()
        .map_err(|error| refusal("cannot enter a ring", error))?;
    Ok(match Trial::new(ring).and_then(Trial::run) {
        Ok(()) => SelfTest::Silent,
        Err(why) => SelfTest::Reports { why },
    })
}

/// A pair of sockets, one end in the file table of a ring, the other read only at the end.
struct Trial {
    ring: IoUring,
    reader: TcpStream,
    _writer: TcpStream,
}

/// One send: larger than what a peer that does not read makes the kernel take.
const PAYLOAD: usize = 256 << 10;
/// A socket that takes more than this many payloads is not what we think it is.
const SENDS_MAX: usize = 256;

impl Trial {
    fn new(ring: IoUring) -> Result<Self, String> {
        let (writer, reader) = pair().map_err(|error| format!("no pair of sockets: {error}"))?;
        let files = ring.submitter().register_files(&[writer.as_raw_fd()]);
        files.map_err(|error| format!("no file table: {error}"))?;
        Ok(Self {
            ring,
            reader,
            _writer: writer,
        })
    }

    fn run(mut self) -> Result<(), String> {
        let payload = vec![b'r'; PAYLOAD];
        if let Some(result) = self.send(&payload[..64])? {
            return Err(format!("a full send completed with {result}"));
        }
        let mut sent = 64;
        let mut was_cut = false;
        for _ in 0..SENDS_MAX {
            match self.send(&payload)? {
                None => sent += PAYLOAD,
                Some(taken) if taken > 0 && (taken as usize) < PAYLOAD => {
                    was_cut = true;
                    sent += taken as usize;
                }
                Some(error) if error == -libc::EAGAIN && was_cut => {
                    self.expect_silence()?;
                    return self.expect_bytes(sent);
                }
                Some(other) => return Err(format!("a send completed with {other}")),
            }
        }
        Err("a socket that nobody reads never filled up".to_owned())
    }

    /// Sends, submits without waiting, and returns what completed: at most one.
    fn send(&mut self, bytes: &[u8]) -> Result<Option<i32>, String> {
        let entry = opcode::Send::new(Fixed(0), bytes.as_ptr(), bytes.len() as u32)
            .flags(SEND_FLAGS)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the payload outlives the trial, and the ring with it: should the kernel keep the send (which is what
        // this test is to find out), it does so with bytes that are only freed after the ring in `run`.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| "the queue is full".to_owned())?;
        // SAFETY: no argument is passed.
        let submitted = unsafe { self.ring.submitter().enter::<SubmitArgs>(1, 0, 0, None) };
        if submitted.map_err(|error| format!("submit: {error}"))? != 1 {
            return Err("a send was not submitted".to_owned());
        }
        let mut found = self.ring.completion();
        let first = found.next().map(|entry| entry.result());
        if found.next().is_some() {
            return Err("a send completed twice".to_owned());
        }
        Ok(first)
    }

    /// Runs all the kernel may still have for the ring: no completion may come of it.
    fn expect_silence(&mut self) -> Result<(), String> {
        // SAFETY: no argument is passed and nothing is submitted.
        let answer = unsafe {
            self.ring
                .submitter()
                .enter::<SubmitArgs>(0, 0, EnterFlags::GETEVENTS.bits(), None)
        };
        answer.map_err(|error| format!("enter: {error}"))?;
        match self.ring.completion().next() {
            None => Ok(()),
            Some(late) => Err(format!("a late completion with {}", late.result())),
        }
    }

    /// The peer must find exactly the bytes that were reported as taken.
    fn expect_bytes(&mut self, sent: usize) -> Result<(), String> {
        let mut buffer = vec![0; 64 << 10];
        let mut received = 0;
        while received < sent {
            match self.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => received += bytes,
                Err(error) => {
                    return Err(format!(
                        "the peer found {received} of {sent} bytes: {error}"
                    ));
                }
            }
        }
        self.expect_silence()?;
        self.reader
            .set_nonblocking(true)
            .map_err(|error| error.to_string())?;
        match self.reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && received == sent => Ok(()),
            more => Err(format!(
                "the peer found {received} of {sent} bytes, then {more:?}"
            )),
        }
    }
}

/// A connection over loopback, set as the product's are.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let reader = TcpStream::connect(listener.local_addr()?)?;
    let (writer, _) = listener.accept()?;
    let socket = socket2::SockRef::from(&writer);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    reader.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok((writer, reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_is_silent_about_full_sends() {
        match verdict() {
            Ok(verdict) => assert_eq!(verdict, &SelfTest::Silent, "{verdict}"),
            Err(error) => assert!(error.leaves_epoll(), "{error}"),
        }
    }
}
