//! A lane: the frames of one channel in one rendition on one shard, and the members that read them.

use super::backfill::Backfill;
use super::message::LaneMask;
use crate::log::Log;
use crate::protocol::centrifuge::Encoding;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A member: a connection's cursor in a lane.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The connection's slot.
    pub slot: u32,
    /// Which of the connection's subscriptions this is, and what the cursor counts in.
    link: u32,
    /// Position: in the lane's log, or in a backfill while recovering.
    pub cursor: u64,
}

const _: () = assert!(std::mem::size_of::<Member>() == 16);

const SUB_BITS: u32 = 16;
const NO_BACKFILL: u32 = 0xffff;

impl Member {
    /// A member that reads the log.
    pub fn live(slot: u32, sub: u32, cursor: u64) -> Self {
        Self {
            slot,
            link: NO_BACKFILL << SUB_BITS | sub,
            cursor,
        }
    }

    /// A member that reads a backfill first.
    pub fn recovering(slot: u32, sub: u32, backfill: u16, cursor: u64) -> Self {
        Self {
            slot,
            link: u32::from(backfill) << SUB_BITS | sub,
            cursor,
        }
    }

    /// Index in the connection's subscriptions.
    pub fn sub(&self) -> u32 {
        self.link & ((1 << SUB_BITS) - 1)
    }

    /// Follows a move of the subscription.
    pub fn set_sub(&mut self, sub: u32) {
        self.link = self.link & !((1 << SUB_BITS) - 1) | sub;
    }

    /// The backfill it reads, if it has not caught up yet.
    pub fn backfill(&self) -> Option<u16> {
        let backfill = self.link >> SUB_BITS;
        (backfill != NO_BACKFILL).then_some(backfill as u16)
    }

    /// It has caught up: from here on it reads the log.
    pub fn go_live(&mut self, cursor: u64) {
        self.link |= NO_BACKFILL << SUB_BITS;
        self.cursor = cursor;
    }
}

/// How publications are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// How they are encoded.
    pub encoding: Encoding,
    /// Those that are worth it are compressed (permessage-deflate).
    pub deflated: bool,
}

impl Rendition {
    /// How many there are.
    pub const COUNT: usize = 2 * Encoding::COUNT;

    /// A number below [`Rendition::COUNT`].
    pub const fn index(self) -> usize {
        self.encoding as usize + if self.deflated { Encoding::COUNT } else { 0 }
    }

    /// Each, in the order of its number: a plain one before the deflated one of the same encoding.
    pub const ALL: [Self; Self::COUNT] = [
        Self::new(Encoding::Json, false),
        Self::new(Encoding::Protobuf, false),
        Self::new(Encoding::Json, true),
        Self::new(Encoding::Protobuf, true),
    ];

    const fn new(encoding: Encoding, deflated: bool) -> Self {
        Self { encoding, deflated }
    }
}

const _: () = {
    let mut number = 0;
    while number < Rendition::COUNT {
        assert!(Rendition::ALL[number].index() == number);
        number += 1;
    }
};

/// Which frames a lane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Publications.
    Publications(Rendition),
    /// Frames without an offset: join, leave. They are small, and never compressed.
    Sideband(Encoding),
}

impl LaneKind {
    /// Lanes a view can have.
    pub const COUNT: usize = Rendition::COUNT + Encoding::COUNT;

    /// A number below [`LaneKind::COUNT`].
    pub fn index(self) -> usize {
        match self {
            Self::Publications(rendition) => rendition.index(),
            Self::Sideband(encoding) => Rendition::COUNT + encoding as usize,
        }
    }

    /// Whether it holds publications.
    pub fn is_publications(self) -> bool {
        matches!(self, Self::Publications(_))
    }

    /// As one bit.
    pub fn mask(self) -> LaneMask {
        LaneMask(1 << self.index())
    }
}

/// The newest frame of each key, for members that get only those.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// Key → position at which its newest frame was appended.
    positions: HashMap<Rc<[u8]>, u64>,
    /// By position: key and frame.
    frames: BTreeMap<u64, (Rc<[u8]>, Vec<u8>)>,
    bytes: usize,
}

impl Latest {
    pub(crate) fn put(&mut self, key: &[u8], position: u64, frame: &[u8]) {
        let known = self
            .positions
            .get_mut(key)
            .map(|at| std::mem::replace(at, position));
        let (key, mut held) = match known.and_then(|at| self.frames.remove(&at)) {
            Some((key, held)) => {
                self.bytes -= key.len() + held.len();
                (key, held)
            }
            None => {
                let key: Rc<[u8]> = key.into();
                self.positions.insert(key.clone(), position);
                (key, Vec::new())
            }
        };
        held.clear();
        held.extend_from_slice(frame);
        self.bytes += key.len() + held.len();
        self.frames.insert(position, (key, held));
    }

    /// Drops the oldest entries until at most `bytes` are held; always keeps the newest.
    pub(crate) fn bound(&mut self, bytes: usize) {
        while self.bytes > bytes && self.frames.len() > 1 {
            let Some((_, (key, frame))) = self.frames.pop_first() else {
                return;
            };
            self.positions.remove(&key);
            self.bytes -= key.len() + frame.len();
        }
    }

    /// Appends the frames at or after `position`, oldest first.
    pub(crate) fn since(&self, position: u64, out: &mut Vec<u8>) {
        for (_, frame) in self.frames.range(position..).map(|(_, held)| held) {
            out.extend_from_slice(frame);
        }
    }
}

/// What only some lanes have.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) latest: Option<Latest>,
    /// By the number in [`Member::backfill`].
    pub(crate) backfills: Vec<Option<Backfill>>,
    /// The smallest offset that a waiting subscription recovers from and no backfill or fetch under way covers.
    pub(crate) wanted: Option<u64>,
    /// The smallest offset of the fetches under way.
    pub(crate) fetching_from: Option<u64>,
    /// Fetches sent, and answered, so far.
    pub(crate) asked: u32,
    pub(crate) answers: u32,
    /// The newest offset known to be gone at the home.
    pub(crate) floor: u64,
    /// The offset of a record that is not JSON and so cannot be recovered in this lane.
    pub(crate) not_json: Option<u64>,
    /// Connections that wait at the end of a backfill.
    pub(crate) stalled: Vec<u32>,
}

/// Frames and members.
#[derive(Debug)]
pub struct Lane {
    /// The channel.
    pub view: u32,
    /// Which frames.
    pub kind: LaneKind,
    pub(crate) is_dirty: bool,
    /// Whether it stands in the hub's list of lanes that hold bytes.
    pub(crate) is_held: bool,
    /// Bytes ever appended: where the next frame goes.
    pub head: u64,
    /// The bytes that somebody may still need.
    pub(crate) log: Option<Box<Log>>,
    /// Who reads.
    pub members: SmallVec<[Member; 2]>,
    pub(crate) extras: Option<Box<Extras>>,
}

const _: () = assert!(std::mem::size_of::<Lane>() <= 80);

impl Lane {
    pub(crate) fn new(view: u32, kind: LaneKind) -> Self {
        Self {
            view,
            kind,
            is_dirty: false,
            is_held: false,
            head: 1,
            log: None,
            members: SmallVec::new(),
            extras: None,
        }
    }

    /// The first position still held; the head when nothing is.
    pub fn base(&self) -> u64 {
        self.log
            .as_ref()
            .and_then(|log| log.base())
            .unwrap_or(self.head)
    }

    /// The log. Only for cursors below the head, which imply that it exists.
    pub(crate) fn log(&self) -> &Log {
        self.log
            .as_ref()
            .expect("a cursor below the head implies a log")
    }

    /// The smallest position in the log at which a recovering member will go on.
    pub(crate) fn joined_floor(&self) -> u64 {
        let backfills = self
            .extras
            .iter()
            .flat_map(|e| e.backfills.iter().flatten());
        let joined = backfills.filter(|b| b.readers > 0).filter_map(|b| b.joined);
        joined.min().unwrap_or(u64::MAX)
    }

    /// Frames were not appended, or may not have been: backfills no longer know where they join the log.
    pub(crate) fn unjoin_backfills(&mut self) {
        for backfill in self
            .extras
            .iter_mut()
            .flat_map(|e| e.backfills.iter_mut().flatten())
        {
            backfill.joined = None;
        }
    }

    pub(crate) fn backfill(&self, number: u16) -> &Backfill {
        self.extras
            .as_ref()
            .and_then(|e| e.backfills[usize::from(number)].as_ref())
            .expect("a recovering member keeps its backfill")
    }

    pub(crate) fn backfill_mut(&mut self, number: u16) -> &mut Backfill {
        self.extras
            .as_mut()
            .and_then(|e| e.backfills[usize::from(number)].as_mut())
            .expect("a recovering member keeps its backfill")
    }
}
