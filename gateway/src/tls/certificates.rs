//! Certificates and keys from PEM files, chosen by the name that a client asks for; read again while the node runs.

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Where a certificate chain and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemPair {
    /// The server's certificate, then those between it and the root.
    pub certificates: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
}

/// Files that cannot be used. The operator's fault. Shows names of files, never what is in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CertificateError {
    /// Which of the pairs, from 0.
    pub pair: usize,
    /// The key's file is at fault, not the certificate's.
    pub is_key: bool,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// A certificate and the names in it, in lower case; one may begin with `*.`.
#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

/// All certificates of the node. Shards share it; a handshake that begins after [`Certificates::reload`] gets the new ones.
#[derive(Debug)]
pub struct Certificates {
    files: Vec<PemPair>,
    loaded: RwLock<Arc<[Named]>>,
}

impl Certificates {
    /// Reads the files. The first pair is for clients that name no server, or one that no certificate has.
    ///
    /// # Errors
    /// The first file that cannot be read or used, or a key that is not its certificate's.
    pub fn load(files: Vec<PemPair>) -> Result<Self, CertificateError> {
        let loaded = RwLock::new(read_all(&files)?);
        Ok(Self { files, loaded })
    }

    /// Reads the files again. How many names there are now.
    ///
    /// # Errors
    /// As [`Certificates::load`]; then those from before stay.
    pub fn reload(&self) -> Result<usize, CertificateError> {
        let read = read_all(&self.files)?;
        let names = read.iter().map(|named| named.names.len()).sum();
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(names)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.clone();
        let fits = |named: &&Named| {
            let schemes = hello.signature_schemes();
            named.key.key.choose_scheme(schemes).is_some()
        };
        let named_by = |name: &str| {
            let mut having = loaded.iter().filter(fits);
            having.find(|named| named.names.iter().any(|n| n == name))
        };
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let found = asked.and_then(|name| {
            // RFC 6125 section 6.4.3: the star is the whole leftmost label.
            let any_host = name
                .split_once('.')
                .map(|(_, domain)| format!("*.{domain}"));
            named_by(&name).or_else(|| named_by(&any_host?))
        });
        let found = found.or_else(|| loaded.iter().find(fits));
        found.map(|named| named.key.clone())
    }
}

fn read_all(files: &[PemPair]) -> Result<Arc<[Named]>, CertificateError> {
    let read = files.iter().enumerate();
    read.map(|(pair, files)| read_pair(pair, files)).collect()
}

fn read_pair(pair: usize, files: &PemPair) -> Result<Named, CertificateError> {
    let refuse = |is_key, problem: String| {
        let path = if is_key {
            &files.key
        } else {
            &files.certificates
        };
        CertificateError {
            pair,
            is_key,
            path: path.clone(),
            problem,
        }
    };
    let chain = read_chain(&files.certificates).map_err(|problem| refuse(false, problem))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| refuse(true, why(&error, &files.key, "unencrypted private key")))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| {
        refuse(true, "a key of a kind that is not supported: want RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519".into())
    })?;
    let key = CertifiedKey::new(chain, key);
    if let Err(error) = key.keys_match() {
        return Err(match error {
            rustls::Error::InconsistentKeys(_) => {
                let certificates = files.certificates.display();
                refuse(
                    true,
                    format!("not the key of the certificate in {certificates}"),
                )
            }
            error => refuse(false, format!("not a usable certificate: {error}")),
        });
    }
    let names = key
        .end_entity_cert()
        .ok()
        .and_then(|certificate| {
            let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
            Some(
                certificate
                    .valid_dns_names()
                    .map(str::to_ascii_lowercase)
                    .collect(),
            )
        })
        .ok_or_else(|| refuse(false, "not a usable certificate".into()))?;
    Ok(Named {
        names,
        key: Arc::new(key),
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|read| read.collect::<Result<Vec<_>, _>>())
        .map_err(|error| why(&error, path, "certificate"))?;
    if certificates.is_empty() {
        return Err(why(&pem::Error::NoItemsFound, path, "certificate"));
    }
    Ok(certificates)
}

fn why(error: &pem::Error, path: &Path, wanted: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => {
            let text = std::fs::read(path).unwrap_or_default();
            let is_encrypted = text.windows(9).any(|part| part == b"ENCRYPTED");
            match is_encrypted {
                true => format!("encrypted: want an {wanted} in PEM form"),
                false => format!("no {wanted} in PEM form in it"),
            }
        }
        _ => format!("not well-formed PEM: want a {wanted}"),
    }
}

#[cfg(test)]
mod tests;
