//! `probe`: what this machine offers a node, in lines for people.

use crate::config::Machine;
use rustix::process::{Resource, getrlimit};

/// What was found, a line each.
pub(super) fn report(machine: &Machine) -> String {
    let limit = |resource| {
        let limits = getrlimit(resource);
        format!(
            "soft {}, hard {}",
            amount(limits.current),
            amount(limits.maximum)
        )
    };
    let setting = |path: &str| match std::fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("unknown ({error})"),
    };
    [
        ("kernel", setting("/proc/sys/kernel/osrelease")),
        (
            "cores",
            machine
                .cores
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(","),
        ),
        ("open files", limit(Resource::Nofile)),
        ("locked memory, bytes", limit(Resource::Memlock)),
        (
            "io_uring disabled",
            setting("/proc/sys/kernel/io_uring_disabled"),
        ),
        (
            "accept queue (somaxconn)",
            setting("/proc/sys/net/core/somaxconn"),
        ),
    ]
    .map(|(name, value)| format!("{name}: {value}\n"))
    .concat()
}

fn amount(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
}
