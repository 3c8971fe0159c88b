//! The simulation: one node of several shards and many clients, on one thread, in virtual time, from one seed.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`faults`] | planted faults, to prove that the simulation finds them |
//! | [`rng`] | the random numbers of a run: a seed gives the same run on every machine |
//! | [`net`] | the outside of one shard: virtual sockets, their client ends, and what befalls them |
//! | [`reactor`] | [`crate::reactor::Reactor`] over `net`; asserts the contract |
//! | [`profile`] | what a seed draws: configuration, channels, tempers of clients, weather |
//! | [`payload`] | publications that can be recognised |
//! | [`broker`] | the servers that link nodes, and the way to them |
//! | [`wire`] | a client's end of the bytes on the wire: as they are, or in TLS |
//! | [`client`] | one client connection: bytes in, what was seen out |
//! | [`actor`] | a client over many connections, with the memory an SDK has |
//! | [`oracle`] | plain maps that know what every client must and must not see |
//! | [`world`] | all of it together: the schedule |
//! | [`token`] | key pairs of a backend, and tokens signed with them |
//! | [`node`] | a [`world::Server`] made of real shards |
//! | [`fuzz`] | fuzz targets: functions of any bytes |

pub mod actor;
pub mod broker;
pub mod client;
pub mod faults;
pub mod fuzz;
pub mod net;
pub mod node;
pub mod oracle;
pub mod payload;
pub mod profile;
pub mod reactor;
pub mod rng;
pub mod stage;
pub mod tls;
pub mod token;
pub mod wire;
pub mod world;
