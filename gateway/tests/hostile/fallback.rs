//! `--reactor auto` where the kernel refuses a ring: epoll, with the reason; and a process without any privilege.
//!
//! The kernel is made to refuse: system calls by seccomp, locked memory by its limit, its age by a personality.

use crate::client::{Client, place};
use crate::healthy::Healthy;
use crate::node::{Node, free_addresses};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// A kernel of 6.x calls itself 2.6.(60 + x) then.
const OLD_KERNEL: [&str; 3] = ["setarch", "x86_64", "--uname-2.6"];

/// Nobody in particular, who may nothing in particular.
const UNPRIVILEGED: [&str; 7] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
];

/// The log of a process, until it is read.
struct Log(PathBuf);

impl Log {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ringway-{name}-{}", std::process::id())))
    }

    fn of(&self, command: &mut Command) {
        command.env("RINGWAY_LOG__LEVEL", "warn");
        command.stderr(File::create(&self.0).unwrap());
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut file = File::open(&self.0).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A system call and the error that it gets.
type Refusal = (libc::c_long, i32);

/// Makes a system call of a command always fail.
#[allow(unsafe_code)]
fn refuse(command: &mut Command, (call, errno): Refusal) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt| libc::sock_filter { code, jt, jf: 0, k };
    let filter = [
        step(LOAD_NUMBER, 0, 0),
        step(JUMP_IF_EQUAL, call as u32, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0),
    ];
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: plain system calls; the program and its steps outlive them, and the kernel copies them.
        let outcome = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        match outcome {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// It serves, and says why it does so by epoll.
fn assert_falls_back(name: &str, wrapper: &[&str], refusal: Option<Refusal>, reason: &str) {
    let log = Log::new(name);
    let node = Node::start_under(wrapper, "auto", 0, &[], |command| {
        log.of(command);
        if let Some(refusal) = refusal {
            refuse(command, refusal);
        }
    });
    let healthy = Healthy::start(&node);
    Client::connected(place(2), &node, "");
    healthy.stop();
    assert_eq!(node.stop().code(), Some(0));
    let text = log.text();
    assert!(
        text.contains("io_uring cannot be used, so epoll is") && text.contains(reason),
        "{text}"
    );
    // Who insists is told the same, and nothing runs.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$@""#, "sh"]).args(wrapper);
    command.args([
        env!("CARGO_BIN_EXE_ringway"),
        "serve",
        "--dev",
        "--reactor",
        "uring",
    ]);
    let [clients, internal] = free_addresses().map(|address| address.to_string());
    command.args(["--address", &clients, "--internal-address", &internal]);
    command.env("RINGWAY_LOG__LEVEL", "off");
    if let Some(refusal) = refusal {
        refuse(&mut command, refusal);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
}

#[test]
fn without_io_uring() {
    assert_falls_back(
        "missing",
        &[],
        Some((libc::SYS_io_uring_setup, libc::ENOSYS)),
        "this kernel has no io_uring",
    );
}

/// A profile may refuse any of the three.
#[test]
fn where_seccomp_refuses_it() {
    for call in [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_enter,
    ] {
        assert_falls_back(
            "refused",
            &[],
            Some((call, libc::EPERM)),
            "io_uring is refused here",
        );
    }
}

#[test]
fn where_the_kernel_has_no_memory_for_it() {
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register] {
        assert_falls_back(
            "no-memory",
            &[],
            Some((call, libc::ENOMEM)),
            "no memory for an io_uring ring",
        );
    }
}

#[test]
fn on_an_old_kernel() {
    assert_falls_back(
        "old",
        &OLD_KERNEL,
        None,
        "is too old for the io_uring reactor",
    );
}

/// The ring's table is each shard's own, epoll's is shared: a full one has its slots for refusals all the same.
#[test]
fn a_table_that_is_full_after_all() {
    crate::floods::full_table(&OLD_KERNEL, "auto");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn without_memory_that_may_be_locked() {
    let nothing = ["prlimit", "--memlock=0:0"];
    // Root may lock what it likes.
    let wrapper = match is_root() {
        true => [&nothing[..], &UNPRIVILEGED].concat(),
        false => nothing.to_vec(),
    };
    assert_falls_back(
        "memory",
        &wrapper,
        None,
        "no memory for an io_uring ring (RLIMIT_MEMLOCK is 0 bytes",
    );
}

#[test]
fn a_process_without_privileges_has_a_ring_where_it_may() {
    let log = Log::new("unprivileged");
    let wrapper: &[&str] = if is_root() { &UNPRIVILEGED } else { &[] };
    let node = Node::start_under(wrapper, "auto", 0, &[], |command| log.of(command));
    let healthy = Healthy::start(&node);
    healthy.stop();
    assert_eq!(node.stop().code(), Some(0));
    let text = log.text();
    let has_ring = !text.contains("so epoll is");
    assert!(
        has_ring || text.contains("RLIMIT_MEMLOCK") || text.contains("refused here"),
        "{text}"
    );
}
