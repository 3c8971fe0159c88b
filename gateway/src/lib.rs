//! Ringway: a WebSocket edge gateway for Linux x86_64.
//!
//! A channel is a byte log, a subscription is a cursor into it. The modules are floors: a floor uses only those below it.
//!
//! | floor | modules |
//! | --- | --- |
//! | F7 | [`cli`], [`config`], [`lifecycle`], [`logging`], [`node`], the binary |
//! | F6 | [`control`]: HTTP server API, metrics, health, demo page |
//! | F5 | [`backplane`]: what links nodes |
//! | F4 | [`shard`]: one thread, one tick, the whole program on one screen |
//! | F3 | [`hub`]: channels of one shard, members, sweeps, homes; no sockets, no clock |
//! | F2 | [`reactor`]: the kernel: io_uring or epoll; all unsafe I/O |
//! | F1 | [`connection`], [`log`], [`mailbox`], [`heartbeat`], [`slab`], [`ids`], [`stats`], [`tls`] |
//! | F0 | [`protocol`]: HTTP upgrade, WebSocket, Centrifuge protocol, names, tokens |
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod backplane;
pub mod cli;
pub mod config;
pub mod connection;
pub mod control;
pub mod heartbeat;
pub mod hub;
pub mod ids;
pub mod lifecycle;
pub mod limit;
pub mod log;
pub mod logging;
pub mod mailbox;
pub mod node;
mod planted;
pub mod protocol;
pub mod reactor;
pub mod shard;
pub mod slab;
pub mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
