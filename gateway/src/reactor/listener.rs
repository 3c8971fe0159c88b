//! Listening sockets: one a shard, all on one address.
//!
//! The kernel spreads connections over the sockets of a `SO_REUSEPORT` group. The same option would let a second process of
//! the same user join the group unnoticed and take half of the connections: [`claim`] looks for that first.

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Unsent bytes above which a socket is not writable (TCP_NOTSENT_LOWAT): bounds what a peer that does not read makes the
/// kernel hold. Accepted sockets inherit it, as they do TCP_NODELAY.
pub const NOTSENT_LOWAT: u32 = 16_384;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Seconds for which the kernel keeps a connection that says nothing to itself (TCP_DEFER_ACCEPT).
const SILENT_SECONDS: libc::c_int = 1;

/// How long an address that is in use is looked at again. The kernel takes a ring apart after its process is gone, and the
/// listener with it: a node that takes the place of one that was killed would find the port taken for some milliseconds.
const IN_USE_PATIENCE: Duration = Duration::from_secs(1);
const IN_USE_LOOKS: Duration = Duration::from_millis(10);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has it.
    #[error("{0} is in use by another process: stop that one, or choose another address")]
    InUse(SocketAddr),
    /// Ports below 1024 need a capability.
    #[error(
        "not allowed to listen on {0}: grant CAP_NET_BIND_SERVICE, or choose a port from 1024 on"
    )]
    Denied(SocketAddr),
    /// No interface has this address.
    #[error("{0} is not an address of this machine")]
    NotOurs(SocketAddr),
    /// The process may not open one more socket.
    #[error("no descriptor is left to listen on {0}: raise LimitNOFILE, or use fewer shards")]
    NoDescriptor(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::PermissionDenied => Self::Denied(address),
            io::ErrorKind::AddrNotAvailable => Self::NotOurs(address),
            _ if Errno::from_io_error(&source) == Some(Errno::MFILE) => Self::NoDescriptor(address),
            _ => Self::Io { address, source },
        }
    }
}

/// Makes sure nobody else listens on `address`, then opens one listener for each element of `cpus`; an element that is
/// `Some` asks for the connections that arrive on that CPU (SO_INCOMING_CPU).
///
/// Port 0 lets the kernel choose; all listeners share its choice. Between the look and the opening another process may still
/// slip in: two nodes started in the same millisecond are not told apart.
///
/// # Errors
/// [`ListenError::InUse`] also when the other one listens with SO_REUSEPORT.
pub fn claim(address: SocketAddr, cpus: &[Option<usize>]) -> Result<Vec<TcpListener>, ListenError> {
    let fail = |source| ListenError::new(address, source);
    if address.port() != 0 {
        wait_until_free(address).map_err(fail)?;
    }
    let mut bound = address;
    let mut listeners = Vec::with_capacity(cpus.len());
    for &cpu in cpus {
        let listener = listen(bound, cpu)?;
        bound = listener.local_addr().map_err(fail)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Blocks while somebody else has the address, within [`IN_USE_PATIENCE`].
fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + IN_USE_PATIENCE;
    loop {
        match socket(address)?.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(IN_USE_LOOKS);
            }
            done => return done,
        }
    }
}

/// Opens one listener of a group, without looking whether somebody else listens there.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(address: SocketAddr, cpu: Option<usize>) -> Result<TcpListener, ListenError> {
    let open = || -> io::Result<TcpListener> {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.bind(&address.into())?;
        if let Some(cpu) = cpu {
            socket.set_cpu_affinity(cpu)?;
        }
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| ListenError::new(address, source))
}

/// Has the kernel hand over connections when their first bytes are there, or after a second: a shard is woken
/// once in place of twice for each, and not at all for who resets it at once.
///
/// # Errors
/// What the kernel says.
#[allow(unsafe_code)]
pub fn defer_accepts(listener: &TcpListener) -> io::Result<()> {
    let seconds = SILENT_SECONDS;
    // SAFETY: the option's value is a c_int that outlives the call; the descriptor is open for as long as it is borrowed.
    let answer = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A socket that may take a port whose last connections are in TIME_WAIT, but none that somebody listens on.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpStream;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_group_shares_one_port() {
        let group = claim(ANY, &[None, None, Some(0)]).unwrap();
        let address = group[0].local_addr().unwrap();
        assert!(
            group
                .iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_port_of_another_group_is_in_use_although_it_could_be_shared() {
        let group = claim(ANY, &[None]).unwrap();
        let address = group[0].local_addr().unwrap();
        let error = claim(address, &[None]).unwrap_err();
        assert!(
            matches!(error, ListenError::InUse(a) if a == address),
            "{error}"
        );
        listen(address, None).expect("the kernel itself would have let us in");
        drop(group);
        claim(address, &[None]).expect("free again");
    }

    #[test]
    fn a_port_that_is_freed_in_a_moment_can_be_claimed() {
        let group = claim(ANY, &[None]).unwrap();
        let address = group[0].local_addr().unwrap();
        let (claiming, claimed) = std::sync::mpsc::channel();
        let successor = std::thread::spawn(move || {
            claiming.send(()).unwrap();
            claim(address, &[None])
        });
        claimed.recv().unwrap();
        drop(group);
        successor.join().unwrap().expect("it waits a moment");
    }

    #[test]
    fn a_port_with_connections_in_time_wait_can_be_claimed() {
        let group = claim(ANY, &[None]).unwrap();
        let address = group[0].local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        group[0].set_nonblocking(false).unwrap();
        let (served, _) = group[0].accept().unwrap();
        drop(served); // closes first: the TIME_WAIT is ours
        drop(client);
        drop(group);
        claim(address, &[None]).expect("TIME_WAIT does not count");
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = claim("192.0.2.1:8000".parse().unwrap(), &[None]).unwrap_err();
        assert!(matches!(error, ListenError::NotOurs(_)), "{error}");
    }

    #[test]
    fn deferred_accepts_come_with_their_first_bytes_or_after_a_while() {
        let group = claim(ANY, &[None]).unwrap();
        defer_accepts(&group[0]).unwrap();
        let address = group[0].local_addr().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        let mut talking = TcpStream::connect(address).unwrap();
        let error = group[0].accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "nobody has spoken");
        talking.write_all(b"GET").unwrap();
        group[0].set_nonblocking(false).unwrap();
        for client in [&talking, &silent] {
            let (_, peer) = group[0].accept().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let group = claim(ANY, &[None]).unwrap();
        let _client = TcpStream::connect(group[0].local_addr().unwrap()).unwrap();
        group[0].set_nonblocking(false).unwrap();
        let (served, _) = group[0].accept().unwrap();
        let served = socket2::SockRef::from(&served);
        assert!(served.tcp_nodelay().unwrap());
        assert_eq!(served.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
    }
}
