//! Faults planted on purpose, to prove that the simulation would find them.
//!
//! Product code asks with the macro `planted!` at the places that matter. Without the `testing` feature it is the constant
//! `false`, and nothing of it is left in the program.

use std::cell::Cell;

/// A mistake that the product makes while it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An event whose token is of an earlier life is acted on.
    GenerationNotChecked,
    /// What a short send left of a cut frame is forgotten.
    ShortSendTailLost,
    /// A cursor is set one frame too far, or too short.
    CursorOffByOne,
    /// A member that a removal moved behind the sweep's hand is not owed another visit.
    MovedMemberSkipped,
    /// The home of an address is not told that a connection from there is over.
    AddressNotLeft,
    /// An address may have one connection more than its limit.
    AddressLimitOffByOne,
    /// A view whose frames are dropped because its shard is too far behind is not told.
    MissedNotTold,
    /// Whoever it comes from, `X-Forwarded-For` is believed.
    ForwardedByAnybody,
    /// The home of a user is not told that a connection of the user's is over.
    UserNotLeft,
    /// The numbers of records that a short send kept from leaving are not given to the next.
    RecordNumberSkipped,
    /// What a short send left of a sealed record is forgotten.
    SealedRestLost,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 11] = [
        Self::GenerationNotChecked,
        Self::ShortSendTailLost,
        Self::CursorOffByOne,
        Self::MovedMemberSkipped,
        Self::AddressNotLeft,
        Self::AddressLimitOffByOne,
        Self::MissedNotTold,
        Self::ForwardedByAnybody,
        Self::UserNotLeft,
        Self::RecordNumberSkipped,
        Self::SealedRestLost,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Whether this fault is planted on this thread.
#[inline]
pub fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Plants a fault on this thread until the guard is dropped. A fault planted before is replaced for that time.
pub fn plant(fault: Fault) -> Planted {
    Planted {
        before: PLANTED.replace(Some(fault)),
    }
}

/// Keeps a fault planted.
#[derive(Debug)]
#[must_use = "the fault is pulled out when the guard is dropped"]
pub struct Planted {
    before: Option<Fault>,
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_planted_on_one_thread_until_its_guard_goes() {
        assert!(Fault::ALL.iter().all(|fault| !planted(*fault)));
        let guard = plant(Fault::CursorOffByOne);
        assert!(planted(Fault::CursorOffByOne));
        assert!(!planted(Fault::MovedMemberSkipped));
        std::thread::spawn(|| assert!(!planted(Fault::CursorOffByOne)))
            .join()
            .unwrap();
        drop(guard);
        assert!(!planted(Fault::CursorOffByOne));
    }
}
