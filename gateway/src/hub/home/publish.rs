//! Publishing: number, keep, render once for each rendition that somebody reads, hand to every view.

use super::Homes;
use crate::hub::lane::{LaneKind, Rendition};
use crate::hub::links::{Links, put};
use crate::hub::message::{LaneMask, MemberChange, Message, Span};
use crate::ids::{ClientId, Now};
use crate::protocol::centrifuge::publication::{PublicationView, append_offset};
use crate::protocol::centrifuge::{Encoding, push_join, push_leave, push_publication};
use std::sync::Arc;

/// Once for all members, so it may take its time; higher levels take twice of it and gain some per cent.
pub const DEFLATE_LEVEL: u32 = 3;

/// Frames that are compressed where somebody reads them so. Smaller ones gain little; what is larger would keep the home,
/// which compresses some 100 MB/s, from its other channels for too long.
const DEFLATE_BYTES: std::ops::RangeInclusive<usize> = 128..=64 * 1024;

/// A publication on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The channel,
    pub name: &'a str,
    /// its keyed hash
    pub hash: u64,
    /// and its namespace.
    pub namespace: u16,
    /// Protobuf `Publication` without an offset.
    pub publication: &'a [u8],
    /// Whether its data is known to be JSON.
    pub json: bool,
    /// Deliver, but do not keep.
    pub skip_history: bool,
}

impl Homes {
    /// Takes a publication. Returns its position in channels with history.
    pub fn publish(
        &mut self,
        incoming: &Incoming<'_>,
        now: Now,
        links: &mut Links,
    ) -> Option<(u64, Arc<str>)> {
        self.publications += 1;
        let options = self.config.channels.namespaces[usize::from(incoming.namespace)]
            .1
            .clone();
        let keeps = options.has_history();
        let index = match self.find(incoming.name, incoming.hash) {
            Some(index) => index,
            // Nobody is here and nothing is kept: it is over.
            None if !keeps || incoming.skip_history => {
                return keeps.then(|| (self.high_water, self.epoch.clone()));
            }
            None => self.find_or_make(
                || incoming.name.into(),
                incoming.name,
                incoming.hash,
                incoming.namespace,
            ),
        };
        // A publication that is not kept has no number: it cannot be asked for again.
        let is_numbered = keeps && !incoming.skip_history;
        if is_numbered {
            self.expire(index, now);
        }
        let home = &mut self.homes[index];
        let prev = home.top;
        if is_numbered || !keeps {
            home.top += 1;
        }
        let offset = home.top;
        if is_numbered {
            self.numbered.clear();
            self.numbered.extend_from_slice(incoming.publication);
            append_offset(&mut self.numbered, offset);
            let history = home.history.get_or_insert_default();
            let before = history.bytes();
            history.push(
                offset,
                now.millis,
                &self.numbered,
                incoming.json,
                options.history_size,
                &mut home.floor,
            );
            self.history_bytes = self.history_bytes + history.bytes() - before;
            self.published.push_back((index, offset));
        }
        let shown = is_numbered.then_some(offset);
        let mut not_json = false;
        self.fan_out(
            index,
            (prev, offset),
            false,
            incoming.publication,
            links,
            |out, encoding, name| {
                let pushed = push_publication(
                    out,
                    encoding,
                    name,
                    incoming.publication,
                    shown,
                    incoming.json,
                );
                not_json |= pushed.is_err();
                not_json
            },
        );
        let position = keeps.then(|| (offset, self.epoch.clone()));
        self.enforce_history_budget(links);
        position
    }

    /// A client has subscribed or left.
    pub fn member(
        &mut self,
        channel: (&str, u64, u16),
        client: ClientId,
        info: &[u8],
        change: MemberChange,
        links: &mut Links,
    ) {
        let (name, hash, namespace) = channel;
        let index = self.find_or_make(|| name.into(), name, hash, namespace);
        let home = &mut self.homes[index];
        if change.is_present {
            let presence = home.presence.get_or_insert_default();
            if change.has_arrived {
                presence.insert(client, info);
            } else {
                presence.remove(client);
            }
            if presence.is_empty() {
                home.presence = None;
            }
        }
        if change.is_announced {
            let at = home.top;
            self.fan_out(index, (at, at), true, &[], links, |out, encoding, name| {
                let push = if change.has_arrived {
                    push_join
                } else {
                    push_leave
                };
                push(out, encoding, name, info);
                false
            });
        }
        self.free_if_unused(index, links);
    }

    /// Renders once for each encoding, and gives every view what it reads. `render` says whether it is not JSON. The views
    /// of a shard that is lost are told once that they miss something, and then given nothing until they attach again.
    fn fan_out(
        &mut self,
        index: u32,
        (prev, offset): (u64, u64),
        sideband: bool,
        publication: &[u8],
        links: &mut Links,
        mut render: impl FnMut(&mut Vec<u8>, Encoding, &str) -> bool,
    ) {
        let home = &mut self.homes[index];
        let mut not_json = false;
        let wants = |lanes: LaneMask, rendition: Rendition| match sideband {
            false => lanes.covers(LaneKind::Publications(rendition).mask()),
            true => {
                !rendition.deflated && lanes.covers(LaneKind::Sideband(rendition.encoding).mask())
            }
        };
        for encoding in Encoding::ALL {
            let (plain, deflated) = (
                &mut self.render[encoding as usize],
                &mut self.deflated[encoding as usize],
            );
            plain.clear();
            deflated.clear();
            let [is_read_plain, is_read_deflated] = [false, true].map(|deflated| {
                let rendition = Rendition { encoding, deflated };
                home.attached.iter().any(|a| wants(a.lanes, rendition))
            });
            if is_read_plain || is_read_deflated {
                let refused = render(plain, encoding, &home.name);
                not_json |= refused && encoding == Encoding::Json;
            }
            if is_read_deflated && DEFLATE_BYTES.contains(&plain.len()) {
                self.deflater.deflate(deflated, plain);
            }
        }
        let key = match self.config.channels.options(home.namespace).slow {
            crate::config::SlowPolicy::Latest if !sideband => {
                PublicationView::parse(publication).map_or("", |p| p.key())
            }
            _ => "",
        };
        let (rendered, deflated) = (&self.render, &self.deflated);
        home.attached.retain(|attachment| {
            let is_wanted = |rendition| wants(attachment.lanes, rendition);
            // Sideband frames matter only to views that read them; numbers matter to all.
            if sideband && !Rendition::ALL.into_iter().any(is_wanted) {
                return true;
            }
            let (view, generation) = (attachment.view, attachment.generation);
            if links.is_lost(attachment.shard) {
                if !crate::planted!(MissedNotTold) {
                    let batch = links.to(attachment.shard);
                    batch.messages.push(Message::Missed { view, generation });
                }
                return false;
            }
            let batch = links.to(attachment.shard);
            let mut frames = [Span::default(); Rendition::COUNT];
            for rendition in Rendition::ALL.into_iter().filter(|r| is_wanted(*r)) {
                let at = rendition.encoding as usize;
                frames[rendition.index()] = match &deflated[at][..] {
                    // What is not worth it is the same in both.
                    [] if rendition.deflated && frames[at].len > 0 => frames[at],
                    [_, ..] if rendition.deflated => put(batch, &deflated[at]),
                    _ => put(batch, &rendered[at]),
                };
            }
            let key = put(batch, key.as_bytes());
            batch.messages.push(Message::Append {
                view,
                generation,
                offset,
                prev,
                frames,
                sideband,
                not_json,
                key,
            });
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Keys;
    use crate::hub::links::Bounds;
    use crate::ids::ShardId;
    use crate::mailbox::{Inbox, Waker, pair};
    use crate::protocol::centrifuge::publication::{PublicationParts, encode};
    use crate::testing::profile::Profile;
    use crate::testing::rng::Rng;

    const LOST_BYTES: usize = 50_000;

    const PEER: ShardId = ShardId(1);
    const VIEW: (u32, u32) = (7, 3);

    /// One of two shards, its way to the other one, and where the other one would hear it.
    struct Bench {
        homes: Homes,
        links: Links,
        inbox: Inbox<Message>,
        name: Arc<str>,
        hash: u64,
    }

    impl Bench {
        fn new() -> Self {
            let keys = Keys {
                hash: [1, 2],
                shards: 2,
            };
            let config = Profile::draw(&mut Rng::new(0)).config;
            let (outbox, inbox) = pair(1, Waker::none());
            let ways = [None, Some(outbox), None].into_iter().collect();
            let bounds = Bounds {
                lost_bytes: LOST_BYTES,
                ..Bounds::default()
            };
            Self {
                homes: Homes::new(keys, config, "boot".into()),
                links: Links::new(ShardId(0), ways, Vec::new()).with_bounds(bounds),
                inbox,
                name: "plain".into(),
                hash: keys.hash("plain"),
            }
        }

        fn attach(&mut self, lanes: LaneMask) {
            let (name, (view, generation)) = (self.name.clone(), VIEW);
            self.homes.attach(
                PEER,
                &name,
                self.hash,
                0,
                view,
                generation,
                lanes,
                &mut self.links,
            );
        }

        fn publish(&mut self, publication: &[u8]) {
            let incoming = Incoming {
                name: &self.name,
                hash: self.hash,
                namespace: 0,
                publication,
                json: true,
                skip_history: false,
            };
            self.homes
                .publish(&incoming, Now::default(), &mut self.links);
            self.links.publish(0);
        }

        /// All that the peer is told, and how many bytes waited for it.
        fn hear(&mut self) -> (Vec<Message>, usize) {
            let (mut heard, mut bytes) = (Vec::new(), 0);
            self.links.publish(0);
            while let Some(batch) = self.inbox.take() {
                bytes += batch.size();
                heard.extend_from_slice(&batch.messages);
                self.inbox.recycle(batch);
                self.links.publish(0);
            }
            (heard, bytes)
        }
    }

    const PLAIN: Rendition = Rendition {
        encoding: Encoding::Json,
        deflated: false,
    };

    fn lane(sideband: bool) -> LaneMask {
        if sideband {
            LaneKind::Sideband(PLAIN.encoding).mask()
        } else {
            LaneKind::Publications(PLAIN).mask()
        }
    }

    #[test]
    fn what_waits_for_a_stopped_shard_is_bounded_and_its_views_are_told_once() {
        let mut bench = Bench::new();
        let data = format!("\"{}\"", "x".repeat(1000));
        let mut publication = Vec::new();
        let parts = PublicationParts {
            data: data.as_bytes(),
            ..PublicationParts::default()
        };
        encode(&mut publication, &parts);
        bench.attach(lane(false));
        (0..1000).for_each(|_| bench.publish(&publication));
        let (heard, bytes) = bench.hear();
        assert!((LOST_BYTES..LOST_BYTES + 4000).contains(&bytes), "{bytes}");
        let [Message::Attached { top: 0, .. }, appends @ .., last] = &heard[..] else {
            panic!("{heard:?}");
        };
        let is_gapless = appends
            .iter()
            .zip(1..)
            .all(|(message, n)| matches!(message, Message::Append { offset, .. } if *offset == n));
        assert!(is_gapless && appends.len() < 100, "{appends:?}");
        let told = match last {
            Message::Missed { view, generation } => Some((*view, *generation)),
            _ => None,
        };
        assert_eq!(told, Some(VIEW));

        // It is given nothing until it asks again.
        bench.publish(&publication);
        bench.attach(lane(false));
        bench.publish(&publication);
        let (heard, _) = bench.hear();
        assert!(
            matches!(
                heard[..],
                [
                    Message::Attached { top: 1001, .. },
                    Message::Append { offset: 1002, .. }
                ]
            ),
            "{heard:?}"
        );
    }

    #[test]
    fn a_member_is_kept_and_announced_as_its_subscription_says() {
        for (is_present, is_announced) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let mut bench = Bench::new();
            bench.attach(lane(false).with(lane(true)));
            for (has_arrived, present) in [(true, u32::from(is_present)), (false, 0)] {
                let change = MemberChange {
                    has_arrived,
                    is_present,
                    is_announced,
                };
                let (client, name) = (ClientId::from_random(1), bench.name.clone());
                let channel = (&*name, bench.hash, 0);
                bench
                    .homes
                    .member(channel, client, &[], change, &mut bench.links);
                assert_eq!(bench.homes.presence_stats(&name).0, present);
            }
            let (heard, _) = bench.hear();
            let announced = heard
                .iter()
                .filter(|m| matches!(m, Message::Append { sideband: true, .. }));
            assert_eq!(announced.count(), if is_announced { 2 } else { 0 });
        }
    }
}
