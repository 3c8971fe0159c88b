//! Every behaviour of the reactor's contract, on each real reactor: io_uring, io_uring with sends that report (the path of a
//! kernel that fails the self-test), and epoll. Where io_uring is refused, only epoll is tested, and a line says so.
//!
//! The soak at the end connects, closes and resets at random states: `RINGWAY_SOAK` is how often (default 20,000). When it is
//! set, the machine is taken to be ours and `/proc/net/sockstat` has to come back to where it was.

mod harness;
mod soak;

use harness::{DEADLINE, Kind, Rng, Server, connect_from, on_each, pattern};
use ringway::reactor::uring::{UringReactor, UringSetup};
use ringway::reactor::{CloseHow, EndReason, Event, Reactor, Send, listener};
use rustix::event::{EventfdFlags, eventfd};
use soak::sockets_of;
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn accept_tells_the_right_peer() {
    on_each(|kind| {
        let mut server = Server::new(kind, 2100);
        let mut clients = HashMap::new();
        for number in 0..2000u32 {
            let source = Ipv4Addr::new(
                127,
                1 + (number % 7) as u8,
                (number / 250) as u8,
                1 + (number % 250) as u8,
            );
            let client = connect_from(source, server.address);
            clients.insert(client.local_addr().unwrap(), client);
        }
        server.until("2,000 accepts", |server| server.accepted.len() == 2000);
        let peers: HashSet<_> = server.lives.values().map(|life| life.peer).collect();
        assert_eq!(peers, clients.keys().copied().collect());
        // And the slot is that peer's: what it sends arrives there.
        for (address, client) in &mut clients {
            client.write_all(address.to_string().as_bytes()).unwrap();
        }
        server.until("every peer's name", |server| {
            server.lives.values().all(|life| life.received.len() >= 11)
        });
        for life in server.lives.values() {
            assert_eq!(life.received, life.peer.to_string().as_bytes());
        }
    });
}

#[test]
fn bytes_in_are_bytes_out() {
    on_each(|kind| {
        const CLIENTS: usize = 20;
        const BYTES: usize = 200_000;
        let mut server = Server::new(kind, 64);
        let address = server.address;
        let threads: Vec<_> = (0..CLIENTS)
            .map(|number| {
                std::thread::spawn(move || {
                    let bytes = pattern(BYTES, number as u64 + 1);
                    let mut client = TcpStream::connect(address).unwrap();
                    client.set_read_timeout(Some(DEADLINE)).unwrap();
                    let mut out = client.try_clone().unwrap();
                    let written = bytes.clone();
                    let writer = std::thread::spawn(move || {
                        let mut rest = &written[..];
                        let mut rng = Rng(number as u64 + 77);
                        while !rest.is_empty() {
                            let (piece, more) = rest.split_at(rest.len().min(1 + rng.below(9000)));
                            out.write_all(piece).unwrap();
                            rest = more;
                        }
                        out.shutdown(Shutdown::Write).unwrap();
                    });
                    let mut back = Vec::new();
                    client.read_to_end(&mut back).unwrap();
                    writer.join().unwrap();
                    assert!(back == bytes, "what comes back differs");
                })
            })
            .collect();
        // An echo: everything that came goes back, in pieces as the socket takes them, all connections in one flush.
        let mut sent: HashMap<u32, usize> = HashMap::new();
        server.until("the echo of all", |server| {
            let waiting: Vec<_> = server
                .lives
                .iter()
                .map(|(&slot, life)| (slot, life.received.len()))
                .collect();
            let mut sends = Vec::new();
            for (slot, received) in waiting {
                let at = *sent.entry(slot).or_default();
                if at < received {
                    sends.push(Send {
                        slot,
                        bytes: &server.lives[&slot].received[at..],
                    });
                }
            }
            let mut short = Vec::new();
            server.reactor.flush(&sends, &mut short);
            for (index, send) in sends.iter().enumerate() {
                let cut = short.iter().find(|short| short.index as usize == index);
                let taken = cut.map_or(send.bytes.len(), |short| short.taken.unwrap() as usize);
                assert!(cut.is_none() || taken < send.bytes.len());
                *sent.get_mut(&send.slot).unwrap() += taken;
            }
            drop(sends);
            let done: Vec<_> = server
                .lives
                .iter()
                .filter(|(slot, life)| life.ended == Some(EndReason::Eof) && sent[slot] == BYTES)
                .map(|(&slot, _)| slot)
                .collect();
            for slot in done {
                assert_eq!(server.life(slot).received.len(), BYTES);
                server.close(slot, CloseHow::Orderly);
                sent.remove(&slot);
            }
            server.closed == CLIENTS as u64
        });
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let stats = server.reactor.stats();
        assert!(stats.enters > 0 && stats.sends > 0, "{stats:?}");
    });
}

#[test]
fn short_sends_sum_to_what_the_peer_reads_and_writable_follows_the_drain() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let (mut client, slot) = server.connect();
        let bytes = pattern(8 << 20, 5);
        let mut sent = 0;
        let mut cuts = 0;
        // Until it takes nothing any more, twice in a row.
        let mut refusals = 0;
        while refusals < 2 {
            let piece = &bytes[sent..sent + (64 << 10)];
            let taken = server.send(slot, piece).unwrap() as usize;
            sent += taken;
            cuts += u32::from(taken < piece.len());
            refusals = if taken == 0 { refusals + 1 } else { 0 };
        }
        assert!(cuts >= 2 && server.reactor.stats().short_sends >= 2);
        assert!(
            sent < 2 << 20,
            "a peer that does not read made the kernel take {sent} bytes"
        );
        let token = server.life(slot).token;
        server.reactor.wait_writable(token);
        server.poll(Duration::from_millis(50));
        assert_eq!(server.life(slot).writable, 0, "writable while nobody reads");
        let mut read = vec![0; sent];
        client.read_exact(&mut read).unwrap();
        assert!(read == bytes[..sent]);
        server.until("writable", |server| server.life(slot).writable == 1);
        server.poll(Duration::from_millis(20));
        assert_eq!(server.life(slot).writable, 1, "asked once, told once");
        assert_eq!(server.send(slot, b"more"), Ok(4));
        client.read_exact(&mut read[..4]).unwrap();
        client.set_nonblocking(true).unwrap();
        assert_eq!(
            client.read(&mut read).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "bytes that nobody sent"
        );
        // Asked while it is writable already: told at once.
        server.reactor.wait_writable(token);
        server.until("writable again", |server| server.life(slot).writable == 2);
    });
}

#[test]
fn close_delivers_what_is_queued_and_then_fin() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let (mut client, slot) = server.connect();
        let bytes = pattern(1 << 20, 9);
        let mut sent = 0;
        while let Ok(taken @ 1..) = server.send(slot, &bytes[sent..]) {
            sent += taken as usize;
            if sent == bytes.len() {
                break;
            }
        }
        server.close(slot, CloseHow::Orderly);
        server.until("closed", |server| server.closed == 1);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert!(read == bytes[..sent], "{} of {sent} bytes", read.len());
    });
}

#[test]
fn an_orderly_close_keeps_nothing_for_a_peer_that_takes_nothing() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&server.address.into()).unwrap();
        server.until("an accept", |server| server.accepted.len() == 1);
        let slot = server.accepted[0];
        while server.send(slot, &[7; 16 << 10]).unwrap() > 0 {}
        socket.shutdown(Shutdown::Write).unwrap();
        server.close(slot, CloseHow::Orderly);
        // Its slot is free at once, and in the end its bytes are.
        server.until("closed", |server| server.closed == 1);
        server.until("the socket gone", |server| {
            sockets_of(server.address.port()) == 0
        });
    });
}

#[test]
fn reset_sends_rst() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let (mut client, slot) = server.connect();
        server.close(slot, CloseHow::Reset);
        server.until("closed", |server| server.closed == 1);
        assert_eq!(
            client.read(&mut [0; 9]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        // One that was never opened, too.
        server.opens = false;
        let (mut client, slot) = server.connect();
        server.close(slot, CloseHow::Reset);
        server.until("closed", |server| server.closed == 2);
        assert_eq!(
            client.read(&mut [0; 9]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    });
}

#[test]
fn close_with_reads_and_writes_armed_lets_the_peer_see_fin() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        for round in 1..=50 {
            let (mut client, slot) = server.connect();
            if round % 2 == 0 {
                while server.send(slot, &[7; 16 << 10]).unwrap() > 0 {}
                server.reactor.wait_writable(server.life(slot).token);
            }
            if round % 3 == 0 {
                server.poll(Duration::ZERO);
            }
            server.close(slot, CloseHow::Orderly);
            server.until("closed", |server| server.closed == round);
            client
                .read_to_end(&mut Vec::new())
                .expect("FIN, and the socket not leaked");
        }
    });
}

#[test]
fn a_slot_is_used_again_and_the_former_life_means_nothing() {
    on_each(|kind| {
        let mut server = Server::new(kind, 1);
        let mut former = Vec::new();
        for round in 1..=100u64 {
            let (mut client, slot) = server.connect();
            assert_eq!(slot, 0);
            let token = server.life(slot).token;
            // All of these name a life that is over.
            for &old in &former {
                server.reactor.close(old, CloseHow::Reset);
                server.reactor.wait_writable(old);
            }
            client.write_all(b"mine").unwrap();
            server.until("its bytes", |server| server.life(slot).received.len() == 4);
            assert_eq!(server.life(slot).received, b"mine");
            assert_eq!(server.send(slot, b"yours"), Ok(5));
            let mut read = [0; 5];
            client.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"yours");
            // Bytes that are on their way when the slot closes must not reach the next life.
            client.write_all(b"late").unwrap();
            server.close(
                slot,
                if round % 2 == 0 {
                    CloseHow::Orderly
                } else {
                    CloseHow::Reset
                },
            );
            server.until("closed", |server| server.closed == round);
            former = vec![token];
        }
    });
}

#[test]
fn a_full_table_pauses_accepting_and_loses_nobody() {
    on_each(|kind| {
        let mut server = Server::new(kind, 4);
        let mut clients: Vec<_> = (0..10)
            .map(|_| TcpStream::connect(server.address).unwrap())
            .collect();
        server.until("a full table", |server| server.accepted.len() == 4);
        server.poll(Duration::from_millis(50));
        assert_eq!(server.accepted.len(), 4);
        assert!(server.reactor.stats().accepts_paused >= 1);
        for served in 5..=10 {
            let slot = *server.lives.keys().next().unwrap();
            server.close(slot, CloseHow::Orderly);
            server.until("the next one", |server| server.accepted.len() == served);
        }
        // All ten got in: four still can talk, six have seen FIN; nobody was reset for lack of a place.
        for &slot in &server.lives.keys().copied().collect::<Vec<_>>() {
            assert_eq!(server.send(slot, b"hello"), Ok(5));
            server.close(slot, CloseHow::Orderly);
        }
        server.until("all closed", |server| server.closed == 10);
        let mut greeted = 0;
        for client in &mut clients {
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut read = Vec::new();
            client.read_to_end(&mut read).unwrap();
            greeted += usize::from(read == b"hello");
        }
        assert_eq!(greeted, 4);
    });
}

#[test]
fn stop_accepting_refuses_at_once_and_keeps_what_is_open() {
    on_each(|kind| {
        let mut server = Server::new(kind, 100);
        let (mut client, slot) = server.connect();
        server.reactor.stop_accepting();
        let refused = TcpStream::connect(server.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        client.write_all(b"still here").unwrap();
        server.until("bytes", |server| {
            server.life(slot).received == b"still here"
        });
        assert_eq!(server.send(slot, b"and here"), Ok(8));
        server.poll(Duration::ZERO);
        listener::claim(server.address, &[None]).expect("the port is free for the next process");
        server.reactor.stop_accepting();
        server.close(slot, CloseHow::Orderly);
        server.until("closed", |server| server.closed == 1);
        // Before the first poll, too.
        let mut unused = Server::new(kind, 4);
        unused.reactor.stop_accepting();
        unused.poll(Duration::ZERO);
        assert_eq!(
            TcpStream::connect(unused.address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn a_wake_from_another_thread_ends_a_poll() {
    on_each(|kind| {
        let mut server = Server::new(kind, 4);
        server.poll(Duration::ZERO);
        for _ in 0..5 {
            let wake = server.wake.try_clone().unwrap();
            let start = Instant::now();
            let waker = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
            });
            server.poll(Duration::from_secs(60));
            assert!(start.elapsed() < DEADLINE, "slept on");
            waker.join().unwrap();
        }
        // A wake before the poll is not lost.
        rustix::io::write(&server.wake, &1u64.to_ne_bytes()).unwrap();
        let start = Instant::now();
        server.poll(Duration::from_secs(60));
        assert!(start.elapsed() < DEADLINE, "slept on");
        // And is spent: the next poll waits.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            server.poll(Duration::from_millis(100));
        }
        assert!(
            server.reactor.stats().enters < 100,
            "a spent wake makes the reactor spin"
        );
    });
}

#[test]
fn an_idle_poll_lasts_as_long_as_it_was_told() {
    on_each(|kind| {
        let mut server = Server::new(kind, 4);
        server.poll(Duration::ZERO);
        let start = Instant::now();
        server.poll(Duration::from_millis(80));
        assert!(
            start.elapsed() >= Duration::from_millis(75),
            "{:?}",
            start.elapsed()
        );
        let now = server.reactor.now();
        assert!(
            now.millis >= 75 && now.unix_millis > 1_600_000_000_000,
            "{now:?}"
        );
    });
}

#[test]
fn an_end_follows_the_bytes_before_it() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let (mut client, slot) = server.connect();
        client.write_all(&pattern(10_000, 3)).unwrap();
        drop(client);
        server.until("the end", |server| server.life(slot).ended.is_some());
        assert_eq!(server.life(slot).ended, Some(EndReason::Eof));
        assert_eq!(server.life(slot).received, pattern(10_000, 3));

        // A reset behind bytes that nobody has read yet: the end has to come, whatever becomes of the bytes.
        for _ in 0..20 {
            let (mut client, slot) = server.connect();
            client.write_all(b"bytes").unwrap();
            socket2::SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client);
            server.until("the end", |server| server.life(slot).ended.is_some());
            assert_eq!(
                server.life(slot).ended,
                Some(EndReason::Error(libc::ECONNRESET))
            );
            let error = server.send(slot, b"too late");
            assert!(
                matches!(error, Err(libc::EPIPE | libc::ECONNRESET)),
                "{error:?}"
            );
            server.close(slot, CloseHow::Orderly);
        }
        server.until("all closed", |server| server.closed == 20);

        // Half-closed: the other half goes on.
        let (mut client, slot) = server.connect();
        client.shutdown(Shutdown::Write).unwrap();
        server.until("the end", |server| server.life(slot).ended.is_some());
        assert_eq!(server.send(slot, b"goodbye"), Ok(7));
        server.close(slot, CloseHow::Orderly);
        server.until("closed", |server| server.closed == 21);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"goodbye");
    });
}

#[test]
fn few_buffers_slow_the_peers_down_and_lose_nothing() {
    on_each(|kind| {
        let mut server = Server::with_buffers(kind, 64, 4);
        let mut clients = Vec::new();
        for number in 0..30 {
            let (mut client, slot) = server.connect();
            client.write_all(&pattern(20_000, number + 1)).unwrap();
            clients.push((client, slot, number));
        }
        server.until("all bytes", |server| {
            server
                .lives
                .values()
                .all(|life| life.received.len() == 20_000)
        });
        for (_, slot, number) in &clients {
            assert!(server.life(*slot).received == pattern(20_000, number + 1));
        }
        assert!(server.reactor.stats().buffers_exhausted > 0);
    });
}

#[test]
fn a_flood_does_not_hog_a_poll() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let (mut flood, flood_slot) = server.connect();
        let (mut quiet, quiet_slot) = server.connect();
        flood.set_nonblocking(true).unwrap();
        let junk = vec![1; 1 << 20];
        let mut written = 0;
        while let Ok(bytes) = flood.write(&junk) {
            written += bytes;
        }
        quiet.write_all(b"me too").unwrap();
        let mut polls = 0;
        server.until("the quiet one", |server| {
            let most = server.receives.get(&flood_slot).copied().unwrap_or(0);
            assert!(most <= 4, "{most} receives of one connection in one poll");
            polls += 1;
            server.life(quiet_slot).received == b"me too"
        });
        assert!(polls < 20, "{polls} polls for the quiet one");
        server.until("the rest of the flood", |server| {
            server.life(flood_slot).received.len() == written
        });
    });
}

#[test]
fn a_burst_larger_than_the_completion_queue_loses_nothing() {
    on_each(|kind| {
        const CLIENTS: usize = 5000;
        let mut server = Server::new(kind, CLIENTS as u32);
        server.opens = false;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let client = connect_from(
                    Ipv4Addr::new(127, 0, 1, 1 + (number % 200) as u8),
                    server.address,
                );
                if number % 64 == 63 {
                    server.poll(Duration::ZERO);
                }
                client
            })
            .collect();
        server.until("all accepts", |server| server.accepted.len() == CLIENTS);
        // Two completions a slot at once, and two more to come, before anybody looks.
        for slot in 0..CLIENTS as u32 {
            let token = server.life(slot).token;
            server.reactor.open(token);
            server.reactor.wait_writable(token);
        }
        for slot in 0..CLIENTS as u32 {
            server.close(slot, CloseHow::Reset);
        }
        server.until("all closed", |server| server.closed == CLIENTS as u64);
        if kind != Kind::Epoll {
            assert!(
                server.reactor.stats().cq_overflows > 0,
                "the queue was large enough"
            );
        }
        for mut client in clients {
            let error = client.read(&mut [0; 9]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn many_sends_go_out_in_one_flush() {
    on_each(|kind| {
        let mut server = Server::new(kind, 300);
        let clients: Vec<_> = (0..ringway::reactor::FLUSH_MAX)
            .map(|_| server.connect())
            .collect();
        for round in 0..10u8 {
            let bytes: Vec<_> = clients
                .iter()
                .map(|(_, slot)| [round, *slot as u8, (*slot >> 8) as u8])
                .collect();
            let sends: Vec<_> = clients
                .iter()
                .zip(&bytes)
                .map(|((_, slot), bytes)| Send { slot: *slot, bytes })
                .collect();
            let mut short = Vec::new();
            server.reactor.flush(&sends, &mut short);
            assert_eq!(short, []);
        }
        for (mut client, slot) in clients {
            let mut read = [0; 30];
            client.read_exact(&mut read).unwrap();
            for (round, piece) in read.chunks(3).enumerate() {
                assert_eq!(piece, [round as u8, slot as u8, (slot >> 8) as u8]);
            }
        }
    });
}

#[test]
#[should_panic(expected = "twice in one flush")]
fn two_sends_of_one_connection_in_one_flush_are_a_bug() {
    let mut server = Server::new(Kind::Uring, 4);
    let (_client, slot) = server.connect();
    let send = Send { slot, bytes: b"x" };
    server.reactor.flush(&[send, send], &mut Vec::new());
}

#[test]
fn a_send_on_a_slot_without_a_life_fails() {
    on_each(|kind| {
        let mut server = Server::new(kind, 4);
        assert_eq!(server.send(2, b"x"), Err(libc::EBADF));
        let (_client, slot) = server.connect();
        assert_eq!(server.send(slot, b"x"), Ok(1));
        server.close(slot, CloseHow::Orderly);
        assert_eq!(server.send(slot, b"x"), Err(libc::EBADF));
    });
}

#[test]
fn dropping_a_reactor_closes_its_connections_and_its_port() {
    on_each(|kind| {
        let mut server = Server::new(kind, 16);
        let (mut client, slot) = server.connect();
        assert_eq!(server.send(slot, b"last words"), Ok(10));
        server.reactor.wait_writable(server.life(slot).token);
        let address = server.address;
        drop(server);
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"last words");
        listener::claim(address, &[None]).expect("the port is free");
    });
}

#[test]
fn a_reactor_belongs_to_the_thread_that_polls_it_first() {
    let server = Server::new(Kind::Uring, 4);
    let Server { address, .. } = server;
    drop(server);
    let listener = listener::claim(address, &[None]).unwrap().pop();
    let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let mut reactor = UringReactor::new(UringSetup::new(listener, 4, wake)).unwrap();
    std::thread::spawn(move || {
        let _client = TcpStream::connect(address).unwrap();
        let mut events = Vec::new();
        let start = Instant::now();
        while events.is_empty() && start.elapsed() < DEADLINE {
            reactor
                .poll(Duration::from_millis(20), &mut events)
                .unwrap();
        }
        assert!(matches!(events[0], Event::Accepted { .. }));
    })
    .join()
    .unwrap();
}
