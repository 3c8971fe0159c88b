//! The control thread: one current-thread Tokio runtime that serves the internal port. It asks the shards over mailboxes
//! ([`peers`]) and holds no channel, connection or history of its own.
//!
//! | path | what |
//! | --- | --- |
//! | `POST /api/{method}` | server API ([`api`]) |
//! | `GET /metrics` | Prometheus text ([`metrics`]) |
//! | `GET /livez`, `/readyz` | health ([`admin`]) |
//! | `GET /` and `/demo/…` | the demo page, under `--dev` |
//!
//! Pages of elsewhere are refused (`pages`): the port is often on a developer's or an operator's own machine.
//!
//! Never: the environment, the command line, or a wait that a shard would notice.

pub mod admin;
pub mod api;
mod keys;
pub mod metrics;
mod pages;
pub mod peers;

use crate::config::Config;
use api::idempotency;
use axum::serve::ListenerExt as _;
use axum::{Router, middleware};
use peers::Shards;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Semaphore, watch};

/// Where the node is in its life, as readiness and metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not all shards listen yet.
    Starting,
    /// Clients are welcome.
    Ready,
    /// Going down: load balancers should look elsewhere.
    Draining,
}

/// What the control thread is made of.
pub struct Options {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// The way to the shards.
    pub shards: Shards,
    /// Where the node is in its life.
    pub phase: watch::Receiver<Phase>,
    /// Names this boot of the node in `info`.
    pub node_uid: String,
    /// Random key for tables that strangers' names go into.
    pub hash_key: [u8; 16],
    /// Where the demo's fetched files may be, in the order they are looked for. See [`admin::demo::candidates`].
    pub demo_directories: Vec<PathBuf>,
}

/// What all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    options: Options,
    started: Instant,
    idempotency: Mutex<idempotency::Memory>,
    requests: Mutex<metrics::Requests>,
    /// Fetches of public keys: good, failed.
    key_fetches: Mutex<[u64; 2]>,
    cpu: Mutex<metrics::process::CpuMeter>,
    /// API requests whose bodies are in memory.
    admission: Semaphore,
}

/// API requests handled at a time; more wait, their bodies unread.
const REQUESTS_MAX: usize = 256;

impl Control {
    /// Puts the parts together. The node's uptime counts from here.
    pub fn new(options: Options) -> Self {
        let idempotency = idempotency::Memory::new(idempotency::ENTRIES_MAX, options.hash_key);
        Self(Arc::new(Shared {
            options,
            started: Instant::now(),
            idempotency: Mutex::new(idempotency),
            requests: Mutex::default(),
            key_fetches: Mutex::default(),
            cpu: Mutex::default(),
            admission: Semaphore::new(REQUESTS_MAX),
        }))
    }

    /// Everything the internal port answers.
    pub fn router(&self) -> Router {
        let mut router = api::router(self)
            .merge(metrics::router())
            .merge(admin::router());
        if self.config().dev {
            router = router.merge(admin::demo::router());
        }
        // Around everything, what is not found included.
        router
            .layer(middleware::from_fn_with_state(self.clone(), pages::check))
            .with_state(self.clone())
    }

    /// Serves `listener` until `stop` resolves, then lets requests under way finish.
    ///
    /// # Errors
    /// When the listener cannot be used by the runtime.
    pub async fn serve(
        &self,
        listener: std::net::TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        // An answer is one small write; waiting for the peer's ACK would only add delay.
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY refused");
            }
        });
        axum::serve(listener, self.router())
            .with_graceful_shutdown(stop)
            .await
    }

    fn config(&self) -> &Config {
        &self.0.options.config
    }

    fn shards(&self) -> &Shards {
        &self.0.options.shards
    }

    fn phase(&self) -> Phase {
        *self.0.options.phase.borrow()
    }
}

/// Locks a table of this thread. It is never held across an await, so nobody ever waits for it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
