//! Dialling and the HTTP upgrade (RFC 6455 section 4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::inflate;
use super::protocol::Protocol;
use super::tls;

/// One key for all connections: its answer is a constant, so checking it costs nothing. It is the RFC's own example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The shortest right answer to any of our upgrades: what a bare loop says.
pub const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Connections from one source address: well below the 28,000 ephemeral ports of a default Linux.
const CONNECTIONS_A_SOURCE: usize = 10_000;

/// Where the server listens: `ws://host[:port]/path`, or `wss://`; `{channel}` in the path is the connection's.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// What a connection speaks below HTTP, if that is TLS.
    pub tls: Option<tls::Client>,
    host: String,
    path: String,
    /// Header lines beyond those of every upgrade, each with its end of line.
    headers: String,
    /// permessage-deflate is offered, and has to be agreed to.
    pub deflate: bool,
}

impl Target {
    /// Reads a URL; a name is resolved to its first IPv4 address. `wish` is about TLS, if it comes to that.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn parse(url: &str, wish: &tls::Wish) -> Result<Self, String> {
        let (rest, port, is_tls) = match url.split_once("://") {
            Some(("ws", rest)) => (rest, 80, false),
            Some(("wss", rest)) => (rest, 443, true),
            _ => return Err(format!("{url}: a target is ws://… or wss://…")),
        };
        if !is_tls && *wish != tls::Wish::default() {
            return Err(format!("{url}: --tls-… want a wss:// target"));
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        let (host, with_port) = match authority.split_once(':') {
            Some((host, _)) => (host, authority.to_owned()),
            None => (authority, format!("{authority}:{port}")),
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|e| format!("{authority}: {e}"))?
            .find(SocketAddr::is_ipv4)
            .ok_or_else(|| format!("{authority}: no IPv4 address"))?;
        let client = is_tls.then(|| tls::Client::new(host, wish)).transpose()?;
        Ok(Self {
            address,
            tls: client,
            host: authority.to_owned(),
            path: path.to_owned(),
            headers: String::new(),
            deflate: false,
        })
    }

    /// Adds `name=value` to the query.
    pub fn add_query(&mut self, pair: &str) {
        self.path
            .push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(pair);
    }

    /// Adds a header, `Name: value`.
    ///
    /// # Errors
    /// When that is not its shape.
    pub fn add_header(&mut self, line: &str) -> Result<(), String> {
        if !line.contains(':') || line.contains(['\r', '\n']) {
            return Err(format!("{line}: a header is `Name: value`"));
        }
        self.headers += &format!("{line}\r\n");
        Ok(())
    }

    /// The upgrade request, ready to send.
    pub fn upgrade_request(&self, subprotocol: Option<&str>, channel: Option<&str>) -> Vec<u8> {
        let path = self.path.replace("{channel}", channel.unwrap_or_default());
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{}",
            path, self.host, self.headers
        );
        if let Some(subprotocol) = subprotocol {
            request += &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
        }
        if self.deflate {
            request += &format!("Sec-WebSocket-Extensions: {}\r\n", inflate::OFFER);
        }
        request += "\r\n";
        request.into_bytes()
    }
}

/// What the kernel may hold for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLimits {
    /// Bytes of the receive buffer; the kernel's own choice without.
    pub receive_buffer: Option<usize>,
    /// Bytes of a segment: loopback's of 64 KiB let a peer queue megabytes that no network would take.
    pub segment: Option<u32>,
}

/// Connects to `target` from a loopback source address chosen by `index`, when the target is on loopback.
///
/// No delay, and closing resets: no TIME_WAIT is left behind for the next run.
pub fn dial(target: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = prepare(Type::STREAM, target, source(0, index))?;
    socket.connect(&target.into())?;
    Ok(socket.into())
}

/// The same without waiting, from an address of this thread's own: on loopback it is connected at once, elsewhere sends are
/// refused until it is.
pub fn start_dialling(
    target: SocketAddr,
    (thread, index): (usize, usize),
    limits: SocketLimits,
) -> io::Result<TcpStream> {
    let socket = prepare(Type::STREAM.nonblocking(), target, source(thread, index))?;
    if let Some(bytes) = limits.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = limits.segment {
        socket.set_tcp_mss(bytes)?;
    }
    match socket.connect(&target.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        _ => {}
    }
    // Or its receive would end at once rather than wait.
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

fn prepare(kind: Type, target: SocketAddr, source: IpAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if target.ip().is_loopback() {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// 127.1.0.1, 127.1.0.2, … of the first thread, 127.2.0.1, … of the second: the whole of 127.0.0.0/8 is local on Linux.
fn source(thread: usize, index: usize) -> IpAddr {
    let number = (index / CONNECTIONS_A_SOURCE) as u32 + 1;
    let first = Ipv4Addr::new(127, 1 + thread as u8, 0, 0);
    IpAddr::V4(Ipv4Addr::from(u32::from(first) + number))
}

/// Looks for the end of the answer in what has arrived: its length, or none when it is not all there. `deflate`:
/// permessage-deflate was offered.
///
/// # Errors
/// The status line, or what is missing.
pub fn answer_length(
    bytes: &[u8],
    protocol: &Protocol,
    deflate: bool,
) -> Result<Option<usize>, String> {
    let Some(at) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return match bytes.len() {
            ..16_384 => Ok(None),
            _ => Err("the upgrade's answer does not end".to_owned()),
        };
    };
    let head = String::from_utf8_lossy(&bytes[..at]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("the server answered `{status}`"));
    }
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let value = |name: &str| {
        let found = headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    };
    if value("sec-websocket-accept") != Some(ACCEPT) {
        return Err("Sec-WebSocket-Accept is wrong or missing".to_owned());
    }
    let chosen = value("sec-websocket-protocol");
    if !protocol.takes_subprotocol(chosen) {
        return Err(format!(
            "asked for subprotocol {:?}, got {chosen:?}",
            protocol.subprotocol()
        ));
    }
    match (deflate, value("sec-websocket-extensions")) {
        (false, None) => Ok(Some(at + 4)),
        (false, Some(extensions)) => Err(format!(
            "no extension was offered, the server took `{extensions}`"
        )),
        (true, Some(extensions)) if inflate::is_agreed(extensions) => Ok(Some(at + 4)),
        (true, extensions) => Err(format!(
            "the server did not agree to permessage-deflate without context takeover: {extensions:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::centrifuge::Encoding;

    #[test]
    fn reads_targets() {
        let target = Target::parse(
            "ws://127.0.0.1:8000/connection/websocket",
            &Default::default(),
        )
        .unwrap();
        assert_eq!(target.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(target.path, "/connection/websocket");
        assert_eq!(
            Target::parse("ws://127.0.0.1", &Default::default())
                .unwrap()
                .address
                .port(),
            80
        );
        let secure = Target::parse("wss://localhost", &Default::default()).unwrap();
        assert_eq!((secure.address.port(), secure.tls.is_some()), (443, true));
        assert!(target.tls.is_none());
        assert!(Target::parse("http://127.0.0.1/", &Default::default()).is_err());
    }

    #[test]
    fn asks_with_channel_query_and_headers() {
        let mut target =
            Target::parse("ws://127.0.0.1:1/sub/{channel}", &Default::default()).unwrap();
        target.add_query("a=1");
        target.add_query("b=2");
        target.add_header("X-Key: k").unwrap();
        assert!(target.add_header("X-Key").is_err());
        let request = String::from_utf8(target.upgrade_request(Some("p"), Some("r"))).unwrap();
        assert!(
            request.starts_with("GET /sub/r?a=1&b=2 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.ends_with("X-Key: k\r\nSec-WebSocket-Protocol: p\r\n\r\n"));
    }

    #[test]
    fn spreads_connections_over_source_addresses() {
        assert_eq!(source(0, 0), IpAddr::from([127, 1, 0, 1]));
        assert_eq!(source(0, 9_999), IpAddr::from([127, 1, 0, 1]));
        assert_eq!(source(0, 10_000), IpAddr::from([127, 1, 0, 2]));
        assert_eq!(source(0, 2_560_000), IpAddr::from([127, 1, 1, 1]));
        assert_eq!(source(1, 0), IpAddr::from([127, 2, 0, 1]));
    }

    #[test]
    fn believes_only_a_right_answer() {
        let right = format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\n\r\nrest"
        );
        let json = Protocol::Centrifuge(Encoding::Json);
        let protobuf = Protocol::Centrifuge(Encoding::Protobuf);
        assert_eq!(
            answer_length(right.as_bytes(), &json, false),
            Ok(Some(right.len() - 4))
        );
        assert_eq!(
            answer_length(&right.as_bytes()[..40], &json, false),
            Ok(None)
        );
        assert!(answer_length(right.as_bytes(), &protobuf, false).is_err());
        assert!(answer_length(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", &json, false).is_err());
        assert!(
            answer_length(
                b"HTTP/1.1 101 Ok\r\nSec-WebSocket-Accept: x\r\n\r\n",
                &json,
                false
            )
            .is_err()
        );
        // An extension only if it was offered, and then it has to be taken.
        let took = right.replace(
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\r\n",
        );
        assert!(answer_length(took.as_bytes(), &json, false).is_err());
        assert_eq!(
            answer_length(took.as_bytes(), &json, true),
            Ok(Some(took.len() - 4))
        );
        assert!(answer_length(right.as_bytes(), &json, true).is_err());
    }
}
