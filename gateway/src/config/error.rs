//! Why a configuration is refused: one line, the key in dotted form, where it came from, never a secret.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file, at a line (from 1).
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A refused configuration. The operator's fault: the process ends with exit code 64 before anything is bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Not TOML, not JSON or not text at all.
    #[error("{origin}: {problem}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong.
        problem: String,
    },
    /// A key that does not exist.
    #[error("{origin}: {key}: unknown key{hint}")]
    UnknownKey {
        /// The key in dotted form.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// What may have been meant, or empty.
        hint: String,
    },
    /// A key whose value cannot be used.
    #[error("{origin}: {key}: {problem}")]
    Key {
        /// The key in dotted form.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// What was got and what is wanted.
        problem: String,
    },
}
