//! `fanout` and `hot-room` on the command line.

use clap::Args;

use super::rooms::{PublicationArgs, RoomsArgs, TimetableArgs};
use super::{BareArgs, Failure, PhaseArgs, bare_plan, conclude};
use crate::report::Report;
use crate::scenario::{Load, fanout, hot_room, limit};

#[derive(Args)]
pub struct FanoutArgs {
    #[command(flatten)]
    rooms: RoomsArgs,
    #[command(flatten)]
    bare: BareArgs,
    #[command(flatten)]
    publications: PublicationArgs,
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
    #[command(flatten)]
    phases: PhaseArgs,
    /// Run the bare loops before and after, and tell ratios to them.
    #[arg(long)]
    limit: bool,
}

impl FanoutArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let in_flight = self.in_flight.unwrap_or(1);
        let load = match self.rate {
            Some(rate) => Load::Open { rate },
            None => Load::Closed { in_flight },
        };
        let body = self.publications.body()?;
        let rooms = self.rooms.rooms(self.publications.publishers, body, load)?;
        let common = self.rooms.common;
        let sockets = rooms.members.min(limit::MOST_MEMBERS);
        let bare = self
            .limit
            .then(|| bare_plan(&self.bare, &common, sockets, body.typical(), in_flight))
            .transpose()?;
        let plan = fanout::Plan {
            rooms,
            phases: self.phases.phases()?,
            limit: bare,
        };
        conclude(common, "fanout", |report| fanout::run(&plan, report))
    }
}

#[derive(Args)]
#[command(
    mut_arg("members", |arg| arg.default_value("18000")),
    mut_arg("rate", |arg| arg.default_value("278")),
)]
pub struct HotRoomArgs {
    #[command(flatten)]
    rooms: RoomsArgs,
    #[command(flatten)]
    timetable: TimetableArgs,
}

impl HotRoomArgs {
    /// Runs it.
    pub fn run(self) -> Result<Report, Failure> {
        let plan = fanout::Plan {
            rooms: self.timetable.rooms(&self.rooms)?,
            phases: self.timetable.phases.phases()?,
            limit: None,
        };
        conclude(self.rooms.common, "hot-room", |report| {
            hot_room::run(&plan, report)
        })
    }
}
