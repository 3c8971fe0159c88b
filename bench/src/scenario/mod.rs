//! One file a scenario, its question at its head.

use std::io;

use crate::client::fleet::Manners;

pub mod churn;
pub mod echo;
pub mod fanout;
pub mod hot_room;
pub mod idle;
pub mod limit;
pub mod mixed;
mod random;
pub mod recover;
pub mod slow;
pub mod storm;
mod traffic;

use random::Random;
use traffic::{Group, Traffic};
pub use traffic::{Load, Phases, Publishers, SETTLE};

/// The server under test.
#[derive(Clone, Debug)]
pub struct Server {
    pub manners: Manners,
    /// Its processes; without any nothing is told of its CPU and memory.
    pub pids: Vec<u32>,
    pub channels: usize,
    /// A channel's name is this and its number.
    pub channel_prefix: String,
}

/// Members in the channels of a server, and what is published there.
#[derive(Clone, Debug)]
pub struct Rooms {
    pub server: Server,
    /// Subscribers in all.
    pub members: usize,
    pub publishers: Publishers,
    /// Bytes of a publication's data.
    pub size: usize,
    pub load: Load,
    /// The generator's.
    pub cores: Vec<usize>,
}

impl Rooms {
    /// Opens and joins everybody.
    fn open(&self) -> io::Result<Traffic<'_>> {
        Traffic::open(&self.server, &[self.group()], self.publishers)
    }

    fn group(&self) -> Group {
        Group {
            members: self.members,
            channels: self.server.channels,
            size: self.size,
            load: self.load,
        }
    }

    /// In words, for the report.
    fn words(&self) -> String {
        let Self {
            members,
            server,
            size,
            ..
        } = self;
        format!(
            "{members} members in {} channels, {size} B",
            server.channels
        )
    }
}

impl Server {
    /// The name of channel `number`.
    pub fn channel(&self, number: usize) -> String {
        format!("{}{number}", self.channel_prefix)
    }
}
