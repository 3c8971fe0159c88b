//! What this machine offers: for `ringway probe` and the start-up log.

use super::selftest::{SelfTest, verdict};
use super::setup::{OPERATIONS, build, with_patience};
use crate::reactor::ReactorError;
use io_uring::{IoUring, Probe as Operations};
use rustix::process::{Resource, getrlimit};
use std::fmt;

/// The oldest kernel whose io_uring does all that is used here: socket options by URING_CMD (6.7), and what direct
/// descriptors need to be as good as plain ones (6.8).
const KERNEL_MIN: (u32, u32) = (6, 8);

/// What was found.
#[derive(Debug)]
pub struct Probe {
    /// `uname -r`.
    pub release: String,
    /// The sysctl `kernel.io_uring_disabled`; `None`: there is none (before 6.6).
    pub io_uring_disabled: Option<u32>,
    /// Soft RLIMIT_NOFILE, which also bounds a ring's file table; `None`: unlimited.
    pub nofile: Option<u64>,
    /// Soft RLIMIT_MEMLOCK, bytes; `None`: unlimited.
    pub memlock: Option<u64>,
    /// `net.core.somaxconn`: the most connections that wait to be accepted.
    pub somaxconn: Option<u32>,
    /// The ring, or why there is none.
    pub ring: Result<RingProbe, ReactorError>,
}

/// What a ring can do.
#[derive(Debug)]
pub struct RingProbe {
    /// The operations used here, and whether the kernel has them.
    pub operations: Vec<(&'static str, bool)>,
    /// The features used here, and whether the kernel has them.
    pub features: Vec<(&'static str, bool)>,
    /// How sends behave.
    pub self_test: SelfTest,
}

/// Looks at this machine. Makes a small ring and, for the self-test, a connection over loopback.
pub fn probe() -> Probe {
    let release = kernel_release();
    let ring = match kernel_lacks(&release) {
        Some(lacks) => Err(ReactorError::TooOld {
            release: release.clone(),
            lacks,
        }),
        None => probe_ring(),
    };
    Probe {
        release,
        io_uring_disabled: disabled_sysctl(),
        nofile: limit(Resource::Nofile),
        memlock: limit(Resource::Memlock),
        somaxconn: number_in("/proc/sys/net/core/somaxconn"),
        ring,
    }
}

fn probe_ring() -> Result<RingProbe, ReactorError> {
    let ring = with_patience(|| build(8, 64, false))?;
    let mut known = Operations::new();
    ring.submitter()
        .register_probe(&mut known)
        .map_err(ReactorError::io("cannot ask for operations"))?;
    Ok(RingProbe {
        operations: OPERATIONS
            .iter()
            .map(|&(name, code)| (name, known.is_supported(code)))
            .collect(),
        features: features(&ring),
        self_test: verdict()?.clone(),
    })
}

fn features(ring: &IoUring) -> Vec<(&'static str, bool)> {
    let params = ring.params();
    vec![
        ("NODROP", params.is_feature_nodrop()),
        ("EXT_ARG", params.is_feature_ext_arg()),
        ("CQE_SKIP", params.is_feature_skip_cqe_on_success()),
        ("FAST_POLL", params.is_feature_fast_poll()),
        ("SUBMIT_STABLE", params.is_feature_submit_stable()),
    ]
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unlimited =
            |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
        let or_none =
            |value: Option<u32>| value.map_or("not there".to_owned(), |value| value.to_string());
        writeln!(f, "kernel                     {}", self.release)?;
        writeln!(
            f,
            "kernel.io_uring_disabled   {}",
            or_none(self.io_uring_disabled)
        )?;
        writeln!(
            f,
            "RLIMIT_NOFILE              {} (also the most slots of a shard)",
            or_unlimited(self.nofile)
        )?;
        writeln!(
            f,
            "RLIMIT_MEMLOCK             {}",
            or_unlimited(self.memlock)
        )?;
        writeln!(f, "net.core.somaxconn         {}", or_none(self.somaxconn))?;
        match &self.ring {
            Ok(ring) => {
                writeln!(f, "io_uring                   available")?;
                writeln!(f, "  operations               {}", List(&ring.operations))?;
                writeln!(f, "  features                 {}", List(&ring.features))?;
                write!(f, "  self-test of sends       {}", ring.self_test)
            }
            Err(error) => write!(f, "io_uring                   not available: {error}"),
        }
    }
}

/// Names, those that lack marked so.
struct List<'a>(&'a [(&'static str, bool)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, is_there)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            let mark = if *is_there { "" } else { "(missing)" };
            write!(f, "{space}{name}{mark}")?;
        }
        Ok(())
    }
}

/// `uname -r`, or an empty string.
pub(super) fn kernel_release() -> String {
    let names = rustix::system::uname();
    names.release().to_string_lossy().into_owned()
}

/// What a kernel of this name lacks; `None`: nothing, or the name says nothing (then the ring will tell).
pub(super) fn kernel_lacks(release: &str) -> Option<&'static str> {
    (kernel_version(release)? < KERNEL_MIN)
        .then_some("socket options and plain descriptors of a ring's files")
}

/// Major and minor version; `None`: the name does not tell.
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The soft limit; `None`: unlimited.
pub(super) fn limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).current
}

/// The sysctl `kernel.io_uring_disabled`.
pub(super) fn disabled_sysctl() -> Option<u32> {
    number_in("/proc/sys/kernel/io_uring_disabled")
}

fn number_in(path: &str) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        for new in ["6.8.0", "6.18.44-cloud", "7.0-rc1", "10.1"] {
            assert_eq!(kernel_lacks(new), None, "{new}");
        }
        for old in ["6.7.12", "6.1.0-25-amd64", "5.15.0", "4.19"] {
            assert!(kernel_lacks(old).is_some(), "{old}");
        }
        for odd in ["", "linux", "6"] {
            assert_eq!(kernel_lacks(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_probe_prints_a_line_for_each_fact() {
        let text = probe().to_string();
        for fact in ["kernel ", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "io_uring  "] {
            assert!(text.contains(fact), "{text}");
        }
        assert!(!text.contains("  \n") && !text.ends_with('\n'), "{text}");
    }
}
