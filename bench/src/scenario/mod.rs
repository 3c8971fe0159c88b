//! One file a scenario, its question at its head.

use std::io;

use crate::client::fleet::Manners;
use crate::client::payload::Body;

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
mod threads;
mod traffic;

use random::Random;
pub use threads::MOST as MOST_THREADS;
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
    /// A publication's data.
    pub body: Body,
    pub load: Load,
    /// The generator's: a thread each.
    pub cores: Vec<usize>,
}

impl Rooms {
    fn group(&self) -> Group {
        Group {
            members: self.members,
            channels: self.server.channels,
            body: self.body,
            load: self.load,
        }
    }

    /// Opens and joins everybody, and does `work` on each thread; what came of it, the leading thread's first.
    fn on_each_thread<T: Send>(
        &self,
        work: impl Fn(Traffic<'_>) -> io::Result<T> + Sync,
    ) -> io::Result<Vec<T>> {
        threads::run(&self.cores, &self.server.pids, |worker| {
            let groups = [self.group()];
            work(Traffic::open(
                worker,
                &self.server,
                &groups,
                self.publishers,
            )?)
        })
    }

    /// In words, for the report.
    fn words(&self) -> String {
        let Self {
            members,
            server,
            body,
            ..
        } = self;
        format!(
            "{members} members in {} channels, {}{}",
            server.channels,
            body.words(),
            words_of_threads(&self.cores)
        )
    }
}

/// Nothing of a single one.
fn words_of_threads(cores: &[usize]) -> String {
    match cores.len() {
        1 => String::new(),
        threads => format!(", {threads} generator threads"),
    }
}

impl Server {
    /// The name of channel `number`.
    pub fn channel(&self, number: usize) -> String {
        format!("{}{number}", self.channel_prefix)
    }
}
