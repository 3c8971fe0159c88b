//! What links nodes.
//!
//! Today there is one backplane, the embedded one: a node that stands alone, in memory. A channel's home
//! ([`crate::hub::home`]) then decides by itself: it numbers a publication the moment it arrives, and the epoch names the
//! boot. Nothing is left for this floor to do, so it holds no code. A backplane that links nodes will stand here, and
//! shards will meet it in a mailbox, never directly.
