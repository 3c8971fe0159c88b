//! Public keys of tokens, fetched from the endpoint of a JSON Web Key Set (RFC 7517) and handed to the shards.
//!
//! * They are fetched at the start, then every refresh interval, a tenth more or less so that the nodes of a cluster do not
//!   come all at once. After a failure it is tried again after a second, then less and less often; the last keys that could
//!   be had stay in use.
//! * A shard that meets a token with an unknown key asks. It is answered by a fetch, or, when one was fetched for somebody less
//!   than [`Pace::asked_min`] ago, at once that the keys cannot be had now: whoever makes up ids cannot make us flood the endpoint.

use super::{Control, lock};
use crate::config::TokenConfig;
use crate::hub::message::Request;
use crate::ids::ShardId;
use crate::protocol::token::{KeySet, KeySetError, TokenKind};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::ACCEPT;
use hyper::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Largest key set, bytes.
const BODY_MAX: usize = 1 << 20;

/// How fast things go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two fetches that nobody asked for.
    pub(super) refresh: Duration,
    /// Longest time for a whole fetch.
    pub(super) patience: Duration,
    /// Least time between the beginnings of two fetches that shards ask for.
    pub(super) asked_min: Duration,
    /// Until the first try after a failure.
    pub(super) retry_min: Duration,
}

impl Pace {
    fn of(config: &TokenConfig) -> Self {
        Self {
            refresh: config.jwks_refresh_interval,
            patience: Duration::from_secs(5),
            asked_min: Duration::from_secs(10),
            retry_min: Duration::from_secs(1),
        }
    }
}

/// Why keys were not had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no whole answer within {0:?}")]
    Late(Duration),
    /// Its causes say what is wrong: a certificate, a name, a port that nobody listens on.
    #[error("{}", with_causes(.0))]
    Connection(#[from] hyper_util::client::legacy::Error),
    /// Redirects are not followed: keys come from where the operator says.
    #[error("status {0}, want 200")]
    Status(StatusCode),
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Keys(#[from] KeySetError),
}

/// An error and what it comes from, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// One endpoint.
pub(super) struct Endpoint {
    control: Control,
    kind: TokenKind,
    uri: Uri,
    pace: Pace,
    client: HttpClient,
}

impl Control {
    /// Fetches the keys that the configuration names an endpoint for, from now until the runtime ends.
    ///
    /// # Errors
    /// When this system has no certificates to know an endpoint by https from.
    pub fn fetch_keys(&self) -> std::io::Result<()> {
        let client = &self.config().client;
        let all = [
            (TokenKind::Connection, Some(&client.token)),
            (TokenKind::Subscription, client.subscription_token.as_ref()),
        ];
        for (kind, config) in all {
            let Some(config) = config.filter(|config| config.has_endpoint()) else {
                continue;
            };
            let endpoint = Endpoint::new(self.clone(), kind, config, Pace::of(config))?;
            tokio::spawn(endpoint.run());
        }
        Ok(())
    }
}

impl Endpoint {
    pub(super) fn new(
        control: Control,
        kind: TokenKind,
        config: &TokenConfig,
        pace: Pace,
    ) -> std::io::Result<Self> {
        let uri: Uri = config
            .jwks_public_endpoint
            .parse()
            .expect("checked with the configuration");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let connector = if uri.scheme_str() == Some("https") {
            builder.with_provider_and_native_roots(provider)?
        } else {
            // No certificate is ever looked at.
            let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .map_err(std::io::Error::other)?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(config)
        };
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self {
            control,
            kind,
            uri,
            pace,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    pub(super) async fn run(self) {
        let mut rng = rand::make_rng::<StdRng>();
        let mut asked = Vec::new();
        let mut last_asked = None;
        let mut retry = self.pace.retry_min;
        loop {
            let fetched = timeout(self.pace.patience, self.fetch()).await;
            let pause = match fetched.unwrap_or(Err(FetchError::Late(self.pace.patience))) {
                Ok(keys) => {
                    lock(&self.control.0.key_fetches)[0] += 1;
                    tracing::debug!(kind = ?self.kind, keys = keys.len(), "public keys fetched");
                    retry = self.pace.retry_min;
                    self.tell(Some(Arc::new(keys)), &asked).await;
                    self.pace.refresh.mul_f64(rng.random_range(0.9..1.1))
                }
                Err(error) => {
                    lock(&self.control.0.key_fetches)[1] += 1;
                    // The host is no secret; the rest of the address may have one.
                    tracing::warn!(host = self.uri.host(), %error, "public keys could not be fetched");
                    self.tell(None, &asked).await;
                    let pause = retry.min(self.pace.refresh);
                    retry = pause * 2;
                    pause
                }
            };
            asked = self.wait(last_asked, Instant::now() + pause).await;
            if !asked.is_empty() {
                last_asked = Some(Instant::now());
            }
        }
    }

    /// Waits until the next fetch is due. The shards that ask for it, if any do.
    async fn wait(&self, last_asked: Option<Instant>, due: Instant) -> Vec<ShardId> {
        loop {
            tokio::select! {
                () = sleep_until(due) => return Vec::new(),
                asked = self.control.shards().key_wanted(self.kind) => {
                    if last_asked.is_none_or(|last| last.elapsed() >= self.pace.asked_min) {
                        return asked;
                    }
                    self.tell(None, &asked).await;
                }
            }
        }
    }

    /// Hands keys to every shard, or says to those that asked that there are none. Only who asked before the fetch began is
    /// answered by it.
    async fn tell(&self, keys: Option<Arc<KeySet>>, asked: &[ShardId]) {
        let shards = self.control.shards();
        for shard in (0..shards.count()).map(|shard| ShardId(shard as u16)) {
            let answers = asked.contains(&shard);
            if keys.is_some() || answers {
                let request = Request::Keys {
                    kind: self.kind,
                    keys: keys.clone(),
                    answers,
                };
                // One by one, without waiting for what each says: there is nothing to be done about it.
                shards.start(shard, request).await;
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let request = hyper::Request::get(self.uri.clone())
            .header(ACCEPT, "application/json")
            .body(Empty::new())
            .expect("a checked address and a constant header");
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(FetchError::Body)?.to_bytes();
        Ok(KeySet::parse(&body)?)
    }
}
