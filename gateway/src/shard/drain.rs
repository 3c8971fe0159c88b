//! Draining: the listener is closed, then the connections are closed evenly over the window. The server paces the herd,
//! whatever its clients do.

use super::{Ask, Core};
use crate::connection::Phase;
use crate::hub::message::{Message, RequestId, Response};
use crate::protocol::codes::Disconnect;

/// How often a few more are closed.
const STEP_MILLIS: u64 = 20;

/// Whether and how far.
#[derive(Debug, Default)]
pub(super) struct Drain {
    on: Option<Window>,
}

#[derive(Debug)]
struct Window {
    request: RequestId,
    started: u64,
    millis: u64,
    /// Connections when it began.
    total: u64,
    closed: u64,
    next_slot: u32,
    next_step: u64,
    is_answered: bool,
}

impl Drain {
    pub(super) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.on
            .as_ref()
            .filter(|w| !w.is_answered)
            .map(|w| w.next_step)
    }
}

impl Core {
    /// Begins. The answer comes when the last connection is gone.
    pub(super) fn start_drain(&mut self, request: RequestId, millis: u64) {
        self.asks.push(Ask::StopAccepting);
        self.drain.on = Some(Window {
            request,
            started: self.now.millis,
            millis,
            total: self.conns.len() as u64,
            closed: 0,
            next_slot: 0,
            next_step: self.now.millis,
            is_answered: false,
        });
    }

    pub(super) fn run_drain(&mut self) {
        let now = self.now.millis;
        let Some(window) = self
            .drain
            .on
            .as_mut()
            .filter(|w| !w.is_answered && w.next_step <= now)
        else {
            return;
        };
        window.next_step = now + STEP_MILLIS;
        let elapsed = now - window.started;
        // By now this many should be closed.
        let due = if elapsed >= window.millis {
            u64::MAX
        } else {
            window.total * elapsed / window.millis
        };
        let (mut closed, mut slot) = (window.closed, window.next_slot);
        while closed < due && slot < self.conns.slots() {
            match self.conns.get(slot).map(|c| c.phase) {
                None | Some(Phase::Closing) => {}
                Some(_) => {
                    closed += 1;
                    self.close(self.token(slot), Disconnect::SHUTDOWN);
                }
            }
            slot += 1;
        }
        // Slots that were accepted behind the hand, just before the listener closed, are found in another round.
        if due == u64::MAX {
            slot = 0;
        }
        let is_empty = self.conns.is_empty();
        let Some(window) = self.drain.on.as_mut() else {
            return;
        };
        (window.closed, window.next_slot) = (closed, slot);
        if is_empty && elapsed >= window.millis.min(STEP_MILLIS) {
            window.is_answered = true;
            let (id, count) = (window.request, window.closed);
            self.respond(id, Response::Done { count });
        }
    }

    pub(super) fn tell_control(&mut self, message: Message) {
        let control = self.links.control();
        self.links.to(control).messages.push(message);
    }

    pub(super) fn respond(&mut self, id: RequestId, response: Response) {
        self.tell_control(Message::Response {
            id,
            response: Box::new(response),
        });
    }
}
