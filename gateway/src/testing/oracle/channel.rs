//! What is known of one channel.

use super::{Stamp, Verdict, violation};
use crate::config::{ChannelOptions, SlowPolicy};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The shadow of one channel.
#[derive(Debug)]
pub(crate) struct ChannelBook {
    pub(crate) name: Arc<str>,
    pub(crate) options: ChannelOptions,
    pub(crate) has_history: bool,
    /// Numbers of publications, in the order in which they were sent.
    pub(crate) sent: Vec<u64>,
    /// Which publication stands at an offset.
    pub(crate) offsets: BTreeMap<u64, u64>,
    /// And at which offset a publication stands.
    places: HashMap<u64, u64>,
    epoch: Option<String>,
    /// Offsets that the channel was known to have reached, rising, with the moment: on each shard, whose view may be behind
    /// the home; and, last, at its home.
    tops: Vec<Vec<(Stamp, u64)>>,
    /// A publication that is not JSON was sent.
    pub(crate) has_binary: bool,
    /// Removals of its history that are under way, and the event at which the last one was over.
    pub(crate) removals: u32,
    pub(crate) removed: u64,
    /// In channels without offsets: some member saw the second right behind the first, and this one, if there is one,
    /// could not have missed anything between them.
    pub(crate) follows: BTreeMap<(u64, u64), Option<usize>>,
}

impl ChannelBook {
    pub(crate) fn new(name: Arc<str>, options: ChannelOptions, shards: usize) -> Self {
        Self {
            name,
            has_history: options.has_history(),
            options,
            sent: Vec::new(),
            offsets: BTreeMap::new(),
            places: HashMap::new(),
            epoch: None,
            tops: vec![Vec::new(); shards + 1],
            has_binary: false,
            removals: 0,
            removed: 0,
            follows: BTreeMap::new(),
        }
    }

    /// A publication was seen at an offset: there and nowhere else, for everybody.
    pub(crate) fn place(&mut self, offset: u64, id: u64) -> Verdict {
        let name = &self.name;
        let there = *self.offsets.entry(offset).or_insert(id);
        if there != id {
            return violation(format!(
                "{name}: offset {offset} is publication {there} to some and {id} to others"
            ));
        }
        let place = *self.places.entry(id).or_insert(offset);
        if place != offset {
            return violation(format!(
                "{name}: publication {id} has offsets {place} and {offset}"
            ));
        }
        Ok(())
    }

    /// Whether somebody knows at which offset this publication stands.
    pub(crate) fn is_placed(&self, id: u64) -> bool {
        self.places.contains_key(&id)
    }

    /// Whether a publication of this moment may have been removed with the history.
    pub(crate) fn may_be_removed(&self, sent: Stamp) -> bool {
        self.removals > 0 || sent.event < self.removed
    }

    /// The channel has this epoch, as always.
    pub(crate) fn know_epoch(&mut self, epoch: &str) -> Verdict {
        let known = self.epoch.get_or_insert_with(|| epoch.to_owned());
        if epoch.is_empty() || known != epoch {
            return violation(format!("{}: epoch {epoch:?} after {known:?}", self.name));
        }
        Ok(())
    }

    pub(crate) fn is_epoch(&self, epoch: &str) -> bool {
        epoch.is_empty() || self.epoch.as_deref() == Some(epoch)
    }

    /// The channel has reached this offset by now, on this shard or (`None`) at its home.
    pub(crate) fn know_top(&mut self, now: Stamp, shard: Option<usize>, offset: u64) {
        let home = self.tops.len() - 1;
        for place in [home, shard.unwrap_or(home)] {
            let tops = &mut self.tops[place];
            if tops.last().is_none_or(|(_, top)| *top < offset) {
                tops.push((now, offset));
            }
        }
    }

    /// The offset that it was known to have reached before `then`, on this shard or at its home.
    pub(crate) fn top_before(&self, then: Stamp, shard: Option<usize>) -> u64 {
        let tops = &self.tops[shard.unwrap_or(self.tops.len() - 1)];
        let known = tops.partition_point(|(stamp, _)| *stamp < then);
        known.checked_sub(1).map_or(0, |at| tops[at].1)
    }

    /// Whether a member of this channel may miss publications without being told.
    pub(crate) fn may_skip(&self) -> bool {
        match self.options.slow {
            SlowPolicy::Disconnect => false,
            SlowPolicy::Skip => self.options.slow_silent,
            SlowPolicy::Latest => true,
        }
    }
}
