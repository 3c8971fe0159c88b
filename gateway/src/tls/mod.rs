//! TLS 1.2 and 1.3, free of I/O and clocks: certificates and their names ([`Certificates`]), the handshake ([`Handshake`],
//! by rustls), and what a connection keeps behind it ([`Session`], our own record layer).
//!
//! # Why not a rustls connection a client
//! A rustls connection keeps 1,088 (unbuffered) or 1,168 (buffered) bytes and, in boxes, two expanded AEAD keys of 544 bytes
//! and the key schedule. A [`Session`] keeps the two raw keys, the two traffic secrets (for KeyUpdate) and two counters: 224
//! bytes in all. The key is expanded anew for every send, which costs some 0.1 to 0.3 µs beside 4 to 5 µs for the send.
//!
//! So rustls does what is hard to get right and happens once a connection: the handshake, certificates, tickets. When
//! it is over the connection's secrets are taken out and rustls lets go of it.
//!
//! # Invariants
//! * A record number is used for one plaintext only. What a short send left behind whole is sealed again under the same
//!   number ([`Session::unseal`]); not a byte of it has left the process.
//! * A session owns no buffer but that of a record cut by the network.
//!
//! # What there is not
//! Renegotiation, compression, early data, client certificates, TLS below 1.2; kTLS.

mod certificates;
mod handshake;
mod keys;
mod record;
mod session;

pub use certificates::{CertificateError, Certificates, PemPair};
pub use handshake::{Acceptor, Handshake, Progress, Server};
pub use session::{Alert, Opened, Sealed, Session, Version};

/// Most bytes of a record's plaintext (RFC 8446 section 5.1).
pub const PLAINTEXT_MAX: usize = 1 << 14;
/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 5;
/// Most bytes of what stands behind the header: RFC 8446 section 5.2. The AEADs of TLS 1.2 stay below it, too.
const CIPHERTEXT_MAX: usize = PLAINTEXT_MAX + 256;
