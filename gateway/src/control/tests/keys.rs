//! Fetching public keys, from an HTTP server that does what a test says.

use super::*;
use crate::control::keys::{Endpoint, Pace};
use crate::protocol::token::{KeySet, TokenKind};
use crate::testing::token::TestKey;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// What the server does with a request.
#[derive(Clone, Debug)]
enum Does {
    Answers(&'static str, String),
    Hangs,
    HangsInTheBody,
    Closes,
}

fn keys(ids: &[&str]) -> Does {
    let keys: Vec<_> = ids.iter().map(|id| TestKey::rsa().jwk(id)).collect();
    Does::Answers("200 OK", json!({"keys": keys}).to_string())
}

/// A server, what it does from now on, and when it was asked.
struct Server {
    address: SocketAddr,
    does: Arc<Mutex<Does>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Server {
    async fn start(first: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            does: Arc::new(Mutex::new(first)),
            asked: Arc::default(),
        };
        let (does, asked) = (Arc::clone(&server.does), Arc::clone(&server.asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                if stream.read(&mut request).await.unwrap_or(0) == 0 {
                    continue;
                }
                asked.lock().unwrap().push(Instant::now());
                let does = does.lock().unwrap().clone();
                tokio::spawn(async move {
                    let head = |status: &str, len: usize| {
                        format!(
                            "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
                        )
                    };
                    let sent = match does {
                        Does::Answers(status, body) => {
                            let answer = head(status, body.len()) + &body;
                            stream.write_all(answer.as_bytes()).await
                        }
                        Does::HangsInTheBody => {
                            stream.write_all(head("200 OK", 10).as_bytes()).await
                        }
                        Does::Hangs => Ok(()),
                        Does::Closes => return,
                    };
                    // The client may be gone.
                    let _ = sent;
                    let _ = stream.read(&mut [0; 16]).await;
                });
            }
        });
        server
    }

    fn does(&self, what: Does) {
        *self.does.lock().unwrap() = what;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// So fast that a test sees it, so slow that what it sees is not chance.
const PACE: Pace = Pace {
    refresh: Duration::from_secs(3600),
    patience: Duration::from_millis(300),
    asked_min: Duration::from_millis(400),
    retry_min: Duration::from_millis(20),
};

fn start(server: &Server, pace: Pace) -> Node {
    let node = node(|_, request| {
        matches!(request, Request::Keys { .. }).then_some(Response::Done { count: 0 })
    });
    let config = TokenConfig {
        jwks_public_endpoint: format!("http://{}/keys?x=1", server.address),
        ..TokenConfig::default()
    };
    let endpoint = Endpoint::new(node.control.clone(), TokenKind::Connection, &config, pace);
    tokio::spawn(endpoint.unwrap().run());
    node
}

/// What shard 0 was told, in order: which of the ids it knows, and whether that answers it.
fn told(node: &Node, ids: &[&str]) -> Vec<(Option<Vec<bool>>, bool)> {
    let asked = node.asked().into_iter().filter(|(shard, _)| shard.0 == 0);
    let told = asked.filter_map(|(_, request)| match request {
        Request::Keys {
            kind: TokenKind::Connection,
            keys,
            answers,
        } => {
            let known = |keys: &Arc<KeySet>| ids.iter().map(|id| keys.has(id)).collect();
            Some((keys.as_ref().map(known), answers))
        }
        _ => None,
    });
    told.collect()
}

/// Waits until something holds, which it does soon.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn want(node: &Node) {
    node.says.lock().unwrap().push(Message::KeyWanted {
        kind: TokenKind::Connection,
    });
}

#[tokio::test]
async fn keys_are_fetched_at_the_start_and_at_every_interval_and_every_shard_is_told() {
    let server = Server::start(keys(&["a"])).await;
    let pace = Pace {
        refresh: Duration::from_millis(30),
        ..PACE
    };
    let node = start(&server, pace);
    until("shard 0 has them", || !told(&node, &["a", "b"]).is_empty()).await;
    server.does(keys(&["b"]));
    let rotated = (Some(vec![false, true]), false);
    until("they are rotated", || {
        told(&node, &["a", "b"]).contains(&rotated)
    })
    .await;
    assert_eq!(
        told(&node, &["a", "b"])[0],
        (Some(vec![true, false]), false)
    );
    let is_of_1 = |(shard, _): &(ShardId, Request)| shard.0 == 1;
    until("shard 1 is told, too", || node.asked().iter().any(is_of_1)).await;
}

#[tokio::test]
async fn whatever_fails_is_tried_again_and_takes_no_keys_away() {
    let server = Server::start(keys(&["a"])).await;
    let pace = Pace {
        refresh: Duration::from_millis(60),
        ..PACE
    };
    let node = start(&server, pace);
    until("the first are there", || told(&node, &["a"]).len() == 1).await;
    let huge = format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(2 << 20));
    let moved = "302 Found\r\nLocation: /elsewhere";
    for fault in [
        Does::Answers("500 Internal Server Error", String::new()),
        Does::Answers("404 Not Found", "{}".into()),
        Does::Answers(moved, String::new()),
        Does::Answers("200 OK", "<html>".into()),
        Does::Answers("200 OK", r#"{"keys":[]}"#.into()),
        Does::Answers("200 OK", huge),
        Does::Closes,
        Does::Hangs,
        Does::HangsInTheBody,
    ] {
        server.does(fault.clone());
        let (asked, before) = (server.asked(), told(&node, &["a"]).len());
        // The third request comes when the second, which was surely answered so, is over.
        until("it is tried again", || server.asked() >= asked + 3).await;
        let after = told(&node, &["a"]);
        assert!(after.len() <= before + 1, "{fault:?}: told {after:?}");
        assert!(
            after.iter().all(|told| *told == (Some(vec![true]), false)),
            "{fault:?}"
        );
        server.does(keys(&["a"]));
        until("they come again", || {
            told(&node, &["a"]).len() > after.len()
        })
        .await;
    }
    let failed = crate::control::lock(&node.control.0.key_fetches)[1];
    assert!(failed >= 9, "{failed}");
}

#[tokio::test]
async fn a_wanted_key_is_fetched_but_not_again_and_again() {
    let server = Server::start(keys(&["a"])).await;
    let node = start(&server, PACE);
    until("the first are there", || {
        told(&node, &["a", "b"]).len() == 1
    })
    .await;
    server.does(keys(&["a", "b"]));
    want(&node);
    until("it is fetched", || told(&node, &["a", "b"]).len() == 2).await;
    assert_eq!(told(&node, &["a", "b"])[1], (Some(vec![true, true]), true));
    // Too soon after that one: the answer is that they cannot be had.
    want(&node);
    until("it is answered", || told(&node, &["a", "b"]).len() == 3).await;
    assert_eq!(told(&node, &["a", "b"])[2], (None, true));
    assert_eq!(server.asked(), 2);
    let of_shard_1: Vec<bool> = node
        .asked()
        .into_iter()
        .filter_map(|(shard, request)| match request {
            Request::Keys { answers, .. } if shard.0 == 1 => Some(answers),
            _ => None,
        })
        .collect();
    assert_eq!(of_shard_1, [false, false], "it has not asked");

    // A flood of questions: fetches come no closer than they may.
    let begun = Instant::now();
    while begun.elapsed() < 3 * PACE.asked_min {
        let before = told(&node, &[]).len();
        want(&node);
        until("each is answered", || told(&node, &[]).len() > before).await;
    }
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked.len() >= 4, "{}", asked.len());
    for two in asked[1..].windows(2) {
        // The server sees a request a moment after it was begun.
        let apart = two[1] - two[0];
        assert!(
            apart >= PACE.asked_min - Duration::from_millis(100),
            "{apart:?}"
        );
    }
}

#[tokio::test]
async fn who_asks_while_the_endpoint_fails_is_told_so() {
    let server = Server::start(Does::Answers("503 Service Unavailable", String::new())).await;
    let pace = Pace {
        asked_min: Duration::ZERO,
        retry_min: Duration::from_secs(3600),
        ..PACE
    };
    let node = start(&server, pace);
    until("it is asked", || server.asked() == 1).await;
    want(&node);
    until("it is told", || told(&node, &[]) == [(None, true)]).await;
    server.does(Does::Hangs);
    want(&node);
    until("it is told again", || told(&node, &[]).len() == 2).await;
    assert_eq!(told(&node, &[])[1], (None, true));
    server.does(keys(&["a"]));
    want(&node);
    until("it gets them", || told(&node, &["a"]).len() == 3).await;
    assert_eq!(told(&node, &["a"])[2], (Some(vec![true]), true));
}
