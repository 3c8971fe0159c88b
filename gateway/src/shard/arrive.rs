//! Who a connection comes from: its peer, or the client that a proxy names, in a header in front of the request or in the
//! request.

use super::Core;
use crate::ids::Token;
use crate::protocol::http::{Refusal, UpgradeRequest, forwarded_for};
use crate::protocol::proxy::{Proxied, parse_proxy};
use crate::reactor::CloseHow;
use std::collections::HashMap;
use std::net::IpAddr;

/// Connections whose client a proxy has still to name, by slot.
pub(super) type Arrivals = HashMap<u32, Arrival>;

/// What is known of such a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Its peer, or whom a header named.
    pub(super) address: IpAddr,
    /// It has to begin with a header of the PROXY protocol.
    pub(super) awaits_header: bool,
}

impl Core {
    /// A connection was accepted. Where a proxy has to name the client, only proxies may connect.
    pub(super) fn arrive(&mut self, token: Token, peer: IpAddr) {
        let networks = &self.config.proxies.proxy_protocol;
        if networks
            .as_ref()
            .is_some_and(|networks| !networks.contain(peer))
        {
            return self.refuse_proxy(token, peer, "not one of proxy_protocol.networks");
        }
        let awaits_header = networks.is_some();
        let trusted = &self.config.proxies.trusted;
        let is_trusted = trusted.contain(peer) || crate::planted!(ForwardedByAnybody);
        if awaits_header || is_trusted {
            let arrival = Arrival {
                address: peer,
                awaits_header,
            };
            self.arrivals.insert(token.slot, arrival);
        } else {
            self.identified(token, peer);
        }
    }

    /// Takes the header off what has arrived. What follows it, which may be nothing; `None`: it is not whole, or there is no
    /// good one and the connection is closed.
    pub(super) fn take_proxy_header<'b>(
        &mut self,
        token: Token,
        bytes: &'b mut [u8],
    ) -> Option<&'b mut [u8]> {
        let awaits_header = self
            .arrivals
            .get(&token.slot)
            .is_some_and(|a| a.awaits_header);
        if !awaits_header {
            return Some(bytes);
        }
        let conn = self.conn(token)?;
        let held = conn.held.as_ref().map_or(0, |held| held.len());
        let parsed = match &mut conn.held {
            None => parse_proxy(bytes),
            Some(head) => {
                head.extend_from_slice(bytes);
                parse_proxy(head)
            }
        };
        match parsed {
            Ok(None) => {
                conn.held.get_or_insert_with(|| Box::new(bytes.to_vec()));
                None
            }
            Ok(Some((proxied, used))) => {
                conn.held = None;
                let arrival = self.arrivals.get_mut(&token.slot)?;
                arrival.awaits_header = false;
                if let Proxied::For(client) = proxied {
                    arrival.address = client;
                }
                let address = arrival.address;
                if !self.config.proxies.trusted.contain(address) {
                    self.forget_arrival(token);
                    self.identified(token, address);
                }
                // What was held did not complete the header, so that it ends in these bytes.
                Some(&mut bytes[used - held..])
            }
            Err(error) => {
                let peer = self.arrivals.get(&token.slot)?.address;
                self.refuse_proxy(token, peer, &error.to_string());
                None
            }
        }
    }

    /// There is no answer to a bad header: the peer may not even speak HTTP.
    fn refuse_proxy(&mut self, token: Token, peer: IpAddr, why: &str) {
        tracing::debug!(%peer, why, "a connection that is no proxy's is refused");
        self.stats.proxies_refused += 1;
        self.abandon(token, CloseHow::Reset);
    }

    /// The time for the handshake is over. Where not even the PROXY header has come, there is no answer to that either.
    pub(super) fn handshake_late(&mut self, token: Token) {
        match self.arrivals.get(&token.slot).copied() {
            Some(Arrival {
                address,
                awaits_header: true,
            }) => self.refuse_proxy(token, address, "its PROXY header is late"),
            _ if self.is_before_tls(token) => {
                self.stats.tls.timed_out += 1;
                self.abandon(token, CloseHow::Orderly);
            }
            _ => self.refuse_upgrade(token, Refusal::TimedOut),
        }
    }

    /// The request of a trusted proxy is there, which names the client.
    pub(super) fn hear_request(&mut self, token: Token, request: &UpgradeRequest<'_>) {
        let Some(arrival) = self.forget_arrival(token) else {
            return;
        };
        let trusted = &self.config.proxies.trusted;
        let is_trusted = |address| trusted.contain(address);
        let client = forwarded_for(arrival.address, &request.x_forwarded_for, is_trusted);
        self.identified(token, client);
    }

    /// Nothing more is to be learned about a connection.
    pub(super) fn forget_arrival(&mut self, token: Token) -> Option<Arrival> {
        let arrival = self.arrivals.remove(&token.slot);
        if self.arrivals.is_empty() {
            // After a storm its room is given back.
            self.arrivals.shrink_to(256);
        }
        arrival
    }

    /// From here on it is certain which address counts.
    fn identified(&mut self, token: Token, address: IpAddr) {
        tracing::debug!(shard = self.id.0, slot = token.slot, %address, "a client is there");
        self.knock(token, address);
    }
}
