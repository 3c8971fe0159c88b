//! What TLS costs a shard, by the CPU time of this thread: `cargo run --release --features testing --example tls_cost`.
//! Handshakes by kind of certificate, version, and whether a ticket was shown; then sealing and opening. The client's half is
//! not counted. Each figure is the median of five, the range beside it.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use ringway::testing::tls::{Scratch, TlsClient};
use ringway::tls::{Acceptor, Certificates, PemPair, Progress, Server, Session};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::sync::Arc;

/// Runs of each measurement.
const RUNS: usize = 5;
/// Handshakes of a run.
const HANDSHAKES: usize = 300;
/// Sends of a run.
const SENDS: usize = 20_000;

/// CPU time of this thread so far, seconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Seconds of one `run`, for each of so many: the least, the median, the most.
fn measured(count: usize, mut run: impl FnMut() -> f64) -> [f64; 3] {
    let mut each: Vec<f64> = (0..RUNS).map(|_| run() / count as f64).collect();
    each.sort_by(f64::total_cmp);
    [each[0], each[RUNS / 2], each[RUNS - 1]]
}

/// A server with a certificate of one kind, and the certificate.
fn server(algorithm: &'static SignatureAlgorithm) -> (Server, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let scratch = Scratch::new();
    let files = PemPair {
        certificates: scratch.path().join("crt"),
        key: scratch.path().join("key"),
    };
    std::fs::write(&files.certificates, certificate.pem()).expect("a directory to write into");
    std::fs::write(&files.key, key.serialize_pem()).expect("a directory to write into");
    let certificates = Certificates::load(vec![files]).expect("files just written");
    let server = Server::new(Arc::new(certificates)).expect("random numbers");
    (server, certificate.der().clone())
}

/// Clients of one version that trust the certificate.
fn clients(
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    resumption: Resumption,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = resumption;
    Arc::new(config)
}

/// What a handshake came to.
struct Shaken {
    session: Session,
    client: TlsClient,
    is_resumed: bool,
    /// CPU of the server's half.
    seconds: f64,
}

fn shake_hands(acceptor: &Acceptor, config: &Arc<ClientConfig>) -> Shaken {
    let mut client = TlsClient::new(config.clone());
    let start = cpu();
    let mut under_way = acceptor.begin().expect("random numbers");
    let mut seconds = cpu() - start;
    loop {
        let (mut sent, mut answer) = (Vec::new(), Vec::new());
        client.take(&mut sent);
        let start = cpu();
        under_way.add(&sent);
        let progress = under_way.advance(acceptor, &mut answer);
        seconds += cpu() - start;
        client.read(&answer, &mut Vec::new()).expect("a handshake");
        match progress {
            Progress::Waits(waits) => under_way = waits,
            Progress::Done {
                session,
                is_resumed,
                ..
            } => {
                return Shaken {
                    session: *session,
                    client,
                    is_resumed,
                    seconds,
                };
            }
            Progress::Failed(error) => panic!("{error}"),
        }
    }
}

fn main() {
    println!("idle: {} B a connection", size_of::<Option<Session>>());
    println!("handshakes a CPU-second");
    for (name, algorithm) in [
        ("ECDSA P-256", &PKCS_ECDSA_P256_SHA256),
        ("Ed25519", &PKCS_ED25519),
        ("RSA 2048", &PKCS_RSA_SHA256),
    ] {
        let (server, certificate) = server(algorithm);
        let acceptor = server.acceptor();
        for (version, number) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
            for resumes in [false, true] {
                let (kind, resumption) = match resumes {
                    false => ("full", Resumption::disabled()),
                    true => ("by ticket", Resumption::in_memory_sessions(8)),
                };
                let config = clients(&certificate, version, resumption);
                // The first one has no ticket.
                shake_hands(&acceptor, &config);
                let [best, median, worst] = measured(HANDSHAKES, || {
                    let all = (0..HANDSHAKES).map(|_| {
                        let shaken = shake_hands(&acceptor, &config);
                        assert_eq!(shaken.is_resumed, resumes);
                        shaken.seconds
                    });
                    all.sum()
                });
                println!(
                    "{name}, TLS {number}, {kind}: {:.0} ({:.0}–{:.0}), {:.0} µs each",
                    1.0 / median,
                    1.0 / worst,
                    1.0 / best,
                    median * 1e6
                );
            }
        }
    }
    let (server, certificate) = server(&PKCS_ED25519);
    let config = clients(&certificate, &TLS13, Resumption::disabled());
    let mut shaken = shake_hands(&server.acceptor(), &config);
    println!("ns a send, or a message that arrives");
    for bytes in [100, 1024, 4096, 16_384] {
        let plain = vec![1; bytes];
        let mut out = Vec::new();
        let [best, median, worst] = measured(SENDS, || {
            let start = cpu();
            for _ in 0..SENDS {
                out.clear();
                shaken.session.seal(&plain, &mut out);
            }
            cpu() - start
        });
        let nanos = |seconds: f64| seconds * 1e9;
        println!(
            "{bytes} B sealed: {:.0} ({:.0}–{:.0}), {} B on the wire",
            nanos(median),
            nanos(best),
            nanos(worst),
            out.len()
        );
    }
    let [best, median, worst] = measured(SENDS, || {
        let mut wire = Vec::new();
        let lengths = (0..SENDS).map(|_| {
            let before = wire.len();
            shaken.client.write(&[1; 100]);
            shaken.client.take(&mut wire);
            wire.len() - before
        });
        let lengths: Vec<usize> = lengths.collect();
        let mut rest = wire.as_mut_slice();
        let start = cpu();
        for length in lengths {
            let (record, behind) = rest.split_at_mut(length);
            shaken.session.open(record).expect("a record");
            rest = behind;
        }
        cpu() - start
    });
    println!(
        "100 B opened: {:.0} ({:.0}–{:.0})",
        median * 1e9,
        best * 1e9,
        worst * 1e9
    );
}
