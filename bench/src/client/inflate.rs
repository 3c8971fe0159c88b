//! permessage-deflate (RFC 7692) from the client's side: what the server compressed, each message by itself.
//!
//! Many members are sent the same bytes, and without context takeover the same bytes are the same message. So of each message
//! what it inflates to is kept for a while, and whoever is sent it again pays for a comparison of all its compressed bytes.

use flate2::{Decompress, FlushDecompress, Status};

use super::payload;

/// What is offered: the server must not take over its context, and we do not compress.
pub const OFFER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// What a flush ends with, and a message leaves out (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Messages that are kept: more than are in flight at a time.
const KEPT: usize = 256;
/// The largest message there is: a server's fault must not take all memory.
const LARGEST: usize = 64 << 20;

/// True when a server that answers so compresses each message by itself.
pub fn is_agreed(extensions: &str) -> bool {
    let mut parts = extensions.split(';').map(str::trim);
    parts.next() == Some("permessage-deflate") && parts.any(|p| p == "server_no_context_takeover")
}

/// Inflates what a thread's connections receive.
#[derive(Default)]
pub struct Inflater {
    state: Option<Box<Decompress>>,
    /// By the checksum of what came: that, and what it inflates to.
    kept: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Inflater {
    /// The message of a compressed payload; none when it is not DEFLATE, or larger than any message.
    pub fn inflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        self.kept.resize_with(KEPT, Default::default);
        let at = payload::checksum(payload) as usize % KEPT;
        let (came, message) = &mut self.kept[at];
        if came != payload || payload.is_empty() {
            came.clear();
            message.clear();
            let state = self
                .state
                .get_or_insert_with(|| Box::new(Decompress::new(false)));
            state.reset(false);
            inflate(state, payload, message)?;
            came.extend_from_slice(payload);
        }
        Some(message)
    }
}

fn inflate(state: &mut Decompress, payload: &[u8], message: &mut Vec<u8>) -> Option<()> {
    for mut input in [payload, &TAIL[..]] {
        loop {
            if message.len() == message.capacity() {
                message.reserve(message.len().max(4096));
            }
            let taken = state.total_in();
            let flush = FlushDecompress::Sync;
            let status = state.decompress_vec(input, message, flush).ok()?;
            input = &input[(state.total_in() - taken) as usize..];
            match status {
                _ if message.len() > LARGEST => return None,
                // A last block does not end the message (section 7.2.3.4).
                Status::StreamEnd => state.reset(false),
                _ if message.len() < message.capacity() => break,
                _ => {}
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of section 7.2.3.
    const HELLO: [&[u8]; 3] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ];

    #[test]
    fn inflates_the_examples_of_the_rfc_first_and_again() {
        let mut inflater = Inflater::default();
        for _ in 0..2 {
            for compressed in HELLO {
                assert_eq!(inflater.inflate(compressed), Some(&b"Hello"[..]));
            }
            assert_eq!(inflater.inflate(&[0]), Some(&b""[..]));
        }
    }

    #[test]
    fn what_is_wrong_is_refused_each_time_and_spoils_nothing() {
        let mut inflater = Inflater::default();
        for _ in 0..2 {
            assert_eq!(inflater.inflate(&[0x07]), None);
            // Its second half points before its beginning: that of a context that was taken over.
            assert_eq!(inflater.inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00]), None);
            assert_eq!(inflater.inflate(HELLO[0]), Some(&b"Hello"[..]));
        }
    }

    #[test]
    fn takes_only_a_server_that_leaves_its_context() {
        assert!(is_agreed(OFFER));
        assert!(is_agreed("permessage-deflate;server_no_context_takeover"));
        assert!(!is_agreed("permessage-deflate"));
        assert!(!is_agreed("x-deflate; server_no_context_takeover"));
    }
}
