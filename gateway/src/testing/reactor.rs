//! The simulated reactor: [`Reactor`] over a [`Net`].
//!
//! It keeps its side of the contract, at its worst: few receive buffers, bytes in pieces of any size, sends cut at any
//! byte, late and spurious `Writable`, late `Closed`, and now and then an event of a life that is over. And it asserts the
//! shard's side: one send a slot and flush, none to a slot that is not open, none empty, every buffer given back in the
//! same tick, one `wait_writable` at a time, generations that are never used twice.

use super::net::{ClientEnd, Net, ServerGone, SharedNet, Slot, SocketId};
use crate::ids::{Now, Token};
use crate::reactor::{
    BufferId, CloseHow, EndReason, Event, FLUSH_MAX, Reactor, ReactorStats, Send, SendError, Short,
};
use std::collections::HashSet;
use std::io;
use std::time::Duration;

const ECONNRESET: i32 = 104;
const EPIPE: i32 = 32;
/// Most accepts reported by one poll.
const ACCEPTS: u64 = 8;

/// The reactor of one simulated shard.
#[derive(Debug)]
pub struct SimReactor {
    net: SharedNet,
    buffers: Vec<Box<[u8]>>,
    lent: Vec<bool>,
    events: Vec<Event>,
    seen: HashSet<u32>,
}

impl SimReactor {
    /// A reactor with `buffers` receive buffers of `buffer_bytes` each.
    pub fn new(net: SharedNet, buffers: usize, buffer_bytes: usize) -> Self {
        Self {
            net,
            buffers: vec![vec![0; buffer_bytes].into_boxed_slice(); buffers],
            lent: vec![false; buffers],
            events: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// The outside.
    pub fn net(&self) -> &SharedNet {
        &self.net
    }

    fn free_buffer(&self) -> Option<usize> {
        self.lent.iter().position(|lent| !lent)
    }

    fn accept(&mut self, net: &mut Net) {
        let budget = net.rng.range(0, ACCEPTS);
        for _ in 0..budget {
            if net.backlog.is_empty() {
                return;
            }
            let free: Vec<usize> = (0..net.slots.len())
                .filter(|s| net.slots[*s] == Slot::Free)
                .collect();
            if free.is_empty() {
                net.stats.accepts_paused += 1;
                return;
            }
            let id = net.backlog.pop_front().expect("looked just now");
            // The lowest free one, as a kernel does, so that slots are soon used again; sometimes any.
            let slot = if net.rng.chance(700) {
                free[0]
            } else {
                *net.rng.pick(&free)
            };
            net.slots[slot] = Slot::Accepted(id);
            self.events.push(Event::Accepted {
                slot: slot as u32,
                peer: net.socket(id).peer,
            });
        }
    }

    fn receive(&mut self, net: &mut Net, id: SocketId, token: Token) {
        let pieces = if net.rng.chance(500) {
            net.rng.range(1, 3)
        } else {
            u64::MAX
        };
        for _ in 0..pieces {
            let waiting = net.socket(id).to_server.len();
            if waiting == 0 {
                break;
            }
            let Some(buffer) = self.free_buffer() else {
                net.stats.buffers_exhausted += 1;
                return;
            };
            let most = waiting.min(self.buffers[buffer].len());
            let len = if net.rng.chance(600) {
                most
            } else {
                net.rng.magnitude(1, most as u64) as usize
            };
            for (to, from) in self.buffers[buffer]
                .iter_mut()
                .zip(net.socket(id).to_server.drain(..len))
            {
                *to = from;
            }
            self.lent[buffer] = true;
            self.events.push(Event::Received {
                token,
                buffer: BufferId(buffer as u16),
                len: len as u32,
            });
        }
        let socket = net.socket(id);
        if socket.to_server.is_empty() && socket.is_dead() {
            socket.end_reported = true;
            let reason = match socket.client {
                ClientEnd::Closed => EndReason::Eof,
                _ => EndReason::Error(ECONNRESET),
            };
            self.events.push(Event::Ended { token, reason });
        }
    }

    /// Something of a life that is over, of a slot that is in use again if there is one.
    fn haunt(&mut self, net: &mut Net) {
        let reused = |token: &Token| matches!(net.slots[token.slot as usize], Slot::Open(..));
        let mut candidates: Vec<Token> = net.dead.iter().copied().filter(reused).collect();
        if candidates.is_empty() {
            candidates.extend(&net.dead);
        }
        if candidates.is_empty() {
            return;
        }
        let token = *net.rng.pick(&candidates);
        let event = match net.rng.below(3) {
            0 => Event::Ended {
                token,
                reason: EndReason::Eof,
            },
            1 => Event::Writable { token },
            _ => {
                let Some(buffer) = self.free_buffer() else {
                    return;
                };
                let len = net.rng.range(1, self.buffers[buffer].len().min(64) as u64) as usize;
                for byte in &mut self.buffers[buffer][..len] {
                    *byte = net.rng.next_u64() as u8;
                }
                self.lent[buffer] = true;
                Event::Received {
                    token,
                    buffer: BufferId(buffer as u16),
                    len: len as u32,
                }
            }
        };
        self.events.push(event);
    }

    fn send(net: &mut Net, id: SocketId, bytes: &[u8]) -> Result<usize, SendError> {
        let weather = net.weather;
        let (rough, room, client) = {
            let socket = net.socket(id);
            (socket.rough, socket.room(), socket.client)
        };
        if net.socket(id).facts.was_reset || client == ClientEnd::Reset {
            return Err(SendError { errno: ECONNRESET });
        }
        if client == ClientEnd::Closed {
            // The peer's kernel answers with RST, some time later.
            return if net.rng.chance(500) {
                Ok(bytes.len())
            } else {
                Err(SendError { errno: EPIPE })
            };
        }
        if rough && net.rng.chance(weather.reset) {
            let socket = net.socket(id);
            socket.facts.was_reset = true;
            socket.to_server.clear();
            socket.to_client.clear();
            return Err(SendError { errno: ECONNRESET });
        }
        let mut taken = bytes.len().min(room);
        if rough && net.rng.chance(weather.refuse) {
            taken = 0;
        } else if rough && taken > 0 && net.rng.chance(weather.cut) {
            taken = net.rng.range(0, taken as u64) as usize;
        }
        let socket = net.socket(id);
        socket.to_client.extend(&bytes[..taken]);
        socket.facts.was_short |= taken < bytes.len();
        Ok(taken)
    }
}

impl Reactor for SimReactor {
    fn slots(&self) -> u32 {
        self.net.borrow().slots.len() as u32
    }

    fn now(&mut self) -> Now {
        self.net.borrow().clock.now()
    }

    fn poll(&mut self, patience: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        assert!(
            self.lent.iter().all(|lent| !lent),
            "contract: a receive buffer was not given back in its tick"
        );
        let shared = self.net.clone();
        let net = &mut *shared.borrow_mut();
        let now = net.clock.millis();
        net.stats.enters += 1;
        self.events.clear();
        if net.rng.chance(net.weather.ghost) {
            self.haunt(net);
        }
        let count = net.slots.len();
        let first = net.rng.index(count.max(1));
        for at in 0..count {
            let slot = (first + at) % count;
            match net.slots[slot] {
                Slot::Free | Slot::Accepted(_) => {}
                Slot::Closing(due) if due <= now => {
                    net.slots[slot] = Slot::Free;
                    self.events.push(Event::Closed { slot: slot as u32 });
                }
                Slot::Closing(_) => {}
                Slot::Open(id, token) => {
                    let late = net.weather.read_late;
                    if net.socket(id).is_readable() && !net.rng.chance(late) {
                        self.receive(net, id, token);
                    }
                    let spurious = net.weather.spurious_writable;
                    let waits = net.socket(id).writable_due.is_some();
                    if waits && (Net::is_writable(net.socket(id), now) || net.rng.chance(spurious))
                    {
                        net.socket(id).writable_due = None;
                        self.events.push(Event::Writable { token });
                    }
                }
            }
        }
        if net.listening {
            self.accept(net);
        }
        // A poll returns at once, always: the thread is shared. Two empty ones at one moment, with nothing between them,
        // are a sleep: from then on the shard is only called when something happens or its patience is over, as on a
        // real machine. So a shard that asks for too long a sleep is late here too.
        let sleeps = self.events.is_empty() && net.empty_poll == Some(now);
        net.empty_poll = self.events.is_empty().then_some(now);
        net.asleep_until = match sleeps {
            true => now.saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)),
            false => 0,
        };
        events.append(&mut self.events);
        Ok(())
    }

    fn buffer(&mut self, buffer: BufferId, len: u32) -> &mut [u8] {
        let index = usize::from(buffer.0);
        assert!(
            self.lent[index],
            "contract: a look into a buffer that is not lent"
        );
        &mut self.buffers[index][..len as usize]
    }

    fn recycle(&mut self, buffer: BufferId) {
        let lent = &mut self.lent[usize::from(buffer.0)];
        assert!(*lent, "contract: a buffer given back twice");
        *lent = false;
    }

    fn open(&mut self, token: Token) {
        let net = &mut *self.net.borrow_mut();
        let slot = token.slot as usize;
        let Slot::Accepted(id) = net.slots[slot] else {
            panic!(
                "contract: open of slot {slot}, which is {:?}",
                net.slots[slot]
            );
        };
        let before = net.generations[slot];
        assert!(
            before.is_none_or(|g| g != token.generation),
            "contract: slot {slot} lives under an old generation"
        );
        net.slots[slot] = Slot::Open(id, token);
    }

    fn flush(&mut self, sends: &[Send<'_>], short: &mut Vec<Short>) {
        let net = &mut *self.net.borrow_mut();
        assert!(
            sends.len() <= FLUSH_MAX,
            "contract: {} sends in a flush",
            sends.len()
        );
        self.seen.clear();
        net.stats.enters += 1;
        for (index, send) in sends.iter().enumerate() {
            assert!(
                self.seen.insert(send.slot),
                "contract: two sends to slot {} in a flush",
                send.slot
            );
            assert!(
                !send.bytes.is_empty(),
                "contract: an empty send to slot {}",
                send.slot
            );
            let Slot::Open(id, _) = net.slots[send.slot as usize] else {
                panic!(
                    "contract: a send to slot {}, which is {:?}",
                    send.slot, net.slots[send.slot as usize]
                );
            };
            net.stats.sends += 1;
            let taken = Self::send(net, id, send.bytes);
            if taken != Ok(send.bytes.len()) {
                net.stats.short_sends += 1;
                short.push(Short {
                    index: index as u32,
                    taken: taken.map(|n| n as u32),
                });
            }
        }
    }

    fn wait_writable(&mut self, token: Token) {
        let net = &mut *self.net.borrow_mut();
        let Slot::Open(id, open) = net.slots[token.slot as usize] else {
            panic!("contract: wait_writable of a slot that is not open");
        };
        assert_eq!(open, token, "contract: wait_writable of another life");
        let due = net.clock.millis() + net.rng.below(net.weather.writable_millis + 1);
        let before = net.socket(id).writable_due.replace(due);
        assert!(before.is_none(), "contract: a second wait_writable");
    }

    fn close(&mut self, token: Token, how: CloseHow) {
        self.net.borrow_mut().close_slot(token, how);
    }

    fn stop_accepting(&mut self) {
        let net = &mut *self.net.borrow_mut();
        net.listening = false;
        while let Some(id) = net.backlog.pop_front() {
            let socket = net.socket(id);
            socket.server_gone = Some(ServerGone::Reset);
        }
    }

    fn stats(&self) -> ReactorStats {
        self.net.borrow().stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::net::{Clock, Weather};
    use crate::testing::rng::Rng;

    const CUT: Weather = Weather {
        cut: 1000,
        ..Weather::CALM
    };

    fn reactor(weather: Weather) -> SimReactor {
        SimReactor::new(Net::new(Rng::new(1), Clock::default(), 4, weather), 4, 16)
    }

    fn polled(reactor: &mut SimReactor) -> Vec<Event> {
        let mut events = Vec::new();
        reactor.poll(Duration::ZERO, &mut events).unwrap();
        events
    }

    /// Connects a client and opens its slot.
    fn opened(reactor: &mut SimReactor, rough: bool, window: usize) -> (SocketId, Token) {
        let peer = ([10, 0, 0, 1], 1).into();
        let id = reactor.net.borrow_mut().connect(peer, rough, window);
        let slot = loop {
            if let [Event::Accepted { slot, .. }] = polled(reactor)[..] {
                break slot;
            }
        };
        let token = Token {
            slot,
            generation: 1,
        };
        reactor.open(token);
        (id.expect("it listens"), token)
    }

    #[test]
    fn bytes_arrive_in_order_whatever_the_pieces_and_then_the_end() {
        let mut reactor = reactor(Weather::CALM);
        let (socket, _) = opened(&mut reactor, true, 100);
        let sent: Vec<u8> = (0..200).collect();
        reactor.net.borrow_mut().write(socket, &sent);
        reactor.net.borrow_mut().close(socket);
        let mut got = Vec::new();
        loop {
            for event in polled(&mut reactor) {
                match event {
                    Event::Received { buffer, len, .. } => {
                        got.extend_from_slice(reactor.buffer(buffer, len));
                        reactor.recycle(buffer);
                    }
                    Event::Ended { reason, .. } => {
                        assert_eq!((reason, got.len()), (EndReason::Eof, 200));
                        assert_eq!(got, sent);
                        return;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_a_client_reads_is_what_the_sends_say_was_taken() {
        let mut reactor = reactor(CUT);
        let (socket, token) = opened(&mut reactor, true, 1000);
        let (mut taken, mut short) = (Vec::new(), Vec::new());
        for byte in 0..50 {
            let bytes = [byte; 40];
            short.clear();
            let sends = [Send {
                slot: token.slot,
                bytes: &bytes,
            }];
            reactor.flush(&sends, &mut short);
            let all = short.first().map_or(40, |it| it.taken.expect("no reset"));
            taken.extend_from_slice(&bytes[..all as usize]);
        }
        let mut read = Vec::new();
        reactor.net.borrow_mut().read(socket, usize::MAX, &mut read);
        assert_eq!(read, taken);
        assert!(read.len() <= 1000);
    }

    #[test]
    fn a_full_window_is_writable_again_only_after_the_client_reads() {
        let mut reactor = reactor(Weather::CALM);
        let (socket, token) = opened(&mut reactor, true, 10);
        let mut short = Vec::new();
        let sends = [Send {
            slot: token.slot,
            bytes: &[1; 30],
        }];
        reactor.flush(&sends, &mut short);
        assert_eq!(
            short,
            [Short {
                index: 0,
                taken: Ok(10)
            }]
        );
        reactor.wait_writable(token);
        assert!(polled(&mut reactor).is_empty());
        reactor.net.borrow_mut().read(socket, 5, &mut Vec::new());
        assert!(matches!(polled(&mut reactor)[..], [Event::Writable { .. }]));
        assert!(polled(&mut reactor).is_empty());
    }

    #[test]
    fn a_closed_slot_comes_back_once_and_lives_under_a_new_generation() {
        let mut reactor = reactor(Weather::CALM);
        let (_, token) = opened(&mut reactor, true, 10);
        reactor.close(token, CloseHow::Orderly);
        assert!(matches!(polled(&mut reactor)[..], [Event::Closed { slot }] if slot == token.slot));
        assert_eq!(reactor.net.borrow().slots_in_use(), 0);
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            opened(&mut reactor, true, 10)
        }));
        assert!(again.is_err(), "the generation was used before");
    }

    #[test]
    #[should_panic(expected = "contract: two sends")]
    fn two_sends_to_a_slot_break_the_contract() {
        let mut reactor = reactor(Weather::CALM);
        let (_, token) = opened(&mut reactor, true, 10);
        let send = Send {
            slot: token.slot,
            bytes: b"x",
        };
        reactor.flush(&[send, send], &mut Vec::new());
    }

    #[test]
    #[should_panic(expected = "contract: a receive buffer")]
    fn a_buffer_kept_beyond_its_tick_breaks_the_contract() {
        let mut reactor = reactor(Weather::CALM);
        let (socket, _) = opened(&mut reactor, true, 10);
        reactor.net.borrow_mut().write(socket, b"x");
        while polled(&mut reactor).is_empty() {}
        polled(&mut reactor);
    }
}
