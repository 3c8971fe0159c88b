//! **What does the kernel alone ask for a send to each of N sockets?**
//!
//! No protocol, no server: one thread sends the same bytes once to each of N loopback sockets, another drains them and
//! counts. In turns: (a) a send(2) loop; (b) io_uring with the gateway's flags: direct descriptors, no waiting, no
//! completion for what went well, 256 a submission. Each with one frame and, when asked, with W frames in one send.
//!
//! Also what a connection asks for at least: accept, read a request, write an answer, close (`upgrade`).
//!
//! The figure is the sender's CPU time a send. On loopback it includes the receive path of the peer, which runs inside
//! the send. A round begins only when the last has been drained, so no send ever meets a full socket; the wait between
//! rounds is not counted.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::Serialize;

use crate::client::fleet::{SLOTS_A_RING, rings};
use crate::client::handshake::dial;
use crate::client::ring::{Event, Ring, RingSize};
use crate::measure::cpu;
use crate::measure::histogram::Spread;
use crate::report::Report;

/// The accept-and-upgrade loop.
pub mod upgrade;

/// The sender holds a descriptor a socket, and 20,000 is a common limit.
pub const MOST_MEMBERS: usize = 19_500;
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    /// Bytes of one frame.
    pub size: usize,
    /// Frames in one send, beside one.
    pub in_flight: usize,
    /// Bytes of a frame as a server sent it, to send as many of.
    pub as_served: Option<usize>,
    pub runs: usize,
    /// How long one run of one loop takes at least.
    pub run_time: Duration,
    pub sender_core: usize,
    pub receiver_core: usize,
}

impl Plan {
    /// The same of connections.
    pub fn upgrades(&self) -> upgrade::Plan {
        upgrade::Plan {
            connections: self.members.min(MOST_MEMBERS / 2),
            runs: self.runs,
            server_core: self.sender_core,
            client_core: self.receiver_core,
        }
    }
}

/// CPU nanoseconds a send.
#[derive(Clone, Debug, Serialize)]
pub struct Baselines {
    pub send: Spread,
    pub uring: Spread,
    /// The same for a send of W frames, when W is above 1.
    pub send_many: Option<Spread>,
    pub uring_many: Option<Spread>,
    /// The same with frames as a server sent them.
    pub uring_as_served: Option<Spread>,
}

impl Baselines {
    /// What to say when the loops before a run and `after` it differ by over 10 %.
    pub fn drift(&self, after: &Self) -> Option<String> {
        drift("send(2)", &self.send, &after.send)
    }
}

/// The same of any bare loop.
pub fn drift(name: &str, before: &Spread, after: &Spread) -> Option<String> {
    let drift = after.median / before.median;
    (!(0.9..=1.1).contains(&drift))
        .then(|| format!("the bare {name} loop drifted to {drift:.2} × during the run"))
}

/// Runs the loops and puts them into the report.
pub fn run(plan: &Plan, report: &mut Report) -> io::Result<()> {
    let baselines = measure(plan)?;
    let note = format!("{} members × {} B", plan.members, plan.size);
    report.spread("send_ns", &baselines.send, "ns", &note);
    report.spread("uring_ns", &baselines.uring, "ns", &note);
    report.figure(
        "uring_to_send",
        baselines.uring.median / baselines.send.median,
        "×",
        "",
    );
    if let (Some(send), Some(uring)) = (&baselines.send_many, &baselines.uring_many) {
        let note = format!("{} frames a send", plan.in_flight);
        report.spread("send_many_ns", send, "ns", &note);
        report.spread("uring_many_ns", uring, "ns", &note);
        report.figure(
            "uring_many_to_send",
            uring.median / baselines.send.median,
            "×",
            "",
        );
        let frame = uring.median / plan.in_flight as f64;
        report.figure("uring_many_frame_ns", frame, "ns", "a frame");
        report.figure(
            "uring_many_frame_to_send",
            frame / baselines.send.median,
            "×",
            "a frame",
        );
    }
    let upgrades = upgrade::measure(&plan.upgrades())?;
    let note = "accept, read, answer, close";
    report.spread("upgrade_us", &upgrades, "µs", note);
    Ok(())
}

/// What the receiver tells the sender.
#[derive(Default)]
struct Drain {
    bytes: AtomicU64,
    failed: AtomicBool,
    done: AtomicBool,
}

/// Runs the loops in turns.
///
/// # Errors
/// When sockets cannot be had, or the receiver did not get each byte.
pub fn measure(plan: &Plan) -> io::Result<Baselines> {
    if plan.members == 0 || plan.members > MOST_MEMBERS {
        return Err(io::Error::other(format!(
            "limit takes 1 to {MOST_MEMBERS} members: one descriptor each"
        )));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let drain = Drain::default();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let received = receive(plan, address, &drain);
            drain.failed.store(received.is_err(), Ordering::Release);
            received
        });
        let sent = scope.spawn(|| {
            let sent = send_in_turns(plan, &listener, &drain);
            drain.done.store(true, Ordering::Release);
            sent
        });
        let sent = sent.join().expect("the sender does not panic");
        let received = receiver.join().expect("the receiver does not panic")?;
        let (baselines, bytes) = sent?;
        if received.iter().any(|&got| got != bytes) {
            return Err(io::Error::other(
                "the receiver did not get each byte on each socket",
            ));
        }
        Ok(baselines)
    })
}

/// Drains everything; bytes by socket.
fn receive(plan: &Plan, address: SocketAddr, drain: &Drain) -> io::Result<Vec<u64>> {
    cpu::pin(&[plan.receiver_core])?;
    let mut rings = rings(plan.members)?;
    for index in 0..plan.members {
        let ring = &mut rings[index / SLOTS_A_RING];
        let slot = ring.attach(dial(address, index)?.into())?;
        ring.receive(slot)?;
        if index % 256 == 255 {
            ring.flush()?;
        }
    }
    let mut counts = vec![0u64; plan.members];
    loop {
        let done = drain.done.load(Ordering::Acquire);
        let (mut arrived, mut any) = (0, false);
        for (number, ring) in rings.iter_mut().enumerate() {
            any |= ring.poll(|event| {
                if let Event::Received { slot, bytes } = event {
                    counts[number * SLOTS_A_RING + slot as usize] += bytes.len() as u64;
                    arrived += bytes.len() as u64;
                }
            })?;
        }
        if arrived > 0 {
            drain.bytes.fetch_add(arrived, Ordering::Release);
        }
        if done && !any {
            return Ok(counts);
        }
        if !any {
            std::hint::spin_loop();
        }
    }
}

/// The baselines and the bytes each socket was sent.
fn send_in_turns(
    plan: &Plan,
    listener: &TcpListener,
    drain: &Drain,
) -> io::Result<(Baselines, u64)> {
    cpu::pin(&[plan.sender_core])?;
    let sockets = accept_all(plan.members, listener, drain)?;
    let mut ring = Ring::new(RingSize {
        slots: plan.members as u32,
        buffers: 0,
        buffer_bytes: 0,
    })?;
    for socket in &sockets {
        ring.attach_shared(socket.as_fd())?;
    }
    let mut sender = Sender {
        plan,
        drain,
        sockets,
        ring,
        bytes_each: 0,
    };
    let one = vec![b'x'; plan.size];
    let many = (plan.in_flight > 1).then(|| vec![b'x'; plan.size * plan.in_flight]);
    let as_served = plan.as_served.map(|size| vec![b'x'; size * plan.in_flight]);
    let loops = [
        (Way::Send, Some(&one)),
        (Way::Uring, Some(&one)),
        (Way::Send, many.as_ref()),
        (Way::Uring, many.as_ref()),
        (Way::Uring, as_served.as_ref()),
    ];
    let mut times: [Vec<f64>; 5] = Default::default();
    // The first turn warms caches and congestion windows, and is not kept.
    for turn in 0..=plan.runs {
        for (index, (way, bytes)) in loops.iter().enumerate() {
            let Some(bytes) = bytes else { continue };
            let ns = sender.run(*way, bytes)?;
            if turn > 0 {
                times[index].push(ns);
            }
        }
    }
    let spread = |index: usize| (!times[index].is_empty()).then(|| Spread::of(&times[index]));
    let baselines = Baselines {
        send: spread(0).ok_or_else(|| io::Error::other("at least one run is needed"))?,
        uring: spread(1).expect("as many as of the other"),
        send_many: spread(2),
        uring_many: spread(3),
        uring_as_served: spread(4),
    };
    Ok((baselines, sender.bytes_each))
}

fn accept_all(members: usize, listener: &TcpListener, drain: &Drain) -> io::Result<Vec<TcpStream>> {
    listener.set_nonblocking(true)?;
    let mut sockets = Vec::with_capacity(members);
    while sockets.len() < members {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nodelay(true)?;
                sockets.push(socket);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if drain.failed.load(Ordering::Acquire) {
                    return Err(io::Error::other("the receiver could not connect"));
                }
                thread::yield_now();
            }
            Err(e) => return Err(e),
        }
    }
    Ok(sockets)
}

#[derive(Clone, Copy)]
enum Way {
    Send,
    Uring,
}

struct Sender<'a> {
    plan: &'a Plan,
    drain: &'a Drain,
    sockets: Vec<TcpStream>,
    ring: Ring,
    bytes_each: u64,
}

impl Sender<'_> {
    /// Rounds for at least the run's time; CPU nanoseconds a send.
    fn run(&mut self, way: Way, bytes: &[u8]) -> io::Result<f64> {
        let (start, mut spent, mut sends) = (Instant::now(), 0, 0);
        while start.elapsed() < self.plan.run_time {
            let before = cpu::of_this_thread();
            match way {
                Way::Send => self.send_to_all(bytes)?,
                Way::Uring => self.ring.send_to_all(bytes)?,
            }
            spent += cpu::of_this_thread() - before;
            sends += self.sockets.len();
            self.bytes_each += bytes.len() as u64;
            self.wait_until_drained()?;
        }
        Ok(spent as f64 / sends as f64)
    }

    fn send_to_all(&self, bytes: &[u8]) -> io::Result<()> {
        for socket in &self.sockets {
            match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) if sent == bytes.len() => {}
                Ok(_) | Err(Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn wait_until_drained(&self) -> io::Result<()> {
        let expected = self.bytes_each * self.sockets.len() as u64;
        let (start, mut turns) = (Instant::now(), 0u32);
        while self.drain.bytes.load(Ordering::Acquire) < expected {
            std::hint::spin_loop();
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(1 << 16)
                && (self.drain.failed.load(Ordering::Acquire) || start.elapsed() > DRAIN_PATIENCE)
            {
                return Err(io::Error::other("the receiver stopped draining"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_every_byte_and_tells_a_cost_for_each_loop() {
        let plan = Plan {
            members: 40,
            size: 100,
            in_flight: 4,
            as_served: Some(231),
            runs: 2,
            run_time: Duration::from_millis(10),
            sender_core: 0,
            receiver_core: std::thread::available_parallelism().map_or(0, |n| n.get() - 1),
        };
        let baselines = measure(&plan).unwrap();
        for spread in [
            Some(baselines.send),
            Some(baselines.uring),
            baselines.send_many,
            baselines.uring_many,
            baselines.uring_as_served,
        ] {
            let spread = spread.unwrap();
            assert_eq!(spread.runs.len(), 2);
            assert!(spread.min > 100.0 && spread.max < 1e9, "{spread:?}");
        }
    }

    #[test]
    fn refuses_more_members_than_descriptors() {
        let plan = Plan {
            members: MOST_MEMBERS + 1,
            size: 1,
            in_flight: 1,
            as_served: None,
            runs: 1,
            run_time: Duration::ZERO,
            sender_core: 0,
            receiver_core: 0,
        };
        assert!(measure(&plan).is_err());
    }
}
