//! A client's end of the bytes on the wire: as they are, or in TLS.

use super::tls::{NodeTls, TlsClient};
use rustls::{ClientConfig, HandshakeKind};
use std::sync::Arc;

/// Bytes in front of a record's content.
const HEADER_BYTES: usize = 5;

/// Between a socket and a client.
#[derive(Debug, Default)]
pub struct Wire {
    tls: Option<Box<Secured>>,
}

#[derive(Debug)]
struct Secured {
    client: TlsClient,
    node: Arc<NodeTls>,
    /// A record that has come in part.
    cut: Vec<u8>,
    /// How often the certificate had been changed when it began.
    reloads: usize,
    /// It has a ticket of an earlier connection to offer, as far as is known.
    offers_ticket: Option<bool>,
    is_greeted: bool,
    /// The server has said that it will say nothing more.
    has_ended: bool,
    tickets: u32,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// By a ticket.
    pub is_resumed: bool,
}

impl Wire {
    /// In TLS.
    pub fn secured(
        node: Arc<NodeTls>,
        config: Arc<ClientConfig>,
        offers_ticket: Option<bool>,
    ) -> Self {
        let secured = Secured {
            client: TlsClient::new(config),
            reloads: node.reloads(),
            node,
            cut: Vec::new(),
            offers_ticket,
            is_greeted: false,
            has_ended: false,
            tickets: 0,
        };
        Self {
            tls: Some(Box::new(secured)),
        }
    }

    /// What the client says, as it goes over the wire. Before the handshake is over that is the handshake.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        match &mut self.tls {
            None => out.extend_from_slice(plain),
            Some(tls) => {
                tls.client.write(plain);
                tls.client.take(out);
            }
        }
    }

    /// What came over the wire, as the client reads it; what TLS has to say to it is appended to `out`.
    ///
    /// # Errors
    /// The server broke TLS, or a promise about it.
    pub fn read(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Greeting>, String> {
        let Some(tls) = &mut self.tls else {
            plain.extend_from_slice(bytes);
            return Ok(None);
        };
        if tls.has_ended && !bytes.is_empty() {
            return Err("bytes behind the end of TLS".into());
        }
        tls.cut.extend_from_slice(bytes);
        let whole = whole_records(&tls.cut);
        let read = tls.client.read(&tls.cut[..whole], plain);
        read.map_err(|error| format!("it broke TLS: {error}"))?;
        tls.cut.drain(..whole);
        tls.client.take(out);
        let connection = tls.client.connection();
        tls.tickets = connection.tls13_tickets_received();
        let state = connection.process_new_packets();
        tls.has_ended = state.is_ok_and(|state| state.peer_has_closed());
        if connection.is_handshaking() || tls.is_greeted {
            return Ok(None);
        }
        tls.is_greeted = true;
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        if tls.offers_ticket.is_some_and(|offers| offers != is_resumed) {
            return Err(format!(
                "offered a ticket: {:?}, resumed: {is_resumed}",
                tls.offers_ticket
            ));
        }
        let certificates = connection.peer_certificates().unwrap_or_default();
        let is_current = certificates
            .first()
            .is_some_and(|certificate| tls.node.had(certificate, tls.reloads));
        match is_resumed || is_current {
            true => Ok(Some(Greeting { is_resumed })),
            false => Err("a certificate that is no longer in use".into()),
        }
    }

    /// Whether the handshake is not over.
    pub fn is_greeting(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_greeted)
    }

    /// Whether a record has come in part.
    pub fn is_cut(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.cut.is_empty())
    }

    /// Whether what came may have been cut off by somebody on the way: in TLS the server says when it ends.
    pub fn is_truncated(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.is_greeted && !tls.has_ended)
    }

    /// Tickets of TLS 1.3 that have come.
    pub fn tickets(&self) -> u32 {
        self.tls.as_ref().map_or(0, |tls| tls.tickets)
    }

    /// Says that the client will say nothing more. `false`: there is no TLS to say it in.
    pub fn say_goodbye(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(tls) = &mut self.tls else {
            return false;
        };
        tls.client.connection().send_close_notify();
        tls.client.take(out);
        true
    }

    /// Changes its keys, and asks the server to change its own: in TLS 1.3 only.
    pub fn change_keys(&mut self, out: &mut Vec<u8>) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| tls.is_greeted)
            && tls.client.connection().refresh_traffic_keys().is_ok()
        {
            tls.client.take(out);
        }
    }
}

/// How many of the first bytes are whole records.
fn whole_records(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some([_, _, _, high, low]) = bytes[whole..].first_chunk::<HEADER_BYTES>() {
        let end = whole + HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        if end > bytes.len() {
            break;
        }
        whole = end;
    }
    whole
}
