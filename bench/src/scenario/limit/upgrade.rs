//! The bare accept-and-upgrade loop: accept, read the request, write an answer, keep the socket; at the end close all.
//! What the kernel asks for a connection, whatever the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::client::handshake::{ANSWER, Target, dial};
use crate::measure::cpu;
use crate::measure::histogram::Spread;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub connections: usize,
    pub runs: usize,
    pub server_core: usize,
    pub client_core: usize,
}

/// CPU microseconds a connection.
pub fn measure(plan: &Plan) -> io::Result<Spread> {
    if plan.connections == 0 || plan.connections > super::MOST_MEMBERS / 2 || plan.runs == 0 {
        return Err(io::Error::other(format!(
            "the bare loop takes 1 to {} connections: two descriptors each",
            super::MOST_MEMBERS / 2
        )));
    }
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let ns = thread::scope(|scope| {
            let server = scope.spawn(|| serve(plan, &listener));
            let client = scope.spawn(|| connect(plan, address));
            client.join().expect("the client does not panic")?;
            server.join().expect("the server does not panic")
        })?;
        runs.push(ns as f64 / plan.connections as f64 / 1e3);
    }
    Ok(Spread::of(&runs))
}

/// The thread's CPU nanoseconds.
fn serve(plan: &Plan, listener: &TcpListener) -> io::Result<u64> {
    cpu::pin(&[plan.server_core])?;
    let mut sockets = Vec::with_capacity(plan.connections);
    let mut request = [0; 4096];
    let before = cpu::of_this_thread();
    for _ in 0..plan.connections {
        let (mut socket, _) = listener.accept()?;
        // One that fails to come is the client's error, which is told first.
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        if socket.read(&mut request)? == 0 {
            return Err(io::Error::other("the client went away"));
        }
        socket.write_all(ANSWER)?;
        sockets.push(socket);
    }
    drop(sockets);
    Ok(cpu::of_this_thread() - before)
}

/// Connects everybody, reads the answers, and resets them.
fn connect(plan: &Plan, address: SocketAddr) -> io::Result<()> {
    cpu::pin(&[plan.client_core])?;
    let target = Target::parse(&format!("ws://{address}/"), &Default::default())
        .map_err(io::Error::other)?;
    let request = target.upgrade_request(None, None);
    // As many on their way as the server of a storm sees by default.
    const AT_ONCE: usize = 64;
    let mut open: Vec<TcpStream> = Vec::with_capacity(plan.connections);
    while open.len() < plan.connections {
        let first = open.len();
        for index in first..plan.connections.min(first + AT_ONCE) {
            let mut socket = dial(address, index)?;
            socket.write_all(&request)?;
            open.push(socket);
        }
        for socket in &mut open[first..] {
            let mut answer = [0; 512];
            let got = socket.read(&mut answer)?;
            if got != ANSWER.len() {
                return Err(io::Error::other("the bare loop's answer is cut"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_cost_of_a_connection() {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let mut plan = Plan {
            connections: 200,
            runs: 2,
            server_core: 0,
            client_core: cores - 1,
        };
        let spread = measure(&plan).unwrap();
        assert!(spread.min > 1.0 && spread.max < 100_000.0, "{spread:?}");
        plan.connections = super::super::MOST_MEMBERS;
        assert!(measure(&plan).is_err());
    }
}
