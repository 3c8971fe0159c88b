//! Processes of the suite's own: started, watched, ended, and nothing of them left.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};

use super::Halt;
use super::file::ServerPlan;
use super::watch::{Waited, Watch};

/// Between two tries whether a server takes connections.
const TRY_EACH: Duration = Duration::from_millis(50);
const TRY_TIME: Duration = Duration::from_millis(500);
/// For so long a port may still take connections after its server has ended.
const FREE_PATIENCE: Duration = Duration::from_secs(10);

/// A process in a session of its own, which ends with this value.
pub struct Owned {
    pub child: Child,
}

impl Owned {
    /// Starts it. A session of its own keeps the terminal's Ctrl-C from it, for the suite ends it in order, and gives
    /// it a scheduling group of its own. `setsid(1)` becomes the program, so the process number is the program's.
    pub fn start(
        program: &str,
        arguments: &[String],
        configure: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let mut command = Command::new("setsid");
        command.arg("--").arg(program).args(arguments);
        configure(&mut command);
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("setsid: {e}")))?;
        Ok(Self { child })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Already reaped: then its number may be somebody else's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // There is no such group yet when it was started just now; it is never another's.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server.
pub struct Server<'a> {
    plan: &'a ServerPlan,
    process: Owned,
    log: PathBuf,
}

impl<'a> Server<'a> {
    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// When something else has its port, it ends, or it is not ready in time.
    pub fn start(plan: &'a ServerPlan, watch: &Watch, log: PathBuf) -> Result<Self, Halt> {
        // The kernel takes down a ring, and the listener it accepts on, some time after its process is gone.
        let deadline = Instant::now() + FREE_PATIENCE;
        while is_taken(plan) {
            if Instant::now() >= deadline {
                return fail(format!(
                    "{}: something else listens on {}",
                    plan.name, plan.ready
                ));
            }
            watch.check()?;
            std::thread::sleep(TRY_EACH);
        }
        let out = File::create(&log)?;
        let (errors, out) = (out.try_clone()?, out);
        let process = Owned::start(&plan.command[0], &plan.command[1..], |command| {
            command.envs(&plan.environment).stdout(out).stderr(errors);
        })?;
        let mut server = Self { plan, process, log };
        server.wait_until_ready(watch)?;
        // As the generator raises itself; a refusal is no fault.
        let group = format!("/proc/{}/autogroup", server.process.child.id());
        let _ = fs::write(group, "-20");
        eprintln!("{}: up as process {}", plan.name, server.process.child.id());
        Ok(server)
    }

    fn wait_until_ready(&mut self, watch: &Watch) -> Result<(), Halt> {
        let deadline = Instant::now() + Duration::from_secs(self.plan.ready_seconds.into());
        loop {
            let ready = takes_connections(self.plan);
            // Looked at after the port: what answered was not left over by a process that is gone.
            if let Waited::Ended(status) = watch.wait(&mut self.process.child, Some(TRY_EACH))? {
                return fail(format!(
                    "{}: ended at once with {status}{}",
                    self.plan.name,
                    self.last_words()
                ));
            }
            if ready {
                return self.demand_port_is_its_own();
            }
            if Instant::now() >= deadline {
                let Self { plan, .. } = self;
                return fail(format!(
                    "{}: took no connection on {} in {} s{}",
                    plan.name,
                    plan.ready,
                    plan.ready_seconds,
                    self.last_words()
                ));
            }
        }
    }

    /// A port that another process holds too (`SO_REUSEPORT`) would be measured in part. A listener that is in no
    /// process' table, as io_uring has them, is nobody else's.
    fn demand_port_is_its_own(&self) -> Result<(), Halt> {
        let own = family(self.process.child.id())?;
        for inode in listeners(self.plan.ready.port())? {
            let socket = format!("socket:[{inode}]");
            let others = processes()?.into_iter().filter(|pid| !own.contains(pid));
            if let Some(other) = others.into_iter().find(|&pid| holds(pid, &socket)) {
                return fail(format!(
                    "{}: process {other} listens on port {} too",
                    self.plan.name,
                    self.plan.ready.port()
                ));
            }
        }
        Ok(())
    }

    /// It and what it started.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        family(self.process.child.id())
    }

    /// True while the process that was started runs.
    pub fn is_up(&mut self) -> io::Result<bool> {
        Ok(self.process.child.try_wait()?.is_none())
    }

    /// Asks it to end and waits; what it left behind, or had to be killed, comes back in words.
    pub fn stop(mut self, watch: &Watch) -> Result<Vec<String>, Halt> {
        let name = &self.plan.name;
        let mut remarks = Vec::new();
        if !self.is_up()? {
            return fail(format!("{name}: ended during the run{}", self.last_words()));
        }
        kill_process(Pid::from_child(&self.process.child), Signal::TERM)
            .map_err(io::Error::from)?;
        let patience = Duration::from_secs(self.plan.stop_seconds.into());
        if watch.wait(&mut self.process.child, Some(patience))? == Waited::TimeOver {
            remarks.push(format!(
                "{name}: killed, for it did not end in {} s",
                patience.as_secs()
            ));
            kill_process(Pid::from_child(&self.process.child), Signal::KILL)
                .map_err(io::Error::from)?;
            self.process.child.wait()?;
        }
        let left = end_orphans()?;
        if left > 0 {
            remarks.push(format!(
                "{name}: left {left} processes behind, which were killed"
            ));
        }
        Ok(remarks)
    }

    fn last_words(&self) -> String {
        last_lines(&self.log)
    }
}

/// The end of a log, each line after a line break.
pub fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(10)..];
    last.iter().map(|line| format!("\n  {line}")).collect()
}

fn fail<T>(words: String) -> Result<T, Halt> {
    Err(Halt::Failed(words))
}

/// Whether somebody listens where the server will: also one that takes no connections.
fn is_taken(plan: &ServerPlan) -> bool {
    TcpListener::bind(plan.ready).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn takes_connections(plan: &ServerPlan) -> bool {
    TcpStream::connect_timeout(&plan.ready, TRY_TIME).is_ok()
}

/// Kills what has lost its parent and so become the suite's child; how many that were.
///
/// The suite is a subreaper (`prctl(2)`), and when this is called it has no child of its own making.
pub fn end_orphans() -> io::Result<usize> {
    let mut count = 0;
    loop {
        let me = std::process::id();
        let orphans: Vec<u32> = processes()?
            .into_iter()
            .filter(|&pid| parent(pid) == Some(me))
            .collect();
        if orphans.is_empty() {
            return Ok(count);
        }
        for pid in orphans {
            let pid = Pid::from_raw(pid as i32).expect("no process has number 0");
            // It is a child, so its number is its own until the wait.
            kill_process(pid, Signal::KILL).map_err(io::Error::from)?;
            waitpid(Some(pid), WaitOptions::empty()).map_err(io::Error::from)?;
            count += 1;
        }
    }
}

fn processes() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?;
    let pids = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.collect())
}

/// None when it is gone.
fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, a bracket too.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// A process and all that descend from it.
fn family(pid: u32) -> io::Result<Vec<u32>> {
    let all = processes()?;
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let children = all.iter().filter(|&&one| parent(one) == Some(family[at]));
        let children: Vec<u32> = children.copied().collect();
        family.extend(children);
        at += 1;
    }
    Ok(family)
}

/// Inodes of the sockets that listen on a port.
fn listeners(port: u16) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // Without IPv6 the second is missing.
        let Ok(text) = fs::read_to_string(table) else {
            continue;
        };
        inodes.extend(text.lines().skip(1).filter_map(|line| listener(line, port)));
    }
    Ok(inodes)
}

fn listener(line: &str, port: u16) -> Option<u64> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = words.get(1)?.rsplit_once(':')?;
    let listens = words.get(3) == Some(&"0A") && u16::from_str_radix(local, 16) == Ok(port);
    listens.then(|| words.get(9)?.parse().ok()).flatten()
}

fn holds(pid: u32, socket: &str) -> bool {
    // Gone, or somebody else's: either way it cannot be told.
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inodes = listeners(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(inodes.len(), 1);
        let socket = format!("socket:[{}]", inodes[0]);
        assert!(holds(std::process::id(), &socket) && !holds(1, "socket:[0]"));
    }

    #[test]
    fn knows_a_family() {
        let script = ["-c".to_owned(), "sleep 600 & wait".to_owned()];
        let owned = Owned::start("sh", &script, |_| {}).unwrap();
        let pid = owned.child.id();
        let start = Instant::now();
        while family(pid).unwrap().len() < 2 {
            assert!(start.elapsed().as_secs() < 60, "the shell starts its child");
            std::thread::yield_now();
        }
        let members = family(pid).unwrap();
        drop(owned);
        assert_eq!(parent(pid), None, "ended and reaped");
        let running = |pid: &&u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        while members.iter().any(|pid| running(&pid)) {
            assert!(
                start.elapsed().as_secs() < 60,
                "the child ends with its group"
            );
            std::thread::yield_now();
        }
    }
}
