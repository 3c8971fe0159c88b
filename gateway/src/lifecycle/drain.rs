//! The sequence of a stop: not ready, wait for load balancers, close evenly, stop the threads.

use super::notify::Notifier;
use super::{Lifecycle, State};
use crate::config::Shutdown;
use std::time::Duration;

/// How long after the drain window shards may need for the last closing handshakes (5 s, then a reset) before their
/// connections are cut.
pub const GRACE: Duration = Duration::from_secs(10);

/// What is drained: all shards together.
pub trait Drain {
    /// Tells every shard to close its listener, then its connections evenly over `window`. Ends when all are done.
    fn drain(&mut self, window: Duration) -> impl Future<Output = ()>;

    /// Connections that are open now.
    fn open_connections(&self) -> u64;

    /// Ends the threads, with whatever is still open. Ends when they are gone.
    fn stop(&mut self) -> impl Future<Output = ()>;
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were open when the threads were stopped.
    pub cut: u64,
}

/// Stops a node. `second` is the second signal: it cuts the rest short.
pub async fn drain(
    shards: &mut impl Drain,
    lifecycle: &Lifecycle,
    notifier: &Notifier,
    times: Shutdown,
    second: impl Future<Output = ()>,
) -> Drained {
    lifecycle.advance(State::Draining);
    notifier.stopping();
    notifier.status(&format!(
        "draining {} connections",
        shards.open_connections()
    ));
    let longest = times.delay + times.drain + GRACE;
    let cut_short = {
        let orderly = tokio::time::timeout(longest, in_order(shards, times));
        tokio::select! {
            () = second => Some("a second signal"),
            in_time = orderly => in_time.err().map(|_| "shards that are not done in time"),
        }
    };
    let cut = shards.open_connections();
    if let Some(why) = cut_short {
        tracing::warn!(cut, "the drain is cut short by {why}");
    }
    shards.stop().await;
    lifecycle.advance(State::Stopped);
    Drained { cut }
}

async fn in_order(shards: &mut impl Drain, times: Shutdown) {
    tokio::time::sleep(times.delay).await;
    tracing::info!(connections = shards.open_connections(), window = ?times.drain, "closing connections");
    shards.drain(times.drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::Instant;

    /// Shards that need `needs` to drain, and write down what they are told and when (ms).
    struct Scripted {
        needs: Duration,
        open: u64,
        lifecycle: Lifecycle,
        began: Instant,
        told: RefCell<Vec<(u64, &'static str)>>,
    }

    impl Scripted {
        fn new(needs: Duration, lifecycle: &Lifecycle) -> Scripted {
            lifecycle.advance(State::Ready);
            Scripted {
                needs,
                open: 7,
                lifecycle: lifecycle.clone(),
                began: Instant::now(),
                told: RefCell::default(),
            }
        }

        fn write(&self, what: &'static str) {
            assert!(!self.lifecycle.is_ready(), "readiness goes first");
            self.told
                .borrow_mut()
                .push((self.began.elapsed().as_millis() as u64, what));
        }
    }

    impl Drain for Scripted {
        async fn drain(&mut self, window: Duration) {
            assert_eq!(window, TIMES.drain);
            self.write("drain");
            tokio::time::sleep(self.needs).await;
            self.open = 0;
            self.write("done");
        }

        fn open_connections(&self) -> u64 {
            self.open
        }

        async fn stop(&mut self) {
            assert_eq!(self.lifecycle.state(), State::Draining);
            self.write("stop");
        }
    }

    const TIMES: Shutdown = Shutdown {
        delay: Duration::from_secs(5),
        drain: Duration::from_secs(20),
    };

    async fn run(needs: u64, second: Option<u64>) -> (Drained, Vec<(u64, &'static str)>) {
        let lifecycle = Lifecycle::default();
        let mut shards = Scripted::new(Duration::from_millis(needs), &lifecycle);
        let second = async {
            match second {
                Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                None => std::future::pending().await,
            }
        };
        let drained = drain(&mut shards, &lifecycle, &Notifier::silent(), TIMES, second).await;
        assert_eq!(lifecycle.state(), State::Stopped);
        (drained, shards.told.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_then_drains_then_stops() {
        let (drained, told) = run(1_500, None).await;
        assert_eq!(drained, Drained { cut: 0 });
        assert_eq!(told, [(5_000, "drain"), (6_500, "done"), (6_500, "stop")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_the_drain() {
        let (drained, told) = run(20_000, Some(9_000)).await;
        assert_eq!(drained, Drained { cut: 7 });
        assert_eq!(told, [(5_000, "drain"), (9_000, "stop")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_cuts_the_delay() {
        let (drained, told) = run(1, Some(300)).await;
        assert_eq!(drained, Drained { cut: 7 });
        assert_eq!(told, [(300, "stop")]);
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_never_say_done_are_cut_after_the_grace() {
        let (drained, told) = run(1_000_000, None).await;
        assert_eq!(drained, Drained { cut: 7 });
        assert_eq!(told, [(5_000, "drain"), (35_000, "stop")]);
    }
}
