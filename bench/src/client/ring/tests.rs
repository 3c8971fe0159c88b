use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const SMALL: RingSize = RingSize {
    slots: 8,
    buffers: 4,
    buffer_bytes: 64,
};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn receives_more_than_its_buffers_hold_at_once() {
    let mut ring = Ring::new(SMALL).unwrap();
    let (near, mut far) = pair();
    let slot = ring.attach(near.into()).unwrap();
    ring.receive(slot).unwrap();
    let sent: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    far.write_all(&sent).unwrap();
    let mut got = Vec::new();
    while got.len() < sent.len() {
        ring.poll(|event| match event {
            Event::Received { bytes, .. } => got.extend_from_slice(bytes),
            Event::Closed { .. } => panic!("closed too early"),
        })
        .unwrap();
    }
    assert_eq!(got, sent);
}

#[test]
fn keeps_the_rest_of_a_short_send_and_its_order() {
    let mut ring = Ring::new(SMALL).unwrap();
    let (near, mut far) = pair();
    let slot = ring.attach(near.into()).unwrap();
    let message: Vec<u8> = (0..300_000u32).map(|i| (i >> 3) as u8).collect();
    let rounds = 40;
    for _ in 0..rounds {
        ring.send(slot, &message).unwrap();
    }
    ring.flush().unwrap();
    assert!(
        ring.is_blocked(slot),
        "nobody reads, so 12 MB cannot all be taken"
    );
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; rounds * 300_000];
        far.read_exact(&mut got).unwrap();
        got
    });
    while ring.is_blocked(slot) {
        ring.flush().unwrap();
    }
    let got = reader.join().unwrap();
    assert!(got.chunks(message.len()).all(|chunk| chunk == message));
}

#[test]
fn a_detached_socket_resets_and_its_slot_serves_the_next() {
    let mut ring = Ring::new(SMALL).unwrap();
    let (near, mut far) = pair();
    socket2::SockRef::from(&near)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    let slot = ring.attach(near.into()).unwrap();
    ring.receive(slot).unwrap();
    ring.flush().unwrap();
    far.write_all(b"for the old one").unwrap();
    ring.detach(slot).unwrap();
    let (near, mut next) = pair();
    ring.attach_at(slot, near.into()).unwrap();
    ring.receive(slot).unwrap();
    next.write_all(b"for the new one").unwrap();
    let mut got = Vec::new();
    while got.len() < 15 {
        ring.poll(|event| match event {
            Event::Received { bytes, .. } => got.extend_from_slice(bytes),
            Event::Closed { .. } => panic!("the new socket is open"),
        })
        .unwrap();
    }
    assert_eq!(got, b"for the new one");
    let error = far.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn reads_nothing_while_stopped_then_a_little_then_all() {
    let mut ring = Ring::new(SMALL).unwrap();
    let (near, mut far) = pair();
    let slot = ring.attach(near.into()).unwrap();
    ring.receive(slot).unwrap();
    ring.flush().unwrap();
    let stop = |ring: &mut Ring| {
        ring.stop_receiving(slot).unwrap();
        while ring.slots[slot as usize].reading != Reading::Off {
            ring.poll(|event| panic!("{event:?}")).unwrap();
        }
    };
    stop(&mut ring);
    far.write_all(b"0123456789").unwrap();
    let mut got = Vec::new();
    let mut take = |ring: &mut Ring, until: usize| {
        let start = std::time::Instant::now();
        while got.len() < until {
            assert!(start.elapsed().as_secs() < 20, "only {} came", got.len());
            ring.poll(|event| match event {
                Event::Received { bytes, .. } => got.extend_from_slice(bytes),
                Event::Closed { .. } => panic!("it is open"),
            })
            .unwrap();
        }
        got.clone()
    };
    ring.receive_once(slot, 4).unwrap();
    assert_eq!(take(&mut ring, 4), b"0123");
    ring.receive(slot).unwrap();
    assert_eq!(take(&mut ring, 10), b"0123456789");
    // Stopped and started at once: the cancelled receive is armed again.
    ring.stop_receiving(slot).unwrap();
    ring.receive(slot).unwrap();
    far.write_all(b"ab").unwrap();
    assert_eq!(take(&mut ring, 12), b"0123456789ab");
    // Started while a little is still awaited.
    stop(&mut ring);
    ring.receive_once(slot, 4).unwrap();
    ring.flush().unwrap();
    ring.receive(slot).unwrap();
    far.write_all(b"cdefghij").unwrap();
    assert_eq!(take(&mut ring, 20), b"0123456789abcdefghij");
}

#[test]
fn tells_when_the_peer_closes() {
    let mut ring = Ring::new(SMALL).unwrap();
    let (near, far) = pair();
    let slot = ring.attach(near.into()).unwrap();
    ring.receive(slot).unwrap();
    drop(far);
    let mut closed = false;
    while !closed {
        ring.poll(|event| closed |= matches!(event, Event::Closed { errno: None, .. }))
            .unwrap();
    }
}
