//! `[tls]`: the files are read here, so that a bad one is refused before anything is bound.

use super::Keys;
use crate::config::error::ConfigError;
use crate::config::raw::Tls;
use crate::tls::{Certificates, PemPair};
use std::sync::Arc;

impl Keys<'_> {
    pub(super) fn tls(&self, raw: &Tls) -> Result<Option<Arc<Certificates>>, ConfigError> {
        let own = (!raw.cert_pem_file.is_empty() || !raw.key_pem_file.is_empty())
            .then(|| ("tls".to_owned(), &raw.cert_pem_file, &raw.key_pem_file));
        let further = raw.certificates.iter().enumerate().map(|(index, files)| {
            let prefix = format!("tls.certificates[{index}]");
            (prefix, &files.cert_pem_file, &files.key_pem_file)
        });
        let (mut prefixes, mut pairs) = (Vec::new(), Vec::new());
        for (prefix, certificates, key) in own.into_iter().chain(further) {
            for (name, file) in [("cert_pem_file", certificates), ("key_pem_file", key)] {
                self.ensure(!file.is_empty(), &format!("{prefix}.{name}"), || {
                    "not set: a certificate and its key belong together".into()
                })?;
            }
            prefixes.push(prefix);
            pairs.push(PemPair {
                certificates: certificates.into(),
                key: key.into(),
            });
        }
        if !raw.enabled {
            return Ok(None);
        }
        self.ensure(!pairs.is_empty(), "tls.enabled", || {
            "true without a certificate: set tls.cert_pem_file and tls.key_pem_file".into()
        })?;
        let loaded = Certificates::load(pairs).map_err(|error| {
            let name = if error.is_key {
                "key_pem_file"
            } else {
                "cert_pem_file"
            };
            let key = format!("{}.{name}", prefixes[error.pair]);
            self.refuse(&key, error.to_string())
        })?;
        Ok(Some(Arc::new(loaded)))
    }
}
