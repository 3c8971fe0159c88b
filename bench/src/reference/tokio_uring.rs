//! tokio-uring: tokio's scheduler, sockets on a ring that its epoll watches.

use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use bytes::Bytes;
use tokio_uring::net::{TcpListener, TcpStream};

use super::rings::{self, ENTRIES};
use super::rooms::Rooms;

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
    let read = async |buffer| stream.read(buffer).await;
    let write = async |bytes| stream.write_all(bytes).await.0;
    rings::attend(&rooms, read, write).await;
    // What is still submitted holds the socket; this ends it. The peer may have gone first: then nothing is left to do.
    drop(stream.shutdown(Shutdown::Both));
}
