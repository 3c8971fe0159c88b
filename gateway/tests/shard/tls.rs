//! Handshakes of TLS wait for their turn, and nobody who is connected waits for them.

use crate::stand::Stand;
use ringway::config::Config;
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::write_masked_frame;
use ringway::testing::tls::{Fixture, TlsClient};
use rustls::version::TLS13;
use std::ops::Range;

/// Steps of handshakes in a tick.
const A_TICK: usize = 4;

/// So many clients are let in; then their first messages all arrive in one tick, the next.
fn crowd(stand: &mut Stand, fixture: &Fixture, slots: Range<u32>) -> Vec<TlsClient> {
    for slot in slots.clone() {
        stand.accept(slot, ([127, 0, 0, 1], 9).into());
    }
    let each = slots.map(|slot| {
        let mut client = TlsClient::new(fixture.identity.trusted(&[&TLS13]));
        say(stand, slot, &mut client, &[]);
        client
    });
    each.collect()
}

/// It sends this, and whatever else it has to, in the next tick.
fn say(stand: &mut Stand, slot: u32, client: &mut TlsClient, plain: &[u8]) {
    let mut wire = Vec::new();
    client.write(plain);
    client.take(&mut wire);
    stand.receive(slot, &wire);
}

/// The data it was sent.
fn heard(stand: &mut Stand, slot: u32, client: &mut TlsClient) -> Vec<u8> {
    let mut plain = Vec::new();
    client
        .read(&stand.sent(slot), &mut plain)
        .expect("good TLS");
    plain
}

/// Of how many of the clients there is an answer to the first message since the last call.
fn answered(stand: &mut Stand, slots: Range<u32>) -> usize {
    slots.filter(|slot| !stand.sent(*slot).is_empty()).count()
}

#[test]
fn as_many_handshakes_as_a_tick_works_on_are_answered_together() {
    let fixture = Fixture::new();
    let mut stand = Stand::behind(Some(fixture.acceptor()), Config::for_tests());
    crowd(&mut stand, &fixture, 0..A_TICK as u32);
    // What a handshake says leaves with the next tick's flush.
    stand.tick();
    stand.tick();
    assert_eq!(answered(&mut stand, 0..A_TICK as u32), A_TICK);
}

#[test]
fn a_storm_of_handshakes_is_spread_over_ticks_and_holds_up_nobody_who_is_connected() {
    const STORM: u32 = 11;
    let fixture = Fixture::new();
    let mut stand = Stand::behind(Some(fixture.acceptor()), Config::for_tests());
    let mut old = crowd(&mut stand, &fixture, STORM..STORM + 1).remove(0);
    stand.tick();
    stand.tick();
    assert!(heard(&mut stand, STORM, &mut old).is_empty());
    say(&mut stand, STORM, &mut old, &Stand::request(""));
    stand.tick();
    stand.tick();
    assert!(heard(&mut stand, STORM, &mut old).starts_with(b"HTTP/1.1 101"));

    crowd(&mut stand, &fixture, 0..STORM);
    let mut counts = Vec::new();
    while counts.iter().sum::<usize>() < STORM as usize {
        let mut ping = Vec::new();
        write_masked_frame(&mut ping, Opcode::Ping, [1, 2, 3, 4], b"there?");
        say(&mut stand, STORM, &mut old, &ping);
        stand.tick();
        assert_eq!(heard(&mut stand, STORM, &mut old), b"\x8a\x06there?");
        counts.push(answered(&mut stand, 0..STORM));
        assert!(counts.len() < 9, "{counts:?}");
    }
    assert_eq!(counts, [0, A_TICK, A_TICK, 3]);
}
