//! `[tls]` as typed.

use super::raw::switch;
use serde::{Deserialize, Serialize};

/// `[tls]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct Tls {
    #[serde(deserialize_with = "switch")]
    pub enabled: bool,
    pub cert_pem_file: String,
    pub key_pem_file: String,
    pub certificates: Vec<PemFiles>,
}

/// Each of `tls.certificates`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PemFiles {
    pub cert_pem_file: String,
    pub key_pem_file: String,
}
