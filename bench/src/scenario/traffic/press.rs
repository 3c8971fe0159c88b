//! Who publishes when.

use std::ops::Range;

use crate::measure::histogram::Times;

/// When publications leave.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many outstanding in each channel: the most the server can do.
    Closed { in_flight: usize },
    /// So many a second, over all channels of a group, by timetable.
    Open { rate: f64 },
    /// Only when the scenario says so.
    Silent,
}

impl Load {
    pub(super) fn in_flight(self) -> usize {
        match self {
            Self::Closed { in_flight } => in_flight,
            Self::Open { .. } | Self::Silent => 0,
        }
    }

    /// In words, for the report.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Closed { in_flight } => {
                format!("closed loop, {in_flight} in flight a channel")
            }
            Self::Open { rate } => format!("open loop, {rate} publications/s by timetable"),
            Self::Silent => "no publications by timetable".to_owned(),
        }
    }
}

/// One group's timetable: all its channels in turn. A thread keeps to the lines of its own channels.
pub(super) struct Schedule {
    channels: Range<usize>,
    /// Offsets into those.
    own: Vec<usize>,
    pub(super) load: Load,
    /// Publications of its own.
    scheduled: u64,
}

impl Schedule {
    /// `own` are not none, and in order.
    pub(super) fn new(channels: Range<usize>, own: Vec<usize>, load: Load) -> Self {
        Self {
            channels,
            own,
            load,
            scheduled: 0,
        }
    }

    /// The next publication, when one is due: its channel and when it was. `since_ns` is where the timetable starts.
    pub(super) fn next_due(&mut self, since_ns: u64, now_ns: u64) -> Option<(usize, u64)> {
        let Load::Open { rate } = self.load else {
            return None;
        };
        let own = self.own.len() as u64;
        let offset = self.own[(self.scheduled % own) as usize];
        let line = self.scheduled / own * self.channels.len() as u64 + offset as u64;
        let due = since_ns + (line as f64 / rate * 1e9) as u64;
        if now_ns < due {
            return None;
        }
        self.scheduled += 1;
        Some((self.channels.start + offset, due))
    }

    /// The channels it publishes into.
    pub(super) fn own_channels(&self) -> impl Iterator<Item = usize> {
        self.own.iter().map(|offset| self.channels.start + offset)
    }

    /// The timetable starts again: what was due and never left is forgotten.
    pub(super) fn restart(&mut self) {
        self.scheduled = 0;
    }
}

/// The publishing half.
pub(super) struct Press {
    pub(super) schedules: Vec<Schedule>,
    pub(super) body: Vec<u8>,
    pub(super) next_id: u64,
    /// In all.
    pub(super) published: u64,
    pub(super) since_ns: u64,
    pub(super) lateness: Times,
    pub(super) blocked: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due within `ns`, and when.
    fn lines(mut schedule: Schedule, ns: u64) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| schedule.next_due(100, 100 + ns)).collect()
    }

    #[test]
    fn two_threads_share_one_timetable() {
        let load = Load::Open { rate: 1e9 };
        let of = |own: &[usize]| lines(Schedule::new(5..8, own.to_vec(), load), 7);
        let whole = of(&[0, 1, 2]);
        assert_eq!(whole.len(), 8);
        assert_eq!(whole[4], (6, 104));
        let mut both = [of(&[0, 2]), of(&[1])].concat();
        both.sort_by_key(|line| line.1);
        assert_eq!(both, whole);
    }
}
