//! Connections that come and go at random states.

use super::harness::{Kind, Rng, Server, connect_from, on_each, pattern};
use ringway::reactor::CloseHow;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// TCP sockets that /proc/net/sockstat counts as allocated, those in TIME_WAIT not among them.
fn sockets_allocated() -> i64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "alloc").unwrap();
    words[at + 1].parse().unwrap()
}

/// Sockets with this local port, but for the listener and those in TIME_WAIT.
pub fn sockets_of(port: u16) -> usize {
    let suffix = format!(":{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|words| words[1].ends_with(&suffix) && !matches!(words[3], "06" | "0A"))
        .count()
}

#[test]
fn soak() {
    let asked = std::env::var("RINGWAY_SOAK")
        .ok()
        .map(|count| count.parse().expect("RINGWAY_SOAK is a number"));
    on_each(|kind| soak_one(kind, asked.unwrap_or(20_000), asked.is_some()));
}

/// Connects `count` times, and closes and resets from both sides whatever the state: before the accept is seen, before it
/// is opened, with bytes under way in both directions, with a full socket, with a POLLOUT armed.
fn soak_one(kind: Kind, count: u64, is_alone: bool) {
    const CLIENTS_MAX: usize = 150;
    /// Twice the table: it is full now and then, and the backlog never.
    const UNCLOSED_MAX: u64 = 400;
    let allocated_before = sockets_allocated();
    let mut server = Server::new(kind, 200);
    let port = server.address.port();
    let seed = 0x5eed_0000 + count;
    println!("seed {seed:#x}");
    let mut rng = Rng(seed);
    let mut clients: Vec<TcpStream> = Vec::new();
    let big = pattern(300_000, 1);
    let mut connected = 0;
    while connected < count {
        match rng.below(16) {
            0..=4 if clients.len() < CLIENTS_MAX && connected - server.closed < UNCLOSED_MAX => {
                let n = rng.next();
                let source = Ipv4Addr::new(
                    127,
                    2 + (n % 200) as u8,
                    (n >> 8) as u8,
                    1 + (n >> 16) as u8 % 250,
                );
                let client = connect_from(source, server.address);
                client.set_nonblocking(true).unwrap();
                clients.push(client);
                connected += 1;
            }
            5..=6 if !clients.is_empty() => {
                let at = rng.below(clients.len());
                let len = 1 + rng.below(10_000);
                let _ = clients[at].write(&big[..len]);
            }
            7 if !clients.is_empty() => {
                let at = rng.below(clients.len());
                let _ = clients[at].read(&mut [0; 5000]);
            }
            8..=9 if !clients.is_empty() => {
                let at = rng.below(clients.len());
                let client = clients.swap_remove(at);
                if rng.below(2) == 0 {
                    socket2::SockRef::from(&client)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                }
            }
            10..=12 if !server.lives.is_empty() => {
                // Which one does not matter, so the map's order is fine; the choice of what to do is the seed's.
                let slot = *server.lives.keys().next().unwrap();
                match rng.below(4) {
                    0 => server.close(slot, CloseHow::Orderly),
                    1 => server.close(slot, CloseHow::Reset),
                    2 => drop(server.send(slot, &big[..1 + rng.below(big.len() - 1)])),
                    _ if server.opens => server.reactor.wait_writable(server.life(slot).token),
                    _ => {}
                }
            }
            13 => {
                // Now and then connections are closed without having been opened.
                server.opens = false;
                server.poll(Duration::ZERO);
                server.opens = true;
                let unopened: Vec<_> = server.accepted.drain(..).collect();
                for slot in unopened {
                    let Some(life) = server.lives.get(&slot) else {
                        continue;
                    };
                    if rng.below(2) == 0 && life.received.is_empty() {
                        server.close(slot, CloseHow::Reset);
                    } else if life.received.is_empty() {
                        // Opened late. One that was opened already is closed instead: `open` takes only the new.
                        server.close(slot, CloseHow::Orderly);
                    }
                }
            }
            _ => {
                server.poll(Duration::ZERO);
                server.accepted.clear();
                for life in server.lives.values_mut() {
                    life.received.clear();
                }
            }
        }
    }
    drop(clients);
    server.until("every connection accepted and closed", |server| {
        let open: Vec<_> = server.lives.keys().copied().collect();
        open.into_iter()
            .for_each(|slot| server.close(slot, CloseHow::Orderly));
        server.accepted.clear();
        server.closing.is_empty() && sockets_of(port) == 0
    });
    let lives: u64 = server
        .generations
        .iter()
        .map(|&generation| u64::from(generation))
        .sum();
    assert_eq!(server.closed, lives, "a slot was lost");
    assert!(
        lives <= count && lives > count / 2,
        "{lives} of {count} were accepted"
    );
    // Every slot can be used again.
    let all: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    server.until("all slots", |server| server.lives.len() == 200);
    drop(all);
    let stats = server.reactor.stats();
    println!("{count} connected, {lives} accepted, {stats:?}");
    drop(server);
    let start = Instant::now();
    while is_alone && sockets_allocated() > allocated_before + 8 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} sockets, before {allocated_before}",
            sockets_allocated()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
