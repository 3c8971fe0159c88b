//! What links nodes.
//!
//! Without one (the embedded backplane: one node, in memory) a channel's home decides by itself: it numbers a publication the
//! moment it arrives, and the epoch names the boot. There is nothing to do on this floor then.
//!
//! With [`nats`], a publication in a *linked* channel goes from the shard of the client, or from the API, by the control thread
//! to the servers; what comes from there goes to the channel's home on every node that follows it, the sender's own included:
//! one path and one order for each publisher. A node follows a channel while it has members, and some time longer.
//! Shards never meet this floor: the control thread's driver ([`crate::control::peers`]) stands between, with mailboxes
//! to the shards and [`Backplane`] and [`Notice`] to here.

pub mod nats;

use crate::hub::message::ReplyTo;
use crate::ids::ShardId;
use crate::protocol::codes::ReplyError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// Bytes of publications that wait to be handed over; beyond it they are refused with error 111.
const WAITING_BYTES: usize = 16 << 20;
/// What a publication costs of that beside its bytes.
const PUBLISH_BYTES: usize = 512;
/// How long a publication waits to be handed over; after that it is answered with error 100.
const PATIENCE: Duration = Duration::from_secs(5);
/// The servers are taken to deliver when they did so this long ago.
const ECHO_MAX: Duration = Duration::from_secs(10);

/// A channel that other nodes may publish in, as its home named it.
#[derive(Debug)]
pub struct Linked {
    /// The name,
    pub name: Arc<str>,
    /// its keyed hash
    pub hash: u64,
    /// and namespace.
    pub namespace: u16,
    /// The shard that is its home.
    pub home: ShardId,
}

/// Who is told what became of a publication.
#[derive(Debug)]
pub enum Asker {
    /// A client of this shard.
    Client(ShardId, ReplyTo),
    /// The API.
    Caller(oneshot::Sender<Result<(), ReplyError>>),
}

/// A publication on its way to the other nodes.
#[derive(Debug)]
pub struct Publish {
    channel: Box<str>,
    /// Canonical, without an offset.
    publication: Vec<u8>,
    asker: Asker,
    deadline: Instant,
    _room: OwnedSemaphorePermit,
}

/// What a home wants to hear.
#[derive(Debug)]
pub enum Order {
    /// From now on.
    Follow {
        /// In which channel.
        channel: Arc<Linked>,
        /// The channel's life at its home.
        life: u32,
    },
    /// No longer.
    Unfollow {
        /// In which channel.
        name: Arc<str>,
        /// The life that ended.
        life: u32,
    },
}

/// Publications that have come: canonical, end to end.
#[derive(Debug, Default)]
pub struct Heard {
    /// The channel of each, and where in `bytes` it ends.
    pub publications: Vec<(Arc<Linked>, usize)>,
    /// All of them.
    pub bytes: Vec<u8>,
}

/// What the backplane tells the shards.
#[derive(Debug)]
pub enum Notice {
    /// What is published from now on is heard.
    Followed {
        /// In which channel.
        channel: Arc<Linked>,
        /// For which life of it.
        life: u32,
    },
    /// Publications.
    Heard(Heard),
    /// What became of a client's publication.
    Published {
        /// On which shard it is.
        shard: ShardId,
        /// Who waits.
        reply: ReplyTo,
        /// Why not.
        error: Option<ReplyError>,
    },
}

/// How the backplane is, and what it did. Written and read on the control thread.
#[derive(Debug, Default)]
pub struct Health {
    /// Since when it is measured.
    started: std::sync::OnceLock<Instant>,
    connected: AtomicBool,
    /// When a message that was sent to itself last came back, milliseconds after `started`; 0: never.
    echoed: AtomicU64,
    /// How long that took.
    rtt_nanos: AtomicU64,
    connects: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    malformed: AtomicU64,
    lost: AtomicU64,
    followed: AtomicU64,
}

/// The same, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// A server is connected.
    pub is_connected: bool,
    /// It is, and what is sent comes back.
    pub delivers: bool,
    /// How long the last message took to come back.
    pub rtt: Duration,
    /// Times that it was connected again.
    pub reconnects: u64,
    /// Publications handed to it.
    pub sent: u64,
    /// Publications that came from it.
    pub received: u64,
    /// Of those, ones that could not be read.
    pub malformed: u64,
    /// Messages that came and that nobody could take in time, or wanted any more.
    pub lost: u64,
    /// Channels followed.
    pub followed: u64,
}

impl Health {
    fn now_millis(&self) -> u64 {
        let started = self.started.get_or_init(Instant::now);
        1 + started.elapsed().as_millis() as u64
    }

    fn echo(&self, took: Duration) {
        let rtt = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.rtt_nanos.store(rtt, Ordering::Relaxed);
        self.echoed.store(self.now_millis(), Ordering::Relaxed);
    }

    fn condition(&self) -> Condition {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (is_connected, echoed) = (self.connected.load(Ordering::Relaxed), read(&self.echoed));
        let quiet = Duration::from_millis(self.now_millis().saturating_sub(echoed));
        Condition {
            is_connected,
            delivers: is_connected && echoed > 0 && quiet < ECHO_MAX,
            rtt: Duration::from_nanos(read(&self.rtt_nanos)),
            reconnects: read(&self.connects).saturating_sub(1),
            sent: read(&self.sent),
            received: read(&self.received),
            malformed: read(&self.malformed),
            lost: read(&self.lost),
            followed: read(&self.followed),
        }
    }
}

/// The way to the backplane. Cheap to clone; its tasks end when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Backplane {
    publishes: mpsc::UnboundedSender<Publish>,
    orders: mpsc::UnboundedSender<Order>,
    room: Arc<Semaphore>,
    health: Arc<Health>,
}

impl Backplane {
    fn new(
        publishes: mpsc::UnboundedSender<Publish>,
        orders: mpsc::UnboundedSender<Order>,
        health: Arc<Health>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        Self {
            publishes,
            orders,
            room,
            health,
        }
    }

    /// Takes a publication, canonical and without an offset. The asker is told when it is on its way, which is all that can be
    /// known of a channel that nobody keeps.
    ///
    /// # Errors
    /// 111 when too much waits already; 100 when there is no backplane any more.
    pub fn publish(
        &self,
        channel: &str,
        publication: Vec<u8>,
        asker: Asker,
    ) -> Result<(), ReplyError> {
        // The window fits into u32.
        let bytes = (publication.len() + PUBLISH_BYTES).min(WAITING_BYTES) as u32;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        let publish = Publish {
            channel: channel.into(),
            publication,
            asker,
            deadline: Instant::now() + PATIENCE,
            _room: room.map_err(|_| ReplyError::TOO_MANY_REQUESTS)?,
        };
        self.publishes
            .send(publish)
            .map_err(|_| ReplyError::INTERNAL)
    }

    /// Passes on what a home wants.
    pub fn order(&self, order: Order) {
        // Without a backplane nobody publishes either; the node is going down.
        let _ = self.orders.send(order);
    }

    /// How it is.
    pub fn condition(&self) -> Condition {
        self.health.condition()
    }

    /// Counts what a shard could not be given.
    pub fn count_lost(&self, publications: u64) {
        self.health.lost.fetch_add(publications, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backplane() -> (Backplane, mpsc::UnboundedReceiver<Publish>) {
        let (publishes, taken) = mpsc::unbounded_channel();
        let (orders, _) = mpsc::unbounded_channel();
        let health = Arc::new(Health::default());
        (Backplane::new(publishes, orders, health), taken)
    }

    #[tokio::test(start_paused = true)]
    async fn it_delivers_while_it_is_connected_and_what_is_sent_comes_back() {
        let (backplane, _taken) = backplane();
        let delivers = || backplane.condition().delivers;
        assert!(!delivers());
        backplane.health.connected.store(true, Ordering::Relaxed);
        assert!(!delivers(), "nothing has come back yet");
        backplane.health.echo(Duration::from_millis(3));
        assert!(delivers());
        assert_eq!(backplane.condition().rtt, Duration::from_millis(3));
        tokio::time::advance(ECHO_MAX - Duration::from_millis(2)).await;
        assert!(delivers());
        tokio::time::advance(Duration::from_millis(2)).await;
        assert!(!delivers(), "nothing came back for long");
        backplane.health.echo(Duration::from_millis(3));
        backplane.health.connected.store(false, Ordering::Relaxed);
        assert!(!delivers());
    }

    #[tokio::test]
    async fn what_waits_for_the_servers_is_bounded() {
        let (backplane, mut taken) = backplane();
        let publish = |bytes: usize| {
            let (told, _) = oneshot::channel();
            backplane.publish("c", vec![0; bytes], Asker::Caller(told))
        };
        let half = WAITING_BYTES / 2 - PUBLISH_BYTES;
        assert_eq!(publish(half), Ok(()));
        assert_eq!(publish(half), Ok(()));
        assert_eq!(publish(0), Err(ReplyError::TOO_MANY_REQUESTS));
        drop(taken.recv().await);
        assert_eq!(publish(half), Ok(()));
        drop(taken);
        assert_eq!(publish(0), Err(ReplyError::INTERNAL));
    }
}
