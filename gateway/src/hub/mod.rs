//! Channels of one shard, free of I/O and clocks: members with cursors, sweeps, attach and detach ([`Hub`]); and, for
//! the channels this shard is home of, records, offsets and presence ([`home::Homes`]).
//!
//! A *view* is a channel on this shard. Its frames lie in *lanes*: one for each encoding, and one more each for frames
//! of joins and leaves, which only those hold a cursor in who asked for them. The home numbers, stores and
//! renders; it reaches the views of all shards, its own included, by messages.
//!
//! Never: sockets, clocks, waiting for another shard.

pub mod backfill;
pub mod history;
pub mod home;
pub mod keys;
pub mod lane;
pub mod links;
pub mod message;
pub mod presence;
pub mod recover;
pub mod sweep;
pub mod users;
pub mod view;

pub use keys::Keys;
pub use view::Hub;
