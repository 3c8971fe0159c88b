//! Reference servers: what the usual runtimes do with the same job, measured by the same harness.
//!
//! Each is small, honest and does nothing else: it takes WebSocket connections; what a client sends to `/echo` comes
//! back to it; every other path is a room, and what a client sends there goes to all members, itself included. One
//! thread, no Nagle, a bounded queue of shared frames for each connection, one write for all frames that wait. A member
//! whose queue overflows is closed. Nothing is kept, named or authorised: what a product adds to that has its price.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};

use clap::ValueEnum;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::measure::cpu;

mod axum;
mod monoio;
mod rings;
mod rooms;
#[cfg(test)]
mod tests;
mod tokio_tungstenite;
mod tokio_uring;

/// Frames that may wait for one member; who lets more pile up is closed.
const LONGEST_QUEUE: usize = 1024;
/// One connection's read buffer: what a runtime that owns its buffers holds for each idle connection.
const READ_BYTES: usize = 4096;
/// Waiting to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 4096;

/// What runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// monoio: a ring, a task for each connection.
    Monoio,
    /// tokio-uring: a ring beside tokio's epoll, a task for each connection.
    TokioUring,
    /// tokio with tungstenite, a task for each connection.
    TokioTungstenite,
    /// axum, its chat example with a small read buffer and one flush for all that waits.
    Axum,
}

/// Which server, and where.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    name: Kind,
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The core it stays on.
    #[arg(long)]
    core: Option<usize>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the address, the core or the runtime cannot be had, or accepting fails.
pub fn run(args: &Args) -> io::Result<Infallible> {
    if let Some(core) = args.core {
        cpu::pin(&[core])?;
    }
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let listener = listen(args.listen)?;
    eprintln!("listening on {}", listener.local_addr()?);
    serve(args.name, listener)
}

fn serve(kind: Kind, listener: TcpListener) -> io::Result<Infallible> {
    match kind {
        Kind::Monoio => monoio::serve(listener),
        Kind::TokioUring => tokio_uring::serve(listener),
        Kind::TokioTungstenite => tokio_tungstenite::serve(listener),
        Kind::Axum => axum::serve(listener),
    }
}

/// Accepted sockets inherit the absence of Nagle.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
