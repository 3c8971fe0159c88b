//! axum, as its chat example does it, tuned where its users would: a small read buffer, and all that waits in one flush.
//! The room's queue is one ring for all members, tokio's broadcast channel.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use axum::{Router, routing::any};
use futures_util::SinkExt;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::{LONGEST_QUEUE, READ_BYTES};

/// By path.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<HashMap<String, Sender<Message>>>>);

pub fn serve(listener: std::net::TcpListener) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let app = Router::new()
            .route("/echo", any(echo))
            .fallback(room)
            .with_state(Rooms::default());
        axum::serve(listener, app).await?;
        Err(io::Error::other("axum has ended"))
    })
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .read_buffer_size(READ_BYTES)
        .on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.recv().await {
                let is_data = matches!(message, Message::Text(_) | Message::Binary(_));
                if is_data && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
}

async fn room(
    upgrade: WebSocketUpgrade,
    State(rooms): State<Rooms>,
    OriginalUri(uri): OriginalUri,
) -> Response {
    // A copy: a part of the URI keeps the request's 8 KiB buffer.
    let path = uri.path().to_owned();
    upgrade
        .read_buffer_size(READ_BYTES)
        .on_upgrade(async move |socket| {
            let (sender, receiver) = rooms.enter(&path);
            member(socket, sender, receiver).await;
            rooms.leave(&path);
        })
}

async fn member(mut socket: WebSocket, sender: Sender<Message>, mut receiver: Receiver<Message>) {
    loop {
        tokio::select! {
            biased;
            // An error: the ring has lapped this member.
            waiting = receiver.recv() => {
                let Ok(mut message) = waiting else { return };
                loop {
                    if socket.feed(message).await.is_err() {
                        return;
                    }
                    message = match receiver.try_recv() {
                        Ok(more) => more,
                        Err(TryRecvError::Empty) => break,
                        Err(_) => return,
                    };
                }
                if socket.flush().await.is_err() {
                    return;
                }
            }
            arrived = socket.recv() => match arrived {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    // It cannot fail: this member's own receiver is there.
                    drop(sender.send(message));
                }
                // Answered by the library, on the next read.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

impl Rooms {
    fn enter(&self, path: &str) -> (Sender<Message>, Receiver<Message>) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = rooms
            .entry(path.to_owned())
            .or_insert_with(|| broadcast::channel(LONGEST_QUEUE).0);
        (sender.clone(), sender.subscribe())
    }

    /// Forgets the room if its last member has gone.
    fn leave(&self, path: &str) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms
            .get(path)
            .is_some_and(|room| room.receiver_count() == 0)
        {
            rooms.remove(path);
        }
    }
}
