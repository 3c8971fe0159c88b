//! Those who stay: a few clients on every shard that publish and receive the whole time, and see everything in one order.

use crate::crowd::{CROWD, connect_from};
use crate::node::{DEADLINE, Node, SHARDS};
use crate::wire::{self, FLOODED, Tops, WATCHED};
use ringway::protocol::centrifuge::Encoding;
use ringway::protocol::centrifuge::client::{
    ClientPublication, ClientPush, Replies, ReplyKind, Subscribe, pong, publish, subscribe,
};
use ringway::protocol::websocket::Opcode;
use ringway::protocol::websocket::client::{ClientDecoder, parse_switching};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const A_SHARD: usize = 4;
/// Between two publications of one witness, and of the flood.
const EVERY: Duration = Duration::from_millis(100);
const FLOOD_EVERY: Duration = Duration::from_millis(25);
/// JSON of about this size, so that a few fill a socket and some ten a log.
const FLOOD_BYTES: usize = 32 * 1024;
/// With history: they have offsets.
const NUMBERED: usize = 4;
/// Temporary: a shard is behind.
const TOO_MANY_REQUESTS: u32 = 111;

/// What a client that reads everything has seen of one connection.
struct Witness {
    number: u64,
    socket: TcpStream,
    decoder: ClientDecoder,
    encoding: Encoding,
    next_id: u32,
    /// Publications of each watched channel so far.
    seen: [usize; WATCHED.len()],
    /// Its own publications, by channel.
    published: [u64; WATCHED.len()],
    /// The channel of the publication that waits for its answer.
    unanswered: Option<usize>,
    /// Told to try again later.
    put_off: u64,
    subscribed: usize,
    is_closed: bool,
}

/// All witnesses, the one order of every channel, and a connection that floods.
pub struct Witnesses {
    all: Vec<Witness>,
    order: [Vec<u64>; WATCHED.len()],
    /// By channel and publisher: the number of its last publication there.
    last: HashMap<(usize, u64), u64>,
    tops: Arc<Tops>,
    flooder: Witness,
    floods: u64,
    scratch: Vec<u8>,
}

impl Witness {
    fn connect(node: &Node, number: u64) -> Self {
        let encoding = Encoding::ALL[number as usize % 2];
        let mut socket = connect_from(Ipv4Addr::LOCALHOST, node.clients, None);
        let mut request = Vec::new();
        wire::upgrade(&mut request, encoding);
        wire::greet(&mut request, encoding);
        socket.write_all(&request).unwrap();
        // The head of the answer; what follows it is frames.
        let mut answer = Vec::new();
        let start = Instant::now();
        let head = loop {
            match parse_switching(&answer, wire::KEY).expect("the gateway agrees") {
                Some(switched) => break switched.head_len,
                None => assert!(start.elapsed() < DEADLINE, "no answer"),
            }
            wait_readable(&[&socket], DEADLINE);
            let mut piece = [0; 4096];
            let n = socket.read(&mut piece).expect("it is readable");
            assert!(n > 0, "closed at once");
            answer.extend_from_slice(&piece[..n]);
        };
        let mut decoder = ClientDecoder::new();
        decoder.push(&answer[head..]);
        Self {
            number,
            socket,
            decoder,
            encoding,
            next_id: 1,
            seen: [0; WATCHED.len()],
            published: [0; WATCHED.len()],
            unanswered: None,
            put_off: 0,
            subscribed: 0,
            is_closed: false,
        }
    }

    fn say(&mut self, write: impl FnOnce(&mut Vec<u8>, Encoding, u32)) {
        self.next_id += 1;
        let (encoding, id) = (self.encoding, self.next_id);
        let mut out = Vec::new();
        wire::message(&mut out, encoding, |out| write(out, encoding, id));
        let mut rest = &out[..];
        let start = Instant::now();
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(start.elapsed() < DEADLINE, "the gateway does not read");
                    wait(&[&self.socket], PollFlags::OUT, DEADLINE);
                }
                Err(error) => panic!("witness {}: {error}", self.number),
            }
        }
    }

    /// Publishes, unless the last publication is still without an answer: one that is put off has not happened, and so those
    /// behind it must not have been said.
    fn publish(&mut self, at: usize, channel: &str, data: impl FnOnce(u64) -> String) {
        if self.unanswered.is_some() {
            return;
        }
        self.unanswered = Some(at);
        self.published[at] += 1;
        let data = data(self.number << 40 | self.published[at]);
        self.say(|out, encoding, id| publish(out, encoding, id, channel, data.as_bytes()));
    }
}

impl Witnesses {
    /// Connects until every shard has its share. Which shard a connection comes to is the kernel's choice, and seen by the
    /// shard's count.
    pub fn gather(node: &mut Node, tops: Arc<Tops>) -> Self {
        let mut all: Vec<Witness> = Vec::new();
        let mut share = [0; SHARDS];
        while share.iter().any(|&n| n < A_SHARD) {
            let before = node.metrics().by_shard("ringway_connections");
            let witness = Witness::connect(node, all.len() as u64);
            let after = node.metrics().by_shard("ringway_connections");
            let shard = (0..SHARDS)
                .find(|&shard| after[shard] > before[shard])
                .expect("it is counted");
            if share[shard] < A_SHARD {
                share[shard] += 1;
                all.push(witness);
            } else {
                drop(witness);
                let of_witnesses = all.len() as u64;
                node.until("one witness too many gone", |node| {
                    node.metrics().sum("ringway_connections") == of_witnesses
                });
            }
        }
        let flooder = Witness::connect(node, 1000);
        let mut this = Self {
            all,
            order: Default::default(),
            last: HashMap::new(),
            tops,
            flooder,
            floods: 0,
            scratch: vec![0; 256 * 1024],
        };
        for witness in &mut this.all {
            for channel in WATCHED {
                witness.say(|out, encoding, id| {
                    let request = Subscribe {
                        channel,
                        ..Subscribe::default()
                    };
                    subscribe(out, encoding, id, &request);
                });
            }
        }
        this.receive_until("subscribed", |this| {
            let is_subscribed = |witness: &Witness| witness.subscribed == WATCHED.len();
            this.all.iter().all(is_subscribed)
        });
        this
    }

    /// Publishes and receives until told to stop, then receives the rest and leaves. Returns how many publications there
    /// were in the watched channels, each of which each witness has seen.
    pub fn run(mut self, stop: &AtomicBool, sightings: &AtomicU64) -> usize {
        let mut next = Instant::now();
        let mut next_flood = next;
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next_flood {
                self.flood();
                next_flood = now + FLOOD_EVERY;
            }
            if now >= next {
                // One after the other, so that they are spread over the time.
                let at = turn % self.all.len();
                let channel = turn / self.all.len() % WATCHED.len();
                self.all[at].publish(channel, WATCHED[channel], |mark| mark.to_string());
                turn += 1;
                next = now + EVERY / self.all.len() as u32;
            }
            let patience = next.min(next_flood).saturating_duration_since(now);
            self.receive(patience);
            let fewest = self.all.iter().map(|it| it.seen.iter().sum::<usize>());
            sightings.store(fewest.min().unwrap() as u64, Ordering::Relaxed);
        }
        self.receive_until("every publication at every witness", |this| {
            this.all.iter().all(|witness| {
                witness.unanswered.is_none()
                    && (0..WATCHED.len()).all(|at| this.seen_by(witness, at))
            })
        });
        for at in 0..=self.all.len() {
            let mut out = Vec::new();
            wire::close(&mut out);
            self.nth(at).socket.write_all(&out).unwrap();
        }
        self.receive_until("the answers to the close frames", |this| {
            this.all
                .iter()
                .chain([&this.flooder])
                .all(|it| it.is_closed)
        });
        self.order.iter().map(Vec::len).sum()
    }

    /// Whether a witness has seen all of a channel: what anybody saw, and what the witnesses published.
    fn seen_by(&self, witness: &Witness, channel: usize) -> bool {
        let all_came = self.all.iter().all(|publisher| {
            let last = self.last.get(&(channel, publisher.number));
            last.copied().unwrap_or(0) == publisher.published[channel]
        });
        all_came && witness.seen[channel] == self.order[channel].len()
    }

    fn nth(&mut self, at: usize) -> &mut Witness {
        self.all.get_mut(at).unwrap_or(&mut self.flooder)
    }

    fn flood(&mut self) {
        self.floods += 1;
        let channel = FLOODED[self.floods as usize % FLOODED.len()];
        let data = |_| format!("{:1<FLOOD_BYTES$}", 1);
        self.flooder.publish(0, channel, data);
    }

    fn receive_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(
                start.elapsed() < DEADLINE,
                "waited in vain: {what}; published {:?} seen {:?} order {:?}",
                self.all.iter().map(|it| it.published).collect::<Vec<_>>(),
                self.all.iter().map(|it| it.seen).collect::<Vec<_>>(),
                self.order.each_ref().map(Vec::len),
            );
            self.receive(Duration::from_millis(50));
        }
    }

    /// Reads what has come, waiting for something.
    fn receive(&mut self, patience: Duration) {
        let open = self.all.iter().chain([&self.flooder]);
        let sockets: Vec<_> = open.map(|witness| &witness.socket).collect();
        let readable = wait_readable(&sockets, patience);
        for at in readable {
            let mut scratch = std::mem::take(&mut self.scratch);
            let witness = self.nth(at);
            match witness.socket.read(&mut scratch) {
                Ok(0) => assert!(witness.is_closed, "witness {} was closed", witness.number),
                Ok(n) => witness.decoder.push(&scratch[..n]),
                Err(error) => assert!(
                    error.kind() == ErrorKind::WouldBlock,
                    "witness {}: {error}",
                    witness.number
                ),
            }
            self.scratch = scratch;
            self.read_frames(at);
        }
    }

    fn read_frames(&mut self, at: usize) {
        let witness = self.nth(at);
        let (number, encoding) = (witness.number, witness.encoding);
        let mut decoder = std::mem::take(&mut witness.decoder);
        while let Some(frame) = decoder.next_frame().expect("good frames") {
            assert!(frame.fin);
            if frame.opcode == Opcode::Close {
                let code = frame.payload.get(..2).expect("a code");
                assert_eq!(code, 1000u16.to_be_bytes(), "witness {number} is closed");
                self.nth(at).is_closed = true;
                continue;
            }
            for reply in Replies::new(encoding, frame.payload) {
                let reply = reply.expect("a good reply");
                match reply.kind {
                    ReplyKind::Connect(_) => {}
                    ReplyKind::Subscribe(_) => self.nth(at).subscribed += 1,
                    ReplyKind::Publish => {
                        let answered = self.nth(at).unanswered.take();
                        assert!(answered.is_some(), "witness {number}: an answer to nothing");
                    }
                    ReplyKind::Error(failure) if failure.code == TOO_MANY_REQUESTS => {
                        let witness = self.nth(at);
                        let channel = witness.unanswered.take().expect("it published");
                        witness.published[channel] -= 1;
                        witness.put_off += 1;
                    }
                    ReplyKind::Ping => self.nth(at).say(|out, encoding, _| pong(out, encoding)),
                    ReplyKind::Push {
                        channel,
                        push: ClientPush::Publication(publication),
                    } => self.see(at, &channel, &publication),
                    other => panic!("witness {number}: {other:?}"),
                }
            }
        }
        self.nth(at).decoder = decoder;
    }

    /// The first to see a publication sets the order for all; the order has to be its publisher's.
    fn see(&mut self, at: usize, channel: &str, publication: &ClientPublication<'_>) {
        let witness = &mut self.all[at];
        let number = witness.number;
        let channel = WATCHED
            .iter()
            .position(|it| *it == channel)
            .expect("a channel it is in");
        let mark = std::str::from_utf8(publication.data).expect("a mark");
        let mark: u64 = mark.parse().expect("a mark");
        let place = witness.seen[channel];
        witness.seen[channel] += 1;
        if channel < NUMBERED {
            assert_eq!(
                publication.offset,
                place as u64 + 1,
                "witness {number} in {}: the offset",
                WATCHED[channel]
            );
            self.tops.set(channel, publication.offset);
        }
        let order = &mut self.order[channel];
        if let Some(other) = order.get(place) {
            assert_eq!(
                mark, *other,
                "witness {number} in {} at {place}: not as the others",
                WATCHED[channel]
            );
            return;
        }
        order.push(mark);
        let (publisher, count) = (mark >> 40, mark & ((1 << 40) - 1));
        if publisher != CROWD {
            let last = self.last.entry((channel, publisher)).or_default();
            assert_eq!(
                count,
                *last + 1,
                "publisher {publisher} in {}, seen by witness {number}",
                WATCHED[channel]
            );
            *last = count;
        }
    }
}

fn wait_readable(sockets: &[&TcpStream], patience: Duration) -> Vec<usize> {
    wait(sockets, PollFlags::IN, patience)
}

/// Which of them are ready.
fn wait(sockets: &[&TcpStream], flags: PollFlags, patience: Duration) -> Vec<usize> {
    let mut files: Vec<_> = sockets.iter().map(|it| PollFd::new(it, flags)).collect();
    let timeout = patience.try_into().unwrap();
    match poll(&mut files, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => return Vec::new(),
        waited => _ = waited.unwrap(),
    }
    let ready = files.iter().enumerate();
    ready
        .filter(|(_, file)| !file.revents().is_empty())
        .map(|(at, _)| at)
        .collect()
}
