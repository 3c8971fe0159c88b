//! What everybody in a run shares: time, sockets, the oracle, the trace.

use super::net::{Clock, Facts, SharedNet, SocketId};
use super::oracle::{ConnectionId, Oracle};
use super::profile::{Front, Profile, Temper};
use super::rng::Rng;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The proxy that some connections come through.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

/// A connection that has begun.
#[derive(Debug)]
pub struct Begun {
    /// It.
    pub id: ConnectionId,
    /// Its socket.
    pub socket: SocketId,
    /// What the proxy sends before the client does.
    pub header: Vec<u8>,
    /// Header lines that say whose it is.
    pub forwarded: String,
}

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
    pub fn connect(&mut self, shard: usize, temper: &Temper, rng: &mut Rng) -> Option<Begun> {
        self.peers += 1;
        let address = self.peers % self.profile.addresses;
        let client = address_of(address);
        let (mut peer, mut header, mut forwarded) = (client, Vec::new(), String::new());
        match self.profile.front {
            Front::None => {}
            Front::Header => {
                peer = PROXY;
                header = format!("PROXY TCP4 {client} {PROXY} 40000 443\r\n").into_bytes();
            }
            Front::Forwarding if rng.chance(600) => {
                peer = PROXY;
                let made_up = *rng.pick(&["", "198.51.100.9, "]);
                forwarded = format!("X-Forwarded-For: {made_up}{client}\r\n");
            }
            // Who is no proxy is not believed.
            Front::Forwarding => {
                let other = address_of((address + 1) % self.profile.addresses);
                forwarded = format!("X-Forwarded-For: {other}\r\n");
            }
        }
        let peer = (peer, 40_000).into();
        let socket = self.nets[shard]
            .borrow_mut()
            .connect(peer, temper.rough, temper.window)?;
        let id = self.oracle.opened(temper, shard, address);
        debug_assert_eq!(id, self.sockets.len());
        self.sockets.push((shard, socket));
        Some(Begun {
            id,
            socket,
            header,
            forwarded,
        })
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

fn address_of(number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(10, b, c, d)
}
