//! Starting, ready, draining, stopped: where a node is in its life, and how it ends.
//!
//! The state only moves forward. [`drain`] is the sequence of a stop, [`signals`] what asks for it, [`notify`] the one
//! place that speaks to systemd.

pub mod drain;
pub mod notify;
pub mod signals;

use std::sync::Arc;
use tokio::sync::watch;

/// Where a node is in its life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Ports are not all bound, or shards not all running.
    Starting,
    /// Clients may come.
    Ready,
    /// It will stop: clients should go elsewhere.
    Draining,
    /// Nothing runs any more.
    Stopped,
}

/// A node's state, shared: clones see the same one.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    state: Arc<watch::Sender<State>>,
}

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle {
            state: Arc::new(watch::Sender::new(State::Starting)),
        }
    }
}

impl Lifecycle {
    /// The state now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Whether clients should be sent here: what `/readyz` answers.
    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Moves on to `state`. Going back is not possible: the call then changes nothing.
    pub fn advance(&self, state: State) {
        let moved = self.state.send_if_modified(|now| {
            let forward = state > *now;
            if forward {
                *now = state;
            }
            forward
        });
        if moved {
            tracing::info!(?state, "lifecycle");
        }
    }

    /// Waits until the state is `state` or a later one.
    pub async fn reached(&self, state: State) {
        let mut watching = self.state.subscribe();
        // The sender lives as long as self, so this cannot end by its absence.
        let _ = watching.wait_for(|now| *now >= state).await;
    }
}

/// Makes every panic, on whichever thread, end the process with 101: without one of its threads a node is only half alive,
/// and whoever supervises it can start a whole one.
pub fn end_process_on_panic() {
    /// A bug.
    const EXIT_BUG: i32 = 101;
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(EXIT_BUG);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_forward_only() {
        let lifecycle = Lifecycle::default();
        let other = lifecycle.clone();
        assert!(!other.is_ready());
        lifecycle.advance(State::Ready);
        assert!(other.is_ready());
        lifecycle.advance(State::Draining);
        lifecycle.advance(State::Ready);
        assert_eq!(other.state(), State::Draining);
        assert!(!other.is_ready());
    }

    #[tokio::test]
    async fn waits_for_a_state_or_a_later_one() {
        let lifecycle = Lifecycle::default();
        let waiting = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.reached(State::Ready).await }
        });
        lifecycle.advance(State::Draining);
        waiting.await.unwrap();
        lifecycle.reached(State::Starting).await;
    }
}
