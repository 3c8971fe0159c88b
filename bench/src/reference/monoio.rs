//! monoio: sends are submitted when the thread has nothing else to do, so a fan-out costs few system calls.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use super::rings::{self, ENTRIES};
use super::rooms::Rooms;

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
    let (mut reader, mut writer) = stream.into_split();
    let read = async |buffer| reader.read(buffer).await;
    let write = async |bytes| writer.write_all(bytes).await.0.map(drop);
    rings::attend(&rooms, read, write).await;
}
