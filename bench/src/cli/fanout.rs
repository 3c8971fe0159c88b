//! `fanout` and `hot-room` on the command line.

use clap::Args;

use super::server::ServerArgs;
use super::{BareArgs, CommonArgs, Failure, PhaseArgs, bare_plan, conclude, demand};
use crate::client::payload;
use crate::report::Report;
use crate::scenario::{Load, fanout, hot_room, limit};

#[derive(Args)]
pub struct FanoutArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub bare: BareArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Subscribers in all.
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Closed loop: publications outstanding in each channel.
    #[arg(
        long,
        value_name = "W",
        conflicts_with = "rate",
        required_unless_present = "rate"
    )]
    pub in_flight: Option<usize>,
    /// Open loop: publications a second in all, by timetable.
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub phases: PhaseArgs,
    /// Publishing connections; each channel has one.
    #[arg(long, default_value_t = 1)]
    pub publishers: usize,
    /// Run the bare loops before and after, and tell ratios to them.
    #[arg(long)]
    pub limit: bool,
}

impl FanoutArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let server = self.server.server()?;
        demand(
            self.members >= server.channels,
            "there must be a member for each channel",
        )?;
        demand(self.publishers > 0, "somebody has to publish")?;
        demand(
            self.size >= payload::SMALLEST,
            &format!("a publication has at least {} bytes", payload::SMALLEST),
        )?;
        let load = match (self.in_flight, self.rate) {
            (Some(in_flight), _) if in_flight > 0 => Load::Closed { in_flight },
            (None, Some(rate)) if rate > 0.0 && rate.is_finite() => Load::Open { rate },
            _ => {
                return Err(Failure::Usage(
                    "--in-flight or --rate must be above 0".to_owned(),
                ));
            }
        };
        let in_flight = self.in_flight.unwrap_or(1);
        let sockets = self.members.min(limit::MOST_MEMBERS);
        let bare = self
            .limit
            .then(|| bare_plan(&self.bare, &self.common, sockets, self.size, in_flight))
            .transpose()?;
        let cores = self.common.cores.clone();
        let plan = fanout::Plan {
            server: &server,
            members: self.members,
            publishers: self.publishers,
            size: self.size,
            load,
            phases: self.phases.phases()?,
            limit: bare,
            cores: &cores,
        };
        conclude(self.common, "fanout", |report| fanout::run(&plan, report))
    }
}

#[derive(Args)]
pub struct HotRoomArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Subscribers.
    #[arg(long, default_value_t = hot_room::MEMBERS)]
    members: usize,
    /// Publications a second, by timetable.
    #[arg(long, value_name = "R", default_value_t = hot_room::RATE)]
    rate: f64,
    /// Bytes of a publication's data.
    #[arg(long, default_value_t = hot_room::SIZE)]
    size: usize,
    #[command(flatten)]
    phases: PhaseArgs,
}

impl HotRoomArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let server = self.server.server()?;
        demand(
            self.members >= server.channels,
            "there must be a member for each channel",
        )?;
        demand(
            self.rate.is_finite() && self.rate > 0.0 && self.size >= payload::SMALLEST,
            "a rate above 0 and a size that holds the proof are needed",
        )?;
        let cores = self.common.cores.clone();
        let plan = fanout::Plan {
            server: &server,
            members: self.members,
            publishers: 1,
            size: self.size,
            load: Load::Open { rate: self.rate },
            phases: self.phases.phases()?,
            limit: None,
            cores: &cores,
        };
        conclude(self.common, "hot-room", |report| {
            hot_room::run(&plan, report)
        })
    }
}
