//! tokio-uring: tokio's scheduler, sockets on a ring that its epoll watches.

use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use bytes::Bytes;
use tokio_uring::net::{TcpListener, TcpStream};

use super::READ_BYTES;
use super::rings::{ENTRIES, Session};
use super::rooms::{Outbox, Rooms};

pub fn serve(listener: std::net::TcpListener) -> io::Result<Infallible> {
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES);
    builder.start(async {
        let listener = TcpListener::from_std(listener);
        let rooms = Rooms::new();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(connection(stream, Rc::clone(&rooms)));
        }
    })
}

async fn connection(stream: TcpStream, rooms: Rc<Rooms<Bytes>>) {
    let outbox = Outbox::new();
    let mut session = Session::new(&rooms, &outbox);
    let receiving = async {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            let got;
            (got, buffer) = stream.read(buffer).await;
            match got {
                Ok(0) | Err(_) => return,
                Ok(len) => session.receive(&buffer[..len]),
            }
        }
    };
    let sending = async {
        while let Some(bytes) = outbox.joined().await {
            if stream.write_all(bytes).await.0.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = receiving => {}
        () = sending => {}
        () = outbox.overflow() => {}
    }
    // What is still submitted holds the socket; this ends it. The peer may have gone first: then nothing is left to do.
    drop(stream.shutdown(Shutdown::Both));
}
