//! `[nats]`: as typed, and what links nodes as checked.

use super::raw::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// `[nats]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct RawNats {
    /// May hold a password.
    pub url: Secret,
    pub credentials: String,
    pub tls: RawNatsTls,
}

/// `nats.tls.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawNatsTls {
    pub ca_pem_file: String,
    pub cert_pem_file: String,
    pub key_pem_file: String,
}

/// What links nodes.
#[derive(Clone, Debug, Default)]
pub enum BackplaneChoice {
    /// Nothing: one node, in memory.
    #[default]
    Embedded,
    /// NATS.
    Nats(Nats),
}

/// How the NATS servers are reached.
#[derive(Clone, Default)]
pub struct Nats {
    /// URLs, one or more; any of them will do. May hold passwords.
    pub servers: Vec<Secret>,
    /// The text of a credentials file.
    pub credentials: Option<Secret>,
    /// Certificates that a server's is held against; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Certificate and key that a server is shown.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Without passwords.
impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("servers", &self.servers.len())
            .finish_non_exhaustive()
    }
}
