//! The internal port against threads that answer like shards.

mod api;
mod health;
mod keys;
mod pages;
mod peers;
mod publish;

use super::peers::{Homes, Link, shards};
use super::{Control, Options, Phase};
use crate::config::*;
use crate::hub::message::{Message, Request, Response};
use crate::ids::ShardId;
use crate::mailbox::{Inbox, Outbox, Waker, acknowledge, pair};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tower::ServiceExt as _;

/// What a fake shard says to a question; `None`: nothing, ever.
type Answer = dyn Fn(ShardId, &Request) -> Option<Response> + Send + Sync;

/// Two fake shards and the control thread's parts that talk to them. Channels whose name ends in "1" and users whose name
/// does are at home on shard 1, others on shard 0.
struct Node {
    control: Control,
    phase: watch::Sender<Phase>,
    asked: Arc<Mutex<Vec<(ShardId, Request)>>>,
    says: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn home(name: &str) -> ShardId {
    ShardId(u16::from(name.ends_with('1')))
}

/// A node whose shards answer with `answer`. Call in a runtime.
fn node(answer: impl Fn(ShardId, &Request) -> Option<Response> + Send + Sync + 'static) -> Node {
    node_with_capacity(64, answer)
}

fn node_with_capacity(
    capacity: usize,
    answer: impl Fn(ShardId, &Request) -> Option<Response> + Send + Sync + 'static,
) -> Node {
    node_with_config(config(), capacity, answer)
}

fn node_with_config(
    config: Config,
    capacity: usize,
    answer: impl Fn(ShardId, &Request) -> Option<Response> + Send + Sync + 'static,
) -> Node {
    let answer: Arc<Answer> = Arc::new(answer);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let says = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let (waker, eventfd) = Waker::eventfd().expect("an eventfd");
    let links = (0..2)
        .map(|shard| {
            let (shard_waker, shard_eventfd) = Waker::eventfd().expect("an eventfd");
            let (outbox, shard_inbox) = pair(capacity, shard_waker.clone());
            let (shard_outbox, inbox) = pair(capacity, waker.clone());
            let fake = Fake {
                shard: ShardId(shard),
                inbox: shard_inbox,
                outbox: shard_outbox,
                answer: Arc::clone(&answer),
                asked: Arc::clone(&asked),
                says: Arc::clone(&says),
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || fake.run(&shard_waker, &shard_eventfd, &stop));
            Link { outbox, inbox }
        })
        .collect();
    let (shards, driver) = shards(links, &waker, eventfd, Homes::new(home, home), None);
    tokio::spawn(driver.run());
    let (phase, phase_seen) = watch::channel(Phase::Ready);
    let control = Control::new(Options {
        config: Arc::new(config),
        shards,
        phase: phase_seen,
        node_uid: "uid-1".to_owned(),
        hash_key: [7; 16],
        demo_directories: Vec::new(),
    });
    Node {
        control,
        phase,
        asked,
        says,
        stop,
    }
}

struct Fake {
    shard: ShardId,
    inbox: Inbox<Message>,
    outbox: Outbox<Message>,
    answer: Arc<Answer>,
    asked: Arc<Mutex<Vec<(ShardId, Request)>>>,
    /// What a shard says unasked. Shard 0 says it.
    says: Arc<Mutex<Vec<Message>>>,
}

impl Fake {
    fn run(mut self, waker: &Waker, eventfd: &OwnedFd, stop: &AtomicBool) {
        let sleeper = waker.sleeper();
        while !stop.load(Ordering::Relaxed) {
            while let Some(mut batch) = self.inbox.take() {
                for message in batch.messages.drain(..) {
                    if let Message::Request { id, request } = message {
                        self.asked
                            .lock()
                            .unwrap()
                            .push((self.shard, (*request).clone()));
                        if let Some(response) = (self.answer)(self.shard, &request) {
                            self.outbox.batch().messages.push(Message::Response {
                                id,
                                response: Box::new(response),
                            });
                        }
                    }
                }
                self.inbox.recycle(batch);
            }
            if self.shard.0 == 0 {
                self.outbox
                    .batch()
                    .messages
                    .append(&mut self.says.lock().unwrap());
            }
            let patience = if self.outbox.publish() {
                Duration::from_millis(50)
            } else {
                Duration::from_millis(1)
            };
            sleeper.prepare_park();
            if self.inbox.is_empty() {
                let timeout = Timespec::try_from(patience).expect("short");
                let _ = poll(&mut [PollFd::new(eventfd, PollFlags::IN)], Some(&timeout));
                acknowledge(eventfd);
            }
            sleeper.unpark();
        }
    }
}

impl Node {
    /// The questions asked so far.
    fn asked(&self) -> Vec<(ShardId, Request)> {
        self.asked.lock().unwrap().clone()
    }

    async fn request(&self, request: axum::http::Request<Body>) -> (StatusCode, HeaderMap, String) {
        let response = self
            .control
            .router()
            .oneshot(request)
            .await
            .expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .expect("a body");
        (
            status,
            headers,
            String::from_utf8(body.to_vec()).expect("text"),
        )
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
        let (status, _, body) = self.request(request).await;
        (status, body)
    }

    /// An API call with a good key: status and body.
    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = axum::http::Request::post(path)
            .header("X-API-Key", "dev")
            .body(body.into())
            .unwrap();
        let (status, _, body) = self.request(request).await;
        (status, body)
    }

    /// An API call that must be a 200: its JSON.
    async fn call(&self, method: &str, body: &str) -> serde_json::Value {
        let (status, body) = self.post(&format!("/api/{method}"), body.to_owned()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

/// A configuration with a namespace `plain` without features; channels without a namespace have all of them.
fn config() -> Config {
    let address: SocketAddr = "127.0.0.1:8123".parse().unwrap();
    let token = TokenConfig::default();
    let full = ChannelOptions {
        history_size: 10,
        history_ttl: Duration::from_secs(60),
        presence: true,
        ..ChannelOptions::default()
    };
    Config {
        tls: None,
        backplane: BackplaneChoice::Embedded,
        address,
        internal_address: address,
        shards: 2,
        cores: Vec::new(),
        reactor: ReactorChoice::Auto,
        incoming_cpu: IncomingCpu::Auto,
        dev: true,
        debug_echo: false,
        proxies: Proxies::default(),
        node_name: "node-a".to_owned(),
        client: Client {
            allowed_origins: Origins::Any,
            insecure: false,
            allow_anonymous_connect_without_token: true,
            channel_limit: 128,
            message_size_limit: 65536,
            queue_max_size: 65536,
            stall_timeout: Duration::from_secs(25),
            stale_close_delay: Duration::from_secs(10),
            expired_close_delay: Duration::from_secs(25),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            user_connection_limit: 0,
            connection_limit: 0,
            token,
            subscription_token: None,
        },
        channels: Channels {
            namespaces: vec![
                (String::new(), Arc::new(full)),
                ("plain".to_owned(), Arc::new(ChannelOptions::default())),
            ],
        },
        limits: Limits {
            log_bytes: 1 << 20,
            history_bytes: 1 << 20,
            publication_bytes: 1024,
            slots_per_shard: 100,
        },
        client_limits: ClientLimits::default(),
        shutdown: Shutdown {
            delay: Duration::ZERO,
            drain: Duration::ZERO,
        },
        api_keys: vec!["dev".to_owned(), "second".to_owned()],
        log: LogConfig {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        },
    }
}
