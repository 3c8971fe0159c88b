//! One file a scenario, its question at its head.

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
pub use traffic::{Load, Phases, SETTLE};

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

impl Server {
    /// The name of channel `number`.
    pub fn channel(&self, number: usize) -> String {
        format!("{}{number}", self.channel_prefix)
    }
}
