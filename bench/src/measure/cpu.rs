//! CPU time of the server by its process number, of a thread by its own clock; where this thread runs.

use std::fs;
use std::io;

use rustix::process::{getpid, getsid, setsid};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds all threads of these processes have run: the first number of `/proc/PID/task/*/schedstat`.
///
/// The kernel brings it up to date at ticks and switches, so a reading may be 4 ms old. A thread that ends takes its
/// time out of the sum: differences of two readings must saturate.
///
/// # Errors
/// When a process is gone.
pub fn of_processes(pids: &[u32]) -> io::Result<u64> {
    let mut total = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .map_err(|e| io::Error::new(e.kind(), format!("process {pid}: {e}")))?;
        for task in tasks {
            // A thread that ended in between takes its time with it.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            total += first_number(&text);
        }
    }
    Ok(total)
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Nanoseconds the calling thread has run. The same counter as its schedstat, but up to date.
pub fn of_this_thread() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds the calling thread was ready to run but had no core: somebody else's work.
pub fn wait_of_this_thread() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Keeps the calling thread on these cores.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no core {core}")));
        }
        set.set(core);
    }
    sched_setaffinity(None, &set).map_err(|e| io::Error::other(format!("cores {cores:?}: {e}")))
}

/// Lets the calling thread run on each core its control group allows.
pub fn unpin() -> io::Result<()> {
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Gives this process a session, hence a scheduling group, of its own and raises it: where groups are automatic, a
/// process' nice value counts only within its group. What came of it, in words.
pub fn raise_priority() -> String {
    if setsid().is_err() && getsid(None).ok() != Some(getpid()) {
        return "not raised: start it with `setsid --wait` to give it a scheduling group of its own".to_owned();
    }
    match fs::write("/proc/self/autogroup", "-20") {
        Ok(()) => "autogroup at nice -20".to_owned(),
        Err(e) => format!("not raised: /proc/self/autogroup: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_work_of_a_process() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let pid = [child.id()];
        let before = of_processes(&pid).unwrap();
        let start = std::time::Instant::now();
        while of_processes(&pid).unwrap() < before + 20_000_000 {
            assert!(start.elapsed().as_secs() < 60, "a spinning process runs");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_processes(&pid).is_err());
    }
}
