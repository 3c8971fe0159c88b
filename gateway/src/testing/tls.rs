//! TLS clients, by rustls, and certificates for servers.

use crate::tls::{Acceptor, Certificates, PemPair, Server};
use rand::RngExt;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A self-signed certificate and its key.
pub struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    /// For these names. Ed25519: all signatures are of one length, so that a seed always means the same bytes' numbers.
    pub fn new(names: &[&str]) -> Self {
        Self::of(names, &PKCS_ED25519)
    }

    /// For these names, with a key on the curve P-256.
    pub fn ecdsa(names: &[&str]) -> Self {
        Self::of(names, &PKCS_ECDSA_P256_SHA256)
    }

    fn of(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.serial_number = Some(1u64.into());
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, key }
    }

    /// Writes both as PEM files into `directory`, under this name.
    pub fn write(&self, directory: &Path, name: &str) -> PemPair {
        let file = |ending: &str, text: String| -> PathBuf {
            let path = directory.join(format!("{name}{ending}"));
            std::fs::write(&path, text).expect("a directory to write into");
            path
        };
        PemPair {
            certificates: file(".crt", self.certificate.pem()),
            key: file(".key", self.key.serialize_pem()),
        }
    }

    /// The certificate.
    pub fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// What a client that trusts it is made of.
    pub fn trusted(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

/// A directory that goes with its value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one.
    pub fn new() -> Self {
        let name: u64 = rand::make_rng::<rand::rngs::StdRng>().random();
        let path = std::env::temp_dir().join(format!("ringway-{name:016x}"));
        std::fs::create_dir(&path).expect("a directory for temporary files");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it is found by whoever cleans the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server of one certificate for `localhost`, and clients that trust it.
pub struct Fixture {
    /// Of which shards' acceptors are made.
    pub server: Server,
    /// The certificate.
    pub identity: Identity,
}

impl Fixture {
    /// A new one.
    pub fn new() -> Self {
        Self::of(Identity::new(&["localhost"]))
    }

    /// Of this certificate.
    pub fn of(identity: Identity) -> Self {
        let scratch = Scratch::new();
        let files = identity.write(scratch.path(), "localhost");
        let certificates = Certificates::load(vec![files]).expect("files just written");
        let server = Server::new(Arc::new(certificates)).expect("random numbers");
        Self { server, identity }
    }

    /// For one shard.
    pub fn acceptor(&self) -> Acceptor {
        self.server.acceptor()
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

/// The client's end of TLS over any bytes.
pub struct TlsClient {
    connection: ClientConnection,
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClient")
    }
}

impl TlsClient {
    /// Wants `localhost`.
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self::of_name(config, "localhost")
    }

    /// Wants the server of this name.
    pub fn of_name(config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(config, name).expect("a client");
        Self { connection }
    }

    /// What rustls knows of it.
    pub fn connection(&mut self) -> &mut ClientConnection {
        &mut self.connection
    }

    /// Writes; before the handshake is over it is kept.
    pub fn write(&mut self, plain: &[u8]) {
        self.connection
            .writer()
            .write_all(plain)
            .expect("written to memory");
    }

    /// Takes what is to be sent.
    pub fn take(&mut self, wire: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(wire).expect("written to memory");
        }
    }

    /// Takes in what has arrived; appends the data in it.
    ///
    /// # Errors
    /// The server broke TLS, or gave up.
    pub fn read(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> Result<(), rustls::Error> {
        while !wire.is_empty() {
            let taken = self.connection.read_tls(&mut wire).expect("memory");
            let state = self.connection.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.connection
                .reader()
                .read_exact(&mut plain[start..])
                .expect("as many as were counted");
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }
}
