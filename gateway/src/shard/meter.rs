//! Measures what connections and their users do.

use super::Core;
use crate::hub::message::Message;
use crate::ids::Token;
use crate::limit::{Ruling, Who};
use crate::protocol::centrifuge::Method;
use crate::protocol::codes::Disconnect;

impl Core {
    /// Bytes of frames have come. `false`: they were too many, and the connection is closed.
    pub(super) fn may_receive(&mut self, token: Token, len: usize) -> bool {
        if !self.meters.is_on() {
            return true;
        }
        let (who, now) = (self.who(token), self.now.nanos);
        let bytes = u32::try_from(len).unwrap_or(u32::MAX);
        let hits = &mut self.stats.limits;
        let ruling = self.meters.received(who, bytes, now, hits);
        self.report_users();
        self.close_if(token, ruling) != Ruling::Closed
    }

    /// Whether a command is within the limits. When it is not, `Closed` has been done, `Refused` is to be. Unsubscribing is
    /// never refused (an SDK would drop the connection), but may be the last straw.
    pub(super) fn measure_command(&mut self, token: Token, method: &Method<'_>) -> Ruling {
        match (
            self.measure(token, matches!(method, Method::Publish(_))),
            method,
        ) {
            (Ruling::Refused, Method::Unsubscribe(_)) => Ruling::Goes,
            (ruling, _) => ruling,
        }
    }

    /// The same for anything that costs as much as a command.
    pub(super) fn measure(&mut self, token: Token, publishes: bool) -> Ruling {
        if !self.meters.is_on() {
            return Ruling::Goes;
        }
        let (who, now) = (self.who(token), self.now.nanos);
        let hits = &mut self.stats.limits;
        let ruling = self.meters.command(who, publishes, now, hits);
        self.report_users();
        self.close_if(token, ruling)
    }

    fn close_if(&mut self, token: Token, ruling: Ruling) -> Ruling {
        if ruling == Ruling::Closed {
            self.close(token, Disconnect::TOO_MANY_REQUESTS);
        }
        ruling
    }

    fn who(&mut self, token: Token) -> Who {
        let measures_users = self.meters.measures_users();
        let keys = self.keys;
        let identity = self.conn(token).and_then(|c| c.identity.as_ref());
        let user = identity
            .filter(|identity| measures_users && !identity.user.is_empty())
            .map(|identity| keys.hash(&identity.user));
        Who {
            slot: token.slot,
            user,
        }
    }

    /// Tells the homes of users what these have done here.
    pub(super) fn report_users(&mut self) {
        if !self.meters.has_reports() {
            return;
        }
        for report in self.meters.reports() {
            let home = self.keys.home(report.user);
            let spent = Message::UserSpent(report);
            self.links.to(home).messages.push(spent);
        }
    }
}
