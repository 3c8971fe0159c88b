//! `ringway-bench`: a load harness for WebSocket servers, on raw io_uring.
//!
//! Exit codes: 0 verified and valid; 2 something was lost, duplicated, reordered or corrupted; 3 the run is invalid;
//! 4 `compare` found a regression; 1 the environment (server gone, sockets refused); 64 the command line.
#![deny(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod client;
mod compare;
mod measure;
mod report;
mod scenario;
mod suite;

use client::centrifuge::Encoding;
use client::handshake::Target;
use client::payload;
use measure::round_trip;
use report::output::Outputs;
use report::{Host, Report};
use scenario::{fanout, idle, limit};

const EXIT_ENVIRONMENT: u8 = 1;
const EXIT_FAULTS: u8 = 2;
const EXIT_INVALID: u8 = 3;
const EXIT_REGRESSION: u8 = 4;
const EXIT_USAGE: u8 = 64;

/// Measures WebSocket servers, and proves order and no loss before it tells a figure.
#[derive(Parser)]
#[command(name = "ringway-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Box<Scenario>),
    /// Two reports, figure by figure; ends with 4 when B is worse than allowed.
    Compare(compare::Args),
    /// Servers in turns on one boot: medians, spreads, ratios.
    Suite(suite::Args),
}

#[derive(Subcommand)]
enum Scenario {
    /// Bare loops without any protocol: what the kernel asks for a send.
    Limit(LimitArgs),
    /// N subscribers in C channels: CPU a delivery, rate, latency.
    Fanout(FanoutArgs),
    /// N connections that do nothing: memory and CPU a connection.
    Idle(IdleArgs),
}

#[derive(Args)]
struct CommonArgs {
    /// The generator's cores.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    cores: Vec<usize>,
    /// The server's core: where the bare loops run, and the other end of the cache line's round trip.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    sender_core: usize,
    /// Do not raise this process' scheduling group.
    #[arg(long)]
    plain_priority: bool,
    #[command(flatten)]
    outputs: Outputs,
    /// Words to keep in the JSON: a commit, a setting.
    #[arg(long)]
    label: Option<String>,
}

#[derive(Args)]
struct BareArgs {
    /// Runs of each bare loop.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Milliseconds of one run.
    #[arg(long, value_name = "MS", default_value_t = 500)]
    run_ms: u64,
}

#[derive(Args)]
struct ServerArgs {
    /// Where the server listens, ws://host:port/path.
    #[arg(long)]
    target: String,
    /// The server's processes.
    #[arg(long, value_name = "PID", value_delimiter = ',', required = true)]
    pid: Vec<u32>,
    /// How the Centrifuge protocol is written.
    #[arg(long, value_enum, default_value = "json")]
    encoding: Encoding,
    /// A connection token; without one connections are anonymous.
    #[arg(long)]
    token: Option<String>,
    /// Channels; members are spread evenly.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// A channel's name is this and its number.
    #[arg(long, value_name = "TEXT", default_value = "bench-")]
    channel_prefix: String,
}

#[derive(Args)]
struct LimitArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    bare: BareArgs,
    /// Sockets.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Also sends of so many frames at once.
    #[arg(long, value_name = "W", default_value_t = 1)]
    in_flight: usize,
}

#[derive(Args)]
struct FanoutArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    bare: BareArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Subscribers in all.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Closed loop: publications outstanding in each channel.
    #[arg(
        long,
        value_name = "W",
        conflicts_with = "rate",
        required_unless_present = "rate"
    )]
    in_flight: Option<usize>,
    /// Open loop: publications a second in all, by timetable.
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// The measured window.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Before the window.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warm_up: f64,
    /// Publishing connections; each channel has one.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Run the bare loops before and after, and tell ratios to them.
    #[arg(long)]
    limit: bool,
}

#[derive(Args)]
struct IdleArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Connections.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// The window CPU is measured over; longer than the server's ping interval.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Measure bare accepted sockets first, and tell ratios to them.
    #[arg(long)]
    limit: bool,
}

enum Failure {
    Usage(String),
    Environment(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Environment(error.to_string())
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let ended = match cli.command {
        Command::Scenario(scenario) => {
            run(*scenario).map(|report| verdict(report.verified, report.invalid.is_empty()))
        }
        Command::Compare(args) => compare::run(&args).map(|regressed| match regressed {
            true => EXIT_REGRESSION,
            false => 0,
        }),
        Command::Suite(args) => suite::run(&args),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Usage(words)) => {
            eprintln!("ringway-bench: {words}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Environment(words)) => {
            eprintln!("ringway-bench: {words}");
            ExitCode::from(EXIT_ENVIRONMENT)
        }
    }
}

fn verdict(verified: bool, valid: bool) -> u8 {
    match (verified, valid) {
        (true, true) => 0,
        (false, _) => EXIT_FAULTS,
        (true, false) => EXIT_INVALID,
    }
}

fn run(scenario: Scenario) -> Result<Report, Failure> {
    match scenario {
        Scenario::Limit(args) => {
            let plan = bare_plan(
                &args.bare,
                &args.common,
                args.members,
                args.size,
                args.in_flight,
            )?;
            conclude(args.common, "limit", |report| limit::run(&plan, report))
        }
        Scenario::Fanout(args) => fan_out(args),
        Scenario::Idle(args) => {
            let target = Target::parse(&args.server.target).map_err(Failure::Usage)?;
            demand(
                args.connections > 0 && args.server.channels > 0,
                "connections and channels begin at 1",
            )?;
            let cores = args.common.cores.clone();
            let plan = idle::Plan {
                target: &target,
                encoding: args.server.encoding,
                token: args.server.token.as_deref(),
                pids: &args.server.pid,
                connections: args.connections,
                channels: args.server.channels,
                channel_prefix: &args.server.channel_prefix,
                window: seconds(args.seconds)?,
                limit: args.limit,
                cores: &cores,
            };
            conclude(args.common, "idle", |report| idle::run(&plan, report))
        }
    }
}

fn fan_out(args: FanoutArgs) -> Result<Report, Failure> {
    let target = Target::parse(&args.server.target).map_err(Failure::Usage)?;
    let channels = args.server.channels;
    demand(
        args.members >= channels && channels > 0,
        "there must be a channel, and a member for each",
    )?;
    demand(args.publishers > 0, "somebody has to publish")?;
    demand(
        args.size >= payload::SMALLEST,
        &format!("a publication has at least {} bytes", payload::SMALLEST),
    )?;
    let load = match (args.in_flight, args.rate) {
        (Some(in_flight), _) if in_flight > 0 => fanout::Load::Closed { in_flight },
        (None, Some(rate)) if rate > 0.0 && rate.is_finite() => fanout::Load::Open { rate },
        _ => {
            return Err(Failure::Usage(
                "--in-flight or --rate must be above 0".to_owned(),
            ));
        }
    };
    let in_flight = args.in_flight.unwrap_or(1);
    let sockets = args.members.min(limit::MOST_MEMBERS);
    let bare = args
        .limit
        .then(|| bare_plan(&args.bare, &args.common, sockets, args.size, in_flight))
        .transpose()?;
    let cores = args.common.cores.clone();
    let plan = fanout::Plan {
        target: &target,
        encoding: args.server.encoding,
        token: args.server.token.as_deref(),
        pids: &args.server.pid,
        members: args.members,
        channels,
        publishers: args.publishers,
        channel_prefix: &args.server.channel_prefix,
        size: args.size,
        load,
        warm_up: seconds(args.warm_up)?,
        window: seconds(args.seconds)?,
        limit: bare,
        cores: &cores,
    };
    conclude(args.common, "fanout", |report| fanout::run(&plan, report))
}

fn bare_plan(
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
        runs: bare.runs,
        run_time: Duration::from_millis(bare.run_ms),
        sender_core: common.sender_core,
        receiver_cores: common.cores.clone(),
    })
}

/// Runs a scenario between raising the priority and printing the table.
fn conclude(
    common: CommonArgs,
    name: &'static str,
    scenario: impl FnOnce(&mut Report) -> std::io::Result<()>,
) -> Result<Report, Failure> {
    let priority = match common.plain_priority {
        true => "plain".to_owned(),
        false => measure::cpu::raise_priority(),
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

fn demand(holds: bool, words: &str) -> Result<(), Failure> {
    match holds {
        true => Ok(()),
        false => Err(Failure::Usage(words.to_owned())),
    }
}

fn seconds(value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|e| Failure::Usage(format!("{value} seconds: {e}")))
}
