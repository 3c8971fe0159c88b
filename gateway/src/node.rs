//! A node: its ports, its control thread (the one that calls [`run`]) and its end.

use crate::config::Config;
use crate::lifecycle::drain::{Drain, Drained, drain};
use crate::lifecycle::notify::Notifier;
use crate::lifecycle::signals::Signals;
use crate::lifecycle::{Lifecycle, State};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::time::Duration;

/// Why a node cannot run: its environment. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Somebody listens there.
    #[error(
        "address in use: {address} ({key}): another process listens there, `ss -ltnp sport = :{}` shows which; \
         stop it or set {key} to another port",
        address.port()
    )]
    AddressInUse {
        /// The key that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// It cannot be listened on for another reason.
    #[error("cannot listen on {address} ({key}): {}", advice(.error))]
    Bind {
        /// The key that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// No runtime or no signals.
    #[error("cannot start the control thread: {0}")]
    Control(std::io::Error),
}

fn advice(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}: ports below 1024 need CAP_NET_BIND_SERVICE")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{error}: no interface of this machine has the address")
        }
        _ => error.to_string(),
    }
}

/// Runs a node until it is drained. Blocks; the calling thread becomes the control thread.
///
/// # Errors
/// When the environment does not let it start.
pub fn run(config: Config, notifier: &Notifier) -> Result<Drained, NodeError> {
    let ports = Ports::take(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NodeError::Control)?;
    runtime.block_on(live(config, ports, notifier))
}

async fn live(config: Config, mut ports: Ports, notifier: &Notifier) -> Result<Drained, NodeError> {
    let mut signals = Signals::listen().map_err(NodeError::Control)?;
    let lifecycle = Lifecycle::default();
    lifecycle.advance(State::Ready);
    notifier.ready();
    tracing::info!(clients = %config.address, internal = %config.internal_address, "ready");
    signals.stop().await;
    Ok(drain(
        &mut ports,
        &lifecycle,
        notifier,
        config.shutdown,
        signals.stop(),
    )
    .await)
}

/// The sockets of both ports, bound and listening.
struct Ports {
    clients: Option<Socket>,
    internal: Option<Socket>,
}

impl Ports {
    /// Takes both ports, or none. Without SO_REUSEPORT: a second node on the same ports is refused, not mixed in.
    fn take(config: &Config) -> Result<Ports, NodeError> {
        Ok(Ports {
            clients: Some(listen("address", config.address)?),
            internal: Some(listen("internal.address", config.internal_address)?),
        })
    }
}

impl Drain for Ports {
    async fn drain(&mut self, _window: Duration) {
        self.clients = None;
    }

    fn open_connections(&self) -> u64 {
        0
    }

    async fn stop(&mut self) {
        self.internal = None;
    }
}

/// Binds and listens. SO_REUSEADDR lets connections of a node that has just ended be in TIME_WAIT.
fn listen(key: &'static str, address: SocketAddr) -> Result<Socket, NodeError> {
    let socket = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1)?;
        Ok(socket)
    };
    socket().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => NodeError::AddressInUse { key, address },
        _ => NodeError::Bind {
            key,
            address,
            error,
        },
    })
}
