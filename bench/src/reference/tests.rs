//! Each server, real sockets, a client that shares no code with two of them.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

use super::{Kind, LONGEST_QUEUE, listen, serve};

type Client = WebSocket<TcpStream>;

/// The server's thread ends with the tests.
fn start(kind: Kind) -> SocketAddr {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(kind, listener).unwrap());
    address
}

fn dial(address: SocketAddr, path: &str) -> Client {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    client(format!("ws://{address}{path}"), stream).unwrap().0
}

fn each(test: impl Fn(SocketAddr)) {
    for kind in Kind::value_variants() {
        eprintln!("{kind:?}");
        test(start(*kind));
    }
}

#[test]
fn echoes_messages_of_all_sizes_and_answers_pings() {
    each(|address| {
        let mut client = dial(address, "/echo");
        for size in [0, 1, 125, 126, 5_000, 70_000] {
            for message in [
                Message::text("x".repeat(size)),
                Message::binary(vec![7; size]),
            ] {
                client.send(message.clone()).unwrap();
                assert!(client.read().unwrap() == message);
            }
        }
        client.send(Message::Ping("here".into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong("here".into()));
    });
}

/// Both see both publishers' messages, their own too; each publisher's in order; nobody else sees any.
#[test]
fn gives_a_rooms_messages_to_its_members_in_order() {
    const EACH: usize = 200;
    each(|address| {
        let mut members: Vec<Client> = Vec::new();
        let mut stranger = dial(address, "/other");
        // Who hears its own message has entered.
        for number in 1..=2 {
            members.push(dial(address, "/room"));
            members[number - 1].send(Message::text("enter")).unwrap();
            for member in &mut members {
                assert_eq!(member.read().unwrap(), Message::text("enter"));
            }
        }
        for number in 0..EACH {
            for (index, member) in members.iter_mut().enumerate() {
                member
                    .write(Message::text(format!("{index} {number}")))
                    .unwrap();
            }
        }
        members
            .iter_mut()
            .for_each(|member| member.flush().unwrap());
        for member in &mut members {
            let mut next = [0; 2];
            for _ in 0..2 * EACH {
                let message = member.read().unwrap();
                let (index, number) = message.to_text().unwrap().split_once(' ').unwrap();
                let next = &mut next[index.parse::<usize>().unwrap()];
                assert_eq!(number.parse(), Ok(*next));
                *next += 1;
            }
        }
        stranger.send(Message::text("alone")).unwrap();
        assert_eq!(stranger.read().unwrap(), Message::text("alone"));
    });
}

#[test]
fn answers_a_close_and_goes_on_without_who_left() {
    each(|address| {
        let (mut stays, mut leaves) = (dial(address, "/room"), dial(address, "/room"));
        let reason = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        leaves.close(Some(reason.clone())).unwrap();
        assert_eq!(leaves.read().unwrap(), Message::Close(Some(reason)));
        assert!(matches!(leaves.read(), Err(Error::ConnectionClosed)));
        for _ in 0..2 {
            stays.send(Message::text("still here")).unwrap();
            assert_eq!(stays.read().unwrap(), Message::text("still here"));
        }
    });
}

/// The queue is bounded: who does not read is closed, who does loses nothing.
#[test]
fn closes_a_member_that_does_not_read() {
    each(|address| {
        let (mut reads, mut stalls) = (dial(address, "/room"), dial(address, "/room"));
        // What the kernel buffers for a stalled member on loopback is a few megabytes.
        let large = Message::binary(vec![0; 64 * 1024]);
        for _ in 0..2 * LONGEST_QUEUE {
            reads.send(large.clone()).unwrap();
            assert!(reads.read().unwrap() == large);
        }
        let mut came = 0;
        let end = loop {
            match stalls.read() {
                Ok(message) => assert!(message == large),
                Err(end) => break end,
            }
            came += 1;
        };
        assert!(came < 2 * LONGEST_QUEUE, "it was never closed");
        assert!(
            !matches!(&end, Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{end}"
        );
    });
}
