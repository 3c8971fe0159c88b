//! What TLS costs a shard, by the CPU time of this thread: `cargo run --release --features testing --example tls_cost`.
//! The client's half of each handshake is not counted.

use ringway::testing::tls::{Fixture, Identity, TlsClient};
use ringway::tls::{Progress, Session};
use rustix::time::{ClockId, clock_gettime};
use rustls::version::{TLS12, TLS13};
use std::sync::Arc;

/// CPU time of this thread so far, seconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// One handshake; the session, and what the server's half took.
fn handshake(fixture: &Fixture, config: &Arc<rustls::ClientConfig>) -> (Session, f64) {
    let acceptor = fixture.acceptor();
    let mut client = TlsClient::new(config.clone());
    let mut seconds = 0.0;
    let mut under_way = acceptor.begin().expect("random numbers");
    loop {
        let (mut sent, mut answer) = (Vec::new(), Vec::new());
        client.take(&mut sent);
        let start = cpu();
        under_way.add(&sent);
        let progress = under_way.advance(&acceptor, &mut answer);
        seconds += cpu() - start;
        client.read(&answer, &mut Vec::new()).expect("a handshake");
        match progress {
            Progress::Waits(waits) => under_way = waits,
            Progress::Done { session, .. } => return (*session, seconds),
            Progress::Failed(error) => panic!("{error}"),
        }
    }
}

fn main() {
    println!("idle: {} B a connection", size_of::<Option<Session>>());
    for (name, identity) in [
        ("Ed25519", Identity::new(&["localhost"])),
        ("ECDSA P-256", Identity::ecdsa(&["localhost"])),
    ] {
        let fixture = Fixture::of(identity);
        for (version, known) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
            for resumes in [false, true] {
                let config = fixture.identity.trusted(&[version]);
                let mut seconds = 0.0;
                let count = 2000;
                for _ in 0..count {
                    let fresh = fixture.identity.trusted(&[version]);
                    let config = if resumes { &config } else { &fresh };
                    seconds += handshake(&fixture, config).1;
                }
                let kind = if resumes { "by ticket" } else { "full" };
                let rate = f64::from(count) / seconds;
                println!("TLS {known}, {name}, {kind}: {rate:.0} handshakes a CPU-second");
            }
        }
        let (mut session, _) = handshake(&fixture, &fixture.identity.trusted(&[&TLS13]));
        for bytes in [150, 1000, 4096, 16_384, 65_536] {
            let (plain, mut out) = (vec![1; bytes], Vec::new());
            let (start, count) = (cpu(), 20_000);
            for _ in 0..count {
                out.clear();
                session.seal(&plain, &mut out);
            }
            let nanos = (cpu() - start) * 1e9 / f64::from(count);
            println!(
                "a send of {bytes} B: {nanos:.0} ns to seal, {} B",
                out.len()
            );
        }
    }
}
