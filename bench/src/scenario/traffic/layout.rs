//! Who is in which channel, who publishes there, and on which thread.

use std::ops::Range;

use super::Group;
use super::Publishers;
use super::press::Schedule;
use super::room::Channel;
use crate::client::payload::Origin;
use crate::client::share::Share;
use crate::scenario::Server;

/// A run as one thread sees it.
pub(super) struct Layout {
    /// All of them.
    pub(super) channels: Vec<Channel>,
    /// Of each of the thread's own members.
    pub(super) channel_of: Vec<u32>,
    /// Of the channels the thread publishes into.
    pub(super) schedules: Vec<Schedule>,
    /// The thread's own, publishers among them.
    pub(super) connections: usize,
}

/// Connections are numbered group by group, publishers behind; each thread has its share of them.
pub(super) fn lay_out(
    server: &Server,
    groups: &[Group],
    publishers: Publishers,
    share: Share,
) -> Layout {
    let members: usize = groups.iter().map(|group| group.members).sum();
    let all: usize = groups.iter().map(|group| group.channels).sum();
    let apart = match publishers {
        Publishers::Apart(count) => count.min(all),
        Publishers::Members => 0,
    };
    let run_number = std::process::id() << 16;
    let mut layout = Layout {
        channels: Vec::with_capacity(all),
        channel_of: Vec::with_capacity(share.of(members)),
        schedules: Vec::new(),
        connections: share.of(members + apart),
    };
    let mut first_member = 0;
    for (at, group) in groups.iter().enumerate() {
        let first = layout.channels.len();
        let mut own = Vec::new();
        for offset in 0..group.channels {
            let number = first + offset;
            let publisher = match publishers {
                Publishers::Apart(_) => members + number % apart,
                Publishers::Members => first_member + offset,
            };
            let mut channel = Channel::new(
                server.channel(number),
                Origin::new(run_number | (publisher & 0xffff) as u32, number as u32),
                group,
                at,
            );
            channel.home = share.owner(publisher);
            channel.publisher = share.place(publisher);
            if channel.publisher.is_some() {
                own.push(offset);
                let members = first_member + offset..first_member + group.members;
                channel.listeners = listeners(share, members.step_by(group.channels));
            }
            layout.channels.push(channel);
        }
        if !own.is_empty() {
            let range = first..first + group.channels;
            layout.schedules.push(Schedule::new(range, own, group.load));
        }
        let members: Range<usize> = first_member..first_member + group.members;
        layout.channel_of.extend(share.range(members).map(|place| {
            let member = share.connection(place) - first_member;
            (first + member % group.channels) as u32
        }));
        first_member += group.members;
    }
    layout
}

/// The other threads that have some of a channel's `members`.
fn listeners(share: Share, members: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut threads = Vec::new();
    // At even distances, they are on the same threads again after as many members as there are threads.
    for member in members.take(share.threads()) {
        let thread = share.owner(member);
        if thread != share.number() && !threads.contains(&thread) {
            threads.push(thread);
        }
    }
    threads
}
