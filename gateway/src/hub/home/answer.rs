//! Answering: fetches of views, queries of clients and of the server API.

use super::Homes;
use crate::hub::lane::Rendition;
use crate::hub::links::{Links, put};
use crate::hub::message::{Message, Query, ReplyTo, Response, Span};
use crate::hub::recover::INDEX_ENTRY;
use crate::ids::{Now, ShardId};
use crate::protocol::centrifuge::{
    Encoding, push_publication, reply_error, reply_history, reply_presence, reply_presence_stats,
};
use crate::protocol::codes::ReplyError;
use std::sync::Arc;

/// A fetch as it arrives: see [`Message::Fetch`].
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug)]
pub struct FetchOrder<'a> {
    pub name: &'a str,
    pub hash: u64,
    pub view: u32,
    pub generation: u32,
    pub rendition: Rendition,
    pub from: u64,
    pub limit_bytes: u32,
}

/// A query as it arrives.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub name: &'a str,
    pub hash: u64,
    pub query: Query,
    /// The epoch of a history query; empty: any.
    pub epoch: &'a str,
    pub id: u32,
    pub encoding: Encoding,
    pub reply: ReplyTo,
}

impl Homes {
    /// Gives a view the records after an offset, as frames: all there are when they fit, so that one fetch serves
    /// whoever comes next. A shard that is lost is given none for now: it will ask again.
    pub fn fetch(&mut self, from: ShardId, order: &FetchOrder<'_>, now: Now, links: &mut Links) {
        let index = self.find(order.name, order.hash);
        if let Some(index) = index {
            self.expire(index, now);
        }
        let (floor, top) = index.map_or((self.high_water, self.high_water), |i| {
            (self.homes[i].floor, self.homes[i].top)
        });
        let history = index.and_then(|i| self.homes[i].history.as_deref());
        let whole = history.is_some_and(|h| h.bytes() <= u64::from(order.limit_bytes));
        let mut start = if whole {
            floor.min(order.from)
        } else {
            order.from
        }
        .max(floor);
        if links.is_full(from) {
            links.to(from).messages.push(Message::Fetched {
                view: order.view,
                generation: order.generation,
                rendition: order.rendition,
                from: order.from,
                upto: order.from,
                floor,
                complete: false,
                frames: Span::default(),
                index: Span::default(),
                not_json: false,
            });
            return;
        }
        let out = &mut self.render[0];
        out.clear();
        let index_bytes = &mut self.numbered;
        index_bytes.clear();
        let (mut upto, mut complete, mut not_json) = (start, true, false);
        let first = start;
        for record in history.iter().flat_map(|h| h.after(first)) {
            if record.offset <= start {
                continue;
            }
            let is_full = out.len() + record.publication.len() > order.limit_bytes as usize;
            if is_full && !out.is_empty() {
                if upto > order.from {
                    complete = false;
                    break;
                }
                // It is larger as frames than as records. An answer must hold something after what was asked for.
                out.clear();
                index_bytes.clear();
                (start, upto) = (order.from, order.from);
                if record.offset <= order.from {
                    continue;
                }
            }
            let before = out.len();
            if push_publication(
                out,
                order.rendition.encoding,
                order.name,
                &record.publication,
                None,
                record.json,
            )
            .is_err()
            {
                if record.offset <= order.from {
                    // Nobody who asks needs it: begin behind it.
                    out.clear();
                    index_bytes.clear();
                    (start, upto) = (record.offset, record.offset);
                    continue;
                }
                (complete, not_json) = (false, true);
                break;
            }
            index_bytes.extend_from_slice(&record.offset.to_le_bytes());
            index_bytes.extend_from_slice(&((out.len() - before) as u32).to_le_bytes());
            upto = record.offset;
        }
        debug_assert_eq!(index_bytes.len() % INDEX_ENTRY, 0);
        if complete {
            upto = top;
        }
        let batch = links.to(from);
        let frames = put(batch, out);
        let index = put(batch, index_bytes);
        batch.messages.push(Message::Fetched {
            view: order.view,
            generation: order.generation,
            rendition: order.rendition,
            from: start,
            upto,
            floor,
            complete,
            frames,
            index,
            not_json,
        });
    }

    /// Answers a client with a whole frame. A shard for which too much is staged is told "too many requests".
    pub fn query(&mut self, from: ShardId, asked: &Asked<'_>, now: Now, links: &mut Links) {
        let index = self.find(asked.name, asked.hash);
        if let Some(index) = index {
            self.expire(index, now);
        }
        let home = index.map(|i| &self.homes[i]);
        let mut out = std::mem::take(&mut self.render[0]);
        out.clear();
        let error = match asked.query {
            _ if links.is_full_of_answers(from) => Some(ReplyError::TOO_MANY_REQUESTS),
            Query::Presence => {
                let presence = home.and_then(|h| h.presence.as_deref());
                let clients: Vec<_> = presence
                    .into_iter()
                    .flat_map(|p| p.clients())
                    .map(|(id, info)| (id.text(), info))
                    .collect();
                let clients: Vec<_> = clients
                    .iter()
                    .map(|(id, info)| (id.as_str(), *info))
                    .collect();
                reply_presence(&mut out, asked.encoding, asked.id, &clients);
                None
            }
            Query::PresenceStats => {
                let (clients, users) = home
                    .and_then(|h| h.presence.as_ref())
                    .map_or((0, 0), |p| p.counts());
                reply_presence_stats(&mut out, asked.encoding, asked.id, clients, users);
                None
            }
            Query::History { .. } if !asked.epoch.is_empty() && asked.epoch != &*self.epoch => {
                Some(ReplyError::UNRECOVERABLE_POSITION)
            }
            Query::History {
                limit,
                since,
                reverse,
                ..
            } => {
                let records = home
                    .and_then(|h| h.history.as_deref())
                    .filter(|_| limit > 0);
                let mut records =
                    records.map_or(Vec::new(), |h| h.select(since, reverse, limit as usize));
                // One publication is always given; more as far as they fit.
                let mut room = self.config.limits.publication_bytes as usize;
                let fitting = records.iter().take_while(|record| {
                    let fits = room > 0;
                    room = room.saturating_sub(record.publication.len());
                    fits
                });
                let fitting = fitting.count();
                records.truncate(fitting);
                let publications: Vec<_> = records.iter().map(|r| &*r.publication).collect();
                let top = home.map_or(self.high_water, |h| h.top);
                reply_history(
                    &mut out,
                    asked.encoding,
                    asked.id,
                    &publications,
                    &self.epoch,
                    top,
                )
                .err()
                .map(|_| ReplyError::NOT_AVAILABLE)
            }
        };
        if let Some(error) = error {
            out.clear();
            reply_error(&mut out, asked.encoding, asked.id, error, None);
        }
        let batch = links.to(from);
        let frame: Span = put(batch, &out);
        let error = error.map_or(0, |e| e.code);
        batch.messages.push(Message::Answer {
            reply: asked.reply,
            frame,
            error,
        });
        self.render[0] = out;
    }

    /// Records for the server API.
    pub fn history(
        &mut self,
        name: &str,
        limit: Option<u32>,
        since: Option<(u64, &str)>,
        reverse: bool,
        now: Now,
    ) -> Response {
        if since.is_some_and(|(_, epoch)| !epoch.is_empty() && *epoch != *self.epoch) {
            return Response::Failed(ReplyError::UNRECOVERABLE_POSITION);
        }
        let index = self.find(name, self.keys.hash(name));
        if let Some(index) = index {
            self.expire(index, now);
        }
        let home = index.map(|i| &self.homes[i]);
        let limit = limit.map_or(usize::MAX, |l| l as usize);
        let records = home
            .and_then(|h| h.history.as_deref())
            .map_or(Vec::new(), |h| {
                h.select(since.map(|(offset, _)| offset), reverse, limit)
            });
        Response::History {
            publications: records.iter().map(|r| r.publication.clone()).collect(),
            offset: home.map_or(self.high_water, |h| h.top),
            epoch: self.epoch.clone(),
        }
    }

    /// Drops all records of a channel; its position stays, and is given back (0: there were none).
    pub fn history_remove(&mut self, name: &str, links: &mut Links) -> u64 {
        let Some(index) = self.find(name, self.keys.hash(name)) else {
            return 0;
        };
        let home = &mut self.homes[index];
        let Some(history) = home.history.take() else {
            return 0;
        };
        home.floor = home.top;
        self.history_bytes -= history.bytes();
        let top = home.top;
        self.free_if_unused(index, links);
        top
    }

    /// Who is in a channel.
    pub fn presence(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let home = self
            .find(name, self.keys.hash(name))
            .map(|i| &self.homes[i]);
        let presence = home.and_then(|h| h.presence.as_deref());
        presence
            .into_iter()
            .flat_map(|p| p.clients())
            .map(|(id, info)| (id.text().as_str().to_owned(), info.to_vec()))
            .collect()
    }

    /// Connections and users in a channel.
    pub fn presence_stats(&self, name: &str) -> (u32, u32) {
        let home = self
            .find(name, self.keys.hash(name))
            .map(|i| &self.homes[i]);
        home.and_then(|h| h.presence.as_ref())
            .map_or((0, 0), |p| p.counts())
    }

    /// The epoch of every channel of this boot.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }
}
