//! The oracle can say no: each promise is broken once.

use super::*;
use crate::config::{BackplaneChoice, ClientLimits};
use crate::protocol::centrifuge::client::{
    ClientPublication, ClientPush, ClientReply, Connected, ReplyFailure, ReplyKind, Subscribed,
};
use crate::testing::payload;
use crate::testing::profile::Reads;
use crate::testing::rng::Rng;

const SMOOTH: Facts = Facts {
    was_short: false,
    was_reset: false,
};
const SHORT: Facts = Facts {
    was_short: true,
    was_reset: false,
};

/// One channel, and clients that behave.
struct Scene {
    oracle: Oracle,
    clock: Clock,
    channel: Arc<str>,
    commands: u32,
    numbers: u64,
}

impl Scene {
    fn of(channel: &str) -> Self {
        let channel: Arc<str> = channel.into();
        let clock = Clock::default();
        let mut profile = Profile::draw(&mut Rng::new(1));
        profile.channels = vec![channel.clone()];
        profile.history_is_short = false;
        profile.stalls = 0;
        profile.tls = None;
        let config = Arc::make_mut(&mut profile.config);
        config.client_limits = ClientLimits::default();
        config.client.user_connection_limit = 0;
        config.backplane = BackplaneChoice::Embedded;
        Self {
            oracle: Oracle::new(Arc::new(profile), clock.clone()),
            clock,
            channel,
            commands: 0,
            numbers: 0,
        }
    }

    fn asks(&mut self, connection: ConnectionId, ask: Ask) -> u32 {
        self.commands += 1;
        self.oracle.asked(connection, self.commands, ask);
        self.commands
    }

    fn reads(&mut self, connection: ConnectionId, id: u32, kind: ReplyKind<'_>) -> Verdict {
        self.oracle
            .replied(connection, &ClientReply { id, kind }, SMOOTH)
    }

    fn client(&mut self) -> ConnectionId {
        let temper = Temper {
            encoding: Encoding::Json,
            window_bits: 0,
            rough: false,
            window: usize::MAX,
            reads: Reads::Promptly,
            pongs: true,
            mute: false,
            user: String::new(),
            tls: None,
        };
        let connection = self.oracle.opened(&temper, 0, 0);
        let id = self.asks(connection, Ask::Connect);
        let client = self.oracle.profile.config.client.clone();
        let result = Connected {
            client: format!("client {connection}").into(),
            version: "1".into(),
            ping: client.ping_interval.as_secs() as u32,
            pong: true,
            ..Connected::default()
        };
        self.reads(connection, id, ReplyKind::Connect(result))
            .unwrap();
        connection
    }

    fn subscribes(
        &mut self,
        connection: ConnectionId,
        recover: Option<u64>,
        result: Subscribed<'_>,
    ) -> Verdict {
        let ask = SubscribeAsk {
            channel: self.channel.clone(),
            positioned: false,
            recoverable: result.recoverable,
            join_leave: false,
            recover: recover.map(|offset| (offset, "boot".into())),
        };
        let id = self.asks(connection, Ask::Subscribe(ask));
        self.reads(connection, id, ReplyKind::Subscribe(result))
    }

    fn member(&mut self) -> ConnectionId {
        let connection = self.client();
        self.subscribes(connection, None, Subscribed::default())
            .unwrap();
        connection
    }

    /// The control thread publishes; it stands at `offset`, unless that is 0.
    fn publishes(&mut self, offset: u64) -> u64 {
        self.numbers += 1;
        let data = payload::json(self.numbers, 3);
        self.oracle.publishing(
            self.numbers,
            Publisher::Control,
            &self.channel.clone(),
            "",
            false,
            &data,
        );
        let position = (offset > 0).then_some((offset, "boot"));
        self.oracle.published(self.numbers, position).unwrap();
        self.numbers
    }

    fn is_unsubscribed(&mut self, connection: ConnectionId, code: u32) -> Verdict {
        let push = ClientPush::Unsubscribe {
            code,
            reason: "as it is".into(),
        };
        let channel = self.channel.clone();
        let kind = ReplyKind::Push {
            channel: (&*channel).into(),
            push,
        };
        let reply = ClientReply { id: 0, kind };
        self.oracle.replied(connection, &reply, SMOOTH)
    }

    fn sees(&mut self, connection: ConnectionId, number: u64, offset: u64) -> Verdict {
        self.sees_with(connection, number, offset, SMOOTH)
    }

    fn sees_with(
        &mut self,
        connection: ConnectionId,
        number: u64,
        offset: u64,
        facts: Facts,
    ) -> Verdict {
        let data = payload::json(number, 3);
        let publication = ClientPublication {
            data: &data,
            offset,
            ..ClientPublication::default()
        };
        let push = ClientPush::Publication(publication);
        let kind = ReplyKind::Push {
            channel: (&*self.channel).into(),
            push,
        };
        self.oracle
            .replied(connection, &ClientReply { id: 0, kind }, facts)
    }
}

#[track_caller]
fn broken(verdict: Verdict, what: &str) {
    let said = verdict
        .expect_err("a broken promise must be seen")
        .to_string();
    assert!(said.contains(what), "{said:?} does not say {what:?}");
}

#[test]
fn a_gap_between_offsets_is_seen_unless_the_policy_may_skip() {
    let mut scene = Scene::of("deep:1");
    let member = scene.member();
    let ids: Vec<u64> = (1..=3).map(|offset| scene.publishes(offset)).collect();
    scene.sees(member, ids[0], 1).unwrap();
    broken(
        scene.sees_with(member, ids[2], 3, SHORT),
        "1 publications are missing",
    );

    let mut scene = Scene::of("state:1");
    let member = scene.member();
    let ids: Vec<u64> = (1..=3).map(|offset| scene.publishes(offset)).collect();
    scene.sees(member, ids[0], 1).unwrap();
    scene.sees_with(member, ids[2], 3, SHORT).unwrap();
}

#[test]
fn a_publication_comes_once_whole_and_to_members_only() {
    let mut scene = Scene::of("plain1");
    let member = scene.member();
    let stranger = scene.client();
    let id = scene.publishes(0);
    broken(scene.sees(stranger, id, 0), "no member");
    scene.sees(member, id, 0).unwrap();
    broken(scene.sees(member, id, 0), "came twice");
    broken(scene.sees(member, 77, 0), "nobody sent");
    broken(scene.sees(member, id, 5), "has offset 5");
    let unsubscribe = scene.asks(member, Ask::Unsubscribe(scene.channel.clone()));
    scene
        .reads(member, unsubscribe, ReplyKind::Unsubscribe)
        .unwrap();
    let id = scene.publishes(0);
    broken(scene.sees(member, id, 0), "no member");
}

#[test]
fn an_offset_is_one_publication_for_everybody() {
    let mut scene = Scene::of("deep:1");
    let member = scene.member();
    scene.publishes(1);
    let second = scene.publishes(2);
    broken(
        scene.sees(member, second, 1),
        "offset 1 is publication 1 to some and 2 to others",
    );
}

#[test]
fn members_without_offsets_agree_about_the_order() {
    let mut scene = Scene::of("plain1");
    let (one, other) = (scene.member(), scene.member());
    let (a, b) = (scene.publishes(0), scene.publishes(0));
    for (member, id) in [(one, a), (one, b), (other, b), (other, a)] {
        scene.sees(member, id, 0).unwrap();
    }
    broken(scene.oracle.finished(), "disagree");
}

#[test]
fn what_others_saw_between_two_must_not_be_missing() {
    let mut scene = Scene::of("plain1");
    let (one, other) = (scene.member(), scene.member());
    let ids: Vec<u64> = (0..3).map(|_| scene.publishes(0)).collect();
    for id in &ids {
        scene.sees(one, *id, 0).unwrap();
    }
    scene.sees(other, ids[0], 0).unwrap();
    scene.sees(other, ids[2], 0).unwrap();
    broken(scene.oracle.finished(), "2 is between them");
}

#[test]
fn a_publishers_own_order_is_kept() {
    let mut scene = Scene::of("plain1");
    let member = scene.member();
    let (a, b) = (scene.publishes(0), scene.publishes(0));
    scene.sees(member, b, 0).unwrap();
    scene.sees(member, a, 0).unwrap();
    broken(scene.oracle.finished(), "sent later");
}

#[test]
fn when_all_is_quiet_nothing_is_missing_and_nothing_unanswered() {
    let mut scene = Scene::of("plain1");
    let member = scene.member();
    let id = scene.publishes(0);
    broken(scene.oracle.settled(|_| SMOOTH), "never came");
    scene.sees(member, id, 0).unwrap();
    scene.oracle.settled(|_| SMOOTH).unwrap();
    scene.asks(member, Ask::Ping);
    broken(scene.oracle.settled(|_| SMOOTH), "never answered");
}

#[test]
fn commands_are_answered_once_in_order_and_in_kind() {
    let mut scene = Scene::of("plain1");
    let client = scene.client();
    let (first, second) = (scene.asks(client, Ask::Ping), scene.asks(client, Ask::Ping));
    broken(
        scene.reads(client, second, ReplyKind::PingResult),
        "in place of",
    );
    let mut scene = Scene::of("plain1");
    let client = scene.client();
    scene.asks(client, Ask::Ping);
    scene.reads(client, first, ReplyKind::PingResult).unwrap();
    broken(
        scene.reads(client, first, ReplyKind::PingResult),
        "not asked",
    );
    let id = scene.asks(client, Ask::Unsubscribe(scene.channel.clone()));
    let error = ReplyFailure {
        code: 111,
        message: "too many requests".into(),
        temporary: true,
    };
    broken(
        scene.reads(client, id, ReplyKind::Error(error)),
        "error 111",
    );
}

#[test]
fn recovered_means_that_nothing_is_missing() {
    let recovering = |recovered, offset| Subscribed {
        recoverable: true,
        positioned: true,
        was_recovering: true,
        recovered,
        offset,
        epoch: "boot".into(),
        ..Subscribed::default()
    };
    let scene = || {
        let mut scene = Scene::of("deep:1");
        let member = scene.member();
        let ids: Vec<u64> = (1..=3).map(|offset| scene.publishes(offset)).collect();
        for (id, offset) in ids.iter().zip(1..) {
            scene.sees(member, *id, offset).unwrap();
        }
        let client = scene.client();
        (scene, client, ids)
    };
    let (mut s, client, _) = scene();
    broken(
        s.subscribes(client, Some(1), recovering(true, 1)),
        "shows nothing",
    );
    let (mut s, client, _) = scene();
    broken(
        s.subscribes(client, Some(1), recovering(false, 3)),
        "not recovered from 1",
    );
    let (mut s, client, _) = scene();
    broken(
        s.subscribes(client, Some(1), recovering(true, 3)),
        "the reply says 3",
    );
    let (mut s, client, ids) = scene();
    let (second, third) = (payload::json(ids[1], 3), payload::json(ids[2], 3));
    let shown = |data, offset| ClientPublication {
        data,
        offset,
        ..ClientPublication::default()
    };
    let mut reply = recovering(true, 1);
    reply.publications = vec![shown(&third, 3)];
    broken(
        s.subscribes(client, Some(1), reply),
        "1 publications are missing",
    );
    let (mut s, client, _) = scene();
    let mut reply = recovering(true, 1);
    reply.publications = vec![shown(&second, 2)];
    s.subscribes(client, Some(1), reply).unwrap();
    broken(
        s.oracle.settled(|_| SMOOTH),
        "has got to offset 2, the channel to 3",
    );
}

#[test]
fn a_recovered_member_is_told_2500_only_when_the_rest_may_be_gone() {
    // It recovers from 1 and is shown the second of three.
    let scene = || {
        let mut scene = Scene::of("deep:1");
        let ids: Vec<u64> = (1..=3).map(|offset| scene.publishes(offset)).collect();
        let client = scene.client();
        let second = payload::json(ids[1], 3);
        let reply = Subscribed {
            recoverable: true,
            positioned: true,
            was_recovering: true,
            recovered: true,
            offset: 1,
            epoch: "boot".into(),
            publications: vec![ClientPublication {
                data: &second,
                offset: 2,
                ..ClientPublication::default()
            }],
            ..Subscribed::default()
        };
        scene.subscribes(client, Some(1), reply).unwrap();
        (scene, client, ids)
    };
    let (mut s, client, _) = scene();
    broken(s.is_unsubscribed(client, 2500), "took everything at once");

    let (mut s, client, _) = scene();
    s.oracle.removing_history("deep:1");
    s.is_unsubscribed(client, 2500).unwrap();

    let (mut s, client, ids) = scene();
    s.oracle.removing_history("deep:1");
    s.oracle.history_removed("deep:1");
    s.sees(client, ids[2], 3).unwrap();
    s.publishes(4);
    broken(s.is_unsubscribed(client, 2500), "took everything at once");

    let (mut s, client, _) = scene();
    s.clock.advance(600_001);
    s.is_unsubscribed(client, 2500).unwrap();

    let (mut s, client, _) = scene();
    (4..=1002).for_each(|offset| {
        s.publishes(offset);
    });
    broken(s.is_unsubscribed(client, 2500), "took everything at once");
    let (mut s, client, _) = scene();
    (4..=1003).for_each(|offset| {
        s.publishes(offset);
    });
    s.is_unsubscribed(client, 2500).unwrap();
}

#[test]
fn already_subscribed_is_said_to_members_as_of_when_they_asked() {
    let already = || {
        ReplyKind::Error(ReplyFailure {
            code: 105,
            message: "already subscribed".into(),
            temporary: false,
        })
    };
    let again = |scene: &Scene| {
        Ask::Subscribe(SubscribeAsk {
            channel: scene.channel.clone(),
            positioned: false,
            recoverable: false,
            join_leave: false,
            recover: None,
        })
    };
    let mut scene = Scene::of("plain1");
    let member = scene.member();
    let ask = again(&scene);
    let id = scene.asks(member, ask);
    scene.oracle.expelled_from(member, &scene.channel.clone());
    scene.is_unsubscribed(member, 2000).unwrap();
    scene.reads(member, id, already()).unwrap();
    let ask = again(&scene);
    let id = scene.asks(member, ask);
    broken(scene.reads(member, id, already()), "error 105");
}

#[test]
fn of_what_may_be_the_newest_of_a_key_one_must_have_come() {
    let client_publishes = |scene: &mut Scene, client| {
        scene.numbers += 1;
        let (id, channel) = (scene.numbers, scene.channel.clone());
        let data = payload::json(id, 3);
        let publisher = Publisher::Client(client);
        (scene.oracle).publishing(id, publisher, &channel, "", false, &data);
        (id, scene.asks(client, Ask::Publish(channel, id)))
    };
    let settled = |scene: &mut Scene| scene.oracle.settled(|_| SHORT);
    let sees = |scene: &mut Scene, member, id| scene.sees_with(member, id, 0, SHORT);

    // Accepted before the second was sent: the first is not the newest.
    let mut scene = Scene::of("last:1");
    let member = scene.member();
    let first = scene.publishes(0);
    let other = scene.client();
    let (_, command) = client_publishes(&mut scene, other);
    scene.reads(other, command, ReplyKind::Publish).unwrap();
    sees(&mut scene, member, first).unwrap();
    broken(settled(&mut scene), "one of [2], never came");

    // Of one whose publisher left, nobody knows whether it is the newest.
    let mut scene = Scene::of("last:1");
    let (member, other) = (scene.member(), scene.client());
    client_publishes(&mut scene, other);
    let second = scene.publishes(0);
    scene.oracle.left(other);
    broken(settled(&mut scene), "one of [1, 2], never came");
    sees(&mut scene, member, second).unwrap();
    settled(&mut scene).unwrap();
}

#[test]
fn a_pong_too_late_may_meet_the_close() {
    let no_pong = End::Close(3012, "no pong".into());
    let pinged = || {
        let mut scene = Scene::of("plain1");
        let client = scene.client();
        scene.oracle.connections[client].temper.pongs = false;
        scene.reads(client, 0, ReplyKind::Ping).unwrap();
        scene
    };
    let timeout = |scene: &Scene| {
        let timeout = scene.oracle.profile.config.client.pong_timeout;
        timeout.as_millis() as u64
    };
    let mut scene = pinged();
    scene.clock.advance(timeout(&scene));
    scene.oracle.ponged(0);
    scene.oracle.ended(0, &no_pong, SMOOTH).unwrap();

    let mut scene = pinged();
    scene.clock.advance(timeout(&scene));
    scene.oracle.ponged(0);
    scene.clock.advance(2000);
    broken(scene.oracle.ended(0, &no_pong, SMOOTH), "gave no reason");

    // Two pings, one pong: the second is still waited for.
    let mut scene = pinged();
    scene.clock.advance(1000);
    scene.reads(0, 0, ReplyKind::Ping).unwrap();
    scene.oracle.ponged(0);
    scene.clock.advance(timeout(&scene));
    scene.oracle.ended(0, &no_pong, SMOOTH).unwrap();
}

#[test]
fn who_behaves_is_neither_closed_nor_told_2500_nor_left_without_pings() {
    let mut scene = Scene::of("deep:1");
    let member = scene.member();
    for end in [
        End::Close(3008, "slow".into()),
        End::Close(3012, "no pong".into()),
        End::Close(3501, "bad request".into()),
        End::Eof,
        End::Reset,
        End::Refused(503),
    ] {
        let fresh = scene.client();
        broken(scene.oracle.ended(fresh, &end, SMOOTH), "gave no reason");
    }
    let told = ClientPush::Unsubscribe {
        code: 2500,
        reason: "insufficient state".into(),
    };
    let kind = ReplyKind::Push {
        channel: "deep:1".into(),
        push: told,
    };
    broken(scene.reads(member, 0, kind), "took everything at once");
    scene.oracle.time_passed(member, SMOOTH).unwrap();
    scene.clock.advance(60_000);
    broken(scene.oracle.time_passed(member, SMOOTH), "no ping");
}

#[test]
fn presence_is_who_is_there() {
    let mut scene = Scene::of("plain1");
    let (one, other) = (scene.member(), scene.member());
    assert_eq!(scene.oracle.present("plain1").len(), 2);
    scene.oracle.left(one);
    assert_eq!(
        scene.oracle.present("plain1"),
        [format!("client {other}")].into()
    );
}
