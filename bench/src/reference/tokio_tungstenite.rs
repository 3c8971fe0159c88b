//! tokio with tungstenite: messages are shared, each connection frames them for itself.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::READ_BYTES;
use super::rooms::{Outbox, Rooms};

pub fn serve(listener: std::net::TcpListener) -> io::Result<Infallible> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .build_local(LocalOptions::default())?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let rooms = Rooms::new();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(connection(stream, Rc::clone(&rooms)));
        }
    })
}

#[expect(
    clippy::result_large_err,
    reason = "what the library wants of a callback"
)]
async fn connection(stream: TcpStream, rooms: Rc<Rooms<Message>>) {
    let mut path = String::new();
    let read_path = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    // The default, 128 KiB, is cleared before every read.
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
    let Ok(socket) = accept_hdr_async_with_config(stream, read_path, Some(config)).await else {
        return;
    };
    let (mut sink, mut messages) = socket.split();
    let outbox = Outbox::new();
    let seat = rooms.enter(&path, &outbox);
    let receiving = async {
        // Pings and the close are answered by the library, on the next read.
        while let Some(Ok(message)) = messages.next().await {
            if message.is_text() || message.is_binary() {
                seat.say(&message);
            }
        }
    };
    let sending = async {
        while let Some(frames) = outbox.drain(std::mem::take).await {
            for frame in frames {
                if sink.feed(frame).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    };
    outbox.attend(receiving, sending).await;
}
