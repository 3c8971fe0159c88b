//! monoio: sends are submitted when the thread has nothing else to do, so a fan-out costs few system calls.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use super::READ_BYTES;
use super::rings::{ENTRIES, Session};
use super::rooms::{Outbox, Rooms};

pub fn serve(listener: std::net::TcpListener) -> io::Result<Infallible> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(ENTRIES)
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let rooms = Rooms::new();
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(connection(stream, Rc::clone(&rooms)));
        }
    })
}

async fn connection(stream: TcpStream, rooms: Rc<Rooms<Bytes>>) {
    let outbox = Outbox::new();
    let mut session = Session::new(&rooms, &outbox);
    let (mut reader, mut writer) = stream.into_split();
    let receiving = async {
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            let got;
            (got, buffer) = reader.read(buffer).await;
            match got {
                Ok(0) | Err(_) => return,
                Ok(len) => session.receive(&buffer[..len]),
            }
        }
    };
    let sending = async {
        while let Some(bytes) = outbox.joined().await {
            if writer.write_all(bytes).await.0.is_err() {
                return;
            }
        }
    };
    // Whichever ends first ends the connection: dropping the others cancels what they have submitted.
    tokio::select! {
        biased;
        () = receiving => {}
        () = sending => {}
        () = outbox.overflow() => {}
    }
}
