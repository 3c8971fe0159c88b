//! Against rustls's client, both versions, all ciphers: what one side seals the other opens, whatever is cut.

use super::*;
use crate::testing::rng::Rng;
use crate::testing::tls::{Fixture, TlsClient};
use crate::tls::Progress;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedCipherSuite, SupportedProtocolVersion};
use std::sync::Arc;

/// A session and its client, behind a handshake whose bytes went in pieces of at most `piece` bytes.
fn connect(
    fixture: &Fixture,
    config: &Arc<ClientConfig>,
    piece: usize,
) -> (Session, TlsClient, bool) {
    let acceptor = fixture.acceptor();
    let mut client = TlsClient::new(config.clone());
    let mut handshake = acceptor.begin().unwrap();
    for _ in 0..8 {
        let mut sent = Vec::new();
        client.take(&mut sent);
        for part in sent.chunks(piece) {
            assert!(handshake.add(part));
            let mut answer = Vec::new();
            let progress = handshake.advance(&acceptor, &mut answer);
            client.read(&answer, &mut Vec::new()).unwrap();
            match progress {
                Progress::Waits(waits) => handshake = waits,
                Progress::Done {
                    session,
                    rest,
                    is_resumed,
                } => {
                    assert!(rest.is_empty() && !client.connection().is_handshaking());
                    return (*session, client, is_resumed);
                }
                Progress::Failed(error) => panic!("{error}"),
            }
        }
    }
    panic!("the handshake does not end");
}

/// What the session makes of what the client sends, records and all.
fn opened(session: &mut Session, client: &mut TlsClient) -> Result<Vec<u8>, Alert> {
    let mut wire = Vec::new();
    client.take(&mut wire);
    open_all(session, &mut wire)
}

fn open_all(session: &mut Session, mut wire: &mut [u8]) -> Result<Vec<u8>, Alert> {
    let mut data = Vec::new();
    while !wire.is_empty() {
        let (reach, is_whole) = session.reach(wire)?;
        assert!(is_whole);
        let (record, rest) = wire.split_at_mut(reach);
        wire = rest;
        if let Opened::Data(bytes) = session.open(record)? {
            data.extend_from_slice(bytes);
        }
    }
    Ok(data)
}

/// Every version and cipher.
fn kinds() -> Vec<(&'static SupportedProtocolVersion, SupportedCipherSuite)> {
    let suites = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter();
    let all = suites.map(|suite| match suite.tls13() {
        Some(_) => (&TLS13, *suite),
        None => (&TLS12, *suite),
    });
    // The certificate is of the ECDSA family.
    all.filter(|(_, suite)| !format!("{suite:?}").contains("ECDHE_RSA"))
        .collect()
}

fn only(
    fixture: &Fixture,
    version: &'static SupportedProtocolVersion,
    suite: SupportedCipherSuite,
) -> Arc<ClientConfig> {
    let config = (*fixture.identity.trusted(&[version])).clone();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![suite];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(fixture.identity.der()).unwrap();
    let mut narrow = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    narrow.resumption = config.resumption;
    Arc::new(narrow)
}

#[test]
fn both_sides_read_what_the_other_wrote_by_every_version_and_cipher() {
    let fixture = Fixture::new();
    for (version, suite) in kinds() {
        for piece in [1, 7, 100_000] {
            let config = only(&fixture, version, suite);
            let (mut session, mut client, _) = connect(&fixture, &config, piece);
            let text: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
            client.write(&text);
            assert_eq!(
                opened(&mut session, &mut client).unwrap(),
                text,
                "{suite:?}"
            );
            let (mut wire, mut got) = (Vec::new(), Vec::new());
            let sealed = session.seal(&text, &mut wire);
            assert_eq!(sealed.len(), wire.len());
            client.read(&wire, &mut got).unwrap();
            assert_eq!(got, text, "{suite:?}");
        }
    }
}

#[test]
fn whatever_a_short_send_takes_the_stream_stays_the_same() {
    let fixture = Fixture::new();
    let mut rng = Rng::new(1);
    for (version, suite) in kinds() {
        let config = only(&fixture, version, suite);
        let (mut session, mut client, _) = connect(&fixture, &config, 100_000);
        let text: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let (mut at, mut rest, mut got) = (0, Vec::new(), Vec::new());
        while at < text.len() || !rest.is_empty() {
            // As the shard does: the rest of a record that was cut, then the next bytes, sealed; the socket takes some.
            let plan = &text[at..][..rng.index(20_000).min(text.len() - at)];
            let mut wire = std::mem::take(&mut rest);
            let raw = wire.len();
            let sealed = session.seal(plan, &mut wire);
            let taken = match rng.chance(400) {
                true => wire.len(),
                false => rng.index(wire.len() + 1),
            };
            client.read(&wire[..taken], &mut got).unwrap();
            let (plain, end) = sealed.covered_by(taken.saturating_sub(raw));
            session.unseal(&sealed, plain);
            at += plain;
            rest = wire[taken..raw + end].to_vec();
        }
        assert!(got == text, "{suite:?}");
    }
}

#[test]
fn keys_change_when_either_side_wants_and_a_flood_of_changes_ends_the_connection() {
    let fixture = Fixture::new();
    let config = fixture.identity.trusted(&[&TLS13]);
    let (mut session, mut client, _) = connect(&fixture, &config, 100_000);
    for round in 0..5u8 {
        client.connection().refresh_traffic_keys().unwrap();
        client.write(&[round]);
        assert_eq!(opened(&mut session, &mut client).unwrap(), [round]);
        assert!(session.wants_key_update());
        let (mut wire, mut got) = (Vec::new(), Vec::new());
        session.seal_key_update(&mut wire);
        assert!(!session.wants_key_update());
        session.seal(b"after", &mut wire);
        client.read(&wire, &mut got).unwrap();
        assert_eq!(got, b"after");
    }
    let flood = (0..100).find_map(|count| {
        client.connection().refresh_traffic_keys().unwrap();
        opened(&mut session, &mut client)
            .err()
            .map(|alert| (count, alert))
    });
    assert_eq!(
        flood,
        Some((usize::from(IDLE_RECORDS_MAX), Alert::UnexpectedMessage))
    );
}

#[test]
fn keys_that_have_sealed_all_they_may_are_changed_or_retired() {
    let fixture = Fixture::new();
    for version in [&TLS13, &TLS12] {
        let config = fixture.identity.trusted(&[version]);
        let (mut session, ..) = connect(&fixture, &config, 100_000);
        session.tx.sequence = session.cipher.records_max() - 1;
        assert!(!session.wants_key_update() && !session.is_worn_out());
        session.seal(b"x", &mut Vec::new());
        let is_new = session.version() == Version::Tls13;
        assert_eq!(
            (session.wants_key_update(), session.is_worn_out()),
            (is_new, !is_new)
        );
    }
}

#[test]
fn alerts_are_understood_by_either_side() {
    let fixture = Fixture::new();
    for version in [&TLS13, &TLS12] {
        let config = fixture.identity.trusted(&[version]);
        let (mut session, mut client, _) = connect(&fixture, &config, 100_000);
        client.connection().send_close_notify();
        let mut wire = Vec::new();
        client.take(&mut wire);
        assert_eq!(session.open(&mut wire), Ok(Opened::Closed));
        let mut last = Vec::new();
        session.seal(b"bye", &mut last);
        session.seal_alert(Alert::CloseNotify, &mut last);
        let mut got = Vec::new();
        client.read(&last, &mut got).unwrap();
        assert_eq!(got, b"bye");
        let (mut session, mut client, _) = connect(&fixture, &config, 100_000);
        let mut last = Vec::new();
        session.seal_alert(Alert::RecordOverflow, &mut last);
        let error = client.read(&last, &mut Vec::new()).unwrap_err();
        let told = rustls::Error::AlertReceived(rustls::AlertDescription::RecordOverflow);
        assert_eq!(error, told);
    }
}

#[test]
fn what_breaks_a_record_breaks_the_connection() {
    let fixture = Fixture::new();
    for version in [&TLS13, &TLS12] {
        let config = fixture.identity.trusted(&[version]);
        let fresh = || {
            let (session, mut client, _) = connect(&fixture, &config, 100_000);
            client.write(b"some words");
            let mut wire = Vec::new();
            client.take(&mut wire);
            (session, wire)
        };
        let (mut session, mut wire) = fresh();
        assert_eq!(
            open_all(&mut session, &mut wire.clone()).unwrap(),
            b"some words"
        );
        // A second time, it has another number.
        assert_eq!(session.open(&mut wire), Err(Alert::BadRecordMac));
        let (mut session, wire) = fresh();
        for at in HEADER_BYTES..wire.len() {
            let mut bent = wire.clone();
            bent[at] ^= 1;
            assert_eq!(
                session.open(&mut bent),
                Err(Alert::BadRecordMac),
                "byte {at}"
            );
        }
        for (head, alert) in [
            ([22, 3, 3, 0, 50], Alert::UnexpectedMessage),
            ([99, 3, 3, 0, 50], Alert::UnexpectedMessage),
            ([23, 2, 3, 0, 50], Alert::UnexpectedMessage),
            ([23, 3, 3, 0x41, 1], Alert::RecordOverflow),
        ] {
            let (mut session, mut wire) = fresh();
            wire[..HEADER_BYTES].copy_from_slice(&head);
            let found = session
                .reach(&wire)
                .err()
                .or_else(|| session.open(&mut wire).err());
            let wanted = match (session.version(), head[0]) {
                (Version::Tls12, 22) => Alert::BadRecordMac,
                _ => alert,
            };
            assert_eq!(found, Some(wanted), "{head:?}");
        }
        let (mut session, _) = fresh();
        assert!(session.open(&mut [23, 3, 3, 0, 3, 1, 2, 3]).is_err());
        assert!(session.open(&mut [23, 3, 3, 0, 0]).is_err());
    }
}

#[test]
fn a_renegotiation_is_refused() {
    let fixture = Fixture::new();
    let config = fixture.identity.trusted(&[&TLS12]);
    let (mut session, ..) = connect(&fixture, &config, 100_000);
    assert_eq!(
        session.behind_handshake(&[CLIENT_HELLO, 0, 0, 0]),
        Err(Alert::NoRenegotiation)
    );
    assert_eq!(
        session.behind_handshake(&[KEY_UPDATE, 0, 0, 1, 0]),
        Err(Alert::UnexpectedMessage)
    );
}

#[test]
fn a_ticket_of_one_shard_is_good_on_another() {
    let fixture = Fixture::new();
    for version in [&TLS13, &TLS12] {
        // Each connect has an acceptor of its own, as each shard has.
        let config = fixture.identity.trusted(&[version]);
        let (mut first, mut client, is_resumed) = connect(&fixture, &config, 100_000);
        assert!(!is_resumed);
        assert_eq!(
            client.connection().handshake_kind(),
            Some(HandshakeKind::Full)
        );
        client.write(b"x");
        opened(&mut first, &mut client).unwrap();
        let (mut second, mut client, is_resumed) = connect(&fixture, &config, 100_000);
        assert!(is_resumed);
        client.write(b"again");
        assert_eq!(opened(&mut second, &mut client).unwrap(), b"again");
        let (mut wire, mut got) = (Vec::new(), Vec::new());
        second.seal(b"welcome", &mut wire);
        client.read(&wire, &mut got).unwrap();
        assert_eq!(got, b"welcome");
    }
}

#[test]
fn what_is_not_tls_fails_a_handshake_with_an_alert() {
    let fixture = Fixture::new();
    let acceptor = fixture.acceptor();
    for garbage in [
        &b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..],
        b"SSH-2.0-x\r\n",
        &[0; 64],
        &[0x16, 3, 1, 0xff, 0xff, 1],
    ] {
        let mut handshake = acceptor.begin().unwrap();
        assert!(handshake.add(garbage) && handshake.is_ready());
        let mut out = Vec::new();
        assert!(matches!(
            handshake.advance(&acceptor, &mut out),
            Progress::Failed(_)
        ));
        assert_eq!(out[0], ALERT, "{garbage:?}");
    }
    let mut handshake = acceptor.begin().unwrap();
    assert!(!(handshake.add(&[0x16, 3, 1, 0x10]) && handshake.is_ready()));
    assert!(
        !handshake.add(&[0; 40_000]),
        "no more than a first message may wait"
    );
}
