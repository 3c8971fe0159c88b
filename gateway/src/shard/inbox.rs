//! What other threads, and this one, say.

use super::Core;
use crate::connection::Awaited;
use crate::hub::home::answer::{Asked, FetchOrder};
use crate::hub::home::publish::Incoming;
use crate::hub::message::{Message, Query};
use crate::hub::recover::Piece;
use crate::hub::view::Appended;
use crate::ids::ShardId;
use crate::limit::Limit;
use crate::mailbox::Batch;
use crate::protocol::centrifuge::{reply_error, reply_publish};
use crate::protocol::codes::{Disconnect, ReplyError};

/// Batches taken from one peer in one tick: a busy one does not starve the others, nor the sends.
const BATCHES_A_TICK: usize = 8;

impl Core {
    pub(super) fn drain_inboxes(&mut self) {
        for peer in 0..self.links.peers() {
            let peer = ShardId(peer);
            for _ in 0..BATCHES_A_TICK {
                let Some(batch) = self.links.take_from(peer) else {
                    break;
                };
                self.stats.batches += 1;
                self.batch(peer, &batch);
                self.links.recycle(peer, batch);
            }
        }
    }

    /// Handles what this shard has told itself.
    pub(super) fn drain_local(&mut self) {
        while let Some(batch) = self.links.take_local() {
            self.batch(self.id, &batch);
            self.links.recycle_local(batch);
        }
    }

    fn batch(&mut self, from: ShardId, batch: &Batch<Message>) {
        for message in &batch.messages {
            self.message_of(from, message, &batch.bytes);
        }
    }

    fn message_of(&mut self, from: ShardId, message: &Message, bytes: &[u8]) {
        let text = |span: crate::hub::message::Span| {
            std::str::from_utf8(span.of(bytes)).unwrap_or_default()
        };
        match message {
            Message::Attach {
                name,
                hash,
                namespace,
                view,
                generation,
                lanes,
            } => {
                self.homes.attach(
                    from,
                    name,
                    *hash,
                    *namespace,
                    *view,
                    *generation,
                    *lanes,
                    &mut self.links,
                );
            }
            Message::Detach {
                name,
                hash,
                generation,
            } => self
                .homes
                .detach(from, name, *hash, *generation, &mut self.links),
            Message::Followed { channel, life } => {
                let name = text(channel.name);
                self.homes
                    .followed(name, channel.hash, *life, &mut self.links);
            }
            Message::Heard {
                channel,
                publication,
            } => {
                let incoming = Incoming {
                    name: text(channel.name),
                    hash: channel.hash,
                    namespace: channel.namespace,
                    publication: publication.of(bytes),
                    json: false,
                    skip_history: false,
                };
                self.homes.publish(&incoming, self.now, &mut self.links);
            }
            Message::Publish {
                channel,
                publication,
                json,
                reply,
            } => {
                let incoming = Incoming {
                    name: text(channel.name),
                    hash: channel.hash,
                    namespace: channel.namespace,
                    publication: publication.of(bytes),
                    json: *json,
                    skip_history: false,
                };
                self.homes.publish(&incoming, self.now, &mut self.links);
                self.links.to(from).messages.push(Message::Published {
                    reply: *reply,
                    error: None,
                });
            }
            Message::Member {
                channel,
                client,
                info,
                change,
            } => {
                let channel = (text(channel.name), channel.hash, channel.namespace);
                self.homes
                    .member(channel, *client, info.of(bytes), *change, &mut self.links);
            }
            Message::Query {
                channel,
                query,
                id,
                encoding,
                reply,
            } => {
                let epoch = match query {
                    Query::History { epoch, .. } => text(*epoch),
                    _ => "",
                };
                let asked = Asked {
                    name: text(channel.name),
                    hash: channel.hash,
                    query: *query,
                    epoch,
                    id: *id,
                    encoding: *encoding,
                    reply: *reply,
                };
                self.homes.query(from, &asked, self.now, &mut self.links);
            }
            Message::Fetch {
                channel,
                view,
                generation,
                rendition,
                from: offset,
                limit_bytes,
            } => {
                let order = FetchOrder {
                    name: text(channel.name),
                    hash: channel.hash,
                    view: *view,
                    generation: *generation,
                    rendition: *rendition,
                    from: *offset,
                    limit_bytes: *limit_bytes,
                };
                self.homes.fetch(from, &order, self.now, &mut self.links);
            }
            Message::Attached {
                name,
                view,
                generation,
                lanes,
                top,
            } => {
                let life = (*view, *generation);
                self.hub
                    .on_attached(name, life, *lanes, *top, &mut self.waiters);
            }
            Message::Missed { view, generation } => {
                if self.hub.on_missed(*view, *generation, &mut self.links) {
                    self.broken(*view);
                }
            }
            Message::Append {
                view,
                generation,
                offset,
                prev,
                frames,
                sideband,
                not_json,
                key,
            } => {
                let appended = self.hub.on_append(
                    *view,
                    *generation,
                    (*prev, *offset),
                    *frames,
                    *sideband,
                    *not_json,
                    *key,
                    bytes,
                    self.now.millis,
                );
                match appended {
                    Appended::Done => {}
                    Appended::Broken { view } => self.broken(view),
                    Appended::NotJson { view } => {
                        let slots: Vec<u32> = self.hub.json_members(view).collect();
                        for slot in slots {
                            self.close(self.token(slot), Disconnect::INAPPROPRIATE_PROTOCOL);
                        }
                    }
                }
            }
            Message::Fetched {
                view,
                generation,
                rendition,
                from,
                upto,
                floor,
                complete,
                frames,
                index,
                not_json,
            } => {
                let piece = Piece {
                    view: *view,
                    generation: *generation,
                    rendition: *rendition,
                    from: *from,
                    upto: *upto,
                    floor: *floor,
                    complete: *complete,
                    frames: frames.of(bytes),
                    index: index.of(bytes),
                    not_json: *not_json,
                };
                let mut ready = std::mem::take(&mut self.stalled);
                self.hub
                    .on_fetched(&piece, self.now.millis, &mut self.waiters, &mut ready);
                for slot in ready.drain(..) {
                    if self.conns.contains(slot) {
                        self.rescan.insert(slot);
                        self.make_ready(slot);
                    }
                }
                self.stalled = ready;
            }
            Message::Published { reply, error } => {
                if let Some(error) = error {
                    self.count_error(error.code);
                }
                self.answered(*reply, |out, encoding, awaited| {
                    let Awaited::Publish(id) = awaited else {
                        return;
                    };
                    match error {
                        None => reply_publish(out, encoding, id),
                        Some(error) => reply_error(out, encoding, id, *error, None),
                    }
                });
            }
            Message::Answer {
                reply,
                frame,
                error,
            } => {
                if *error > 0 {
                    self.count_error(*error);
                }
                let is_too_much = self.has_too_much(reply.token, frame.len as usize);
                if is_too_much {
                    self.count_error(ReplyError::TOO_MANY_REQUESTS.code);
                }
                self.answered(*reply, |out, encoding, awaited| match awaited {
                    Awaited::Answer(id) if is_too_much => {
                        reply_error(out, encoding, id, ReplyError::TOO_MANY_REQUESTS, None);
                    }
                    _ => out.extend_from_slice(frame.of(bytes)),
                });
            }
            Message::UserArrived { user, reply } => {
                let limit = if reply.is_some() {
                    self.config.client.user_connection_limit
                } else {
                    0
                };
                let mut admitted = self.users.arrive(text(*user), limit);
                if !admitted && !self.stats.limits.refuses(Limit::UserConnections) {
                    admitted = self.users.arrive(text(*user), 0);
                }
                if let Some(reply) = reply {
                    let batch = self.links.to(from);
                    let user = crate::hub::links::put(batch, user.of(bytes));
                    batch.messages.push(Message::Admitted {
                        reply: *reply,
                        user,
                        admitted,
                    });
                }
            }
            Message::UserLeft { user } => self.users.leave(text(*user), self.now.unix_seconds()),
            Message::Admitted {
                reply,
                user,
                admitted,
            } => self.admitted(*reply, text(*user), *admitted),
            Message::Knock { address, token } => {
                let now = self.now.nanos;
                let verdict = self.addresses.arrive(*address, now, &mut self.stats.limits);
                self.links.to(from).messages.push(Message::Knocked {
                    address: *address,
                    token: *token,
                    verdict,
                });
            }
            Message::Knocked {
                address,
                token,
                verdict,
            } => self.knocked(*token, *address, *verdict),
            Message::AddressLeft { address } => self.addresses.leave(*address),
            Message::UserSpent(report) => {
                let ahead = self.meters.reported(*report, self.now.nanos);
                self.links.to(from).messages.push(Message::UserPaced {
                    user: report.user,
                    ahead,
                });
            }
            Message::UserPaced { user, ahead } => {
                self.meters.raise(*user, *ahead, self.now.nanos);
            }
            Message::Request { id, request } => self.request(*id, request),
            // Those are for the control thread.
            Message::Response { .. }
            | Message::KeyWanted { .. }
            | Message::Follow { .. }
            | Message::Unfollow { .. } => {}
        }
    }
}
