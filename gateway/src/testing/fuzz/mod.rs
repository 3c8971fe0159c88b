//! Fuzz targets: functions that take any bytes and assert what must hold for all of them.
//!
//! libFuzzer drives them (`gateway/fuzz`), and `tests/fuzz_seeds.rs` runs each over its committed seeds. A target asserts
//! more than that nothing panics: bytes in pieces give what the whole gives, what was written reads as what it was, two
//! parsers agree, what is owned is bounded by what came.

pub mod commands;
pub mod connection;
pub mod deflate;
pub mod frames;
pub mod hub;
mod node;
pub mod proxy;
pub mod token;
pub mod upgrade;

/// A target: its name, which is also the directory of its seeds, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 9] = [
    ("upgrade", upgrade::run),
    ("proxy", proxy::run),
    ("frames", frames::run),
    ("deflate", deflate::run),
    ("json_command", commands::json),
    ("protobuf_command", commands::protobuf),
    ("token", token::run),
    ("connection", connection::run),
    ("hub", hub::run),
];

/// Decisions out of the front of the bytes; zeros when they are used up.
struct Draws<'a>(&'a [u8]);

impl<'a> Draws<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// So many bytes, or fewer where they end.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Asserts that a parser of a connection's head, given more and more of the bytes, says "go on" until it says what it
/// says of all of them: where the network cuts them makes no difference.
fn assert_cuts_do_not_matter<'a, T: PartialEq + std::fmt::Debug>(
    bytes: &'a [u8],
    parse: impl Fn(&'a [u8]) -> Option<T>,
) {
    let whole = parse(bytes);
    let step = bytes.len() / 256 + 1;
    for cut in (0..bytes.len()).step_by(step) {
        let early = parse(&bytes[..cut]);
        if early.is_some() {
            assert_eq!(early, whole, "cut at {cut}");
        }
    }
}
