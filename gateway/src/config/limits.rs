//! Limits on clients: `limits.address`, `limits.connection`, `limits.user`, `limits.burst`, `limits.dry_run`, and
//! `client.connection_rate_limit`. As typed and as checked.

use super::check::Keys;
use super::error::ConfigError;
use super::raw::{self, whole};
use super::units::{RawDuration, Size};
use crate::limit::{Limit, LimitSet};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[limits.address]`: of an IPv4 address or an IPv6 /64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // named and described as in the configuration file
pub struct RawAddress {
    #[serde(deserialize_with = "whole")]
    pub connections: u32,
    #[serde(deserialize_with = "whole")]
    pub handshakes: u32,
}

impl Default for RawAddress {
    fn default() -> Self {
        Self {
            connections: 0,
            handshakes: 100,
        }
    }
}

/// `[limits.connection]` and `[limits.user]`: a second; 0: no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RawRates {
    #[serde(deserialize_with = "whole")]
    pub commands: u32,
    #[serde(deserialize_with = "whole")]
    pub publications: u32,
    pub bytes: Size,
}

impl Default for RawRates {
    fn default() -> Self {
        Self {
            commands: 0,
            publications: 0,
            bytes: Size(0),
        }
    }
}

/// `limits.burst`, unless set.
pub(super) const BURST: RawDuration = RawDuration::from_secs(5);
/// Longer ones would be no limits.
const BURST_MAX: Duration = Duration::from_secs(600);

/// Limits on clients, as checked. 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Of all that is limited by the second, what this long gives may come at once.
    pub burst: Duration,
    /// Handshakes a second on this node.
    pub handshakes: u32,
    /// Connections of an address.
    pub address_connections: u32,
    /// Handshakes a second of an address.
    pub address_handshakes: u32,
    /// Loopback addresses are not limited.
    pub exempts_loopback: bool,
    /// Of a connection.
    pub connection: Rates,
    /// Of a user, over all its connections on this node.
    pub user: Rates,
    /// Limits that are only tried.
    pub dry_run: LimitSet,
}

/// So many a second; 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Commands.
    pub commands: u32,
    /// Publications.
    pub publications: u32,
    /// Bytes of all frames.
    pub bytes: u32,
}

impl Keys<'_> {
    pub(super) fn client_limits(
        &self,
        raw: &raw::Limits,
        client: &raw::Client,
        is_dev: bool,
    ) -> Result<ClientLimits, ConfigError> {
        let burst = self.positive("limits.burst", raw.burst)?;
        self.ensure(burst <= BURST_MAX, "limits.burst", || {
            format!("got {}, want at most {}", raw.burst, RawDuration(BURST_MAX))
        })?;
        let rates = |name: &str, raw: &RawRates| -> Result<Rates, ConfigError> {
            let key = format!("limits.{name}.bytes");
            let bytes = self.size32(&key, raw.bytes, 0, u64::MAX)?;
            let at_once = u128::from(bytes) * burst.as_millis() / 1000;
            let message = u128::from(client.message_size_limit.0);
            self.ensure(bytes == 0 || at_once >= message, &key, || {
                format!(
                    "got {} a second, of which limits.burst lets {at_once} come at once: want at least client.message_size_limit ({}) at once, or 0",
                    raw.bytes, client.message_size_limit
                )
            })?;
            Ok(Rates {
                commands: raw.commands,
                publications: raw.publications,
                bytes,
            })
        };
        Ok(ClientLimits {
            burst,
            handshakes: client.connection_rate_limit,
            address_connections: raw.address.connections,
            address_handshakes: raw.address.handshakes,
            exempts_loopback: is_dev,
            connection: rates("connection", &raw.connection)?,
            user: rates("user", &raw.user)?,
            dry_run: self.dry_run(&raw.dry_run)?,
        })
    }

    fn dry_run(&self, got: &[String]) -> Result<LimitSet, ConfigError> {
        let mut set = LimitSet::default();
        for name in got {
            if name == "*" {
                return Ok(LimitSet::ALL);
            }
            let known = Limit::ALL.into_iter().find(|limit| limit.key() == name);
            let limit = known.ok_or_else(|| {
                let keys = Limit::ALL.map(Limit::key).join(", ");
                self.refuse(
                    "limits.dry_run",
                    format!("got {name:?}, want some of {keys}, or \"*\" for all"),
                )
            })?;
            set.insert(limit);
        }
        Ok(set)
    }
}
