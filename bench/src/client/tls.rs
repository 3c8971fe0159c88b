//! TLS between a connection's frames and its socket, by rustls. What the generator spends on it is no figure, so it is the
//! plain thing: a rustls connection for each of ours.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, RootCertStore,
    SignatureScheme, SupportedProtocolVersion, version,
};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Wish {
    /// Trust the certificates in this PEM file only; without it any server is trusted.
    #[arg(long = "tls-ca", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The server's name (SNI); the target's host without.
    #[arg(long = "tls-name", value_name = "NAME")]
    name: Option<String>,
    /// Speak this version only.
    #[arg(long = "tls-version", value_enum)]
    version: Option<Version>,
    /// A connection that comes back resumes its session by the ticket it got.
    #[arg(long = "tls-resume")]
    resumes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl Version {
    fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &version::TLS12,
            Self::Tls13 => &version::TLS13,
        }
    }
}

/// How all connections to a server speak TLS, and how many handshakes there were.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
    name: ServerName<'static>,
    resumes: bool,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
}

impl Client {
    /// For the server on `host`.
    ///
    /// # Errors
    /// One line about the file of certificates, or the name.
    pub fn new(host: &str, wish: &Wish) -> Result<Self, String> {
        let name = wish.name.as_deref().unwrap_or(host).to_owned();
        let versions = match wish.version {
            None => rustls::ALL_VERSIONS,
            Some(only) => &[only.supported()],
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| e.to_string())?;
        let mut config = match &wish.ca {
            Some(file) => config.with_root_certificates(
                roots(file).map_err(|words| format!("{}: {words}", file.display()))?,
            ),
            None => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustsAny(provider))),
        }
        .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self {
            config,
            name: ServerName::try_from(name.clone()).map_err(|e| format!("{name}: {e}"))?,
            resumes: wish.resumes,
            counts: Arc::default(),
        })
    }

    /// TLS of one connection; `earlier` is that of its life before.
    ///
    /// # Errors
    /// Without random numbers there is none.
    pub fn begin(&self, earlier: Option<Session>) -> io::Result<Session> {
        let config = match earlier {
            Some(earlier) => earlier.config,
            None => {
                let mut config = self.config.clone();
                if self.resumes {
                    // A store of its own, as a client on its own machine has.
                    config.resumption = Resumption::in_memory_sessions(1);
                }
                Arc::new(config)
            }
        };
        let connection = ClientConnection::new(config.clone(), self.name.clone());
        let mut connection = Box::new(connection.map_err(io::Error::other)?);
        connection.set_buffer_limit(None);
        Ok(Session {
            connection,
            config,
            uncounted: Some(self.counts.clone()),
        })
    }

    /// For the report: handshakes so far.
    pub fn words(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "TLS ({} full handshakes, {} resumed)",
            of(&self.counts.full),
            of(&self.counts.resumed)
        )
    }
}

/// TLS of one connection.
pub struct Session {
    connection: Box<ClientConnection>,
    /// With the tickets it got.
    config: Arc<ClientConfig>,
    /// Where its handshake is counted when it is over.
    uncounted: Option<Arc<Counts>>,
}

impl Session {
    /// Takes data to be sent: before the handshake is over it is kept. What is to be sent now is appended to `wire`.
    pub fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> io::Result<()> {
        self.connection.writer().write_all(plain)?;
        while self.connection.wants_write() {
            self.connection.write_tls(wire)?;
        }
        Ok(())
    }

    /// Takes what has arrived: appends the data in it to `plain`, and what is to be sent at once to `wire`.
    ///
    /// # Errors
    /// One line: the server broke TLS, or is not trusted.
    pub fn open(
        &mut self,
        mut arrived: &[u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut opened = Ok(());
        while !arrived.is_empty() && opened.is_ok() {
            opened = self.open_some(&mut arrived, plain);
        }
        if !self.connection.is_handshaking()
            && let Some(counts) = self.uncounted.take()
        {
            let count = match self.connection.handshake_kind() {
                Some(HandshakeKind::Resumed) => &counts.resumed,
                _ => &counts.full,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        let sealed = self.seal(&[], wire).map_err(|e| e.to_string());
        opened.and(sealed)
    }

    fn open_some(&mut self, arrived: &mut &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| format!("TLS: {error}");
        let taken = self.connection.read_tls(arrived);
        let state = self.connection.process_new_packets();
        let state = state.map_err(|error| words(&error))?;
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        let read = self.connection.reader().read_exact(&mut plain[start..]);
        read.map_err(|error| words(&error))?;
        match taken {
            Ok(0) => Err("TLS: bytes behind its end".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(words(&error)),
        }
    }
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| e.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    match roots.is_empty() {
        true => Err("no certificate in PEM form in it".to_owned()),
        false => Ok(roots),
    }
}

/// A load has no secrets: whoever answers is the server. That it has the key of its certificate is checked all the same.
#[derive(Debug)]
struct TrustsAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
