//! One channel of a hub, without its shard: frames into the log, and the sweep over the members.

use super::shard::{KEYS, config, links};
use super::work::Work;
use ringway::hub::Hub;
use ringway::hub::lane::{LaneKind, Rendition};
use ringway::hub::message::Span;
use ringway::hub::sweep::{Findings, GATHER_MAX, Gather, SlotSet};
use ringway::protocol::centrifuge::Encoding;
use ringway::protocol::websocket::{Opcode, write_frame};

const KIND: LaneKind = LaneKind::Publications(Rendition {
    encoding: Encoding::Json,
    deflated: false,
});
const MEMBERS: u32 = 1000;
/// As many as a read of 64 KiB may hold.
const APPENDS: u32 = 256;
const NOW_MILLIS: u64 = 1000;

struct Room {
    hub: Hub,
    view: u32,
    lane: u32,
    frame: Vec<u8>,
    top: u64,
    appends: u32,
    operations: u32,
    blocked: SlotSet,
    gather: Gather,
    findings: Findings,
    sends: u32,
    laps: u32,
}

/// An operation is one frame of 231 bytes appended, and the chunks given back after one member has read them.
pub fn append() -> Box<dyn Work> {
    Box::new(Room::new(1, APPENDS, APPENDS))
}

/// An operation is one member visited, gathered, and moved up to the head.
pub fn sweep() -> Box<dyn Work> {
    Box::new(Room::new(MEMBERS, 1, MEMBERS))
}

impl Room {
    fn new(members: u32, appends: u32, operations: u32) -> Self {
        let mut hub = Hub::new(KEYS, config());
        let view = hub.retain("room", KEYS.hash("room"), 0, KIND.mask(), &mut links());
        let (name, generation) = (hub.views[view].name.clone(), hub.views[view].generation);
        hub.on_attached(&name, (view, generation), KIND.mask(), 0, &mut Vec::new());
        for slot in 0..members {
            hub.join(view, KIND, slot, 0);
        }
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Text, &[b' '; 227]);
        Self {
            lane: hub.lane_of(view, KIND).expect("somebody joined"),
            hub,
            view,
            frame,
            top: 0,
            appends,
            operations,
            blocked: SlotSet::new(MEMBERS),
            gather: Gather::new(MEMBERS, GATHER_MAX),
            findings: Findings::default(),
            sends: 0,
            laps: 0,
        }
    }

    fn append(&mut self) {
        let mut frames = [Span::default(); Rendition::COUNT];
        frames[Encoding::Json as usize].len = self.frame.len() as u32;
        self.hub.on_append(
            self.view,
            self.hub.views[self.view].generation,
            (self.top, self.top + 1),
            frames,
            false,
            false,
            Span::default(),
            &self.frame,
            NOW_MILLIS,
        );
        self.top += 1;
    }

    /// As a flush does when every socket takes all.
    fn deliver(&mut self) {
        self.gather.clear();
        self.hub
            .sweep(&self.blocked, &mut self.gather, &mut self.findings);
        for slot in self.gather.slots() {
            for (lane, place) in self.gather.members(*slot) {
                let lane = &mut self.hub.lanes[lane];
                lane.members[place as usize].cursor = lane.head;
                self.sends += 1;
            }
        }
        while let Some(lane) = self.findings.swept.pop() {
            self.hub.end_of_lap(lane, NOW_MILLIS);
            self.laps += 1;
        }
    }
}

impl Work for Room {
    fn operations(&self) -> u32 {
        self.operations
    }

    fn prepare(&mut self) {
        (self.sends, self.laps) = (0, 0);
    }

    fn run(&mut self) {
        for _ in 0..self.appends {
            self.append();
        }
        while self.hub.is_dirty() {
            self.deliver();
        }
    }

    fn check(&mut self) {
        let lane = &self.hub.lanes[self.lane];
        assert_eq!(lane.head, 1 + self.top * self.frame.len() as u64);
        assert!(lane.members.iter().all(|member| member.cursor == lane.head));
        assert_eq!(self.sends as usize, lane.members.len());
        assert!(self.laps > 0 && self.findings.lost.is_empty());
        assert_eq!(self.hub.pool.bytes_in_use(), 0, "everything was read");
    }
}
