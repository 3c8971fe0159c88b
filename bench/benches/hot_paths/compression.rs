//! Compressed once for a room against compressed for each connection: bytes a delivery, and CPU a publication.
//!
//! What Ringway pays is measured on a whole shard: a publication of the server API goes in, and it is over when a send for each
//! member is submitted. Of the others only the compressing is counted, nothing of what else a server does: zlib at the level of the
//! gateway, of the same messages, in one state that is reset for each connection, or in a state of each connection's own that
//! is never reset (context takeover). All that was compressed is inflated once and compared.

use super::shard::{Act, MEMBERS, shard, step, subscribe};
use super::shard::{FIRST, Script, Scripted, arrival_with, configured, links_with_control};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use ringway::config::raw::Raw;
use ringway::hub::home::publish::DEFLATE_LEVEL;
use ringway::hub::message::{Message, Request};
use ringway::mailbox::{Inbox, Outbox};
use ringway::protocol::centrifuge::publication::{PublicationParts, encode};
use ringway::protocol::websocket::client::ClientDecoder;
use ringway::protocol::websocket::{Deflater, Inflater, Opcode, WINDOW_BITS_MAX, write_frame};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

const SAMPLES: [(&str, &str); 2] = [
    ("chat", include_str!("../../samples/chat.jsonl")),
    ("ticker", include_str!("../../samples/ticker.jsonl")),
];
const ROOMS: [u32; 4] = [1, 10, 100, MEMBERS];
const PASSES: usize = 5;
/// What a flush ends with, and a message leaves out (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Microseconds of CPU a publication: the median of the passes, and their range.
struct Cost([f64; PASSES]);

/// Prints a table for each sample that has `filter` in its name.
pub fn tell(filter: &str) {
    // First, while nothing that was freed is taken again.
    let before = resident();
    let mut peers = Peers::new(MEMBERS, true);
    peers.all(&[b"{\"a message\":\"that touches the state\"}".repeat(40)]);
    let each = (resident() - before) / u64::from(MEMBERS);
    println!(
        "a state for compressing is {} KiB of resident memory: one a shard, or one a connection",
        each / 1024
    );
    for (name, sample) in SAMPLES.iter().filter(|(name, _)| name.contains(filter)) {
        let lines: Vec<&str> = sample.lines().collect();
        let data = lines.iter().map(|line| line.len()).sum::<usize>() / lines.len();
        println!(
            "{name}: {} publications, {data} B of data on average; zlib level {DEFLATE_LEVEL}; µs of CPU a publication, median \
             [min – max] of {PASSES} passes",
            lines.len()
        );
        print!("{:<44} {:>11} {:>6}", "", "B/delivery", "");
        ROOMS.iter().for_each(|members| print!(" {members:>22}"));
        println!(" members");
        let plain = Read::of_a_room(&lines, false);
        let once = Read::of_a_room(&lines, true);
        assert_eq!(plain.messages, once.messages, "inflated, they are the same");
        let row = |what: &str, bytes: f64, costs: &[Cost]| {
            let share = bytes / plain.bytes_each() * 100.0;
            print!("{what:<44} {bytes:>11.1} {share:>4.0} %");
            for Cost(passes) in costs {
                let (median, least, most) = (passes[PASSES / 2], passes[0], passes[PASSES - 1]);
                print!(" {:>22}", format!("{median:.2} [{least:.2} – {most:.2}]"));
            }
            println!();
        };
        for (what, read, compress) in [
            ("Ringway, plain, to the sends", &plain, false),
            ("Ringway, compressed once, to the sends", &once, true),
        ] {
            let costs = ROOMS.map(|members| Room::open(members, compress).cost(&lines));
            row(what, read.bytes_each(), &costs);
        }
        row(
            "  of it the compressing",
            once.bytes_each(),
            &[compressing_once(&plain)],
        );
        for (what, takes_over) in [
            ("for each connection, no context takeover", false),
            ("for each connection, context takeover", true),
        ] {
            let mut bytes = 0.0;
            let costs = ROOMS.map(|members| {
                let mut peers = Peers::new(members, takes_over);
                bytes = peers.check(&plain.messages);
                peers.cost(&plain.messages)
            });
            row(what, bytes, &costs);
        }
        println!();
    }
}

/// What the first member of a room reads.
struct Read {
    /// Inflated.
    messages: Vec<Vec<u8>>,
    /// With their frames, as sent.
    bytes: usize,
}

impl Read {
    fn of_a_room(lines: &[&str], compress: bool) -> Self {
        let mut room = Room::open(1, compress);
        room.script.shard.reactor_mut().kept = Some(Vec::new());
        lines.iter().for_each(|line| room.publish(line));
        let kept = room.script.shard.reactor_mut().kept.take();
        let kept = kept.expect("set above");
        let mut decoder = ClientDecoder::new();
        decoder.allow_deflate();
        decoder.push(&kept);
        let (mut inflater, mut messages, mut deflated) = (Inflater::for_server(), Vec::new(), 0);
        while let Some(frame) = decoder.next_frame().expect("right frames") {
            deflated += usize::from(frame.deflated);
            messages.push(match frame.deflated {
                true => inflater
                    .inflate(frame.payload, 1 << 20)
                    .expect("DEFLATE")
                    .to_vec(),
                false => frame.payload.to_vec(),
            });
        }
        assert_eq!(messages.len(), lines.len());
        assert_eq!(deflated > 0, compress, "the extension was agreed to");
        for (message, line) in messages.iter().zip(lines) {
            let text = std::str::from_utf8(message).expect("JSON");
            assert!(text.contains(line), "{text} is not of {line}");
        }
        Self {
            messages,
            bytes: kept.len(),
        }
    }

    fn bytes_each(&self) -> f64 {
        self.bytes as f64 / self.messages.len() as f64
    }
}

/// A shard whose one room has some members.
struct Room {
    script: Script,
    said: Outbox<Message>,
    heard: Inbox<Message>,
    members: u32,
}

impl Room {
    fn open(members: u32, compress: bool) -> Self {
        let mut raw = Raw::default();
        raw.channel.without_namespace.compress = compress;
        let (links, said, heard) = links_with_control();
        let slots = FIRST..members;
        let mut steps = arrival_with(
            slots.clone(),
            "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        );
        steps.push(step(slots, Act::Receive(subscribe())));
        let script = Script::opened(shard(configured(raw), links), steps);
        Self {
            script,
            said,
            heard,
            members,
        }
    }

    /// From the request of the server API to the last send.
    fn publish(&mut self, line: &str) {
        let mut publication = Vec::new();
        let parts = PublicationParts {
            data: line.as_bytes(),
            ..PublicationParts::default()
        };
        encode(&mut publication, &parts);
        let request = Box::new(Request::Publish {
            channel: "room".into(),
            publication,
            json: true,
            skip_history: false,
        });
        self.said
            .batch()
            .messages
            .push(Message::Request { id: 1, request });
        assert!(self.said.publish());
        let wanted = self.sends() + u64::from(self.members);
        while self.sends() < wanted {
            let turn = self.script.shard.tick();
            turn.expect("the scripted reactor does not break");
        }
        while let Some(batch) = self.heard.take() {
            self.heard.recycle(batch);
        }
    }

    fn sends(&mut self) -> u64 {
        let Scripted { sends, .. } = self.script.shard.reactor_mut();
        *sends
    }

    fn cost(&mut self, lines: &[&str]) -> Cost {
        Cost::of(lines.len(), || {
            lines.iter().for_each(|line| self.publish(line))
        })
    }
}

/// What of it the home's deflater takes.
fn compressing_once(plain: &Read) -> Cost {
    let frames = plain.messages.iter().map(|message| {
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Text, message);
        frame
    });
    let frames: Vec<Vec<u8>> = frames.collect();
    let (mut deflater, mut out) = (Deflater::new(DEFLATE_LEVEL), Vec::new());
    Cost::of(frames.len(), || {
        for frame in &frames {
            out.clear();
            black_box(deflater.deflate(&mut out, black_box(frame)));
        }
    })
}

/// The connections of a server that compresses for each of them.
struct Peers {
    members: u32,
    takes_over: bool,
    /// One for all, or one for each.
    states: Vec<Compress>,
    out: Vec<u8>,
}

impl Peers {
    fn new(members: u32, takes_over: bool) -> Self {
        let state = || {
            Compress::new_with_window_bits(Compression::new(DEFLATE_LEVEL), false, WINDOW_BITS_MAX)
        };
        let states = if takes_over { members } else { 1 };
        Self {
            members,
            takes_over,
            states: (0..states).map(|_| state()).collect(),
            out: Vec::new(),
        }
    }

    /// One message for one connection, into `out`.
    fn compress(&mut self, connection: u32, message: &[u8]) {
        let state = if self.takes_over {
            &mut self.states[connection as usize]
        } else {
            self.states[0].reset();
            &mut self.states[0]
        };
        self.out.clear();
        self.out.reserve(message.len() + message.len() / 8 + 64);
        let done = state.compress_vec(message, &mut self.out, FlushCompress::Sync);
        done.expect("there is room");
        assert!(self.out.ends_with(&TAIL), "there was room");
    }

    /// All messages for all connections.
    fn all(&mut self, messages: &[Vec<u8>]) {
        for message in messages {
            for connection in 0..self.members {
                self.compress(connection, black_box(message));
            }
        }
    }

    /// Bytes a delivery, with the frame's header, to a connection from its beginning on; they inflate to what they were.
    fn check(&mut self, messages: &[Vec<u8>]) -> f64 {
        let mut inflate = Decompress::new_with_window_bits(false, WINDOW_BITS_MAX);
        let mut bytes = 0;
        for message in messages {
            self.compress(0, message);
            if !self.takes_over {
                inflate.reset(false);
            }
            let mut inflated = Vec::with_capacity(message.len() + 1);
            let done = inflate.decompress_vec(&self.out, &mut inflated, FlushDecompress::Sync);
            done.expect("DEFLATE");
            assert_eq!(inflated, *message);
            let payload = self.out.len() - TAIL.len();
            bytes += payload + if payload < 126 { 2 } else { 4 };
        }
        bytes as f64 / messages.len() as f64
    }

    fn cost(&mut self, messages: &[Vec<u8>]) -> Cost {
        Cost::of(messages.len(), || self.all(messages))
    }
}

impl Cost {
    /// That of one of so many publications in a pass, once it is warm.
    fn of(publications: usize, mut pass: impl FnMut()) -> Self {
        pass();
        let mut passes = [0.0; PASSES];
        for cost in &mut passes {
            let before = cpu_nanos();
            pass();
            *cost = (cpu_nanos() - before) as f64 / publications as f64 / 1e3;
        }
        passes.sort_by(f64::total_cmp);
        Self(passes)
    }
}

/// CPU time of this thread.
fn cpu_nanos() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("proc(5)") * 1024
}
