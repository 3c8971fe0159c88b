//! Who may do what in a channel: pure functions of the namespace's options and the client.

use crate::config::{ChannelOptions, Client};
use crate::protocol::token::OptionOverrides;

/// The client and its relation to the channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) client: &'a Client,
    pub(super) is_anonymous: bool,
    pub(super) is_subscribed: bool,
}

impl Who<'_> {
    fn allowed(&self, for_client: bool, for_subscriber: bool, for_anonymous: bool) -> bool {
        let by_role = for_client || (for_subscriber && self.is_subscribed);
        self.client.insecure || (by_role && (!self.is_anonymous || for_anonymous))
    }

    pub(super) fn may_subscribe(&self, o: &ChannelOptions) -> bool {
        self.allowed(
            o.allow_subscribe_for_client,
            false,
            o.allow_subscribe_for_anonymous,
        )
    }

    pub(super) fn may_publish(&self, o: &ChannelOptions) -> bool {
        self.allowed(
            o.allow_publish_for_client,
            o.allow_publish_for_subscriber,
            o.allow_publish_for_anonymous,
        )
    }

    pub(super) fn may_see_presence(&self, o: &ChannelOptions) -> bool {
        self.allowed(
            o.allow_presence_for_client,
            o.allow_presence_for_subscriber,
            o.allow_presence_for_anonymous,
        )
    }

    pub(super) fn may_read_history(&self, o: &ChannelOptions) -> bool {
        self.allowed(
            o.allow_history_for_client,
            o.allow_history_for_subscriber,
            o.allow_history_for_anonymous,
        )
    }
}

/// What a subscription gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) positioned: bool,
    pub(super) recoverable: bool,
    pub(super) join_leave: bool,
    /// The home keeps its presence.
    pub(super) is_present: bool,
    /// Its join and leave are published.
    pub(super) announces: bool,
}

/// What the client asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) positioned: bool,
    pub(super) recoverable: bool,
    pub(super) join_leave: bool,
}

/// Forced by the namespace or the token, or asked for and allowed.
pub(super) fn grant(
    o: &ChannelOptions,
    over: &OptionOverrides,
    wish: Wish,
    may_see_presence: bool,
) -> Granted {
    let force_recovery = over.force_recovery.unwrap_or(o.force_recovery);
    let force_positioning = over.force_positioning.unwrap_or(o.force_positioning);
    let recoverable = o.has_history() && (force_recovery || (wish.recoverable && o.allow_recovery));
    let positioned = o.has_history()
        && (recoverable
            || force_positioning
            || (wish.positioned && (o.allow_positioning || o.allow_recovery)));
    let has_join_leave = over.join_leave.unwrap_or(o.join_leave);
    let force_push = over
        .force_push_join_leave
        .unwrap_or(o.force_push_join_leave);
    Granted {
        positioned,
        recoverable,
        join_leave: has_join_leave && (force_push || (wish.join_leave && may_see_presence)),
        is_present: over.presence.unwrap_or(o.presence),
        announces: has_join_leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn options() -> ChannelOptions {
        ChannelOptions {
            history_size: 10,
            history_ttl: Duration::from_secs(60),
            ..ChannelOptions::default()
        }
    }

    const ALL: Wish = Wish {
        positioned: true,
        recoverable: true,
        join_leave: true,
    };

    #[test]
    fn nothing_is_granted_that_is_neither_allowed_nor_forced() {
        assert_eq!(
            grant(&options(), &OptionOverrides::default(), ALL, true),
            Granted::default()
        );
    }

    #[test]
    fn recovery_implies_a_position_and_needs_history() {
        let mut o = ChannelOptions {
            allow_recovery: true,
            ..options()
        };
        let granted = grant(
            &o,
            &OptionOverrides::default(),
            Wish {
                recoverable: true,
                ..Wish::default()
            },
            false,
        );
        assert!(granted.recoverable && granted.positioned);
        o.history_size = 0;
        assert!(!grant(&o, &OptionOverrides::default(), ALL, true).positioned);
    }

    #[test]
    fn a_token_can_force_and_forbid() {
        let over = OptionOverrides {
            force_recovery: Some(true),
            ..OptionOverrides::default()
        };
        assert!(grant(&options(), &over, Wish::default(), false).recoverable);
        let o = ChannelOptions {
            force_recovery: true,
            ..options()
        };
        let over = OptionOverrides {
            force_recovery: Some(false),
            ..OptionOverrides::default()
        };
        assert!(!grant(&o, &over, Wish::default(), false).recoverable);
    }

    #[test]
    fn a_token_says_whether_a_member_is_present_and_announced_whatever_the_namespace_does() {
        for is_on in [false, true] {
            let o = ChannelOptions {
                presence: is_on,
                join_leave: is_on,
                ..options()
            };
            let granted = |over| {
                let granted = grant(&o, &over, Wish::default(), false);
                (granted.is_present, granted.announces)
            };
            let presence = OptionOverrides {
                presence: Some(!is_on),
                ..OptionOverrides::default()
            };
            let join_leave = OptionOverrides {
                join_leave: Some(!is_on),
                ..OptionOverrides::default()
            };
            assert_eq!(granted(OptionOverrides::default()), (is_on, is_on));
            assert_eq!(granted(presence), (!is_on, is_on));
            assert_eq!(granted(join_leave), (is_on, !is_on));
        }
    }

    #[test]
    fn joins_are_seen_by_who_may_see_presence_or_is_forced_to() {
        let mut o = ChannelOptions {
            join_leave: true,
            ..options()
        };
        assert!(!grant(&o, &OptionOverrides::default(), ALL, false).join_leave);
        assert!(grant(&o, &OptionOverrides::default(), ALL, true).join_leave);
        o.force_push_join_leave = true;
        assert!(grant(&o, &OptionOverrides::default(), Wish::default(), false).join_leave);
    }
}
