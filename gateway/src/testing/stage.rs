//! What everybody in a run shares: time, sockets, the oracle, the trace.

use super::net::{Clock, Facts, SharedNet, SocketId};
use super::oracle::{ConnectionId, Oracle};
use super::profile::{Profile, Temper};
use std::sync::Arc;

/// The common ground of a run.
#[derive(Debug)]
pub struct Stage {
    /// What the seed drew.
    pub profile: Arc<Profile>,
    /// Virtual time.
    pub clock: Clock,
    /// Knows what must be seen.
    pub oracle: Oracle,
    /// The outside of each shard.
    pub nets: Vec<SharedNet>,
    /// Nobody starts anything new, everybody reads and answers.
    pub is_calm: bool,
    /// Print what happens.
    pub trace: bool,
    /// By connection: where its socket is.
    sockets: Vec<(usize, SocketId)>,
    publications: u64,
    peers: u32,
}

impl Stage {
    /// An empty stage.
    pub fn new(profile: Arc<Profile>, clock: Clock, nets: Vec<SharedNet>, trace: bool) -> Self {
        Self {
            oracle: Oracle::new(profile.clone(), clock.clone()),
            profile,
            clock,
            nets,
            is_calm: false,
            trace,
            sockets: Vec::new(),
            publications: 0,
            peers: 0,
        }
    }

    /// Prints a line of the trace, if one is wanted.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>8} {}", self.clock.millis(), line());
        }
    }

    /// A number for a new publication.
    pub fn number_publication(&mut self) -> u64 {
        self.publications += 1;
        self.publications
    }

    /// A client connects to a shard; `None`: refused.
    pub fn connect(&mut self, shard: usize, temper: &Temper) -> Option<(ConnectionId, SocketId)> {
        self.peers += 1;
        let address = self.peers % self.profile.addresses;
        let [_, b, c, d] = address.to_be_bytes();
        let peer = ([10, b, c, d], 40_000).into();
        let socket = self.nets[shard]
            .borrow_mut()
            .connect(peer, temper.rough, temper.window)?;
        let id = self.oracle.opened(temper, shard, address);
        debug_assert_eq!(id, self.sockets.len());
        self.sockets.push((shard, socket));
        Some((id, socket))
    }

    /// What befell a connection's socket.
    pub fn facts(&self, connection: ConnectionId) -> Facts {
        let (shard, socket) = self.sockets[connection];
        self.nets[shard].borrow().facts(socket)
    }

    /// The client's machine is gone: nothing more comes, not even an end.
    pub fn abort(&self, connection: ConnectionId) {
        let (shard, socket) = self.sockets[connection];
        self.nets[shard].borrow_mut().abort(socket);
    }
}
