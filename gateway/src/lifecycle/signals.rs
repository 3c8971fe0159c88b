//! Signals: SIGTERM and SIGINT stop the node, SIGHUP reads again what can be read again.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals a node listens to. While this exists, they do not end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to listen. In a Tokio runtime with I/O.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next request to stop. Those to reload that come before it are passed on.
    pub async fn stop(&mut self, reload: impl Fn()) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => {
                    reload();
                    continue;
                }
            };
            tracing::info!(signal = name, "asked to stop");
            return;
        }
    }
}
