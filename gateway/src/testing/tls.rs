//! TLS clients, by rustls, and certificates for servers.

use crate::tls::{Acceptor, Certificates, PemPair, Server, Version};
use rand::RngExt;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

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
        let mut config = trusting(std::slice::from_ref(self), versions);
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

fn trusting(
    identities: &[Identity],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for identity in identities {
        roots.add(identity.der()).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The certificates that a simulated node has in turns. Made once: a run sees only how long they are.
static IDENTITIES: LazyLock<[Identity; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Identity::new(&["localhost"])));
/// Clients of TLS 1.2 and 1.3 that trust both.
static CLIENTS: LazyLock<[ClientConfig; 2]> = LazyLock::new(|| {
    [&rustls::version::TLS12, &rustls::version::TLS13]
        .map(|version| trusting(&*IDENTITIES, &[version]))
});

/// The TLS of a simulated node.
///
/// Keys and random numbers of handshakes are the provider's, so that no two runs of a seed have the same bytes on the wire.
/// But all that a run can see of them is how long they are, and that is the same: keys, signatures (Ed25519), tickets and
/// tags have one length each.
pub struct NodeTls {
    server: Server,
    certificates: Arc<Certificates>,
    scratch: Scratch,
    reloads: AtomicUsize,
}

impl std::fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeTls")
    }
}

impl NodeTls {
    /// One of its own.
    pub fn new() -> Self {
        let scratch = Scratch::new();
        let files = IDENTITIES[0].write(scratch.path(), "localhost");
        let certificates = Certificates::load(vec![files]).expect("files just written");
        let certificates = Arc::new(certificates);
        Self {
            server: Server::new(certificates.clone()).expect("random numbers"),
            certificates,
            scratch,
            reloads: AtomicUsize::new(0),
        }
    }

    /// For one shard.
    pub fn acceptor(&self) -> Acceptor {
        self.server.acceptor()
    }

    /// How often the certificate was changed.
    pub fn reloads(&self) -> usize {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Another certificate lies in the files, and they are read again.
    pub fn reload(&self) {
        let reloads = self.reloads.fetch_add(1, Ordering::Relaxed) + 1;
        let identity = &IDENTITIES[reloads % IDENTITIES.len()];
        identity.write(self.scratch.path(), "localhost");
        self.certificates.reload().expect("files just written");
    }

    /// Whether this certificate was in use at some moment since so many reloads.
    pub fn had(&self, certificate: &[u8], since_reloads: usize) -> bool {
        (since_reloads..=self.reloads())
            .any(|reloads| *IDENTITIES[reloads % IDENTITIES.len()].der() == *certificate)
    }

    /// What a client is made of that remembers its own sessions and cuts what it writes into records of at most so many
    /// bytes.
    pub fn client(&self, version: Version, record_bytes: Option<usize>) -> Arc<ClientConfig> {
        let mut config = CLIENTS[usize::from(version == Version::Tls13)].clone();
        config.resumption = Resumption::in_memory_sessions(8);
        config.max_fragment_size = record_bytes;
        Arc::new(config)
    }
}

impl Default for NodeTls {
    fn default() -> Self {
        Self::new()
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
