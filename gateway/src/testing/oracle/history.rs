//! Recoveries, and answers to history commands.

use super::{Fate, Oracle, Stamp, Verdict, violation};
use crate::protocol::centrifuge::client::{ClientPublication, Subscribed};
use crate::testing::net::Facts;

/// A history command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) limit: i32,
    pub(super) since: Option<u64>,
    pub(super) reverse: bool,
    pub(super) asked: Stamp,
}

impl Oracle {
    /// The reply to a subscribe that asked to recover everything after `from`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn recovered(
        &mut self,
        who: &str,
        member: usize,
        asked: Stamp,
        from: u64,
        epoch: &str,
        result: &Subscribed<'_>,
        facts: Facts,
    ) -> Verdict {
        let channel = self.memberships[member].channel.clone();
        let now = self.clock.millis();
        let book = &self.channels[&channel];
        if !result.recovered {
            self.tally.not_recovered += 1;
            // It must have had to say so. What is young and within the size is held, and so is the channel.
            let holds = |offset: u64| {
                let ttl = book.options.history_ttl.as_millis() as u64;
                book.offsets
                    .get(&offset)
                    .map(|id| self.publications[id].sent)
                    .is_some_and(|sent| {
                        now + 1000 < sent.millis + ttl && !book.may_be_removed(sent)
                    })
            };
            let top = result.offset;
            let is_due = book.is_epoch(epoch)
                && !self.profile.history_is_short
                && from <= top
                && if from == top {
                    holds(top)
                } else {
                    holds(from + 1)
                }
                && top - from <= u64::from(book.options.history_size);
            return match is_due {
                true => violation(format!(
                    "{who}: not recovered from {from}, though the channel is at {top}"
                )),
                false => Ok(()),
            };
        }
        self.tally.recovered += 1;
        self.memberships[member].is_recovered = true;
        if !book.is_epoch(epoch) {
            return violation(format!("{who}: recovered from another epoch, {epoch:?}"));
        }
        if result.offset != from {
            return violation(format!(
                "{who}: recovered from {from}, but the reply says {}",
                result.offset
            ));
        }
        let shard = self.connections[self.memberships[member].connection].shard;
        let top = book.top_before(asked, Some(shard));
        match &result.publications[..] {
            [] if top > from => violation(format!(
                "{who}: recovered from {from}, the channel was at {top}, but the reply shows nothing"
            )),
            [] => Ok(()),
            [first] => {
                self.tally.recovered_something += 1;
                self.sees(member, first, facts)
            }
            more => violation(format!("{who}: {} publications in the reply", more.len())),
        }
    }

    /// Whether what a recovered member needs next may be gone from the history by now. What it has not been sent yet is
    /// taken from there in pieces, and is not held for it.
    pub(super) fn may_have_lost_the_rest(&self, member: usize) -> bool {
        let member = &self.memberships[member];
        let (true, Some(offset)) = (member.is_recovered, member.offset) else {
            return false;
        };
        let book = &self.channels[&member.channel];
        let now = self.clock.millis();
        let ttl = book.options.history_ttl.as_millis() as u64;
        let next = offset + 1;
        // Where these stand nobody has seen: any of them may be the next, or the newest.
        let unplaced: Vec<Stamp> = book
            .sent
            .iter()
            .filter(|id| !book.is_placed(**id))
            .map(|id| &self.publications[id])
            .filter(|it| !it.skip_history && it.fate != Fate::Refused)
            .map(|it| it.sent)
            .collect();
        let top = book.offsets.last_key_value().map_or(0, |(top, _)| *top) + unplaced.len() as u64;
        let is_gone = |sent: &Stamp| now > sent.millis + ttl || book.may_be_removed(*sent);
        next + u64::from(book.options.history_size) <= top
            || match book.offsets.get(&next) {
                Some(id) => is_gone(&self.publications[id].sent),
                None => unplaced.iter().any(is_gone),
            }
    }

    /// The answer to a history command.
    pub(super) fn history(
        &mut self,
        who: &str,
        channel: &str,
        question: &Question,
        publications: &[ClientPublication<'_>],
        epoch: &str,
        top: u64,
    ) -> Verdict {
        let now = self.stamp();
        self.tally.histories += 1;
        let who = format!("{who}: history of {channel} ({question:?})");
        let book = self.book(channel);
        book.know_epoch(epoch)?;
        let before = book.top_before(question.asked, None);
        if top < before {
            return violation(format!("{who}: says {top}, but {before} was there before"));
        }
        book.know_top(now, None, top);
        let most = if question.limit < 0 {
            300
        } else {
            question.limit.min(300) as usize
        };
        if publications.len() > most {
            return violation(format!("{who}: {} publications", publications.len()));
        }
        let mut last = None;
        for publication in publications {
            let id = self.recognise(&who, channel, publication)?;
            let offset = publication.offset;
            self.book(channel).place(offset, id)?;
            let in_range = offset <= top
                && match question.since {
                    Some(since) if question.reverse => offset < since,
                    Some(since) => offset > since,
                    None => true,
                };
            let in_order = last
                .is_none_or(|last| offset == if question.reverse { last - 1 } else { last + 1 });
            if !in_range || !in_order {
                return violation(format!("{who}: offset {offset} behind {last:?}, top {top}"));
            }
            last = Some(offset);
        }
        // Without a limit that cuts it, what starts at an end of the stream reaches the end.
        let is_cut = publications.len() >= most;
        let reaches = match (question.reverse, publications.first(), publications.last()) {
            (false, _, Some(last)) => is_cut || last.offset == top,
            (true, Some(first), _) => question.since.is_some() || first.offset == top,
            _ => true,
        };
        match reaches {
            true => Ok(()),
            false => violation(format!("{who}: does not reach the top, {top}")),
        }
    }
}
