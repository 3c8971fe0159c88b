//! What the control thread asks for.

use super::Core;
use crate::hub::home::publish::Incoming;
use crate::hub::message::{Request, RequestId, Response};
use crate::protocol::codes::Unsubscribed;

impl Core {
    pub(super) fn request(&mut self, id: RequestId, request: &Request) {
        let response = match request {
            Request::Publish {
                channel,
                publication,
                json,
                skip_history,
            } => {
                let namespace = self.namespace_index(channel);
                let incoming = Incoming {
                    name: channel,
                    hash: self.keys.hash(channel),
                    namespace,
                    publication,
                    json: *json,
                    skip_history: *skip_history,
                };
                let position = self.homes.publish(&incoming, self.now, &mut self.links);
                Response::Published { position }
            }
            Request::History {
                channel,
                limit,
                since,
                reverse,
            } => {
                let since = since.as_ref().map(|(offset, epoch)| (*offset, &**epoch));
                self.homes
                    .history(channel, *limit, since, *reverse, self.now)
            }
            Request::HistoryRemove { channel } => Response::HistoryRemoved {
                top: self.homes.history_remove(channel, &mut self.links),
            },
            Request::HistoryForget { channel, upto } => {
                let hash = self.keys.hash(channel);
                self.hub.forget_history(channel, hash, *upto);
                Response::Done { count: 0 }
            }
            Request::Presence { channel } => Response::Presence {
                clients: self.homes.presence(channel),
            },
            Request::PresenceStats { channel } => {
                let (clients, users) = self.homes.presence_stats(channel);
                Response::PresenceStats { clients, users }
            }
            Request::Unsubscribe {
                user,
                channel,
                client,
            } => self.unsubscribe_user(user, channel.as_deref(), client.as_deref()),
            Request::Disconnect {
                user,
                client,
                whitelist,
                code,
                reason,
            } => {
                let mut count = 0;
                for token in self.connections_of(user) {
                    let Some(identity) =
                        self.conns.get(token.slot).and_then(|c| c.identity.as_ref())
                    else {
                        continue;
                    };
                    let text = identity.client.text();
                    let is_meant = client.as_deref().is_none_or(|c| c == text.as_str());
                    if is_meant && !whitelist.iter().any(|w| w == text.as_str()) {
                        self.close_with(token, *code, reason);
                        count += 1;
                    }
                }
                Response::Done { count }
            }
            Request::Keys {
                kind,
                keys,
                answers,
            } => {
                self.tokens
                    .receive_keys(*kind, keys.clone(), *answers, self.now);
                Response::Done { count: 0 }
            }
            Request::Channels => Response::Channels {
                channels: self.hub.channels().collect(),
            },
            Request::Stats => Response::Stats(Box::new(self.stats_now())),
            Request::UserStatus { user } => {
                let (connections, last_seen) = self.users.status(user);
                Response::UserStatus {
                    connections,
                    last_seen,
                }
            }
            // Answered when it is over.
            Request::Drain { millis } => return self.start_drain(id, *millis),
            Request::Stop => {
                self.is_stopped = true;
                Response::Done {
                    count: self.conns.len() as u64,
                }
            }
        };
        self.respond(id, response);
    }

    fn namespace_index(&self, channel: &str) -> u16 {
        // The control thread has checked the name; a namespace it knows, we know.
        crate::protocol::channel::ChannelName::parse(channel)
            .ok()
            .and_then(|name| self.config.channels.find(name.namespace()))
            .unwrap_or(0)
    }

    fn unsubscribe_user(
        &mut self,
        user: &str,
        channel: Option<&str>,
        client: Option<&str>,
    ) -> Response {
        let mut count = 0;
        for token in self.connections_of(user) {
            let Some(conn) = self.conns.get(token.slot) else {
                continue;
            };
            let Some(identity) = &conn.identity else {
                continue;
            };
            if client.is_some_and(|c| c != identity.client.text().as_str()) {
                continue;
            }
            let mut views: Vec<u32> = match channel {
                Some(channel) => self
                    .hub
                    .find(channel, self.keys.hash(channel))
                    .into_iter()
                    .collect(),
                None => self.views_of(token),
            };
            views.sort_unstable();
            views.dedup();
            for view in views {
                if self.main_sub(token, view).is_some() {
                    self.end_subscription(token, view, Unsubscribed::SERVER);
                    count += 1;
                } else if self.drop_subscription(token, view, Some(Unsubscribed::SERVER)) {
                    count += 1;
                }
            }
        }
        Response::Done { count }
    }

    fn stats_now(&mut self) -> crate::stats::ShardStats {
        let s = &mut self.stats;
        s.connections = u64::from(self.open);
        s.blocked = u64::from(self.blocked.len());
        s.channels = self
            .hub
            .views
            .iter()
            .filter(|(_, v)| v.subscriptions > 0)
            .count() as u64;
        s.subscriptions = self
            .hub
            .views
            .iter()
            .map(|(_, v)| u64::from(v.subscriptions))
            .sum();
        s.homes = self.homes.len() as u64;
        s.publications = self.homes.publications;
        s.deflated_publications = self.homes.deflated();
        s.deflated_replies = self.deflater.done;
        s.inflated = self.inflater.done;
        s.log_bytes = self.hub.pool.bytes_in_use();
        s.history_bytes = self.homes.history_bytes();
        s.users = self.users.online() as u64;
        s.clone()
    }
}
