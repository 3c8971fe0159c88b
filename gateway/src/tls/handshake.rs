//! Handshakes, by rustls: bytes in, bytes out, and in the end a [`Session`].

use super::keys::{SECRET_MAX, Secret};
use super::record::header;
use super::{Certificates, HEADER_BYTES, Session};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError};
use rustls::{HandshakeKind, KeyLog, ServerConfig};
use std::sync::{Arc, Mutex, PoisonError};

/// Most bytes that may wait while a handshake is under way: a large first message, or a second one with what a client may
/// send behind it at once.
const INPUT_MAX: usize = 32 * 1024;
/// Tickets that a client gets. One: a WebSocket client comes back one connection at a time.
const TICKETS: usize = 1;

/// What all shards' handshakes have in common: the certificates, and the one key of tickets, changed every six hours.
#[derive(Clone, Debug)]
pub struct Server {
    config: ServerConfig,
}

impl Server {
    /// Takes the certificates into use.
    ///
    /// # Errors
    /// Without random numbers there are no keys for tickets.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        // Tickets hold all a session needs, so that whichever shard the client comes back to can read them.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        config.enable_secret_extraction = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config })
    }

    /// For one shard.
    pub fn acceptor(&self) -> Acceptor {
        let secrets = Arc::<TrafficSecrets>::default();
        let mut config = self.config.clone();
        config.key_log = secrets.clone();
        Acceptor {
            config: Arc::new(config),
            secrets,
        }
    }
}

/// Begins handshakes, for one shard.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    secrets: Arc<TrafficSecrets>,
}

/// The traffic secrets of the handshake that is being worked on, which KeyUpdate needs. rustls tells them to a key log
/// only, in the call that makes them; the shard takes them when that call returns.
#[derive(Default)]
struct TrafficSecrets(Mutex<[Option<Secret>; 2]>);

const LABELS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

impl TrafficSecrets {
    fn take(&self) -> Option<(Secret, Secret)> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [client, server] = std::mem::take(&mut *held);
        client.zip(server)
    }
}

impl std::fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TrafficSecrets")
    }
}

impl KeyLog for TrafficSecrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let Some(side) = LABELS.iter().position(|known| *known == label) else {
            return;
        };
        let mut bytes = [0; SECRET_MAX];
        let Some(place) = bytes.get_mut(..secret.len()) else {
            return;
        };
        place.copy_from_slice(secret);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held[side] = Some(Secret(bytes));
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label)
    }
}

/// What came of a step.
#[derive(Debug)]
pub enum Progress {
    /// More bytes are needed.
    Waits(Handshake),
    /// It is over.
    Done {
        /// What the connection keeps.
        session: Box<Session>,
        /// What arrived behind the handshake: records.
        rest: Vec<u8>,
        /// By a ticket.
        is_resumed: bool,
    },
    /// It failed. An alert is in what is to be sent.
    Failed(rustls::Error),
}

/// A handshake under way.
pub struct Handshake {
    connection: Box<UnbufferedServerConnection>,
    secrets: Option<(Secret, Secret)>,
    input: Vec<u8>,
    /// Bytes at the front of it that were looked at and are kept, because a message goes on in the next record.
    seen: usize,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("input", &self.input.len())
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Begins one.
    ///
    /// # Errors
    /// Without random numbers there is none.
    pub fn begin(&self) -> Result<Handshake, rustls::Error> {
        Ok(Handshake {
            connection: Box::new(UnbufferedServerConnection::new(self.config.clone())?),
            secrets: None,
            input: Vec::new(),
            seen: 0,
        })
    }
}

impl Handshake {
    /// Takes bytes in. `false`: there are too many.
    pub fn add(&mut self, bytes: &[u8]) -> bool {
        if self.input.len() + bytes.len() > INPUT_MAX {
            return false;
        }
        self.input.reserve_exact(bytes.len());
        self.input.extend_from_slice(bytes);
        true
    }

    /// Whether a step would do anything: there is a whole record, or something that is none.
    pub fn is_ready(&self) -> bool {
        match self.input[self.seen..].first_chunk::<HEADER_BYTES>() {
            None => false,
            Some(head) => header(*head).map_or(true, |head| {
                self.input.len() - self.seen >= HEADER_BYTES + head.len
            }),
        }
    }

    /// Works on the records that are there, until one ends the handshake. What is to be sent is appended to `out`.
    pub fn advance(mut self, acceptor: &Acceptor, out: &mut Vec<u8>) -> Progress {
        while self.is_ready() {
            // Record by record, so that what follows the last of the handshake is left for the session.
            let behind = &self.input[self.seen..];
            let end = behind
                .first_chunk::<HEADER_BYTES>()
                .and_then(|head| header(*head).ok())
                .map_or(self.input.len(), |head| self.seen + HEADER_BYTES + head.len);
            let worked = work(&mut self.connection, &mut self.input[..end], out);
            if let Some(secrets) = acceptor.secrets.take() {
                self.secrets = Some(secrets);
            }
            match worked {
                Ok(used) => {
                    self.input.drain(..used);
                    self.seen = end - used;
                }
                Err(error) => return Progress::Failed(error),
            }
            if !self.connection.is_handshaking() {
                return self.finish();
            }
        }
        Progress::Waits(self)
    }

    fn finish(self) -> Progress {
        let kind = self.connection.handshake_kind();
        match Session::of(*self.connection, self.secrets) {
            Ok(session) => Progress::Done {
                session: Box::new(session),
                rest: self.input,
                is_resumed: kind == Some(HandshakeKind::Resumed),
            },
            Err(error) => Progress::Failed(error),
        }
    }
}

/// Lets rustls work on `input`; how many bytes of it are done with.
fn work(
    connection: &mut UnbufferedServerConnection,
    input: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<usize, rustls::Error> {
    let mut used = 0;
    let mut failed = None;
    loop {
        // What has failed is not looked at again.
        let left = match failed {
            None => &mut input[used..],
            Some(_) => &mut [],
        };
        let status = connection.process_tls_records(left);
        let goes_on = match status.state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let start = out.len();
                if let Err(EncodeError::InsufficientSize(error)) = data.encode(&mut []) {
                    out.resize(start + error.required_size, 0);
                    let len = data.encode(&mut out[start..]).unwrap_or(0);
                    out.truncate(start + len);
                }
                true
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                true
            }
            // The alert that goes with it is to be encoded yet.
            Err(error) if failed.is_none() => {
                failed = Some(error);
                true
            }
            _ => false,
        };
        used += status.discard;
        if !goes_on {
            return failed.map_or(Ok(used), Err);
        }
    }
}
