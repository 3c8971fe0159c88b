//! What an arrival changes: the proof, the histogram, what is owed. Apart from the fleet, which lends its buffers
//! meanwhile.
//!
//! A thread keeps its own members' accounts, and of a channel what concerns those: what has been published, how many of them
//! are owed it, how many still lack it. Other threads' publications and completions come through the mailbox.

use std::time::Instant;

use super::Group;
use crate::client::centrifuge::{Position, Reply};
use crate::client::fleet::News;
use crate::client::ledger::{Faults, Seen, View};
use crate::client::payload::{self, Body, Origin};
use crate::client::protocol::Protocol;
use crate::client::share::Share;
use crate::measure::histogram::Times;
use crate::scenario::threads::{Mailbox, Notice};

/// One channel's state.
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(super) origin: Origin,
    /// The thread that publishes into it.
    pub(super) home: usize,
    /// The place of the connection that does, on that thread.
    pub(super) publisher: Option<usize>,
    /// The other threads that have members, on that thread.
    pub(super) listeners: Vec<usize>,
    pub(super) body: Body,
    group: usize,
    /// Where the body stood in the last reply.
    pub(super) hint: usize,
    /// As far as this thread knows.
    pub(crate) published: u32,
    /// Members that are owed each publication.
    pub(crate) members: u32,
    /// Closed loop: members, and listeners, that still lack publication `sequence % lacking.len()`. Empty in an open loop.
    pub(super) lacking: Vec<u32>,
    epoch: String,
}

impl Channel {
    /// A channel of the group with this number, without a publisher on this thread.
    pub(super) fn new(name: String, origin: Origin, group: &Group, number: usize) -> Self {
        Self {
            name,
            origin,
            home: 0,
            publisher: None,
            listeners: Vec::new(),
            body: group.body,
            group: number,
            hint: 0,
            published: 0,
            members: 0,
            // Room for publications that complete before earlier ones.
            lacking: match group.load.in_flight() {
                0 => Vec::new(),
                in_flight => vec![0; (4 * in_flight).next_power_of_two()],
            },
            epoch: String::new(),
        }
    }

    fn lacking(&mut self, sequence: u32) -> Option<&mut u32> {
        let at = (sequence as usize).checked_rem(self.lacking.len())?;
        self.lacking.get_mut(at)
    }

    /// True when nobody lacks it any more.
    fn count_down(&mut self, sequence: u32) -> bool {
        // Zero: the slot's publication was given up for a later one, so the run is about to stall anyway.
        let Some(lacking) = self.lacking(sequence).filter(|lacking| **lacking > 0) else {
            return false;
        };
        *lacking -= 1;
        *lacking == 0
    }
}

/// What a member may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not joined: what still arrives is passed over.
    Out,
    /// The same, and that it has connected does not change it.
    Aside,
    /// Each publication, once, in order.
    Owed,
    /// The same although it is not connected: it will recover.
    Away,
    /// Whatever comes, but in order and once: it reads too slowly to ask for more.
    Leftover,
}

/// One subscriber.
pub(crate) struct Member {
    pub(super) view: View,
    pub(crate) channel: u32,
    pub(crate) standing: Standing,
}

/// What a scenario may want to know beside deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The connection has joined.
    Joined,
    /// The answer to a command of the scenario's own.
    Done(u64),
    /// It is over, and why.
    Closed(String),
}

/// All channels and members, and what happened to them.
pub(crate) struct Room<'a> {
    pub(super) protocol: &'a Protocol,
    share: Share,
    mailbox: Mailbox,
    pub(crate) channels: Vec<Channel>,
    pub(crate) members: Vec<Member>,
    /// Channels with a publication that has just reached its last member.
    pub(super) completed: Vec<usize>,
    pub(crate) deliveries: u64,
    /// What members had missed and were owed when they came back.
    pub(crate) recovered: u64,
    /// Members that came back and were told that not all is there.
    pub(crate) unrecovered: u64,
    /// Deliveries outstanding.
    pub(super) owed: u64,
    /// Messages to subscribers that were none of ours.
    pub(super) ignored: u64,
    /// Publications that were answered.
    pub(crate) answered: u64,
    /// Of the present second.
    pub(super) latency: Times,
    /// Of the window, by group, when there are several.
    pub(super) latencies: Vec<Times>,
    /// What happened, when a scenario listens.
    pub(crate) events: Option<Vec<(usize, Event)>>,
    /// The offset of each member's last publication, when a scenario wants to recover.
    pub(crate) offsets: Option<Vec<u64>>,
    pub(super) epoch: Instant,
}

impl<'a> Room<'a> {
    pub(super) fn new(
        protocol: &'a Protocol,
        share: Share,
        (mailbox, epoch): (Mailbox, Instant),
        channels: Vec<Channel>,
        channel_of: &[u32],
    ) -> Self {
        let member = |&channel: &u32| Member {
            view: View::default(),
            channel,
            standing: Standing::Out,
        };
        Self {
            protocol,
            share,
            mailbox,
            channels,
            members: channel_of.iter().map(member).collect(),
            completed: Vec::new(),
            deliveries: 0,
            recovered: 0,
            unrecovered: 0,
            owed: 0,
            ignored: 0,
            answered: 0,
            latency: Times::new(),
            latencies: Vec::new(),
            events: None,
            offsets: None,
            epoch,
        }
    }

    /// Takes what other threads have to tell; true when there was anything.
    pub(super) fn hear(&mut self) -> bool {
        let mut any = false;
        while let Some(notice) = self.mailbox.take() {
            any = true;
            match notice {
                Notice::Published(at) => self.owe(at),
                Notice::Complete { channel, sequence } => self.count_down(channel, sequence),
            }
        }
        any
    }

    /// The thread's own next publication into channel `at` is about to leave.
    pub(super) fn announce(&mut self, at: usize) {
        for &thread in &self.channels[at].listeners {
            self.mailbox.tell(thread, Notice::Published(at));
        }
        self.owe(at);
    }

    /// From now on the next publication into channel `at` is owed to its members.
    fn owe(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        let (sequence, members) = (channel.published, channel.members);
        channel.published += 1;
        self.owed += u64::from(members);
        let lackers = members + channel.listeners.len() as u32;
        if let Some(lacking) = channel.lacking(sequence) {
            *lacking = lackers;
            if lackers == 0 && channel.publisher.is_none() {
                self.complete(at, sequence);
            }
        }
    }

    fn count_down(&mut self, at: usize, sequence: u32) {
        if self.channels[at].count_down(sequence) {
            self.complete(at, sequence);
        }
    }

    /// The last of the thread's members, and of its listeners, has a publication.
    fn complete(&mut self, at: usize, sequence: u32) {
        let channel = &self.channels[at];
        match channel.publisher {
            Some(_) => self.completed.push(at),
            None => {
                let notice = Notice::Complete {
                    channel: at,
                    sequence,
                };
                self.mailbox.tell(channel.home, notice);
            }
        }
    }

    /// Takes what a connection has to tell.
    pub(super) fn take(&mut self, index: usize, news: News<'_>, now_ns: u64, faults: &mut Faults) {
        match news {
            News::Reply(reply) => self.take_reply(index, reply, now_ns, faults),
            News::Joined(reply) => {
                if self.awaits(index) {
                    self.join(index, reply, faults);
                }
                self.tell(index, || Event::Joined);
            }
            News::Closed(words) => {
                if index < self.members.len() && self.members[index].standing != Standing::Away {
                    self.leave(index, faults);
                }
                self.tell(index, || Event::Closed(words.to_owned()));
            }
        }
    }

    fn awaits(&self, index: usize) -> bool {
        let member = self.members.get(index);
        member.is_some_and(|member| member.standing != Standing::Aside)
    }

    /// True when a member lacks something that was published.
    pub(crate) fn is_owed(&self, index: usize) -> bool {
        let member = &self.members[index];
        let published = self.channels[member.channel as usize].published;
        member.standing == Standing::Owed && member.view.lost(published) > 0
    }

    fn tell(&mut self, index: usize, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.events {
            events.push((index, event()));
        }
    }

    fn take_reply(&mut self, index: usize, reply: &[u8], now_ns: u64, faults: &mut Faults) {
        let Some(member) = self.members.get(index) else {
            return self.take_answer(index, reply, faults);
        };
        let hint = self.channels[member.channel as usize].hint;
        match self.protocol.find_payload(reply, hint) {
            Some(_) if matches!(member.standing, Standing::Out | Standing::Aside) => {}
            Some(start) => self.observe(index, reply, start, Some(now_ns), faults),
            None => self.take_answer(index, reply, faults),
        }
    }

    /// Takes note of the payload at `start` of a reply; `now_ns` is none for one that was recovered.
    fn observe(
        &mut self,
        index: usize,
        reply: &[u8],
        start: usize,
        now_ns: Option<u64>,
        faults: &mut Faults,
    ) {
        let at = self.members[index].channel as usize;
        let channel = &mut self.channels[at];
        channel.hint = start;
        let share = self.share;
        let who = || format!("subscriber {}", share.connection(index));
        let Some((stamp, rest)) = channel.body.read(&reply[start..]) else {
            faults.corrupted += 1;
            return faults.explain(|| format!("{}: a wrong checksum", who()));
        };
        if !self.protocol.payload_ends(rest) {
            faults.corrupted += 1;
            return faults.explain(|| format!("{}: what follows is not the match", who()));
        }
        if stamp.sequence >= channel.published {
            // Another thread's, which told of it before it left.
            self.hear();
        }
        let (member, channel) = (&mut self.members[index], &mut self.channels[at]);
        if stamp.origin != channel.origin || stamp.sequence >= channel.published {
            faults.misrouted += 1;
            return faults.explain(|| format!("{}: {stamp:?} is not of {}", who(), channel.name));
        }
        let mut owed = member.standing != Standing::Leftover;
        match member.view.observe(stamp.sequence) {
            Seen::InOrder | Seen::AfterGap => {}
            Seen::Early(more) => {
                self.owed += u64::from(more);
                owed = false;
            }
            Seen::Late => {
                faults.reordered += 1;
                faults.explain(|| format!("{}: publication {} came late", who(), stamp.sequence));
            }
            Seen::Duplicate => {
                faults.duplicated += 1;
                return faults
                    .explain(|| format!("{}: publication {} came twice", who(), stamp.sequence));
            }
        }
        self.deliveries += 1;
        if owed {
            self.owed -= 1;
            if let Some(now_ns) = now_ns {
                let late = now_ns.saturating_sub(stamp.due_ns);
                self.latency.record(late);
                if let Some(times) = self.latencies.get_mut(channel.group) {
                    times.record(late);
                }
            }
            self.count_down(at, stamp.sequence);
        }
        if let Some(offsets) = &mut self.offsets
            && now_ns.is_some()
        {
            offsets[index] = self.protocol.read_offset(rest).unwrap_or(offsets[index]);
        }
    }

    /// A member has joined, or is back and has recovered: `reply` tells where it stands.
    pub(crate) fn join(&mut self, index: usize, reply: &[u8], faults: &mut Faults) {
        let subscribed = self.protocol.read_subscribed(reply);
        // What has left before belongs to before.
        self.hear();
        let member = &mut self.members[index];
        let channel = &mut self.channels[member.channel as usize];
        let back = member.standing == Standing::Away;
        member.standing = Standing::Owed;
        if !back {
            member.view = View::joining_at(channel.published);
            channel.members += 1;
        }
        if back {
            self.recovered += member.view.lost(channel.published);
            // A server may put all of it into the answer, or send some of it after.
            let mut at = 0;
            while let Some(start) = reply.get(at..).and_then(|rest| payload::find(rest, 0)) {
                self.observe(index, reply, at + start, None, faults);
                at += start + payload::SMALLEST;
            }
        }
        let Some(subscribed) = subscribed else { return };
        if back && !subscribed.recovered {
            self.unrecovered += 1;
            let number = self.share.connection(index);
            faults.explain(|| format!("subscriber {number}: the server did not recover all"));
            self.leave_behind(index, faults);
        }
        let Position { epoch, offset } = subscribed.position;
        if let Some(offsets) = &mut self.offsets {
            offsets[index] = offset;
            let channel = &mut self.channels[self.members[index].channel as usize];
            if channel.epoch != epoch {
                channel.epoch = epoch;
            }
        }
    }

    /// Nothing more is owed to a member; what is missing among what it got is lost.
    pub(crate) fn leave(&mut self, index: usize, faults: &mut Faults) {
        let member = &mut self.members[index];
        if !matches!(member.standing, Standing::Owed | Standing::Away) {
            member.standing = Standing::Out;
            return;
        }
        let channel = &mut self.channels[member.channel as usize];
        member.standing = Standing::Out;
        channel.members -= 1;
        self.owed -= member.view.lost(channel.published);
        let number = self.share.connection(index);
        lose(number, channel, member.view.skipped(), faults);
    }

    /// What a member lacks by now is lost; it begins anew.
    fn leave_behind(&mut self, index: usize, faults: &mut Faults) {
        let member = &mut self.members[index];
        let channel = &self.channels[member.channel as usize];
        let lost = member.view.lost(channel.published);
        member.view = View::joining_at(channel.published);
        self.owed -= lost;
        self.recovered -= lost;
        lose(self.share.connection(index), channel, lost, faults);
    }

    /// From now on nothing is owed to a member, though it stays; what it lacks by now is lost.
    pub(crate) fn expect_leftovers(&mut self, index: usize, faults: &mut Faults) {
        let member = &mut self.members[index];
        if member.standing == Standing::Owed {
            let channel = &mut self.channels[member.channel as usize];
            let lost = member.view.lost(channel.published);
            channel.members -= 1;
            self.owed -= lost;
            member.standing = Standing::Leftover;
            lose(self.share.connection(index), channel, lost, faults);
        }
    }

    /// Where a member stands, to recover from.
    pub(crate) fn position(&self, index: usize) -> Option<Position> {
        let channel = &self.channels[self.members[index].channel as usize];
        Some(Position {
            epoch: channel.epoch.clone(),
            offset: *self.offsets.as_ref()?.get(index)?,
        })
    }

    /// Counts what never came.
    pub(super) fn settle(&self, faults: &mut Faults) {
        for (index, member) in self.members.iter().enumerate() {
            let channel = &self.channels[member.channel as usize];
            if matches!(member.standing, Standing::Owed | Standing::Away) {
                let lost = member.view.lost(channel.published);
                lose(self.share.connection(index), channel, lost, faults);
            }
        }
    }

    /// Answers to publishers, and whatever else a connection is told.
    fn take_answer(&mut self, index: usize, reply: &[u8], faults: &mut Faults) {
        let subscribes = index < self.members.len();
        let number = self.share.connection(index);
        let size = match self.members.get(index) {
            Some(member) => self.channels[member.channel as usize].body.smallest(),
            None => usize::MAX,
        };
        match self.protocol.read_reply(reply) {
            Reply::Done(id) => {
                self.answered += u64::from(!subscribes);
                self.tell(index, || Event::Done(id));
            }
            Reply::Foreign => self.ignored += u64::from(subscribes),
            Reply::Refused(id, code, message) => {
                faults.refused += 1;
                faults.explain(|| {
                    format!("command {id} of connection {number}: error {code} {message}")
                });
            }
            Reply::Push if !self.protocol.is_publication(reply, size) => {}
            Reply::Push => {
                faults.corrupted += 1;
                faults.explain(|| format!("subscriber {number}: a publication without our marker"));
            }
            Reply::Garbage => {
                faults.malformed += 1;
                faults
                    .explain(|| format!("connection {number}: {}", String::from_utf8_lossy(reply)));
            }
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.at_ns(Instant::now())
    }

    /// A time by the run's clock.
    pub(super) fn at_ns(&self, time: Instant) -> u64 {
        (time - self.epoch).as_nanos() as u64
    }
}

fn lose(number: usize, channel: &Channel, lost: u64, faults: &mut Faults) {
    if lost > 0 {
        faults.lost += lost;
        let published = channel.published;
        faults.explain(|| format!("subscriber {number} misses {lost} of {published}"));
    }
}
