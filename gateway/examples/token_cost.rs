//! What the check of a token costs a shard, by the CPU time of this thread, for each algorithm:
//! `cargo run --release --features testing --example token_cost`. Header, claims and signature, as a connect command has it.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringway::config::TokenConfig;
use ringway::protocol::token::{Demand, TokenVerifier};
use ringway::testing::token::TestKey;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::hint::black_box;

const SAMPLES: usize = 21;
/// CPU time of one sample, seconds.
const SAMPLE: f64 = 0.03;
const SECRET: &str = "a secret of thirty-two characters";
const NOW: u64 = 1_764_000_000;

/// CPU time of this thread so far, seconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// What a backend puts into a connection token.
fn claims() -> Value {
    json!({"sub": "user-123456", "iat": NOW - 60, "exp": NOW + 3600, "info": {"name": "Ann Example"}})
}

fn by_secret(algorithm: Algorithm) -> (TokenConfig, String) {
    let config = TokenConfig {
        hmac_secret_key: SECRET.to_owned(),
        ..TokenConfig::default()
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(), &key);
    (config, token.expect("HMAC takes any key"))
}

fn by_rsa(algorithm: Algorithm) -> (TokenConfig, String) {
    let key = TestKey::rsa();
    let config = TokenConfig {
        rsa_public_key: key.public_pem().to_owned(),
        ..TokenConfig::default()
    };
    (config, key.sign_with(algorithm, None, &claims()))
}

fn on_a_curve(key: &TestKey) -> (TokenConfig, String) {
    let config = TokenConfig {
        ecdsa_public_key: key.public_pem().to_owned(),
        ..TokenConfig::default()
    };
    (config, key.sign(None, &claims()))
}

fn by_ed25519() -> (TokenConfig, String) {
    let key = TestKey::ed25519();
    let config = TokenConfig {
        eddsa_public_key: key.public_pem().to_owned(),
        ..TokenConfig::default()
    };
    (config, key.sign(None, &claims()))
}

/// Checks a CPU-second, one sample.
fn sample(verifier: &TokenVerifier, token: &str) -> f64 {
    let (start, mut checks) = (cpu(), 0);
    loop {
        for _ in 0..16 {
            let checked = verifier.verify_connection(black_box(token), NOW);
            assert!(black_box(checked).is_ok());
        }
        checks += 16;
        let seconds = cpu() - start;
        if seconds >= SAMPLE {
            return f64::from(checks) / seconds;
        }
    }
}

fn main() {
    println!("| algorithm | checks a CPU-second | spread | µs a check | counted in a tick, µs |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, (config, token)) in [
        ("HS256", by_secret(Algorithm::HS256)),
        ("HS384", by_secret(Algorithm::HS384)),
        ("HS512", by_secret(Algorithm::HS512)),
        ("RS256, 2048 bits", by_rsa(Algorithm::RS256)),
        ("RS384, 2048 bits", by_rsa(Algorithm::RS384)),
        ("RS512, 2048 bits", by_rsa(Algorithm::RS512)),
        ("PS256, 2048 bits", by_rsa(Algorithm::PS256)),
        ("ES256", on_a_curve(&TestKey::es256())),
        ("ES384", on_a_curve(&TestKey::es384())),
        ("EdDSA (Ed25519)", by_ed25519()),
    ] {
        let verifier = TokenVerifier::new(&config);
        let Demand::Nanos(counted) = verifier.demand(&token) else {
            panic!("the key is configured");
        };
        sample(&verifier, &token);
        let mut samples: Vec<f64> = (0..SAMPLES).map(|_| sample(&verifier, &token)).collect();
        samples.sort_by(f64::total_cmp);
        let (median, least, most) = (samples[SAMPLES / 2], samples[0], samples[SAMPLES - 1]);
        println!(
            "| {name} | {median:.0} | {least:.0}–{most:.0} | {:.2} | {} |",
            1e6 / median,
            counted / 1000
        );
    }
}
