//! `[nats]`.

use super::Keys;
use crate::backplane::nats::is_server;
use crate::config::error::ConfigError;
use crate::config::nats::{BackplaneChoice, Nats, RawNats};
use crate::config::raw::Secret;
use crate::config::{Channels, nats::RawNatsTls};
use std::path::PathBuf;

impl Keys<'_> {
    pub(super) fn backplane(&self, raw: &RawNats) -> Result<BackplaneChoice, ConfigError> {
        if raw.url.0.is_empty() {
            return Ok(BackplaneChoice::Embedded);
        }
        let servers = raw.url.0.split(',').map(|url| self.server(url.trim()));
        let credentials = (!raw.credentials.is_empty())
            .then(|| std::fs::read_to_string(&raw.credentials))
            .transpose()
            .map_err(|error| {
                let problem = format!("cannot read {:?}: {error}", raw.credentials);
                self.refuse("nats.credentials", problem)
            })?;
        Ok(BackplaneChoice::Nats(Nats {
            servers: servers.collect::<Result<_, _>>()?,
            credentials: credentials.map(Secret),
            ca: self.pem_file("nats.tls.ca_pem_file", &raw.tls.ca_pem_file)?,
            certificate: self.nats_certificate(&raw.tls)?,
        }))
    }

    /// What it got is not shown: it may hold a password.
    fn server(&self, url: &str) -> Result<Secret, ConfigError> {
        self.ensure(is_server(url), "nats.url", || {
            "want nats://host:port or tls://host:port, several with commas between them (what was got is not shown, it \
             may hold a password)"
                .into()
        })?;
        Ok(Secret(url.to_owned()))
    }

    fn pem_file(&self, key: &str, file: &str) -> Result<Option<PathBuf>, ConfigError> {
        if file.is_empty() {
            return Ok(None);
        }
        match std::fs::File::open(file) {
            Ok(_) => Ok(Some(file.into())),
            Err(error) => Err(self.refuse(key, format!("cannot read {file:?}: {error}"))),
        }
    }

    fn nats_certificate(
        &self,
        raw: &RawNatsTls,
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        let certificate = self.pem_file("nats.tls.cert_pem_file", &raw.cert_pem_file)?;
        let key = self.pem_file("nats.tls.key_pem_file", &raw.key_pem_file)?;
        let missing = match (&certificate, &key) {
            (Some(_), None) => "nats.tls.key_pem_file",
            (None, Some(_)) => "nats.tls.cert_pem_file",
            _ => return Ok(certificate.zip(key)),
        };
        Err(self.refuse(
            missing,
            "not set: a certificate and its key belong together",
        ))
    }

    /// Refuses channels that the backplane cannot carry.
    pub(super) fn linkable(
        &self,
        backplane: &BackplaneChoice,
        channels: &Channels,
    ) -> Result<(), ConfigError> {
        if matches!(backplane, BackplaneChoice::Embedded) {
            return Ok(());
        }
        for (index, (_, options)) in channels.namespaces.iter().enumerate() {
            let prefix = match index.checked_sub(1) {
                None => "channel.without_namespace".to_owned(),
                Some(index) => format!("channel.namespaces[{index}]"),
            };
            self.ensure(
                !options.has_history(),
                &format!("{prefix}.history_size"),
                || "got a history, and NATS does not link channels with history yet: want 0".into(),
            )?;
        }
        Ok(())
    }
}
