//! What the configuration must know of the machine it will run on.

/// The facts that defaults and checks depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The host's name: the default of `node.name`.
    pub host_name: String,
    /// Cores this process may run on, in order; never empty.
    pub cores: Vec<usize>,
    /// Files this process may have open (RLIMIT_NOFILE, the hard limit: the soft one is raised to it at start).
    pub open_files: u64,
}

impl Machine {
    /// Asks the kernel.
    pub fn observe() -> Machine {
        let cores = rustix::thread::sched_getaffinity(None)
            .map(|set| {
                (0..rustix::thread::CpuSet::MAX_CPU)
                    .filter(|core| set.is_set(*core))
                    .collect()
            })
            .unwrap_or_else(|_| Vec::new());
        Machine {
            host_name: host_name(),
            cores: if cores.is_empty() { vec![0] } else { cores },
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .maximum
                .unwrap_or(u64::MAX),
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" | "(none)" => "ringway".to_owned(),
        name => name.to_owned(),
    }
}

/// Raises the soft limit of open files to the hard one. File tables are sized by the hard limit.
///
/// # Errors
/// The system's, which a process under a seccomp filter may see.
pub fn raise_open_files() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_core_and_some_files() {
        let machine = Machine::observe();
        assert!(
            !machine.cores.is_empty() && machine.open_files > 0 && !machine.host_name.is_empty()
        );
    }
}
