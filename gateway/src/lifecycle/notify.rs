//! systemd's notification protocol (sd_notify(3)): datagrams to a Unix socket.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Why systemd cannot be notified.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Neither a path nor an abstract name.
    #[error("NOTIFY_SOCKET is {0:?}, want /path or @name")]
    Address(OsString),
    /// No socket.
    #[error("NOTIFY_SOCKET: {0}")]
    Socket(#[from] std::io::Error),
}

/// Speaks to whoever supervises this process, if anyone does.
#[derive(Debug)]
pub struct Notifier {
    supervisor: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Says nothing to nobody.
    pub fn silent() -> Notifier {
        Notifier {
            supervisor: None,
            watchdog: None,
        }
    }

    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say; silent without the first.
    ///
    /// # Errors
    /// When the socket's address cannot be used.
    pub fn from_environment(environment: &[(OsString, OsString)]) -> Result<Notifier, NotifyError> {
        let value = |name| {
            environment
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_os_str())
        };
        let Some(socket) = value("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else {
            return Ok(Notifier::silent());
        };
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(socket)?,
            _ => return Err(NotifyError::Address(socket.to_owned())),
        };
        let own = UnixDatagram::unbound()?;
        // A supervisor that does not read must not stop the node.
        own.set_nonblocking(true)?;
        let watchdog = watchdog_timeout(
            value("WATCHDOG_USEC"),
            value("WATCHDOG_PID"),
            std::process::id(),
        );
        Ok(Notifier {
            supervisor: Some((own, address)),
            watchdog,
        })
    }

    /// Clients may come.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The node will stop.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={}", line.replace('\n', " ")));
    }

    /// Says `WATCHDOG=1` twice a watchdog timeout, as long as `alive` says so; never ends. `alive` is to tell whether every
    /// shard has gone round its loop since it was last asked: one that hangs must not be covered up by the others.
    pub async fn keep_alive(&self, mut alive: impl FnMut() -> bool) {
        let Some(timeout) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut turns = tokio::time::interval(timeout / 2);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if alive() {
                self.send("WATCHDOG=1");
            } else {
                tracing::warn!(
                    "a shard does not go round its loop; the watchdog is not told that all is well"
                );
            }
        }
    }

    fn send(&self, message: &str) {
        let Some((own, address)) = &self.supervisor else {
            return;
        };
        if let Err(error) = own.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, message, "systemd could not be notified");
        }
    }
}

/// The timeout, if it is meant for this process.
fn watchdog_timeout(micros: Option<&OsStr>, pid: Option<&OsStr>, own_pid: u32) -> Option<Duration> {
    let micros: u64 = micros?
        .to_str()?
        .parse()
        .ok()
        .filter(|micros| *micros > 1)?;
    let for_us =
        pid.is_none_or(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(own_pid));
    for_us.then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor on an abstract socket, and the environment that names it.
    fn supervisor(name: &str) -> (UnixDatagram, Vec<(OsString, OsString)>) {
        let name = format!("ringway-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        (
            socket,
            vec![("NOTIFY_SOCKET".into(), format!("@{name}").into())],
        )
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        std::iter::from_fn(|| {
            socket
                .recv(&mut buffer)
                .ok()
                .map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
        })
        .collect()
    }

    #[test]
    fn speaks_to_an_abstract_socket() {
        let (socket, environment) = supervisor("abstract");
        let notifier = Notifier::from_environment(&environment).unwrap();
        notifier.ready();
        notifier.status("two\nlines");
        notifier.stopping();
        assert_eq!(
            heard(&socket),
            ["READY=1", "STATUS=two lines", "STOPPING=1"]
        );
    }

    #[test]
    fn speaks_to_a_path() {
        let path = std::env::temp_dir().join(format!("ringway-notify-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notifier =
            Notifier::from_environment(&[("NOTIFY_SOCKET".into(), path.clone().into())]).unwrap();
        notifier.ready();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(heard(&socket), ["READY=1"]);
        // Nobody there any more: not an error for the node.
        notifier.stopping();
    }

    #[test]
    fn is_silent_alone_and_refuses_other_addresses() {
        Notifier::from_environment(&[]).unwrap().ready();
        let vsock = [("NOTIFY_SOCKET".into(), "vsock:2:1234".into())];
        assert!(
            Notifier::from_environment(&vsock)
                .unwrap_err()
                .to_string()
                .contains("want /path or @name")
        );
    }

    #[test]
    fn a_watchdog_for_another_process_is_not_ours() {
        let timeout = |micros: &str, pid: Option<&str>| {
            watchdog_timeout(Some(micros.as_ref()), pid.map(OsStr::new), 7)
        };
        assert_eq!(timeout("15000000", None), Some(Duration::from_secs(15)));
        assert_eq!(
            timeout("15000000", Some("7")),
            Some(Duration::from_secs(15))
        );
        assert_eq!(timeout("15000000", Some("8")), None);
        assert_eq!(timeout("0", None), None);
        assert_eq!(timeout("x", None), None);
        assert_eq!(watchdog_timeout(None, None, 7), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_only_of_a_node_that_moves() {
        let (socket, mut environment) = supervisor("watchdog");
        environment.push(("WATCHDOG_USEC".into(), "10000000".into()));
        let notifier = Notifier::from_environment(&environment).unwrap();
        // At 0, 5, 10 and 15 seconds.
        let mut answers = [true, true, false, true].into_iter();
        let alive = || answers.next().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(16), notifier.keep_alive(alive)).await;
        assert!(ended.is_err());
        assert_eq!(heard(&socket), ["WATCHDOG=1"; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_nobody_is_asked() {
        let notifier = Notifier::silent();
        let asked = notifier.keep_alive(|| panic!("asked"));
        assert!(
            tokio::time::timeout(Duration::from_secs(60), asked)
                .await
                .is_err()
        );
    }
}
