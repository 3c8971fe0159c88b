//! Faults that can be planted.
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fault {
    GenerationNotChecked,
    ShortSendTailLost,
    CursorOffByOne,
    MovedMemberSkipped,
}
/// x
pub fn planted(_: Fault) -> bool {
    false
}
