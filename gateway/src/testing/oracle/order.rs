//! The order of publications in one channel: one for all members, and each publisher's own.

use super::{Oracle, Verdict, violation};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Bits by index.
#[derive(Clone)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// The first index in both.
    fn first_common(&self, other: &Self) -> Option<usize> {
        self.0
            .iter()
            .zip(&other.0)
            .enumerate()
            .find_map(|(word, (a, b))| {
                let both = a & b;
                (both != 0).then(|| word * 64 + both.trailing_zeros() as usize)
            })
    }
}

impl Oracle {
    /// In a channel without offsets: what all members together saw fits one order, and nobody missed what others saw
    /// between two publications that it got one behind the other.
    pub(super) fn one_order(&self, channel: &str) -> Verdict {
        let book = &self.channels[channel];
        let mut number: BTreeMap<u64, usize> = BTreeMap::new();
        for (a, b) in book.follows.keys() {
            for id in [a, b] {
                let next = number.len();
                number.entry(*id).or_insert(next);
            }
        }
        let ids: Vec<u64> = {
            let mut ids = vec![0; number.len()];
            number.iter().for_each(|(id, at)| ids[*at] = *id);
            ids
        };
        let mut behind = vec![Vec::new(); ids.len()];
        let mut ahead = vec![Vec::new(); ids.len()];
        for (a, b) in book.follows.keys() {
            behind[number[a]].push(number[b]);
            ahead[number[b]].push(number[a]);
        }
        let mut waits: Vec<usize> = ahead.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..ids.len()).filter(|at| waits[*at] == 0).collect();
        let mut done = 0;
        while let Some(at) = order.get(done).copied() {
            done += 1;
            for next in &behind[at] {
                waits[*next] -= 1;
                if waits[*next] == 0 {
                    order.push(*next);
                }
            }
        }
        if order.len() != ids.len() {
            let torn: Vec<u64> = (0..ids.len())
                .filter(|at| waits[*at] > 0)
                .map(|at| ids[at])
                .take(8)
                .collect();
            return violation(format!(
                "{channel}: members disagree about the order of {torn:?}"
            ));
        }
        let (mut before, mut after) = (
            vec![Bits::new(ids.len()); ids.len()],
            vec![Bits::new(ids.len()); ids.len()],
        );
        for at in &order {
            for earlier in &ahead[*at] {
                let reach = before[*earlier].clone();
                before[*at].join(&reach);
                before[*at].set(*earlier);
            }
        }
        for at in order.iter().rev() {
            for later in &behind[*at] {
                let reach = after[*later].clone();
                after[*at].join(&reach);
                after[*at].set(*later);
            }
        }
        for ((a, b), witness) in &book.follows {
            if let Some(witness) = witness
                && let Some(missed) = after[number[a]].first_common(&before[number[b]])
            {
                let connection = self.memberships[*witness].connection;
                return violation(format!(
                    "connection {connection} in {channel}: saw {b} right behind {a}, but {} is between them",
                    ids[missed]
                ));
            }
        }
        Ok(())
    }

    /// A member saw each publisher's publications in the order in which they were sent, and none between them is missing.
    pub(super) fn publishers_in_order(&self, member: usize) -> Verdict {
        let member = &self.memberships[member];
        let book = &self.channels[&member.channel];
        let seen: HashSet<u64> = member.seen.iter().copied().collect();
        // The last one seen of each publisher; with and without an offset travel apart.
        let mut last = HashMap::new();
        let place: HashMap<u64, usize> = book
            .sent
            .iter()
            .enumerate()
            .map(|(at, id)| (*id, at))
            .collect();
        for id in &member.seen {
            let lane = (
                self.publications[id].publisher,
                self.publications[id].skip_history,
            );
            let Some(before) = last.insert(lane, place[id]) else {
                continue;
            };
            let who = || format!("connection {} in {}", member.connection, member.channel);
            if place[id] < before {
                return violation(format!(
                    "{}: {id} came after {}, sent later",
                    who(),
                    book.sent[before]
                ));
            }
            if member.may_have_gaps || lane.1 {
                continue;
            }
            let missed = book.sent[before + 1..place[id]].iter().find(|between| {
                let published = &self.publications[between];
                (published.publisher, published.skip_history) == lane
                    && published.is_accepted()
                    && !seen.contains(between)
            });
            if let Some(missed) = missed {
                return violation(format!(
                    "{}: {missed} is missing between two of its publisher",
                    who()
                ));
            }
        }
        Ok(())
    }
}
