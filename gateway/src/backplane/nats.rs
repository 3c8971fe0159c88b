//! NATS: the one place that names `async-nats`.
//!
//! One connection, over which publications go out (`publish`) and come in (`follow`). It is made again, without end, when
//! it breaks; until then publishing fails at once, and members stay subscribed.

mod follow;
mod message;
mod publish;

use super::{Backplane, Health, Notice};
use crate::config::Nats;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Notices that wait for the driver, each of up to `follow::BATCH` publications. When it takes none the connection's own
/// queues fill, and then what comes is lost (and counted).
const NOTICES: usize = 64;
/// Commands that wait for the connection; what publishes or follows more waits for it.
const COMMANDS: usize = 8192;

/// Why the backplane cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The credentials, the certificates or the addresses cannot be used.
    #[error("NATS: {0}")]
    Options(#[from] std::io::Error),
    /// The client refused.
    #[error("NATS: {0}")]
    Connect(#[from] async_nats::ConnectError),
}

/// Whether text is the URL of a NATS server.
pub fn is_server(url: &str) -> bool {
    let has_scheme = url.starts_with("nats://") || url.starts_with("tls://");
    let host = url
        .parse()
        .map(|server: ServerAddr| !server.host().is_empty());
    has_scheme && host.is_ok_and(|is_there| is_there)
}

/// Starts to connect, and the tasks that move messages, on the current runtime. The servers need not be there yet.
///
/// # Errors
/// When what was configured cannot be used.
pub async fn start(
    config: &Nats,
    node: &str,
) -> Result<(Backplane, mpsc::Receiver<Notice>), NatsError> {
    let health = Arc::new(Health::default());
    let client = connect(config, node, health.clone()).await?;
    let (publishes, publishing) = mpsc::unbounded_channel();
    let (orders, ordered) = mpsc::unbounded_channel();
    let (notices, noticed) = mpsc::channel(NOTICES);
    tokio::spawn(publish::run(
        client.clone(),
        publishing,
        notices.clone(),
        health.clone(),
    ));
    tokio::spawn(follow::run(client, ordered, notices, health.clone()));
    Ok((Backplane::new(publishes, orders, health), noticed))
}

async fn connect(config: &Nats, node: &str, health: Arc<Health>) -> Result<Client, NatsError> {
    let mut options = ConnectOptions::new()
        .name(format!("ringway {node}"))
        .client_capacity(COMMANDS)
        .retry_on_initial_connect()
        .event_callback(move |event| {
            noticed(&health, &event);
            async {}
        });
    if let Some(credentials) = &config.credentials {
        options = options.credentials(&credentials.0)?;
    }
    if let Some(ca) = &config.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &config.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let servers = config.servers.iter().map(|url| url.0.parse());
    let servers: Vec<ServerAddr> = servers.collect::<Result<_, _>>()?;
    Ok(options.connect(servers).await?)
}

fn noticed(health: &Health, event: &Event) {
    match event {
        Event::Connected => {
            health.connected.store(true, Ordering::Relaxed);
            health.connects.fetch_add(1, Ordering::Relaxed);
            tracing::info!("connected to NATS");
        }
        Event::Disconnected | Event::Closed => {
            health.connected.store(false, Ordering::Relaxed);
            tracing::warn!("NATS: {event}");
        }
        // Counted where it is known how many.
        Event::SlowConsumer(_) => tracing::debug!("NATS: {event}"),
        _ => tracing::warn!("NATS: {event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_server;

    #[test]
    fn servers_are_told_from_other_text() {
        for url in [
            "nats://host",
            "nats://127.0.0.1:4222",
            "tls://u:p@host:4222",
            "nats://[::1]:1",
        ] {
            assert!(is_server(url), "{url}");
        }
        for text in [
            "",
            "host",
            "host:4222",
            "ws://host",
            "http://host",
            "nats://",
            "nats://h:99999",
        ] {
            assert!(!is_server(text), "{text}");
        }
    }
}
