//! Why a reactor cannot be made. Every message says what to do about it.

use std::io;

/// Why a reactor cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// ENOSYS: the kernel was built without io_uring, or is older than 5.1.
    #[error(
        "this kernel has no io_uring: run on Linux 6.8 or newer, or use the epoll reactor (--reactor epoll)"
    )]
    Missing,
    /// EPERM: a seccomp filter or a sysctl refuses io_uring.
    #[error(
        "io_uring is refused here{}: allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of \
         the container, or set kernel.io_uring_disabled=0 (or 1 with this group in kernel.io_uring_group), or use the epoll \
         reactor (--reactor epoll)",
        .disabled.map(|value| format!(" (kernel.io_uring_disabled={value})")).unwrap_or_default()
    )]
    Refused {
        /// The sysctl `kernel.io_uring_disabled`, when it can be read.
        disabled: Option<u32>,
    },
    /// ENOMEM, also after a second of trying: what rings may lock is used up.
    #[error(
        "no memory for an io_uring ring (RLIMIT_MEMLOCK is {}, counted for all processes of the user): set \
         LimitMEMLOCK=infinity in the unit, or run fewer shards",
        .memlock.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"))
    )]
    Memory {
        /// The soft limit, in bytes; `None`: unlimited.
        memlock: Option<u64>,
    },
    /// The kernel has io_uring, but not all that is used here.
    #[error(
        "kernel {release} is too old for the io_uring reactor (6.8 is needed: {lacks}): upgrade it, or use the epoll reactor \
         (--reactor epoll)"
    )]
    TooOld {
        /// What `uname -r` says.
        release: String,
        /// What was found wanting.
        lacks: &'static str,
    },
    /// EMFILE: a file table may not be larger than RLIMIT_NOFILE.
    #[error(
        "a table of {slots} connections is above RLIMIT_NOFILE ({}): raise LimitNOFILE, or use more shards with fewer \
         connections each",
        .nofile.map_or("unlimited".to_owned(), |files| files.to_string())
    )]
    TableTooLarge {
        /// Slots asked for.
        slots: u32,
        /// The soft limit; `None`: unlimited.
        nofile: Option<u64>,
    },
    /// Anything else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ReactorError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// Whether the epoll reactor may work where this one does not.
    pub fn leaves_epoll(&self) -> bool {
        matches!(
            self,
            Self::Missing | Self::Refused { .. } | Self::Memory { .. } | Self::TooOld { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_to_do() {
        for (error, advice) in [
            (ReactorError::Missing, "--reactor epoll"),
            (
                ReactorError::Refused { disabled: Some(2) },
                "kernel.io_uring_disabled=2",
            ),
            (ReactorError::Refused { disabled: None }, "seccomp"),
            (
                ReactorError::Memory {
                    memlock: Some(8 << 20),
                },
                "LimitMEMLOCK=infinity",
            ),
            (
                ReactorError::TooOld {
                    release: "6.1.0".into(),
                    lacks: "x",
                },
                "upgrade",
            ),
            (
                ReactorError::TableTooLarge {
                    slots: 30_000,
                    nofile: Some(20_000),
                },
                "LimitNOFILE",
            ),
        ] {
            let text = error.to_string();
            assert!(text.contains(advice), "{text}");
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}
