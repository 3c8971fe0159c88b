//! `fanout` on the command line.

use clap::Args;

use super::server::ServerArgs;
use super::{BareArgs, CommonArgs, Failure, bare_plan, conclude, demand, seconds};
use crate::client::payload;
use crate::report::Report;
use crate::scenario::{fanout, limit};

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
    /// The measured window.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Before the window.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub warm_up: f64,
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
            (Some(in_flight), _) if in_flight > 0 => fanout::Load::Closed { in_flight },
            (None, Some(rate)) if rate > 0.0 && rate.is_finite() => fanout::Load::Open { rate },
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
            warm_up: seconds(self.warm_up)?,
            window: seconds(self.seconds)?,
            limit: bare,
            cores: &cores,
        };
        conclude(self.common, "fanout", |report| fanout::run(&plan, report))
    }
}
