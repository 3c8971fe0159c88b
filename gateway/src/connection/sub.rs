//! A subscription as its connection sees it: a place in a lane.

/// Which lane, which place in it, and a few bits.
#[derive(Clone, Copy, Debug)]
pub struct Sub {
    /// The lane.
    pub lane: u32,
    place: u32,
}

const _: () = assert!(std::mem::size_of::<Sub>() == 8);

const PLACE_BITS: u32 = 28;
const PLACE: u32 = (1 << PLACE_BITS) - 1;

impl Sub {
    /// It was made by the server: losing its position ends the connection.
    pub const SERVER_SIDE: u32 = 1 << PLACE_BITS;
    /// The channel's home keeps its presence.
    pub const PRESENT: u32 = 2 << PLACE_BITS;
    /// Its join was published, and so will be its leave.
    pub const ANNOUNCED: u32 = 4 << PLACE_BITS;
    /// It reads joins and leaves; the publications are another one's business.
    pub const SIDEBAND: u32 = 8 << PLACE_BITS;

    /// A subscription in a lane; a lane has at most 2^28 members.
    pub fn new(lane: u32, place: u32, bits: u32) -> Self {
        debug_assert!(place <= PLACE);
        Self {
            lane,
            place: place & PLACE | bits,
        }
    }

    /// Where in the lane.
    pub fn place(&self) -> u32 {
        self.place & PLACE
    }

    /// Follows a move.
    pub fn set_place(&mut self, place: u32) {
        self.place = self.place & !PLACE | place & PLACE;
    }

    /// Whether a bit is set.
    pub fn has(&self, bit: u32) -> bool {
        self.place & bit != 0
    }
}
