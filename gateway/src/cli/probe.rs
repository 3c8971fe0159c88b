//! `probe`: what this machine offers a node, in lines for people.

use crate::config::Machine;
use crate::reactor::{ktls, uring};

/// What was found, a line each.
pub(super) fn report(machine: &Machine) -> String {
    let cores: Vec<_> = machine.cores.iter().map(usize::to_string).collect();
    let tls = match ktls::probe() {
        Ok(()) => "available, not used".to_owned(),
        Err(error) => format!("not available: {error}"),
    };
    format!(
        "{}\n{:<26} {tls}\n{:<26} {}\n",
        uring::probe(),
        "kernel TLS",
        "cores",
        cores.join(",")
    )
}
