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
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

/// Notices that wait for the driver, each of up to `follow::BATCH` publications. When it takes none the connection's own
/// queues fill, and then what comes is lost (and counted).
const NOTICES: usize = 64;
/// Commands that wait for the connection. Publications are bounded before; a channel that is followed while there is no
/// server is one, and must not hold up those behind it.
const COMMANDS: usize = 1 << 20;
/// Messages of one channel that wait to be taken; more are lost, and counted.
const MESSAGES: usize = 4096;
/// A server that answers no ping is given up after three of these.
const PING_INTERVAL: Duration = Duration::from_secs(3);

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
    let publish = publish::run(client.clone(), publishing, notices.clone(), health.clone());
    let follow = follow::run(client, ordered, notices, health.clone());
    // When one of them ends so does the other, and with them the notices, which the driver sees.
    tokio::spawn(async move {
        tokio::select! {
            () = publish => {}
            () = follow => {}
        }
    });
    Ok((Backplane::new(publishes, orders, health), noticed))
}

async fn connect(config: &Nats, node: &str, health: Arc<Health>) -> Result<Client, NatsError> {
    let mut options = ConnectOptions::new()
        .name(format!("ringway {node}"))
        .client_capacity(COMMANDS)
        .subscription_capacity(MESSAGES)
        .ping_interval(PING_INTERVAL)
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
    if servers.iter().any(ServerAddr::tls_required) {
        options = options.require_tls(true);
    }
    if let Some((user, password)) = login(&servers)? {
        options = options.user_and_password(user, password);
    }
    let servers: Vec<_> = servers
        .into_iter()
        .map(anonymous)
        .collect::<Result<_, _>>()?;
    Ok(options.connect(servers).await?)
}

/// The user and the password in the URLs. The client does not look for them there, and servers that it hears of have none.
fn login(servers: &[ServerAddr]) -> std::io::Result<Option<(String, String)>> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut logins = servers.iter().map(|server| {
        let password = server.password().unwrap_or_default();
        server
            .username()
            .map(|user| (decoded(user), decoded(password)))
    });
    let first = logins.next().flatten();
    if logins.any(|login| login != first) {
        return Err(std::io::Error::other(
            "nats.url: all servers are asked as one user, so the user and the password must be the same in each",
        ));
    }
    Ok(first)
}

/// The address without user and password, so that they stand in no log.
fn anonymous(server: ServerAddr) -> std::io::Result<ServerAddr> {
    let mut url = server.into_inner();
    // Both are refused only for URLs without a host, which are no servers.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    ServerAddr::from_url(url)
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
    use super::*;

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

    #[test]
    fn user_and_password_are_taken_out_of_the_urls() {
        let servers = |urls: &[&str]| -> Vec<ServerAddr> {
            urls.iter().map(|url| url.parse().unwrap()).collect()
        };
        let all = servers(&["nats://u:p%40ss@a:1", "nats://u:p%40ss@b"]);
        assert_eq!(login(&all).unwrap(), Some(("u".into(), "p@ss".into())));
        let bare = anonymous(all[0].clone()).unwrap();
        assert_eq!(
            (bare.host(), bare.port(), bare.username(), bare.password()),
            ("a", 1, None, None)
        );
        assert_eq!(login(&servers(&["nats://a"])).unwrap(), None);
        assert!(login(&servers(&["nats://u:p@a", "nats://b"])).is_err());
    }
}
