//! The command line: what there is to ask, and how it becomes a scenario's plan.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod fanout;
mod rooms;
mod server;

use crate::compare;
use crate::measure::{cpu, round_trip};
use crate::report::output::Outputs;
use crate::report::{Host, Report};
use crate::scenario::{MOST_THREADS, Phases, SETTLE, idle, limit};
use crate::{suite, tables};
use server::ServerArgs;

/// Measures WebSocket servers, and proves order and no loss before it tells a figure.
#[derive(Parser)]
#[command(name = "ringway-bench", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    #[command(flatten)]
    Scenario(Box<Scenario>),
    /// Two reports, figure by figure; ends with 4 when B is worse than allowed.
    Compare(compare::Args),
    /// Servers in turns on one boot: medians, spreads, ratios.
    Suite(suite::Args),
    /// Tables of a document, from the runs of a suite.
    Tables(tables::Args),
    /// Not a measurement: a small server on another runtime, to be measured.
    #[cfg(feature = "reference")]
    Reference(crate::reference::Args),
}

#[derive(Subcommand)]
pub enum Scenario {
    /// Bare loops without any protocol: what the kernel asks for a send.
    Limit(LimitArgs),
    /// N subscribers in C channels: CPU a delivery, rate, latency.
    Fanout(fanout::FanoutArgs),
    /// One room at a rate that fills a core: is it held, and how late is everybody?
    HotRoom(fanout::HotRoomArgs),
    /// Round trips to a path that echoes.
    Echo(rooms::EchoArgs),
    /// Everybody is dropped and comes back: how soon, at what cost.
    Storm(rooms::StormArgs),
    /// Joins and leaves beside a fan-out.
    Churn(rooms::ChurnArgs),
    /// Some members read slowly or not at all: do the others suffer?
    Slow(rooms::SlowArgs),
    /// Members come back and catch up: what a recovered delivery costs.
    Recover(rooms::RecoverArgs),
    /// Groups of connections from a definition, all at once.
    Mixed(rooms::MixedArgs),
    /// N connections that do nothing: memory and CPU a connection.
    Idle(IdleArgs),
}

#[derive(Args)]
pub struct CommonArgs {
    /// The generator's cores: a thread on each, with its share of the connections.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    pub cores: Vec<usize>,
    /// The server's core: where the bare loops run, and the other end of the cache line's round trip.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub sender_core: usize,
    /// Do not raise this process' scheduling group.
    #[arg(long)]
    pub plain_priority: bool,
    #[command(flatten)]
    pub outputs: Outputs,
    /// Words to keep in the JSON: a commit, a setting.
    #[arg(long)]
    pub label: Option<String>,
}

impl CommonArgs {
    /// Fails unless each thread can have some of so many connections.
    fn demand_share(&self, connections: usize) -> Result<(), Failure> {
        let threads = self.cores.len();
        demand(
            threads <= MOST_THREADS,
            &format!("--cores takes {MOST_THREADS} at most"),
        )?;
        demand(
            connections >= threads,
            "there must be a connection for each of --cores",
        )
    }
}

#[derive(Args)]
pub struct BareArgs {
    /// Runs of each bare loop.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// Milliseconds of one run.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub run_ms: u64,
}

#[derive(Args)]
pub struct PhaseArgs {
    /// The measured window.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Publishing before the window.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub warm_up: f64,
    /// Rest between opening the connections and publishing.
    #[arg(long, value_name = "SECONDS", default_value_t = SETTLE.as_secs_f64())]
    pub settle: f64,
}

impl PhaseArgs {
    /// As durations.
    pub fn phases(&self) -> Result<Phases, Failure> {
        Ok(Phases {
            settle: seconds(self.settle)?,
            warm_up: seconds(self.warm_up)?,
            window: seconds(self.seconds)?,
        })
    }
}

#[derive(Args)]
pub struct LimitArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub bare: BareArgs,
    /// Sockets.
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Also sends of so many frames at once.
    #[arg(long, value_name = "W", default_value_t = 1)]
    pub in_flight: usize,
}

#[derive(Args)]
pub struct IdleArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Connections.
    #[arg(long, default_value_t = 15_000)]
    pub connections: usize,
    /// The window CPU is measured over; longer than the server's ping interval.
    #[arg(long, default_value_t = 30.0)]
    pub seconds: f64,
    /// Measure bare accepted sockets first, and tell ratios to them.
    #[arg(long)]
    pub limit: bool,
}

/// Why there is no report.
pub enum Failure {
    Usage(String),
    Environment(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Environment(error.to_string())
    }
}

/// Does what was asked.
pub fn run(scenario: Scenario) -> Result<Report, Failure> {
    match scenario {
        Scenario::Limit(args) => {
            demand(
                args.common.cores.len() == 1,
                "limit takes one of --cores: what it measures is one thread that sends, and its only receiver waits for it",
            )?;
            let plan = bare_plan(
                &args.bare,
                &args.common,
                args.members,
                args.size,
                args.in_flight,
            )?;
            conclude(args.common, "limit", |report| limit::run(&plan, report))
        }
        Scenario::Fanout(args) => args.run(),
        Scenario::HotRoom(args) => args.run(),
        Scenario::Echo(args) => args.run(),
        Scenario::Storm(args) => args.run(),
        Scenario::Churn(args) => args.run(),
        Scenario::Slow(args) => args.run(),
        Scenario::Recover(args) => args.run(),
        Scenario::Mixed(args) => args.run(),
        Scenario::Idle(args) => {
            demand(args.connections > 0, "connections begin at 1")?;
            args.common.demand_share(args.connections)?;
            let server = args.server.server()?;
            let cores = args.common.cores.clone();
            let plan = idle::Plan {
                server: &server,
                connections: args.connections,
                window: seconds(args.seconds)?,
                limit: args.limit,
                cores: &cores,
            };
            conclude(args.common, "idle", |report| idle::run(&plan, report))
        }
    }
}

/// Runs a scenario between raising the priority and printing the table.
pub(crate) fn conclude(
    common: CommonArgs,
    name: &'static str,
    scenario: impl FnOnce(&mut Report) -> std::io::Result<()>,
) -> Result<Report, Failure> {
    let priority = match common.plain_priority {
        true => "plain".to_owned(),
        false => cpu::raise_priority(),
    };
    let mut report = Report::new(name, Host::read(priority), common.label);
    let round_trip = || round_trip::between(common.cores[0], common.sender_core);
    let before = round_trip()?;
    scenario(&mut report)?;
    report.round_trips(before, round_trip()?);
    print!("{}", report.render());
    common.outputs.write(&report)?;
    Ok(report)
}

pub(crate) fn bare_plan(
    bare: &BareArgs,
    common: &CommonArgs,
    members: usize,
    size: usize,
    in_flight: usize,
) -> Result<limit::Plan, Failure> {
    demand(
        members > 0 && size > 0 && in_flight > 0 && bare.runs > 0,
        "members, size, in-flight and runs begin at 1",
    )?;
    Ok(limit::Plan {
        members,
        size,
        in_flight,
        as_served: None,
        runs: bare.runs,
        run_time: Duration::from_millis(bare.run_ms),
        sender_core: common.sender_core,
        receiver_core: common.cores[0],
    })
}

pub(crate) fn demand(holds: bool, words: &str) -> Result<(), Failure> {
    match holds {
        true => Ok(()),
        false => Err(Failure::Usage(words.to_owned())),
    }
}

pub(crate) fn seconds(value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|e| Failure::Usage(format!("{value} seconds: {e}")))
}
