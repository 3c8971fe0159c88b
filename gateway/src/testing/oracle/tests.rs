//! The oracle can say no: each promise is broken once.

use super::*;
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
            rough: false,
            window: usize::MAX,
            reads: Reads::Promptly,
            pongs: true,
            mute: false,
        };
        let connection = self.oracle.opened(&temper, 0);
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
