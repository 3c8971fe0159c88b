//! What other nodes publish: which channels are followed, and what comes in them.
//!
//! A subscription counts from when the server has read it. The connection is first in, first out, so a message sent to
//! ourselves behind it, and come back, proves that: the *echo*. It is also the proof that the servers deliver at all.

use super::message;
use super::publish::subject;
use crate::backplane::{Health, Heard, Linked, Notice, Order};
use async_nats::connection::State;
use async_nats::{Client, Message, Statistics, Subscriber};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{SelectAll, Stream, StreamExt as _};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Most publications in one notice, and orders taken at a time.
pub(super) const BATCH: usize = 256;
/// Bytes in one notice, beside its last publication.
const BATCH_BYTES: usize = 256 * 1024;
/// Between two echoes when nothing is followed anew.
const ECHO_INTERVAL: Duration = Duration::from_secs(2);
/// How long a channel is followed after its last member left: who comes and goes costs the servers nothing.
const LINGER: Duration = Duration::from_secs(30);

/// A channel that is followed.
struct Followed {
    /// The life of the channel at its home that wants it.
    life: u32,
    /// The server has read the subscription.
    is_heard: bool,
    /// Nobody wants it since.
    left: Option<Instant>,
    /// Ends the subscription when it is dropped.
    _end: oneshot::Sender<()>,
}

/// Messages of one channel.
struct Incoming {
    channel: Arc<Linked>,
    messages: Subscriber,
    end: oneshot::Receiver<()>,
}

impl Stream for Incoming {
    type Item = (Arc<Linked>, Message);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.end.poll_unpin(cx).is_ready() {
            return Poll::Ready(None);
        }
        let message = std::task::ready!(this.messages.poll_next_unpin(cx));
        Poll::Ready(message.map(|message| (this.channel.clone(), message)))
    }
}

/// A message to ourselves that has not come back.
struct Echo {
    number: u64,
    sent: Instant,
    /// Channels, and their lives, that were followed before it.
    proves: Vec<(Arc<Linked>, u32)>,
}

struct Follower {
    client: Client,
    statistics: Arc<Statistics>,
    health: Arc<Health>,
    notices: mpsc::Sender<Notice>,
    channels: HashMap<Arc<str>, Followed>,
    incoming: SelectAll<Incoming>,
    inbox: String,
    echoes: VecDeque<Echo>,
    echo_number: u64,
    /// Messages taken out of the client's queues.
    taken: u64,
    /// Of all that came, what was known to be lost the last time that all queues were empty.
    lost: u64,
}

/// Nobody takes notices any more.
struct Over;

/// Follows and listens until nobody orders any more.
pub(super) async fn run(
    client: Client,
    mut orders: mpsc::UnboundedReceiver<Order>,
    notices: mpsc::Sender<Notice>,
    health: Arc<Health>,
) {
    let inbox = client.new_inbox();
    let mut echoes = match client.subscribe(inbox.clone()).await {
        Ok(echoes) => echoes,
        Err(error) => return tracing::error!(%error, "cannot listen to NATS"),
    };
    let mut follower = Follower {
        statistics: client.statistics(),
        client,
        health,
        notices,
        channels: HashMap::new(),
        incoming: SelectAll::new(),
        inbox,
        echoes: VecDeque::new(),
        echo_number: 0,
        taken: 0,
        lost: 0,
    };
    let mut ordered = Vec::with_capacity(BATCH);
    let mut beat = tokio::time::interval(ECHO_INTERVAL);
    loop {
        let went_on = tokio::select! {
            count = orders.recv_many(&mut ordered, BATCH) => match count {
                0 => return,
                _ => follower.obey(&mut ordered).await,
            },
            Some((channel, message)) = follower.incoming.next(), if !follower.incoming.is_empty() => {
                follower.pass_on(&channel, &message).await
            }
            Some(echo) = echoes.next() => follower.echoed(&echo).await,
            _ = beat.tick() => follower.beat().await,
        };
        if went_on.is_err() {
            return;
        }
    }
}

impl Follower {
    async fn obey(&mut self, orders: &mut Vec<Order>) -> Result<(), Over> {
        let mut asked = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::Follow { channel, life } => self.follow(channel, life, &mut asked).await?,
                Order::Unfollow { name, life } => {
                    if let Some(followed) = self.channels.get_mut(&name)
                        && followed.life == life
                    {
                        followed.left = Some(Instant::now());
                    }
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        self.health
            .followed
            .store(self.channels.len() as u64, Ordering::Relaxed);
        self.echo(asked).await
    }

    async fn follow(
        &mut self,
        channel: Arc<Linked>,
        life: u32,
        asked: &mut Vec<(Arc<Linked>, u32)>,
    ) -> Result<(), Over> {
        if let Some(followed) = self.channels.get_mut(&channel.name) {
            (followed.life, followed.left) = (life, None);
            if followed.is_heard {
                return self.tell(Notice::Followed { channel, life }).await;
            }
            asked.push((channel, life));
            return Ok(());
        }
        let messages = match self.client.subscribe(subject(&channel.name)).await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::error!(%error, "cannot follow a channel");
                return Err(Over);
            }
        };
        let (end, ended) = oneshot::channel();
        self.incoming.push(Incoming {
            channel: channel.clone(),
            messages,
            end: ended,
        });
        let followed = Followed {
            life,
            is_heard: false,
            left: None,
            _end: end,
        };
        self.channels.insert(channel.name.clone(), followed);
        asked.push((channel, life));
        Ok(())
    }

    /// Sends ourselves a message. Without a server it is not waited for: whatever is followed is so from the moment there is
    /// one, and until then nobody can publish.
    async fn echo(&mut self, proves: Vec<(Arc<Linked>, u32)>) -> Result<(), Over> {
        if self.client.connection_state() != State::Connected {
            return self.prove(proves).await;
        }
        self.echo_number += 1;
        let payload = Bytes::copy_from_slice(&self.echo_number.to_le_bytes());
        if let Err(error) = self.client.publish(self.inbox.clone(), payload).await {
            tracing::warn!(%error, "NATS took no message");
            return self.prove(proves).await;
        }
        self.echoes.push_back(Echo {
            number: self.echo_number,
            sent: Instant::now(),
            proves,
        });
        Ok(())
    }

    async fn echoed(&mut self, message: &Message) -> Result<(), Over> {
        self.taken += 1;
        let Ok(number) = <[u8; 8]>::try_from(&*message.payload).map(u64::from_le_bytes) else {
            return Ok(());
        };
        while self
            .echoes
            .front()
            .is_some_and(|echo| echo.number <= number)
        {
            let Some(echo) = self.echoes.pop_front() else {
                break;
            };
            if echo.number == number {
                self.health.echo(echo.sent.elapsed());
            }
            self.prove(echo.proves).await?;
        }
        Ok(())
    }

    /// What is published in these channels from now on is heard.
    async fn prove(&mut self, channels: Vec<(Arc<Linked>, u32)>) -> Result<(), Over> {
        for (channel, life) in channels {
            if let Some(followed) = self.channels.get_mut(&channel.name) {
                followed.is_heard = true;
                self.tell(Notice::Followed { channel, life }).await?;
            }
        }
        Ok(())
    }

    /// Passes on a publication, and all others that are here already.
    async fn pass_on(&mut self, channel: &Arc<Linked>, message: &Message) -> Result<(), Over> {
        let mut heard = Heard::default();
        self.take(&mut heard, channel, message);
        while heard.publications.len() < BATCH && heard.bytes.len() < BATCH_BYTES {
            let Some(Some((channel, message))) = self.incoming.next().now_or_never() else {
                break;
            };
            self.take(&mut heard, &channel, &message);
        }
        if heard.publications.is_empty() {
            return Ok(());
        }
        self.tell(Notice::Heard(heard)).await
    }

    fn take(&mut self, heard: &mut Heard, channel: &Arc<Linked>, message: &Message) {
        self.taken += 1;
        self.health.received.fetch_add(1, Ordering::Relaxed);
        let headers = message.headers.as_ref();
        match message::incoming(headers, &message.payload, &mut heard.bytes) {
            Ok(()) => {
                let end = heard.bytes.len();
                heard.publications.push((channel.clone(), end));
            }
            Err(message::Malformed) => {
                self.health.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(channel = &*channel.name, "a message that no gateway wrote");
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        let is_over = |followed: &Followed| followed.left.is_some_and(|at| now >= at + LINGER);
        self.channels.retain(|_, followed| !is_over(followed));
        self.health
            .followed
            .store(self.channels.len() as u64, Ordering::Relaxed);
        match self.incoming.next().now_or_never() {
            Some(Some((channel, message))) => self.pass_on(&channel, &message).await?,
            _ if self.echoes.is_empty() => self.count_lost(),
            _ => {}
        }
        // Events of the connection may be lost, its state is not.
        let is_connected = self.client.connection_state() == State::Connected;
        self.health.connected.store(is_connected, Ordering::Relaxed);
        // Echoes that the broken connection swallowed. Whatever is followed is so when there is another one.
        if !is_connected {
            let swallowed: Vec<_> = self.echoes.drain(..).collect();
            for echo in swallowed {
                self.prove(echo.proves).await?;
            }
        }
        self.echo(Vec::new()).await
    }

    /// When no queue holds anything, what came and was not taken is lost.
    fn count_lost(&mut self) {
        let came = self.statistics.in_messages.load(Ordering::Relaxed);
        let lost = came.saturating_sub(self.taken);
        if lost > self.lost {
            self.health
                .lost
                .fetch_add(lost - self.lost, Ordering::Relaxed);
            self.lost = lost;
        }
    }

    async fn tell(&self, notice: Notice) -> Result<(), Over> {
        self.notices.send(notice).await.map_err(|_| Over)
    }
}
