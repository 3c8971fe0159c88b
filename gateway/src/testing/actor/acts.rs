//! What a client does of its own accord.

use super::{Actor, Leave, Phase, Standing, Want};
use crate::protocol::centrifuge::Encoding;
use crate::protocol::centrifuge::client as wire;
use crate::testing::oracle::{Ask, Publisher};
use crate::testing::payload;
use crate::testing::profile::Reads;
use crate::testing::stage::Stage;
use std::sync::Arc;

impl Actor {
    /// Does one thing of its own accord.
    pub fn act(&mut self, stage: &mut Stage) {
        let Some(live) = &mut self.live else { return };
        if live.phase != Phase::Open {
            if self.rng.chance(10) {
                self.leave(stage, Leave::Reset);
            }
            return;
        }
        let rounds = if self.rng.chance(200) {
            self.rng.range(1, 6)
        } else {
            1
        };
        for _ in 0..rounds {
            // A message has a limit.
            if self
                .live
                .as_ref()
                .is_some_and(|live| live.staged.len() > 15_000)
            {
                self.write(stage);
            }
            if self.temper.tls.is_some() && self.rng.chance(20) {
                self.change_keys(stage);
            }
            match self.rng.below(1000) {
                0..350 => self.publish(stage),
                350..600 => self.want(stage),
                600..700 => self.unsubscribe(stage),
                700..760 => self.history(stage),
                760..830 => self.presence(stage),
                830..860 => self.ping(stage),
                860..880 => self.do_wrong(stage),
                880..900 => {
                    self.write(stage);
                    self.leave_somehow(stage);
                    return;
                }
                900..930 if self.temper.reads == Reads::Slowly => {
                    self.paused_until = stage.clock.millis() + self.rng.magnitude(10, 15_000);
                }
                _ => {}
            }
        }
        self.write(stage);
    }

    fn publish(&mut self, stage: &mut Stage) {
        let active: Vec<&Arc<str>> = self.wants.keys().collect();
        let channel = match active.is_empty() || self.rng.chance(300) {
            true => self.rng.pick(&stage.profile.channels).clone(),
            false => (*self.rng.pick(&active)).clone(),
        };
        let Some(live) = &mut self.live else { return };
        let pad = if self.rng.chance(10) {
            self.rng.range(20_000, 40_000)
        } else {
            self.rng.magnitude(0, 2000)
        } as usize;
        let id = stage.number_publication();
        let binary =
            self.temper.encoding == Encoding::Protobuf && self.rng.chance(stage.profile.binary);
        let data = if binary {
            payload::binary(id, pad)
        } else {
            payload::json(id, pad)
        };
        stage
            .oracle
            .publishing(id, Publisher::Client(live.id), &channel, "", false, &data);
        self.commands += 1;
        wire::publish(
            &mut live.staged,
            self.temper.encoding,
            self.commands,
            &channel,
            &data,
        );
        self.note(stage, Ask::Publish(channel, id));
    }

    fn want(&mut self, stage: &mut Stage) {
        let channel = self.rng.pick(&stage.profile.channels).clone();
        if let Some(want) = self.wants.get(&channel) {
            if want.standing == Standing::Active && self.rng.chance(50) {
                // Twice is once too often.
                self.subscribe(stage, &channel);
            }
            return;
        }
        let mut position = self
            .memory
            .get(&channel)
            .cloned()
            .filter(|_| self.rng.chance(700));
        if let Some((offset, epoch)) = &mut position {
            match self.rng.below(40) {
                0 => *epoch = "another".into(),
                1 => *offset = 1 << 40,
                2 => epoch.clear(),
                _ => {}
            }
        }
        let want = Want {
            positioned: self.rng.chance(400),
            recoverable: position.is_some() || self.rng.chance(600),
            join_leave: self.rng.chance(400),
            standing: Standing::Idle(0),
            position,
        };
        self.wants.insert(channel.clone(), want);
        self.subscribe(stage, &channel);
    }

    fn unsubscribe(&mut self, stage: &mut Stage) {
        let channels: Vec<Arc<str>> = self.wants.keys().cloned().collect();
        if channels.is_empty() {
            return;
        }
        let channel = self.rng.pick(&channels).clone();
        if let Some(Want {
            position: Some(position),
            ..
        }) = self.wants.remove(&channel)
        {
            self.memory.insert(channel.clone(), position);
        }
        let Some(live) = &mut self.live else { return };
        self.commands += 1;
        wire::unsubscribe(
            &mut live.staged,
            self.temper.encoding,
            self.commands,
            &channel,
        );
        self.note(stage, Ask::Unsubscribe(channel));
    }

    fn history(&mut self, stage: &mut Stage) {
        let channel = self.rng.pick(&stage.profile.channels).clone();
        let Some(live) = &mut self.live else { return };
        let limit = *self.rng.pick(&[-1, 0, 1, 5, 1000]);
        let reverse = self.rng.chance(400);
        let active = self
            .wants
            .get(&channel)
            .filter(|want| want.standing == Standing::Active);
        let known = active.and_then(|want| want.position.clone());
        let since = known.filter(|_| self.rng.chance(500));
        let request = wire::History {
            channel: &channel,
            limit,
            since: since.as_ref().map(|(offset, epoch)| wire::Position {
                offset: *offset,
                epoch,
            }),
            reverse,
        };
        self.commands += 1;
        wire::history(
            &mut live.staged,
            self.temper.encoding,
            self.commands,
            &request,
        );
        let since = since.map(|(offset, _)| offset);
        self.note(
            stage,
            Ask::History {
                channel,
                limit,
                since,
                reverse,
            },
        );
    }

    fn presence(&mut self, stage: &mut Stage) {
        let channel = self.rng.pick(&stage.profile.channels).clone();
        let Some(live) = &mut self.live else { return };
        self.commands += 1;
        let ask = if self.rng.chance(500) {
            wire::presence(
                &mut live.staged,
                self.temper.encoding,
                self.commands,
                &channel,
            );
            Ask::Presence(channel)
        } else {
            wire::presence_stats(
                &mut live.staged,
                self.temper.encoding,
                self.commands,
                &channel,
            );
            Ask::PresenceStats(channel)
        };
        self.note(stage, ask);
    }

    fn ping(&mut self, stage: &mut Stage) {
        // A WebSocket ping that is too many is not answered.
        let is_measured = stage.oracle.measures_connections();
        if is_measured || self.rng.chance(500) {
            let Some(live) = &mut self.live else { return };
            self.commands += 1;
            wire::ping(&mut live.staged, self.temper.encoding, self.commands);
            self.note(stage, Ask::Ping);
            return;
        }
        self.write(stage);
        let Some(live) = &mut self.live else { return };
        let payload = self.rng.next_u64().to_le_bytes()[..self.rng.index(8)].to_vec();
        let mut out = Vec::new();
        live.link.write_ping(&payload, &mut out);
        live.ws_pings.push_back(payload);
        live.say(stage, &out);
    }

    /// In TLS, now and then, its keys are changed.
    fn change_keys(&mut self, stage: &Stage) {
        let Some(live) = &mut self.live else { return };
        let mut out = Vec::new();
        live.wire.change_keys(&mut out);
        live.send(stage, &out);
    }

    fn do_wrong(&mut self, stage: &mut Stage) {
        let Some(live) = &mut self.live else { return };
        self.commands += 1;
        let request = wire::Subscribe {
            channel: "nowhere:1",
            ..wire::Subscribe::default()
        };
        wire::subscribe(
            &mut live.staged,
            self.temper.encoding,
            self.commands,
            &request,
        );
        self.note(stage, Ask::Wrong(102));
    }
}
