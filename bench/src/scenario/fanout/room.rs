//! What a delivery changes: the proof, the histogram, the count of members that still lack a publication.

use std::time::Instant;

use crate::client::centrifuge::{Encoding, Reply};
use crate::client::ledger::{Faults, Seen, View};
use crate::client::payload::{self, Origin};
use crate::measure::histogram::Times;

/// One channel's state.
pub(super) struct Channel {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) publisher: usize,
    /// Where the body stood in the last reply.
    pub(super) hint: usize,
    pub(super) published: u32,
    pub(super) members: u32,
    /// Closed loop: members that still lack publication `sequence % lacking.len()`. Empty in an open loop.
    pub(super) lacking: Vec<u32>,
}

impl Channel {
    pub(super) fn lacking(&mut self, sequence: u32) -> Option<&mut u32> {
        let at = (sequence as usize).checked_rem(self.lacking.len())?;
        self.lacking.get_mut(at)
    }

    pub(super) fn count_down(&mut self, sequence: u32, completed: impl FnOnce()) {
        // Zero: the slot's publication was given up for a later one, so the run is about to stall anyway.
        let Some(lacking) = self.lacking(sequence).filter(|lacking| **lacking > 0) else {
            return;
        };
        *lacking -= 1;
        if *lacking == 0 {
            completed();
        }
    }
}

/// What a delivery changes: apart from the fleet, which lends its buffers meanwhile.
pub(super) struct Room {
    pub(super) encoding: Encoding,
    pub(super) size: usize,
    pub(super) members: usize,
    pub(super) channels: Vec<Channel>,
    pub(super) views: Vec<View>,
    /// Channels with a publication that has just reached its last member.
    pub(super) completed: Vec<usize>,
    pub(super) deliveries: u64,
    /// Of the present second.
    pub(super) latency: Times,
    pub(super) epoch: Instant,
}

impl Room {
    pub(super) fn take(&mut self, index: usize, reply: &[u8], now_ns: u64, faults: &mut Faults) {
        if index >= self.members {
            return self.take_answer(index, reply, faults);
        }
        let at = index % self.channels.len();
        let channel = &mut self.channels[at];
        let Some(start) = payload::find(reply, channel.hint) else {
            return self.take_answer(index, reply, faults);
        };
        channel.hint = start;
        let Some(stamp) = payload::read(&reply[start..], self.size) else {
            faults.corrupted += 1;
            return faults.explain(|| format!("subscriber {index}: a wrong checksum"));
        };
        if stamp.origin != channel.origin || stamp.sequence >= channel.published {
            faults.misrouted += 1;
            return faults
                .explain(|| format!("subscriber {index}: {stamp:?} is not of {}", channel.name));
        }
        match self.views[index].observe(stamp.sequence) {
            Seen::InOrder | Seen::AfterGap => {}
            Seen::Late => {
                faults.reordered += 1;
                faults.explain(|| {
                    format!(
                        "subscriber {index}: publication {} came late",
                        stamp.sequence
                    )
                });
            }
            Seen::Duplicate => {
                faults.duplicated += 1;
                return faults.explain(|| {
                    format!(
                        "subscriber {index}: publication {} came twice",
                        stamp.sequence
                    )
                });
            }
        }
        self.deliveries += 1;
        self.latency.record(now_ns.saturating_sub(stamp.due_ns));
        channel.count_down(stamp.sequence, || self.completed.push(at));
    }

    /// Answers to publishers, and whatever else a subscriber is told.
    pub(super) fn take_answer(&self, index: usize, reply: &[u8], faults: &mut Faults) {
        match self.encoding.read_reply(reply) {
            Reply::Done(_) => {}
            Reply::Refused(id, code, message) => {
                faults.refused += 1;
                faults.explain(|| {
                    format!("command {id} of connection {index}: error {code} {message}")
                });
            }
            Reply::Push if !self.is_publication(reply) => {}
            Reply::Push => {
                faults.corrupted += 1;
                faults.explain(|| format!("subscriber {index}: a publication without our marker"));
            }
            Reply::Garbage => {
                faults.malformed += 1;
                faults
                    .explain(|| format!("connection {index}: {}", String::from_utf8_lossy(reply)));
            }
        }
    }

    pub(super) fn is_publication(&self, reply: &[u8]) -> bool {
        // In Protobuf a push that is as long as a body can only be a publication of this run.
        match self.encoding {
            Encoding::Json => memchr::memmem::find(reply, b"\"pub\":").is_some(),
            Encoding::Protobuf => reply.len() > self.size,
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}
