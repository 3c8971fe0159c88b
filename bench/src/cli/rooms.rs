//! The scenarios with rooms, on the command line: echo, storm, churn, slow, recover, mixed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::server::{PlaceArgs, ServerArgs};
use super::{BareArgs, CommonArgs, Failure, PhaseArgs, bare_plan, conclude, demand, seconds};
use crate::client::payload;
use crate::report::Report;
use crate::scenario::{Load, Server, churn, echo, limit, mixed, recover, slow, storm};

fn demand_size(size: usize) -> Result<(), Failure> {
    let smallest = payload::SMALLEST;
    demand(
        size >= smallest,
        &format!("a publication has at least {smallest} bytes"),
    )
}

fn demand_rate(rate: f64, name: &str) -> Result<(), Failure> {
    demand(
        rate.is_finite() && rate > 0.0,
        &format!("{name} must be above 0"),
    )
}

fn demand_members(members: usize, server: &Server) -> Result<(), Failure> {
    demand(
        members >= server.channels,
        "there must be a member for each channel",
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
        demand_size(self.size)?;
        demand(
            self.connections > 0 && self.in_flight > 0,
            "connections and in-flight begin at 1",
        )?;
        let load = match self.rate {
            Some(rate) => {
                demand_rate(rate, "--rate")?;
                Load::Open { rate }
            }
            None => Load::Closed {
                in_flight: self.in_flight,
            },
        };
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
        let cores = self.common.cores.clone();
        let plan = echo::Plan {
            server: &server,
            connections: self.connections,
            size: self.size,
            load,
            phases: self.phases.phases()?,
            limit: bare,
            cores: &cores,
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
pub struct StormArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    bare: BareArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Members.
    #[arg(long, default_value_t = 10_000)]
    members: usize,
    /// Storms, one after another.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How everybody is dropped.
    #[arg(long, value_enum, default_value = "reset")]
    drop: Drop,
    /// Each waits a random part of this before it comes back.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter: u64,
    /// Members on their way back at a time.
    #[arg(long, value_name = "N", default_value_t = 128)]
    at_once: usize,
    /// Publications into each channel that everybody misses and recovers; without it nobody recovers.
    #[arg(long, value_name = "M", default_value_t = 0)]
    recover: usize,
    /// Run the bare accept-and-upgrade loop first, and tell the ratio to it.
    #[arg(long)]
    limit: bool,
}

impl StormArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let mut server = self.server.server()?;
        demand_members(self.members, &server)?;
        demand(
            self.rounds > 0 && self.at_once > 0,
            "rounds and at-once begin at 1",
        )?;
        server.manners.recoverable = self.recover > 0;
        let bare = self.limit.then(|| limit::upgrade::Plan {
            connections: self.members.min(limit::MOST_MEMBERS / 2),
            runs: self.bare.runs,
            server_core: self.common.sender_core,
            client_cores: self.common.cores.clone(),
        });
        let cores = self.common.cores.clone();
        let plan = storm::Plan {
            server: &server,
            members: self.members,
            rounds: self.rounds,
            close: self.drop == Drop::Close,
            jitter: Duration::from_millis(self.jitter),
            at_once: self.at_once,
            missed: self.recover,
            limit: bare,
            cores: &cores,
        };
        conclude(self.common, "storm", |report| storm::run(&plan, report))
    }
}

#[derive(Args)]
pub struct ChurnArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Members that stay.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Members that come and go.
    #[arg(long, default_value_t = 1000)]
    comers: usize,
    /// Joins a second, and as many leaves.
    #[arg(long, value_name = "R", default_value_t = 500.0)]
    joins: f64,
    /// Whole connections come and go, not subscriptions.
    #[arg(long)]
    reconnect: bool,
    /// Publishing connections; each channel has one.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Publications a second in all, by timetable.
    #[arg(long, value_name = "R", default_value_t = 50.0)]
    rate: f64,
    #[command(flatten)]
    phases: PhaseArgs,
}

impl ChurnArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let server = self.server.server()?;
        demand_members(self.members, &server)?;
        demand_size(self.size)?;
        demand_rate(self.rate, "--rate")?;
        demand_rate(self.joins, "--joins")?;
        demand(
            self.comers > 0 && self.publishers > 0,
            "comers and publishers begin at 1",
        )?;
        let cores = self.common.cores.clone();
        let plan = churn::Plan {
            server: &server,
            members: self.members,
            comers: self.comers,
            joins: self.joins,
            connections: self.reconnect,
            publishers: self.publishers,
            size: self.size,
            rate: self.rate,
            phases: self.phases.phases()?,
            cores: &cores,
        };
        conclude(self.common, "churn", |report| churn::run(&plan, report))
    }
}

#[derive(Args)]
pub struct SlowArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Members in all.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// How many of them become slow, per cent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    slow: f64,
    /// Bytes a second each of those reads; 0: nothing.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    reads: u32,
    /// Publishing connections; each channel has one.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Publications a second in all, by timetable.
    #[arg(long, value_name = "R", default_value_t = 100.0)]
    rate: f64,
    /// Bytes of each receive buffer; the kernel's own choice without.
    #[arg(long, value_name = "BYTES")]
    receive_buffer: Option<usize>,
    /// The largest TCP segment, as on a network, say 1448; loopback's 64 KiB hide megabytes a slow member.
    #[arg(long, value_name = "BYTES")]
    segment: Option<u32>,
    /// How long the window takes in which all read; as long as the other without.
    #[arg(long, value_name = "SECONDS")]
    quiet_seconds: Option<f64>,
    #[command(flatten)]
    phases: PhaseArgs,
}

impl SlowArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let mut server = self.server.server()?;
        demand_members(self.members, &server)?;
        demand_size(self.size)?;
        demand_rate(self.rate, "--rate")?;
        demand(self.publishers > 0, "somebody has to publish")?;
        demand(
            (0.0..=100.0).contains(&self.slow),
            "--slow is from 0 to 100 per cent",
        )?;
        server.manners.limits.receive_buffer = self.receive_buffer;
        server.manners.limits.segment = self.segment;
        let cores = self.common.cores.clone();
        let plan = slow::Plan {
            server: &server,
            members: self.members,
            publishers: self.publishers,
            slow: (self.members as f64 * self.slow / 100.0).round() as usize,
            reads: self.reads,
            size: self.size,
            rate: self.rate,
            phases: self.phases.phases()?,
            quiet: seconds(self.quiet_seconds.unwrap_or(self.phases.seconds))?,
            cores: &cores,
        };
        conclude(self.common, "slow", |report| slow::run(&plan, report))
    }
}

#[derive(Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Members.
    #[arg(long, default_value_t = 1000)]
    members: usize,
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
    /// Members on their way back at a time.
    #[arg(long, value_name = "N", default_value_t = 128)]
    at_once: usize,
}

impl RecoverArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let mut server = self.server.server()?;
        demand_members(self.members, &server)?;
        demand_size(self.size)?;
        demand(
            self.missed > 0 && self.offsets > 0 && self.at_once > 0 && self.rounds > 0,
            "missed, offsets, at-once and rounds begin at 1",
        )?;
        server.manners.recoverable = true;
        demand(
            server.manners.protocol.name() != "raw",
            "recovery is the Centrifuge protocol's",
        )?;
        let cores = self.common.cores.clone();
        let plan = recover::Plan {
            server: &server,
            members: self.members,
            rounds: self.rounds,
            missed: self.missed,
            offsets: self.offsets,
            size: self.size,
            at_once: self.at_once,
            cores: &cores,
        };
        conclude(self.common, "recover", |report| recover::run(&plan, report))
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
        let cores = self.common.cores.clone();
        let plan = mixed::Plan {
            server: &server,
            definition: &definition,
            publishers: self.publishers,
            phases: self.phases.phases()?,
            cores: &cores,
        };
        conclude(self.common, "mixed", |report| mixed::run(&plan, report))
    }
}
