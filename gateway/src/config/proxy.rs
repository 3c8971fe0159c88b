//! Proxies in front of the node: who may say who a client is.

use super::check::Keys;
use super::error::ConfigError;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `[proxy_protocol]`, as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct RawProxyProtocol {
    pub mode: String,
    pub networks: Vec<String>,
}

impl Default for RawProxyProtocol {
    fn default() -> Self {
        Self {
            mode: "off".into(),
            networks: Vec::new(),
        }
    }
}

/// Networks, by their prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl Networks {
    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who tells a client's address, where that is not the connection's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Connections come from these networks only, and each begins with a header of the PROXY protocol; `None`: none may.
    pub proxy_protocol: Option<Networks>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted: Networks,
}

impl Keys<'_> {
    /// Checks `proxy_protocol` and `client.trusted_proxies`.
    pub(super) fn proxies(
        &self,
        raw: &RawProxyProtocol,
        trusted: &[String],
    ) -> Result<Proxies, ConfigError> {
        let is_required = self.choice(
            "proxy_protocol.mode",
            &raw.mode,
            &[("off", false), ("require", true)],
        )?;
        let key = "proxy_protocol.networks";
        let networks = self.networks(key, &raw.networks)?;
        self.ensure(!is_required || !networks.is_empty(), key, || {
            "got none, so nobody could connect: want the networks of the proxies, like 10.0.0.0/8"
                .into()
        })?;
        Ok(Proxies {
            proxy_protocol: is_required.then_some(networks),
            trusted: self.networks("client.trusted_proxies", trusted)?,
        })
    }

    fn networks(&self, key: &str, got: &[String]) -> Result<Networks, ConfigError> {
        let networks = got.iter().map(|text| {
            let network = text.parse::<IpNet>();
            let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                self.refuse(
                    key,
                    format!("got {text:?}, want an address or a network, like 10.0.0.0/8 or ::1"),
                )
            })
        });
        networks.collect()
    }
}
