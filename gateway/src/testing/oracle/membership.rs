//! One subscription of one connection, from its reply to its end, and the publications seen in it.

use super::channel::ChannelBook;
use super::{ConnectionId, Fate, Oracle, Publisher, Stamp, Verdict, violation};
use crate::config::SlowPolicy;
use crate::protocol::centrifuge::client::ClientPublication;
use crate::testing::net::Facts;
use crate::testing::payload;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// The shadow of one membership.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) connection: ConnectionId,
    pub(crate) channel: Arc<str>,
    /// When the client read the subscribe reply: what is sent after it must arrive.
    pub(crate) started: Stamp,
    pub(crate) wants_joins: bool,
    /// It was told that it would get all it has missed.
    pub(crate) is_recovered: bool,
    /// The offset up to which it has everything; `None` until it is known.
    pub(crate) offset: Option<u64>,
    /// Publications seen, in order.
    pub(crate) seen: Vec<u64>,
    seen_set: HashSet<u64>,
    /// Publications may be missing from here on, or before: the policy is a silent one and the socket was short.
    pub(crate) may_have_gaps: bool,
}

impl Membership {
    pub(crate) fn new(
        connection: ConnectionId,
        channel: Arc<str>,
        started: Stamp,
        wants_joins: bool,
        offset: Option<u64>,
    ) -> Self {
        Self {
            connection,
            channel,
            started,
            wants_joins,
            is_recovered: false,
            offset,
            seen: Vec::new(),
            seen_set: HashSet::new(),
            may_have_gaps: false,
        }
    }
}

impl Oracle {
    /// A member reads a publication.
    pub(crate) fn sees(
        &mut self,
        index: usize,
        publication: &ClientPublication<'_>,
        facts: Facts,
    ) -> Verdict {
        let now = self.stamp();
        let (connection, channel) = {
            let member = &self.memberships[index];
            (member.connection, member.channel.clone())
        };
        let who = format!("connection {connection} in {channel}");
        let id = self.recognise(&who, &channel, publication)?;
        self.digest(id ^ (connection as u64) << 32);
        self.tally.deliveries += 1;
        let shard = self.connections[connection].shard;
        let book = self.channels.get_mut(&channel).expect("recognised");
        let member = &mut self.memberships[index];
        member.may_have_gaps |=
            (facts.was_short || self.profile.logs_are_small()) && book.may_skip();
        if !member.seen_set.insert(id) {
            return violation(format!("{who}: publication {id} came twice"));
        }
        if publication.offset > 0 {
            book.place(publication.offset, id)?;
            book.know_top(now, Some(shard), publication.offset);
            match member.offset {
                Some(before) if publication.offset <= before => {
                    return violation(format!(
                        "{who}: offset {} after {before}",
                        publication.offset
                    ));
                }
                Some(before) if publication.offset != before + 1 => {
                    if !member.may_have_gaps {
                        return violation(format!(
                            "{who}: offset {} after {before}: {} publications are missing, and nobody said so",
                            publication.offset,
                            publication.offset - before - 1
                        ));
                    }
                    self.tally.skipped += publication.offset - before - 1;
                }
                _ => {}
            }
            member.offset = Some(publication.offset);
        } else if !book.has_history
            && let Some(before) = member.seen.last()
        {
            let witness = book.follows.entry((*before, id)).or_default();
            if !member.may_have_gaps {
                witness.get_or_insert(index);
            }
        }
        member.seen.push(id);
        Ok(())
    }

    /// Which publication this is, if it is one of this channel, whole, and not one that was refused.
    pub(crate) fn recognise(
        &mut self,
        who: &str,
        channel: &str,
        publication: &ClientPublication<'_>,
    ) -> Result<u64, super::Violation> {
        let Some(id) = payload::identify(publication.data) else {
            return violation(format!(
                "{who}: a publication that nobody made: {:?}",
                publication.data
            ));
        };
        let Some(published) = self.publications.get(&id) else {
            return violation(format!("{who}: publication {id}, which nobody sent"));
        };
        if published.data != publication.data {
            return violation(format!("{who}: publication {id} is not as it was sent"));
        }
        if &*published.channel != channel {
            return violation(format!(
                "{who}: publication {id} belongs to {}",
                published.channel
            ));
        }
        if published.fate == Fate::Refused {
            return violation(format!("{who}: publication {id} was refused"));
        }
        if published.key != publication.key {
            return violation(format!(
                "{who}: publication {id} has key {:?}",
                publication.key
            ));
        }
        let stored = self.channels[channel].has_history && !published.skip_history;
        if stored != (publication.offset > 0) {
            return violation(format!(
                "{who}: publication {id} has offset {}",
                publication.offset
            ));
        }
        let publisher = match published.publisher {
            Publisher::Client(connection) => self.connections[connection].client.as_deref(),
            Publisher::Control => None,
        };
        let shown = publication.info.as_ref().map(|info| &*info.client);
        if publisher != shown {
            return violation(format!(
                "{who}: publication {id} is by {publisher:?}, not {shown:?}"
            ));
        }
        Ok(id)
    }

    /// All is quiet: the member has everything that was sent after it subscribed and accepted.
    pub(super) fn nothing_is_missing(&self, member: usize, facts: Facts) -> Verdict {
        let member = &self.memberships[member];
        let book = &self.channels[&member.channel];
        let due = || {
            book.sent.iter().filter(|id| {
                let published = &self.publications[id];
                published.is_accepted()
                    && published.sent > member.started
                    && !published.skip_history
            })
        };
        let who = || format!("connection {} in {}", member.connection, member.channel);
        let loses = (facts.was_short || self.profile.logs_are_small()) && book.may_skip();
        // The newest of a key may be one that is not kept.
        let has_unnumbered = book
            .sent
            .iter()
            .any(|id| self.publications[id].skip_history);
        // Whatever is skipped, the newest of all is not, unless the policy is to go on at the head.
        if let (Some(offset), Some((top, _))) = (member.offset, book.offsets.last_key_value())
            && offset < *top
            && !(loses && (book.options.slow != SlowPolicy::Latest || has_unnumbered))
        {
            return violation(format!(
                "{}: has got to offset {offset}, the channel to {top}",
                who()
            ));
        }
        if !loses {
            return match due().find(|id| !member.seen_set.contains(id)) {
                Some(id) => violation(format!("{}: publication {id} never came", who())),
                None => Ok(()),
            };
        }
        if book.options.slow != SlowPolicy::Latest {
            return Ok(());
        }
        // Of each key the newest must be there.
        let keys: BTreeSet<&str> = due().map(|id| &*self.publications[id].key).collect();
        for key in keys {
            let newest = self.may_be_newest(book, key);
            if !newest.iter().any(|id| member.seen_set.contains(id)) {
                return violation(format!(
                    "{}: the newest of key {key:?}, one of {newest:?}, never came",
                    who()
                ));
            }
        }
        Ok(())
    }

    /// Which publications may be the newest of a key, as far as their publishers know. Each one's are ordered among
    /// themselves; what was accepted before another was sent is older than that. What nobody was told of, or what is not
    /// kept, may be newer, but need not be there.
    fn may_be_newest(&self, book: &ChannelBook, key: &str) -> Vec<u64> {
        let mut newest: BTreeMap<Publisher, Vec<u64>> = BTreeMap::new();
        let mut last_sent = None;
        for id in &book.sent {
            let published = &self.publications[id];
            if published.key != key || published.fate == Fate::Refused {
                continue;
            }
            let mine = newest.entry(published.publisher).or_default();
            if published.is_accepted() && !published.skip_history {
                mine.clear();
                last_sent = Some(published.sent);
            }
            mine.push(*id);
        }
        let is_older = |id: &u64| match self.publications[id].fate {
            Fate::Accepted(answered) => last_sent.is_some_and(|sent| answered < sent),
            _ => false,
        };
        newest
            .into_values()
            .flatten()
            .filter(|id| !is_older(id))
            .collect()
    }
}
