//! The harness' own codec held against another's, once: `tungstenite` on the server's side. It checks what a client
//! sends (masks, lengths, UTF-8) and writes frames of its own; `gateway/tests/bench/codec.test.mjs` does so with `ws`.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket, accept_hdr};

/// Echoes until the peer is gone, with a ping before each echo; counts the pongs that carry its payload.
#[expect(clippy::result_large_err, reason = "the library's own signature")]
fn echo(stream: TcpStream, pongs: &AtomicU64) -> Result<(), tungstenite::Error> {
    let subprotocol = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().query(), Some("a=1"));
        assert_eq!(request.headers()["x-key"], "k");
        let asked = request.headers()["sec-websocket-protocol"].clone();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", asked);
        Ok(response)
    };
    let mut socket: WebSocket<TcpStream> =
        accept_hdr(stream, subprotocol).expect("a right upgrade");
    loop {
        match socket.read()? {
            message @ (Message::Text(_) | Message::Binary(_)) => {
                socket.write(Message::Ping("are you there".into()))?;
                socket.send(message)?;
            }
            Message::Pong(payload) => {
                assert_eq!(&payload[..], b"are you there");
                pongs.fetch_add(1, Ordering::Relaxed);
            }
            Message::Close(_) => return Ok(()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn agrees_with_tungstenite_on_frames_of_every_length() {
    for (size, binary) in [
        (62, false),
        (117, true),
        (125, false),
        (126, true),
        (65_535, false),
        (65_536, true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pongs = Arc::new(AtomicU64::new(0));
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let (counted, said) = (Arc::clone(&pongs), Arc::clone(&wrong));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (counted, said) = (Arc::clone(&counted), Arc::clone(&said));
                thread::spawn(move || {
                    if let Err(
                        error @ (tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_)),
                    ) = echo(stream.unwrap(), &counted)
                    {
                        said.lock().unwrap().push(error.to_string());
                    }
                });
            }
        });
        let (target, size) = (format!("ws://{address}/echo"), size.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-bench"));
        command.args([
            "echo",
            "--target",
            &target,
            "--connections",
            "3",
            "--in-flight",
            "2",
        ]);
        command.args([
            "--query",
            "a=1",
            "--header",
            "X-Key: k",
            "--subprotocol",
            "echo",
        ]);
        command.args([
            "--seconds",
            "0.3",
            "--warm-up",
            "0.1",
            "--plain-priority",
            "--cores",
            "0",
        ]);
        command
            .args(["--size", &size])
            .args(binary.then_some("--binary"));
        let output = command.output().unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{size} B: {output:?}");
        let wrong = wrong.lock().unwrap();
        // The generator ends by reset, which is no fault of a codec.
        let wrong: Vec<&String> = wrong
            .iter()
            .filter(|words| !words.contains("without closing"))
            .collect();
        assert!(wrong.is_empty(), "{size} B: {wrong:?}");
        assert!(pongs.load(Ordering::Relaxed) > 10, "{size} B");
    }
}
