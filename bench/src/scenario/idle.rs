//! **What does a connection cost that does nothing?**
//!
//! N connections join C channels and are left alone but for the server's pings. Told are the server's own memory (PSS
//! at N minus fresh), the kernel's (slab, both ends) and CPU a connection and second over a window with pings.
//!
//! The kernel's part of the server is what is left of the slab after the generator's end is taken off. That end is
//! measured in the same run with bare accepted sockets and no server at all: first both ends idle, half of which is one
//! bare socket; then with the generator's receives armed, which is what it does to its end in every run.

use std::io;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::centrifuge::Reply;
use crate::client::fleet::{Fleet, News, SLOTS_A_RING, rings};
use crate::client::handshake::dial;
use crate::client::ledger::Faults;
use crate::client::ring::{Ring, RingSize};
use crate::client::share::Share;
use crate::measure::cpu;
use crate::measure::memory::Memory;
use crate::measure::recorder::{Recorder, Recording};
use crate::measure::series::{Counts, Phase};
use crate::report::Report;
use crate::scenario::threads::{self, Barrier, Worker};
use crate::scenario::{Server, words_of_threads};

/// How long a server may take to come to rest before memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the kernel may take to free the sockets of the baseline.
const FREE_PATIENCE: Duration = Duration::from_secs(30);

/// What to measure.
pub struct Plan<'a> {
    pub server: &'a Server,
    pub connections: usize,
    /// The window CPU is measured over; longer than the server's ping interval.
    pub window: Duration,
    /// Measure bare sockets too.
    pub limit: bool,
    pub cores: &'a [usize],
}

/// What the leading thread reads, and when.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    memory: Memory,
    server_ns: u64,
}

/// What a thread found out; of several threads the sum, and the readings of the leading one.
struct Part {
    /// Before the first connection.
    fresh: Reading,
    /// When the last had joined.
    open: Reading,
    /// At the ends of the window.
    full: Reading,
    late: Reading,
    /// In the window.
    pings: u64,
    faults: Faults,
    recording: Option<Recording>,
}

/// Runs it and fills the report.
pub fn run(plan: &Plan<'_>, report: &mut Report) -> io::Result<()> {
    cpu::pin(plan.cores)?;
    let bare = plan
        .limit
        .then(|| bare_sockets(plan.connections))
        .transpose()?;
    let n = plan.connections as f64;
    let server = plan.server;
    let parts = threads::run(plan.cores, &server.pids, |worker| {
        Idle::new(plan, worker)?.run()
    })?;
    let all = parts.into_iter().reduce(|mut all, part| {
        all.pings += part.pings;
        all.faults.add(part.faults);
        all
    });
    let all = all.expect("a run has a thread");
    let (fresh, full, late) = (all.fresh.memory, all.full.memory, all.late.memory);
    if let Some(recording) = all.recording {
        report.record(recording.series);
    }
    report.verdict(all.faults);
    report.remarks.push(format!(
        "{} connections in {} channels{}, {}",
        plan.connections,
        server.channels,
        words_of_threads(plan.cores),
        server.manners.words()
    ));
    let each = |full: u64, fresh: u64| (full as f64 - fresh as f64) / n;
    report.figure(
        "server_pss_per_connection",
        each(full.pss, fresh.pss),
        "B",
        "PSS at N minus fresh",
    );
    report.figure(
        "server_pss_after_window",
        each(late.pss, fresh.pss),
        "B",
        "the same after the window with pings",
    );
    report.figure(
        "server_page_tables_per_connection",
        each(full.page_tables, fresh.page_tables),
        "B",
        "VmPTE",
    );
    report.figure(
        "server_pss_fresh",
        fresh.pss as f64 / 1048576.0,
        "MiB",
        "before the first connection",
    );
    let slab = each(full.slab, fresh.slab);
    report.figure(
        "slab_both_ends",
        slab,
        "B",
        "kernel objects of the machine, a connection",
    );
    report.figure(
        "tcp_memory",
        each(full.tcp_pages, fresh.tcp_pages) * 4096.0,
        "B",
        "sockstat mem, a connection",
    );
    if let Some(bare) = bare {
        let server = slab - bare.generator_end;
        report.figure(
            "bare_socket",
            bare.one_end,
            "B",
            "a bare accepted socket, one end, slab",
        );
        report.figure(
            "generator_end",
            bare.generator_end,
            "B",
            "the same with the generator's receive armed",
        );
        report.figure(
            "server_kernel",
            server,
            "B",
            "slab_both_ends minus generator_end",
        );
        let whole = server + each(full.pss, fresh.pss);
        report.figure(
            "server_user_and_kernel",
            whole,
            "B",
            "server_kernel and PSS",
        );
        report.figure(
            "ratio_to_bare",
            whole / bare.one_end,
            "×",
            "server_user_and_kernel over bare_socket",
        );
        if bare.left_behind > 0.02 * slab * n {
            report.remarks.push(format!(
                "the baseline left {:.1} MiB of slab behind",
                bare.left_behind / 1048576.0
            ));
        }
    }
    let seconds = (all.late.at - all.full.at).as_secs_f64();
    let cpu = |from: &Reading, to: &Reading| to.server_ns.saturating_sub(from.server_ns) as f64;
    let per_second = cpu(&all.full, &all.late) / seconds / n;
    report.figure(
        "server_cpu_per_connection",
        per_second,
        "ns/s",
        "over the window",
    );
    let seen = all.pings as f64 / n;
    report.figure("pings_per_connection", seen, "", "in the window");
    if seen < 0.5 {
        report
            .remarks
            .push("the window is shorter than the server's ping interval".to_owned());
    }
    report.figure(
        "open_cpu_per_connection",
        cpu(&all.fresh, &all.open) / n / 1e3,
        "µs",
        "accept, upgrade, join",
    );
    Ok(())
}

/// One thread's connections.
struct Idle<'a> {
    plan: &'a Plan<'a>,
    share: Share,
    fleet: Fleet<'a>,
    barrier: Barrier,
    recorder: Recorder,
}

impl<'a> Idle<'a> {
    fn new(plan: &'a Plan<'a>, worker: Worker) -> io::Result<Self> {
        let (server, share) = (plan.server, worker.share);
        let channel_of = move |place: usize| {
            let number = share.connection(place) % server.channels;
            Some(server.channel(number))
        };
        let rings = rings(share.of(plan.connections))?;
        Ok(Self {
            plan,
            share,
            fleet: Fleet::new(&server.manners, share, rings, channel_of),
            barrier: worker.barrier,
            recorder: worker.recorder,
        })
    }

    fn run(mut self) -> io::Result<Part> {
        let connections = self.share.of(self.plan.connections);
        self.recorder.expect(connections);
        // Buffers and tables are there: they are no part of a connection.
        let fresh = self.read_together()?;
        let recorder = &mut self.recorder;
        self.fleet.open(
            connections,
            |_, _, _| {},
            |joined| {
                let now = Instant::now();
                if recorder.is_due(now) {
                    recorder.close(now, None, Counts::of_connections(joined));
                }
            },
        )?;
        let open = self.read_together()?;
        self.begin(Phase::Settle)?;
        self.attend(SETTLE)?;
        let full = self.read_together()?;
        self.begin(Phase::Measure)?;
        let pings = self.fleet.pings();
        self.attend(self.plan.window)?;
        let pings = self.fleet.pings() - pings;
        let late = self.read_together()?;
        self.cut()?;
        Ok(Part {
            fresh,
            open,
            full,
            late,
            pings,
            faults: self.fleet.faults.clone(),
            recording: self.recorder.finish(),
        })
    }

    /// What the leading thread reads once all are here; the others go on when it has.
    fn read_together(&mut self) -> io::Result<Reading> {
        self.meet()?;
        let pids = match self.share.number() {
            0 => self.plan.server.pids.as_slice(),
            _ => &[],
        };
        let reading = Reading {
            memory: Memory::read(pids)?,
            server_ns: cpu::of_processes(pids)?,
            at: Instant::now(),
        };
        self.meet()?;
        Ok(reading)
    }

    fn begin(&mut self, phase: Phase) -> io::Result<()> {
        self.cut()?;
        self.recorder.begin(phase);
        Ok(())
    }

    /// All threads end the present second here.
    fn cut(&mut self) -> io::Result<()> {
        self.meet()?;
        if self.share.number() == 0 {
            self.close();
        }
        self.meet()
    }

    fn close(&mut self) {
        let counts = Counts::of_connections(self.fleet.joined());
        self.recorder.close(Instant::now(), None, counts);
    }

    fn record(&mut self) {
        while self.recorder.is_due(Instant::now()) {
            self.close();
        }
    }

    /// Waits for the other threads, and answers pings meanwhile.
    fn meet(&mut self) -> io::Result<()> {
        self.barrier.arrive();
        while !self.barrier.all_are_here()? {
            self.turn()?;
            self.record();
            thread::yield_now();
        }
        if self.share.number() > 0 {
            self.record();
        }
        Ok(())
    }

    /// Answers pings, asleep between them.
    fn attend(&mut self, time: Duration) -> io::Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.barrier.check()?;
            // One turn may leave something for the next.
            if !self.turn()? {
                self.fleet.wait(left.min(Duration::from_millis(100)))?;
            }
            self.record();
        }
    }

    /// True when something came.
    fn turn(&mut self) -> io::Result<bool> {
        let (protocol, share) = (&self.plan.server.manners.protocol, self.share);
        self.fleet.poll(|index, news, faults| {
            let News::Reply(reply) = news else { return };
            match protocol.read_reply(reply) {
                Reply::Push | Reply::Done(_) | Reply::Foreign => {}
                other => {
                    faults.malformed += 1;
                    let connection = share.connection(index);
                    faults.explain(|| format!("connection {connection}: {other:?}"));
                }
            }
        })
    }
}

/// Bytes of slab.
struct Bare {
    one_end: f64,
    generator_end: f64,
    /// What the kernel had not freed when the real run began, in all.
    left_behind: f64,
}

fn bare_sockets(count: usize) -> io::Result<Bare> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut near = rings(count)?;
    let mut far = Vec::new();
    for left in (0..count).step_by(SLOTS_A_RING).map(|from| count - from) {
        far.push(Ring::new(RingSize {
            slots: left.min(SLOTS_A_RING) as u32,
            buffers: 0,
            buffer_bytes: 0,
        })?);
    }
    let fresh = Memory::read(&[])?;
    for index in 0..count {
        let ring = index / SLOTS_A_RING;
        near[ring].attach(dial(address, index)?.into())?;
        far[ring].attach(listener.accept()?.0.into())?;
    }
    let idle = Memory::read(&[])?;
    for ring in &mut near {
        for slot in 0..ring.used() {
            ring.receive(slot)?;
        }
        ring.flush()?;
    }
    let armed = Memory::read(&[])?;
    drop((near, far));
    let start = Instant::now();
    while Memory::read(&[])?.tcp_in_use > fresh.tcp_in_use + 16 && start.elapsed() < FREE_PATIENCE {
        thread::sleep(Duration::from_millis(50));
    }
    // The last objects go by RCU, after the sockets no longer count.
    let (mut last, start) = (Memory::read(&[])?, Instant::now());
    while start.elapsed() < FREE_PATIENCE {
        thread::sleep(Duration::from_millis(500));
        let now = Memory::read(&[])?;
        if now.slab + 64 * 1024 >= last.slab {
            break;
        }
        last = now;
    }
    let each = |bytes: u64| (bytes as f64 - fresh.slab as f64) / count as f64;
    let one_end = each(idle.slab) / 2.0;
    Ok(Bare {
        one_end,
        generator_end: each(armed.slab) - one_end,
        left_behind: last.slab as f64 - fresh.slab as f64,
    })
}
