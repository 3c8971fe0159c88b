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

/// One group's timetable.
pub(super) struct Schedule {
    pub(super) channels: Range<usize>,
    pub(super) load: Load,
    scheduled: u64,
}

impl Schedule {
    pub(super) fn new(channels: Range<usize>, load: Load) -> Self {
        Self {
            channels,
            load,
            scheduled: 0,
        }
    }

    /// The next publication, when one is due: its channel and when it was. `since_ns` is where the timetable starts.
    pub(super) fn next_due(&mut self, since_ns: u64, now_ns: u64) -> Option<(usize, u64)> {
        let Load::Open { rate } = self.load else {
            return None;
        };
        let due = since_ns + (self.scheduled as f64 / rate * 1e9) as u64;
        if now_ns < due {
            return None;
        }
        let channel = self.channels.start + (self.scheduled % self.channels.len() as u64) as usize;
        self.scheduled += 1;
        Some((channel, due))
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
    pub(super) since_ns: u64,
    pub(super) lateness: Times,
    pub(super) blocked: u64,
}
