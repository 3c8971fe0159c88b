//! `probe`: what this machine offers a node, in lines for people.

use crate::config::Machine;
use crate::reactor::uring;

/// What was found, a line each.
pub(super) fn report(machine: &Machine) -> String {
    let cores: Vec<_> = machine.cores.iter().map(usize::to_string).collect();
    format!("{}\n{:<26} {}\n", uring::probe(), "cores", cores.join(","))
}
