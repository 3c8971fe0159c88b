//! A connection behind its handshake: sealing what is sent, opening what arrives.

use super::keys::{Cipher, Keys, Secret, nonce};
use super::record::{
    ALERT, APPLICATION, BadHeader, HANDSHAKE, additional_data_12, header, write_header,
};
use super::{HEADER_BYTES, PLAINTEXT_MAX};
use aws_lc_rs::aead::{Aad, LessSafeKey, MAX_TAG_LEN};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ExtractedSecrets, ProtocolVersion};

/// Plaintext bytes of a record that is sent. A short send leaves the rest of one record in the connection's memory, so the
/// largest possible one would let each client that does not read hold 16 KiB; the headers of these are half a percent.
const RECORD_BYTES: usize = 4096;
/// Records in a row that carry no data, after which a peer means no good.
const IDLE_RECORDS_MAX: u8 = 32;
/// Handshake messages that mean something behind the handshake.
const CLIENT_HELLO: u8 = 1;
const KEY_UPDATE: u8 = 24;

/// The version that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Why a side ends the connection (RFC 8446 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // named as in the RFC
pub enum Alert {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    RecordOverflow = 22,
    DecodeError = 50,
    NoRenegotiation = 100,
}

impl Alert {
    const USER_CANCELED: u8 = 90;
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Data, perhaps none.
    Data(&'a mut [u8]),
    /// Something of the protocol's own; nothing to do.
    Nothing,
    /// The peer will send nothing more.
    Closed,
    /// The peer gave up, with this alert.
    Aborted(u8),
}

/// What sealing made of some plaintext: records of a fixed size, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    plain: usize,
    /// Bytes that each record has beside its plaintext.
    overhead: usize,
    first: u64,
}

impl Sealed {
    /// Bytes of all records.
    pub fn len(&self) -> usize {
        self.plain + self.plain.div_ceil(RECORD_BYTES) * self.overhead
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.plain == 0
    }

    /// The end, in plaintext and in sealed bytes, of the last record of which any of the first `taken` sealed bytes are.
    pub fn covered_by(&self, taken: usize) -> (usize, usize) {
        let records = taken.div_ceil(RECORD_BYTES + self.overhead);
        let plain = (records * RECORD_BYTES).min(self.plain);
        (plain, plain + records * self.overhead)
    }
}

/// What a connection keeps behind its handshake.
pub struct Session {
    rx: Keys,
    tx: Keys,
    rx_secret: Secret,
    tx_secret: Secret,
    /// A record cut by the network. Boxed: a `Vec` would cost every session 16 bytes more.
    #[allow(clippy::box_collection)]
    partial: Option<Box<Vec<u8>>>,
    cipher: Cipher,
    version: Version,
    /// Ours is to be sent before further data.
    owes_key_update: bool,
    has_ended: bool,
    idle_records: u8,
}

const _: () = assert!(std::mem::size_of::<Option<Session>>() <= 224);

impl std::fmt::Debug for Session {
    /// No keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Takes what is needed out of a handshake that is over; in TLS 1.3 with the traffic secrets of (client, server).
    pub(super) fn of(
        connection: UnbufferedServerConnection,
        secrets: Option<(Secret, Secret)>,
    ) -> Result<Self, rustls::Error> {
        let (ExtractedSecrets { rx, tx }, kernel): (_, KernelConnection<ServerConnectionData>) =
            connection.dangerous_into_kernel_connection()?;
        let version = match kernel.protocol_version() {
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => Version::Tls12,
        };
        let none = || (Secret::NONE, Secret::NONE);
        let secrets = match version {
            Version::Tls12 => Some(none()),
            Version::Tls13 => secrets,
        };
        let unknown = || rustls::Error::General("secrets of an unknown kind".into());
        let (rx_secret, tx_secret) = secrets.ok_or_else(unknown)?;
        let (cipher, rx) = Keys::of(&rx).ok_or_else(unknown)?;
        let (_, tx) = Keys::of(&tx).ok_or_else(unknown)?;
        Ok(Self {
            rx,
            tx,
            rx_secret,
            tx_secret,
            partial: None,
            cipher,
            version,
            owes_key_update: false,
            has_ended: false,
            idle_records: 0,
        })
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes of nonce that stand in a record.
    fn explicit(&self) -> usize {
        match (self.version, self.cipher) {
            (Version::Tls12, Cipher::Aes128Gcm | Cipher::Aes256Gcm) => 8,
            _ => 0,
        }
    }

    fn overhead(&self) -> usize {
        let kind = usize::from(self.version == Version::Tls13);
        HEADER_BYTES + self.explicit() + kind + MAX_TAG_LEN
    }

    /// Appends `plain` to `out` as records.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Sealed {
        let sealed = Sealed {
            plain: plain.len(),
            overhead: self.overhead(),
            first: self.tx.sequence,
        };
        if plain.is_empty() {
            return sealed;
        }
        debug_assert!(!self.has_ended, "data behind an alert");
        out.reserve(sealed.len());
        let key = self.tx.expand(self.cipher);
        for part in plain.chunks(RECORD_BYTES) {
            self.seal_record(&key, APPLICATION, part, out);
        }
        sealed
    }

    /// Of what was sealed last only the records up to `plain` bytes count: not a byte of those behind has left the process.
    /// The next are sealed under their numbers.
    pub fn unseal(&mut self, sealed: &Sealed, plain: usize) {
        self.tx.sequence = sealed.first + plain.div_ceil(RECORD_BYTES) as u64;
    }

    fn seal_record(&mut self, key: &LessSafeKey, kind: u8, plain: &[u8], out: &mut Vec<u8>) {
        let explicit = self.explicit();
        let iv = self.tx.nonce();
        let behind = self.overhead() - HEADER_BYTES + plain.len();
        let tag = match self.version {
            Version::Tls13 => {
                let header = write_header(APPLICATION, behind);
                out.extend_from_slice(&header);
                let start = out.len();
                out.extend_from_slice(plain);
                out.push(kind);
                key.seal_in_place_separate_tag(nonce(iv), Aad::from(header), &mut out[start..])
            }
            Version::Tls12 => {
                out.extend_from_slice(&write_header(kind, behind));
                out.extend_from_slice(&iv[iv.len() - explicit..]);
                let start = out.len();
                out.extend_from_slice(plain);
                let beside = additional_data_12(self.tx.sequence, kind, plain.len());
                key.seal_in_place_separate_tag(nonce(iv), Aad::from(beside), &mut out[start..])
            }
        };
        out.extend_from_slice(
            tag.expect("a record is far below the AEAD's limit")
                .as_ref(),
        );
        self.tx.sequence += 1;
    }

    /// Appends an alert to `out`. Nothing may be sealed behind it.
    pub fn seal_alert(&mut self, alert: Alert, out: &mut Vec<u8>) {
        let level = if alert == Alert::CloseNotify { 1 } else { 2 };
        let key = self.tx.expand(self.cipher);
        self.seal_record(&key, ALERT, &[level, alert as u8], out);
        self.has_ended = true;
    }

    /// Whether an alert was sealed that ends what we send.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether new keys are due before further data: the peer asked for them, or ours have sealed all they may.
    pub fn wants_key_update(&self) -> bool {
        let is_worn = self.tx.sequence >= self.cipher.records_max();
        self.version == Version::Tls13 && (self.owes_key_update || is_worn) && !self.has_ended
    }

    /// Whether the keys have sealed all they may and there cannot be new ones: TLS 1.2 has none.
    pub fn is_worn_out(&self) -> bool {
        self.version == Version::Tls12 && self.tx.sequence >= self.cipher.records_max()
    }

    /// Appends a KeyUpdate to `out`: what is sealed from now on is sealed by new keys.
    pub fn seal_key_update(&mut self, out: &mut Vec<u8>) {
        let key = self.tx.expand(self.cipher);
        self.seal_record(&key, HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], out);
        self.tx = self.tx_secret.update(self.cipher);
        self.owes_key_update = false;
    }

    /// How many of the first of `bytes` belong to the record that they begin (or, if one was cut before, go on with), and
    /// whether it is whole with them.
    ///
    /// # Errors
    /// No record begins like this.
    pub fn reach(&self, bytes: &[u8]) -> Result<(usize, bool), Alert> {
        let held = self.partial.as_deref().map_or(&[][..], Vec::as_slice);
        let mut head = [0; HEADER_BYTES];
        let mut known = 0;
        for (to, from) in head.iter_mut().zip(held.iter().chain(bytes)) {
            *to = *from;
            known += 1;
        }
        if known < HEADER_BYTES {
            return Ok((bytes.len(), false));
        }
        let header = header(head).map_err(|bad| match bad {
            BadHeader::NotTls => Alert::UnexpectedMessage,
            BadHeader::TooLong => Alert::RecordOverflow,
        })?;
        let missing = HEADER_BYTES + header.len - held.len();
        Ok((missing.min(bytes.len()), missing <= bytes.len()))
    }

    /// A record that the network cut, so far.
    #[allow(clippy::box_collection)]
    pub fn partial(&mut self) -> &mut Option<Box<Vec<u8>>> {
        &mut self.partial
    }

    /// Opens a whole record in its place.
    ///
    /// # Errors
    /// What the peer is to be told; the connection is over.
    pub fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Alert> {
        let (kind, content) = self.decrypt(record)?;
        match kind {
            APPLICATION if !content.is_empty() => {
                self.idle_records = 0;
                return Ok(Opened::Data(content));
            }
            APPLICATION => {}
            ALERT => match *content {
                [_, 0] => return Ok(Opened::Closed),
                [_, Alert::USER_CANCELED] => {}
                [1, _] if self.version == Version::Tls12 => {}
                [_, why] => return Ok(Opened::Aborted(why)),
                _ => return Err(Alert::DecodeError),
            },
            HANDSHAKE => self.behind_handshake(content)?,
            _ => return Err(Alert::UnexpectedMessage),
        }
        self.idle_records += 1;
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(Alert::UnexpectedMessage);
        }
        Ok(Opened::Nothing)
    }

    fn behind_handshake(&mut self, message: &[u8]) -> Result<(), Alert> {
        match (self.version, message) {
            // A new key begins with a new record, so nothing else is in this one (RFC 8446 section 5.1).
            (Version::Tls13, &[KEY_UPDATE, 0, 0, 1, wanted @ 0..=1]) => {
                self.rx = self.rx_secret.update(self.cipher);
                // However many are asked for while we say nothing, one answers them all.
                self.owes_key_update |= wanted == 1;
                Ok(())
            }
            (Version::Tls12, [CLIENT_HELLO, ..]) => Err(Alert::NoRenegotiation),
            _ => Err(Alert::UnexpectedMessage),
        }
    }

    fn decrypt<'a>(&mut self, record: &'a mut [u8]) -> Result<(u8, &'a mut [u8]), Alert> {
        let (head, body) = record
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(Alert::DecodeError)?;
        let kind = head[0];
        let key = self.rx.expand(self.cipher);
        let opened = match self.version {
            Version::Tls13 if kind != APPLICATION => return Err(Alert::UnexpectedMessage),
            Version::Tls13 => key.open_in_place(nonce(self.rx.nonce()), Aad::from(*head), body),
            Version::Tls12 => {
                let explicit = self.explicit();
                let plain_len = body.len().checked_sub(explicit + MAX_TAG_LEN);
                let plain_len = plain_len.ok_or(Alert::BadRecordMac)?;
                let (front, body) = body.split_at_mut(explicit);
                let iv = match explicit {
                    0 => self.rx.nonce(),
                    _ => self.rx.explicit_nonce(front),
                };
                let beside = additional_data_12(self.rx.sequence, kind, plain_len);
                key.open_in_place(nonce(iv), Aad::from(beside), body)
            }
        };
        let mut content = opened.map_err(|_| Alert::BadRecordMac)?;
        self.rx.sequence += 1;
        let mut kind = kind;
        if self.version == Version::Tls13 {
            // Behind the content stands its kind, behind that any number of zeros.
            let at = content.iter().rposition(|byte| *byte != 0);
            let at = at.ok_or(Alert::UnexpectedMessage)?;
            kind = content[at];
            content = &mut content[..at];
        }
        if content.len() > PLAINTEXT_MAX {
            return Err(Alert::RecordOverflow);
        }
        Ok((kind, content))
    }
}

#[cfg(test)]
mod tests;
