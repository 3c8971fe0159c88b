//! WebSocket frames (RFC 6455 section 5) from the client's side: read unmasked, write masked.

use std::fmt;

/// A fixed mask: the server has to unmask all the same, and runs are repeatable.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LONGEST_HEAD: usize = 10;

/// A whole frame of the server, its payload in the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Text or binary.
    Data(&'a [u8]),
    /// The same, compressed.
    Deflated(&'a [u8]),
    /// A ping; its payload must come back.
    Ping(&'a [u8]),
    /// A pong nobody asked for.
    Pong,
    /// The close code, 1005 when there is none.
    Close(u16),
}

/// What a server may not send, or this harness does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// Reserved bits without an extension that gives them a meaning.
    Reserved,
    /// A masked frame from a server.
    Masked,
    /// A message in several frames; no publication needs that.
    Fragmented,
    /// An opcode that is none.
    Opcode(u8),
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved => write!(f, "reserved bits are set"),
            Self::Masked => write!(f, "a server's frame is masked"),
            Self::Fragmented => write!(f, "a fragmented message"),
            Self::Opcode(code) => write!(f, "opcode {code:#x}"),
        }
    }
}

/// Splits a byte stream into frames, in place; only a frame cut by the buffer's end is copied.
#[derive(Debug, Default)]
pub struct Deframer {
    cut: Vec<u8>,
    /// permessage-deflate was agreed.
    pub deflate: bool,
}

impl Deframer {
    /// Hands each whole frame of what has arrived so far to `on`.
    ///
    /// # Errors
    /// The first frame that is not allowed; what follows is not read.
    pub fn walk(
        &mut self,
        mut bytes: &[u8],
        mut on: impl FnMut(Frame<'_>),
    ) -> Result<(), FrameFault> {
        if !self.cut.is_empty() {
            bytes = match self.complete(bytes)? {
                Some(rest) => rest,
                None => return Ok(()),
            };
            let (frame, _) = split(&self.cut, self.deflate)?.expect("a completed frame");
            on(frame);
            self.cut.clear();
        }
        while let Some((frame, len)) = split(bytes, self.deflate)? {
            on(frame);
            bytes = &bytes[len..];
        }
        self.cut.extend_from_slice(bytes);
        Ok(())
    }

    /// Moves bytes behind the cut frame until it is whole; the rest of them, or none when it is not yet.
    fn complete<'a>(&mut self, mut bytes: &'a [u8]) -> Result<Option<&'a [u8]>, FrameFault> {
        let len = loop {
            match head(&self.cut, self.deflate)? {
                Some(head) => break head.payload_at + head.payload_len,
                None => match bytes.split_first() {
                    Some((first, rest)) => {
                        self.cut.push(*first);
                        bytes = rest;
                    }
                    None => return Ok(None),
                },
            }
        };
        let take = (len - self.cut.len()).min(bytes.len());
        self.cut.extend_from_slice(&bytes[..take]);
        Ok((self.cut.len() == len).then_some(&bytes[take..]))
    }
}

struct Head {
    opcode: u8,
    deflated: bool,
    payload_at: usize,
    payload_len: usize,
}

fn head(bytes: &[u8], deflate: bool) -> Result<Option<Head>, FrameFault> {
    let &[first, second, ..] = bytes else {
        return Ok(None);
    };
    // Control frames never are (RFC 7692 section 6.1).
    let deflated = deflate && first & 0x78 == 0x40;
    if first & 0x70 != 0 && !deflated {
        return Err(FrameFault::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(FrameFault::Masked);
    }
    if first & 0x80 == 0 || first & 0x0f == 0 {
        return Err(FrameFault::Fragmented);
    }
    let opcode = first & 0x0f;
    let (payload_at, payload_len) = match second {
        126 => match bytes.get(2..4) {
            Some(len) => (4, usize::from(u16::from_be_bytes([len[0], len[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..LONGEST_HEAD) {
            Some(len) => {
                let len = u64::from_be_bytes(len.try_into().expect("eight bytes"));
                (LONGEST_HEAD, len as usize)
            }
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    Ok(Some(Head {
        opcode,
        deflated,
        payload_at,
        payload_len,
    }))
}

/// The first frame and its whole length, or none when it is not all there.
fn split(bytes: &[u8], deflate: bool) -> Result<Option<(Frame<'_>, usize)>, FrameFault> {
    let Some(head) = head(bytes, deflate)? else {
        return Ok(None);
    };
    let end = head.payload_at + head.payload_len;
    let Some(payload) = bytes.get(head.payload_at..end) else {
        return Ok(None);
    };
    let frame = match head.opcode {
        0x1 | 0x2 if head.deflated => Frame::Deflated(payload),
        0x1 | 0x2 => Frame::Data(payload),
        0x8 => Frame::Close(match payload {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 1005,
        }),
        0x9 => Frame::Ping(payload),
        0xa => Frame::Pong,
        other => return Err(FrameFault::Opcode(other)),
    };
    Ok(Some((frame, end)))
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Pong = 0xa,
}

/// Appends a masked frame to `out`.
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.push(0x80 | opcode as u8);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(payload: &[u8]) -> Vec<u8> {
        let mut masked = Vec::new();
        write_masked(&mut masked, Opcode::Text, payload);
        let head = masked.len() - payload.len() - 4;
        let mut frame = masked[..head].to_vec();
        frame[1] &= 0x7f;
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn yields_the_same_frames_however_the_stream_is_cut() {
        let sizes = [0, 1, 125, 126, 300, 70_000, 5];
        let payloads: Vec<Vec<u8>> = sizes
            .iter()
            .map(|&n| (0..n).map(|i| i as u8).collect())
            .collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|p| server_frame(p)).collect();
        for step in [1, 2, 3, 7, 127, 4096, stream.len()] {
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            for piece in stream.chunks(step) {
                deframer
                    .walk(piece, |frame| match frame {
                        Frame::Data(payload) => got.push(payload.to_vec()),
                        other => panic!("{other:?}"),
                    })
                    .unwrap();
            }
            assert_eq!(got, payloads, "cut every {step} bytes");
        }
    }

    #[test]
    fn tells_control_frames_apart() {
        let mut got = Vec::new();
        let stream = [0x89, 1, b'x', 0x8a, 0, 0x88, 2, 0x0b, 0xb9, 0x88, 0];
        Deframer::default()
            .walk(&stream, |frame| got.push(format!("{frame:?}")))
            .unwrap();
        assert_eq!(got, ["Ping([120])", "Pong", "Close(3001)", "Close(1005)"]);
    }

    #[test]
    fn takes_compressed_data_where_it_was_agreed_and_nothing_else() {
        let walk = |bytes: &[u8]| {
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            deframer.deflate = true;
            let walked = deframer.walk(bytes, |frame| got.push(format!("{frame:?}")));
            walked.map(|()| got)
        };
        let got = walk(&[0xc1, 1, 0, 0x81, 0, 0xc2, 1, 0]).unwrap();
        assert_eq!(got, ["Deflated([0])", "Data([])", "Deflated([0])"]);
        for wrong in [0xc9, 0xe1, 0xd1, 0xa1] {
            assert_eq!(walk(&[wrong, 0]), Err(FrameFault::Reserved), "{wrong:#x}");
        }
    }

    #[test]
    fn refuses_what_a_server_may_not_send() {
        let fault = |bytes: &[u8]| Deframer::default().walk(bytes, |_| {}).unwrap_err();
        assert_eq!(fault(&[0xc1, 0]), FrameFault::Reserved);
        assert_eq!(fault(&[0x81, 0x80]), FrameFault::Masked);
        assert_eq!(fault(&[0x01, 0]), FrameFault::Fragmented);
        assert_eq!(fault(&[0x83, 0]), FrameFault::Opcode(3));
    }
}
