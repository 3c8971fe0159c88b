//! The scenarios with rooms, on the command line: echo, storm, churn, slow, recover, mixed; and what they, the fan-outs
//! among them, have in common.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::server::{PlaceArgs, ServerArgs};
use super::{BareArgs, CommonArgs, Failure, PhaseArgs, bare_plan, conclude, demand, seconds};
use crate::client::payload::{self, Body};
use crate::report::Report;
use crate::scenario::{
    Load, Publishers, Rooms, Server, churn, echo, limit, mixed, recover, slow, storm,
};

// Who is in the rooms of which server.
#[derive(Args)]
pub struct RoomsArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Members in all.
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
}

impl RoomsArgs {
    /// The rooms with such publications, checked.
    pub fn rooms(&self, publishers: usize, body: Body, load: Load) -> Result<Rooms, Failure> {
        let server = self.server.server()?;
        demand(
            self.members >= server.channels,
            "there must be a member for each channel",
        )?;
        self.common.demand_share(self.members)?;
        demand(publishers > 0, "somebody has to publish")?;
        match body {
            Body::Size(size) => demand_size(size)?,
            Body::Sample(_) => demand(
                server.manners.protocol.name() != "raw",
                "a sample is for the Centrifuge protocol: raw ones have a JSON string as {data}",
            )?,
        }
        demand_load(load)?;
        Ok(Rooms {
            server,
            members: self.members,
            publishers: Publishers::Apart(publishers),
            body,
            load,
            cores: self.common.cores.clone(),
        })
    }
}

// What is published.
#[derive(Args)]
pub struct PublicationArgs {
    /// Publishing connections; each channel has one.
    #[arg(long, default_value_t = 1)]
    pub publishers: usize,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Publish the lines of this file in turn, a JSON value each, beside some 70 B of proof.
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    sample: Option<PathBuf>,
}

impl PublicationArgs {
    /// A publication's data.
    pub fn body(&self) -> Result<Body, Failure> {
        let Some(file) = &self.sample else {
            return Ok(Body::Size(self.size));
        };
        let name = file.display();
        let text =
            fs::read_to_string(file).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        Body::sample(text).map_err(|words| Failure::Usage(format!("{name}: {words}")))
    }
}

// The same by timetable, for a while.
#[derive(Args)]
pub struct TimetableArgs {
    #[command(flatten)]
    publications: PublicationArgs,
    /// Publications a second in all, by timetable.
    #[arg(long, value_name = "R", default_value_t = 50.0)]
    rate: f64,
    #[command(flatten)]
    pub phases: PhaseArgs,
}

impl TimetableArgs {
    /// The rooms with these publications, checked.
    pub fn rooms(&self, rooms: &RoomsArgs) -> Result<Rooms, Failure> {
        let body = self.publications.body()?;
        let load = Load::Open { rate: self.rate };
        rooms.rooms(self.publications.publishers, body, load)
    }
}

fn demand_size(size: usize) -> Result<(), Failure> {
    let smallest = payload::SMALLEST;
    demand(
        size >= smallest,
        &format!("a publication has at least {smallest} bytes"),
    )
}

fn demand_load(load: Load) -> Result<(), Failure> {
    match load {
        Load::Closed { in_flight } => demand(in_flight > 0, "--in-flight begins at 1"),
        Load::Open { rate } => demand_rate(rate, "--rate"),
        Load::Silent => Ok(()),
    }
}

fn demand_rate(rate: f64, name: &str) -> Result<(), Failure> {
    demand(
        rate.is_finite() && rate > 0.0,
        &format!("{name} must be above 0"),
    )
}

fn demand_recovery(server: &Server) -> Result<(), Failure> {
    demand(
        server.manners.protocol.name() != "raw",
        "recovery is the Centrifuge protocol's: raw has none",
    )
}

#[derive(Args)]
pub struct EchoArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// The subprotocol to ask for.
    #[arg(long, value_name = "NAME")]
    subprotocol: Option<String>,
    /// Send binary messages.
    #[arg(long)]
    binary: bool,
    /// Connections.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Connections opened a second while the run ramps up; as fast as the server answers without.
    #[arg(long, value_name = "R")]
    ramp: Option<f64>,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Closed loop: messages outstanding on each connection.
    #[arg(long, value_name = "W", default_value_t = 1, conflicts_with = "rate")]
    in_flight: usize,
    /// Open loop: messages a second in all, by timetable.
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    #[command(flatten)]
    phases: PhaseArgs,
    #[command(flatten)]
    bare: BareArgs,
    /// Run the bare loops before and after, and tell the ratio to them.
    #[arg(long)]
    limit: bool,
}

impl EchoArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        demand(self.connections > 0, "connections begin at 1")?;
        self.common.demand_share(self.connections)?;
        demand_size(self.size)?;
        let load = match self.rate {
            Some(rate) => Load::Open { rate },
            None => Load::Closed {
                in_flight: self.in_flight,
            },
        };
        demand_load(load)?;
        let server = self.place.echo(
            self.connections,
            self.subprotocol.clone(),
            self.binary,
            self.ramp,
        )?;
        let sockets = self.connections.min(limit::MOST_MEMBERS);
        let bare = self
            .limit
            .then(|| bare_plan(&self.bare, &self.common, sockets, self.size, 1))
            .transpose()?;
        let plan = echo::Plan {
            rooms: Rooms {
                server,
                members: self.connections,
                publishers: Publishers::Members,
                body: Body::Size(self.size),
                load,
                cores: self.common.cores.clone(),
            },
            phases: self.phases.phases()?,
            limit: bare,
        };
        conclude(self.common, "echo", |report| echo::run(&plan, report))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Drop {
    /// RST.
    Reset,
    /// A Close frame, then the end of the stream.
    Close,
}

#[derive(Args)]
#[command(mut_arg("members", |arg| arg.default_value("10000")))]
pub struct StormArgs {
    #[command(flatten)]
    rooms: RoomsArgs,
    #[command(flatten)]
    bare: BareArgs,
    #[command(flatten)]
    comeback: ComebackArgs,
    /// Storms, one after another.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How everybody is dropped.
    #[arg(long, value_enum, default_value = "reset")]
    drop: Drop,
    /// Each waits a random part of this before it comes back.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter: u64,
    /// Publications into each channel that everybody misses and recovers; without it nobody recovers.
    #[arg(long, value_name = "M", default_value_t = 0)]
    recover: usize,
    /// Members that stay, in a channel of their own.
    #[arg(long, value_name = "N", default_value_t = 0)]
    established: usize,
    /// Publications a second into the channel of the established, by timetable.
    #[arg(long, value_name = "R", default_value_t = 500.0)]
    rate: f64,
    /// Run the bare accept-and-upgrade loop first, and tell the ratio to it.
    #[arg(long)]
    limit: bool,
}

// How members come back.
#[derive(Args)]
struct ComebackArgs {
    /// Members on their way back at a time.
    #[arg(long, value_name = "N", default_value_t = 128)]
    at_once: usize,
}

impl StormArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let mut rooms = self.rooms.rooms(1, Body::Size(storm::SIZE), Load::Silent)?;
        demand(
            self.rounds > 0 && self.comeback.at_once > 0,
            "rounds and at-once begin at 1",
        )?;
        if self.recover > 0 {
            demand_recovery(&rooms.server)?;
            rooms.server.manners.recoverable = true;
        }
        demand_rate(self.rate, "--rate")?;
        let established = (self.established > 0).then_some(storm::Established {
            members: self.established,
            rate: self.rate,
        });
        let common = self.rooms.common;
        let bare = self.limit.then(|| limit::upgrade::Plan {
            connections: rooms.members.min(limit::MOST_MEMBERS / 2),
            runs: self.bare.runs,
            server_core: common.sender_core,
            client_core: common.cores[0],
        });
        let plan = storm::Plan {
            rooms,
            rounds: self.rounds,
            close: self.drop == Drop::Close,
            jitter: Duration::from_millis(self.jitter),
            at_once: self.comeback.at_once,
            missed: self.recover,
            established,
            limit: bare,
        };
        conclude(common, "storm", |report| storm::run(&plan, report))
    }
}

#[derive(Args)]
#[command(mut_arg("members", |arg| arg.help("Members that stay")))]
pub struct ChurnArgs {
    #[command(flatten)]
    rooms: RoomsArgs,
    #[command(flatten)]
    timetable: TimetableArgs,
    /// Members that come and go.
    #[arg(long, default_value_t = 1000)]
    comers: usize,
    /// Joins a second, and as many leaves.
    #[arg(long, value_name = "R", default_value_t = 500.0)]
    joins: f64,
    /// Whole connections come and go, not subscriptions.
    #[arg(long)]
    reconnect: bool,
}

impl ChurnArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let plan = churn::Plan {
            rooms: self.timetable.rooms(&self.rooms)?,
            comers: self.comers,
            joins: self.joins,
            connections: self.reconnect,
            phases: self.timetable.phases.phases()?,
        };
        demand_rate(plan.joins, "--joins")?;
        demand(plan.comers > 0, "comers begin at 1")?;
        conclude(self.rooms.common, "churn", |report| {
            churn::run(&plan, report)
        })
    }
}

#[derive(Args)]
#[command(
    mut_arg("size", |arg| arg.default_value("1024")),
    mut_arg("rate", |arg| arg.default_value("100")),
)]
pub struct SlowArgs {
    #[command(flatten)]
    rooms: RoomsArgs,
    #[command(flatten)]
    timetable: TimetableArgs,
    /// How many of the members become slow, per cent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    slow: f64,
    /// Bytes a second each of those reads; 0: nothing.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    reads: u32,
    /// Bytes of each receive buffer; the kernel's own choice without.
    #[arg(long, value_name = "BYTES")]
    receive_buffer: Option<usize>,
    /// The largest TCP segment, as on a network, say 1448; loopback's 64 KiB hide megabytes a slow member.
    #[arg(long, value_name = "BYTES")]
    segment: Option<u32>,
    /// How long the window takes in which all read; as long as the other without.
    #[arg(long, value_name = "SECONDS")]
    quiet_seconds: Option<f64>,
}

impl SlowArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let mut rooms = self.timetable.rooms(&self.rooms)?;
        demand(
            (0.0..=100.0).contains(&self.slow),
            "--slow is from 0 to 100 per cent",
        )?;
        rooms.server.manners.limits.receive_buffer = self.receive_buffer;
        rooms.server.manners.limits.segment = self.segment;
        let plan = slow::Plan {
            slow: (rooms.members as f64 * self.slow / 100.0).round() as usize,
            rooms,
            reads: self.reads,
            quiet: seconds(self.quiet_seconds.unwrap_or(self.timetable.phases.seconds))?,
            phases: self.timetable.phases.phases()?,
        };
        conclude(self.rooms.common, "slow", |report| slow::run(&plan, report))
    }
}

#[derive(Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    rooms: RoomsArgs,
    #[command(flatten)]
    comeback: ComebackArgs,
    /// Fan-outs and comebacks, one after another.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The most publications of its channel a member misses; the server's history must hold them.
    #[arg(long, value_name = "M", default_value_t = 80)]
    missed: usize,
    /// From so many offsets.
    #[arg(long, value_name = "N", default_value_t = 8)]
    offsets: usize,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = 100)]
    size: usize,
}

impl RecoverArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let mut rooms = self.rooms.rooms(1, Body::Size(self.size), Load::Silent)?;
        demand(
            self.missed > 0 && self.offsets > 0 && self.comeback.at_once > 0 && self.rounds > 0,
            "missed, offsets, at-once and rounds begin at 1",
        )?;
        demand_recovery(&rooms.server)?;
        rooms.server.manners.recoverable = true;
        let plan = recover::Plan {
            rooms,
            rounds: self.rounds,
            missed: self.missed,
            offsets: self.offsets,
            at_once: self.comeback.at_once,
        };
        conclude(self.rooms.common, "recover", |report| {
            recover::run(&plan, report)
        })
    }
}

#[derive(Args)]
pub struct MixedArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// The groups, as TOML: docs/BENCHMARKING.md.
    #[arg(long, value_name = "FILE")]
    definition: PathBuf,
    /// Publishing connections; each channel has one.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    #[command(flatten)]
    phases: PhaseArgs,
}

impl MixedArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let server = self.server.server()?;
        demand(self.publishers > 0, "somebody has to publish")?;
        let place = self.definition.display();
        let text = fs::read_to_string(&self.definition)
            .map_err(|e| Failure::Usage(format!("{place}: {e}")))?;
        let definition = mixed::Definition::parse(&text)
            .map_err(|words| Failure::Usage(format!("{place}: {words}")))?;
        let connections = definition.groups.iter().map(|group| group.connections);
        self.common.demand_share(connections.sum())?;
        let plan = mixed::Plan {
            server,
            definition,
            publishers: self.publishers,
            phases: self.phases.phases()?,
            cores: self.common.cores.clone(),
        };
        conclude(self.common, "mixed", |report| mixed::run(&plan, report))
    }
}
