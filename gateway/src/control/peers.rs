//! The control thread's way to the shards: questions go out by mailbox, answers come back by mailbox, nobody blocks.
//!
//! [`Shards`] is the handle that the HTTP handlers hold; [`Driver`] owns the mailboxes and runs as one task. To a shard
//! the control thread is one more peer, behind the last shard.
//!
//! # Invariants
//! * Questions of one caller to one shard arrive in the order they were started; so do publishes of a caller that awaits
//!   each answer.
//! * What waits for one shard is bounded by its window: callers wait for room, they do not pile up requests. A shard that
//!   never answers keeps its window closed, and callers time out.

use super::lock;
use crate::backplane::{Asker as Publisher, Backplane, Heard, Linked, Notice, Order};
use crate::hub::links::put;
use crate::hub::message::{ChannelRef, Message, Request, RequestId, Response};
use crate::ids::ShardId;
use crate::mailbox::{BEHIND_PATIENCE, Batch, Inbox, Outbox, Waker, acknowledge};
use crate::protocol::codes::ReplyError;
use crate::protocol::token::TokenKind;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// How long an answer is waited for. A shard answers within a tick, so this is only reached when something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of unanswered questions for one shard; a larger question takes the whole window.
const WINDOW_BYTES: usize = 4 << 20;
/// What a question costs of the window beside its payload.
const QUESTION_BYTES: usize = 512;
/// Bytes of publications from other nodes that wait for a shard that is behind; more are lost, and counted.
const HEARD_BYTES: usize = 64 << 20;
/// Notices of the backplane taken before the shards' answers are looked for again.
const NOTICES_A_TURN: usize = 16;

/// Says which shard is home of what.
#[derive(Clone)]
pub struct Homes {
    channel: Arc<dyn Fn(&str) -> ShardId + Send + Sync>,
    user: Arc<dyn Fn(&str) -> ShardId + Send + Sync>,
}

impl Homes {
    /// By the home of a channel's name and the home of a user.
    pub fn new(
        channel: impl Fn(&str) -> ShardId + Send + Sync + 'static,
        user: impl Fn(&str) -> ShardId + Send + Sync + 'static,
    ) -> Self {
        Self {
            channel: Arc::new(channel),
            user: Arc::new(user),
        }
    }
}

/// The mailboxes between the control thread and one shard.
#[derive(Debug)]
pub struct Link {
    /// Control thread → shard; its waker is the shard's.
    pub outbox: Outbox<Message>,
    /// Shard → control thread; its waker is the one given to [`shards`].
    pub inbox: Inbox<Message>,
}

/// Joins the mailboxes of all shards, in their order, to a handle and the task that must be run for it.
/// `waker` and `eventfd` are what [`Waker::eventfd`] made for this thread.
/// `backplane`: what links this node to others, if anything does.
pub fn shards(
    links: Vec<Link>,
    waker: &Waker,
    eventfd: OwnedFd,
    homes: Homes,
    backplane: Option<(Backplane, mpsc::Receiver<Notice>)>,
) -> (Shards, Driver) {
    let windows = links
        .iter()
        .map(|_| Arc::new(Semaphore::new(WINDOW_BYTES)))
        .collect();
    // What waits here holds a part of a window, so it is bounded.
    let (intake, questions) = mpsc::unbounded_channel();
    let keys_wanted = KeysWanted::default();
    let (backplane, notices) = backplane.unzip();
    let shards = Shards {
        intake,
        windows,
        homes,
        keys_wanted: keys_wanted.clone(),
        backplane: backplane.clone(),
    };
    let sleeper = waker.sleeper();
    (
        shards,
        Driver {
            links,
            sleeper,
            eventfd,
            questions,
            unanswered: HashMap::new(),
            next_id: 0,
            keys_wanted,
            backplane,
            notices,
        },
    )
}

/// The shards that want keys, by the kind of token. What is told while nobody listens is kept.
#[derive(Clone, Default)]
struct KeysWanted(Arc<[(Notify, Mutex<Vec<ShardId>>); TokenKind::ALL.len()]>);

impl KeysWanted {
    fn tell(&self, kind: TokenKind, shard: ShardId) {
        let (told, shards) = &self.0[kind as usize];
        lock(shards).push(shard);
        told.notify_one();
    }

    async fn take(&self, kind: TokenKind) -> Vec<ShardId> {
        let (told, shards) = &self.0[kind as usize];
        told.notified().await;
        std::mem::take(&mut lock(shards))
    }
}

/// Asks shards. Cheap to clone; the driver ends when the last one is dropped.
#[derive(Clone)]
pub struct Shards {
    intake: mpsc::UnboundedSender<Question>,
    windows: Arc<[Arc<Semaphore>]>,
    homes: Homes,
    keys_wanted: KeysWanted,
    backplane: Option<Backplane>,
}

struct Question {
    shard: ShardId,
    request: Request,
    asker: Asker,
}

struct Asker {
    answer: oneshot::Sender<Response>,
    /// Given back with the answer.
    _window: Option<OwnedSemaphorePermit>,
}

/// An answer that is on its way.
pub struct Pending {
    answer: oneshot::Receiver<Response>,
    deadline: Instant,
}

impl Pending {
    /// Waits for it; error 100 when it does not come in time.
    pub async fn answer(self) -> Response {
        match timeout_at(self.deadline, self.answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) | Err(_) => Response::Failed(ReplyError::INTERNAL),
        }
    }
}

impl Shards {
    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// What links this node to others, if anything does.
    pub fn backplane(&self) -> Option<&Backplane> {
        self.backplane.as_ref()
    }

    /// Waits until shards want a key that they do not have; which do. Each asks again only when it is answered.
    pub async fn key_wanted(&self, kind: TokenKind) -> Vec<ShardId> {
        self.keys_wanted.take(kind).await
    }

    /// The shard that is home of a channel.
    pub fn home_of(&self, channel: &str) -> ShardId {
        (self.homes.channel)(channel)
    }

    /// The shard that is home of a user.
    pub fn home_of_user(&self, user: &str) -> ShardId {
        (self.homes.user)(user)
    }

    /// Asks one shard. No answer within [`PATIENCE`] is `Failed` with error 100.
    pub async fn ask(&self, shard: ShardId, request: Request) -> Response {
        self.ask_within(shard, request, PATIENCE).await
    }

    /// Asks one shard, with another patience.
    pub async fn ask_within(
        &self,
        shard: ShardId,
        request: Request,
        patience: Duration,
    ) -> Response {
        self.start_within(shard, request, patience)
            .await
            .answer()
            .await
    }

    /// Asks every shard at the same time; the answers come in the order of the shards. What was begun is carried out even
    /// if the caller goes away.
    pub async fn ask_all(&self, request: &Request) -> Vec<Response> {
        self.ask_all_within(request, PATIENCE).await
    }

    /// Asks every shard, with another patience.
    pub async fn ask_all_within(&self, request: &Request, patience: Duration) -> Vec<Response> {
        let asks: Vec<_> = (0..self.count())
            .map(|shard| {
                let (shards, request) = (self.clone(), request.clone());
                let shard = ShardId(u16::try_from(shard).expect("shards are numbered by u16"));
                tokio::spawn(async move { shards.ask_within(shard, request, patience).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            answers.push(ask.await.unwrap_or(Response::Failed(ReplyError::INTERNAL)));
        }
        answers
    }

    /// Hands a question over without waiting for its answer. Waits only for room in the shard's window.
    pub async fn start(&self, shard: ShardId, request: Request) -> Pending {
        self.start_within(shard, request, PATIENCE).await
    }

    /// Hands a question over, with another patience.
    pub async fn start_within(
        &self,
        shard: ShardId,
        request: Request,
        patience: Duration,
    ) -> Pending {
        let deadline = Instant::now() + patience;
        let (sender, answer) = oneshot::channel();
        let pending = Pending { answer, deadline };
        let window = match cost(&request) {
            None => None,
            Some(bytes) => {
                let window = Arc::clone(&self.windows[shard.index()]);
                match timeout_at(deadline, window.acquire_many_owned(bytes)).await {
                    Ok(Ok(permit)) => Some(permit),
                    // The sender is dropped: the answer will be error 100.
                    Ok(Err(_)) | Err(_) => return pending,
                }
            }
        };
        let asker = Asker {
            answer: sender,
            _window: window,
        };
        // Fails when the driver has ended: the sender is dropped with the question, the answer will be error 100.
        let _ = self.intake.send(Question {
            shard,
            request,
            asker,
        });
        pending
    }
}

/// Bytes of the window a question takes; `None`: it must get through even when the window is full.
fn cost(request: &Request) -> Option<u32> {
    let payload = match request {
        // Keys, too: a shard that is not told never asks again.
        Request::Drain { .. } | Request::Stop | Request::Keys { .. } => return None,
        Request::Publish { publication, .. } => publication.len(),
        Request::Disconnect { whitelist, .. } => {
            whitelist.iter().map(|client| client.len() + 24).sum()
        }
        _ => 0,
    };
    // The window fits into u32.
    Some((payload + QUESTION_BYTES).min(WINDOW_BYTES) as u32)
}

/// The task that moves messages. It owns the mailboxes.
pub struct Driver {
    links: Vec<Link>,
    sleeper: crate::mailbox::Sleeper,
    eventfd: OwnedFd,
    questions: mpsc::UnboundedReceiver<Question>,
    unanswered: HashMap<RequestId, Asker>,
    next_id: RequestId,
    keys_wanted: KeysWanted,
    backplane: Option<Backplane>,
    notices: Option<mpsc::Receiver<Notice>>,
}

/// The next notice; never, without a backplane.
async fn next(notices: &mut Option<mpsc::Receiver<Notice>>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.recv().await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Moves messages until the last [`Shards`] is dropped. Run it as a task of the control thread's runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the eventfd.
    pub async fn run(mut self) -> std::io::Result<()> {
        #[allow(
            deprecated,
            reason = "its replacement is unsafe; an OwnedFd keeps its descriptor, which is all that asks for"
        )]
        let eventfd = AsyncFd::with_interest(self.eventfd.try_clone()?, Interest::READABLE)?;
        loop {
            self.take_answers();
            while let Ok(question) = self.questions.try_recv() {
                self.stage(question);
            }
            self.take_notices();
            let behind = self.publish();
            self.sleeper.prepare_park();
            // After the park is announced each inbox is looked into once more: what came before it wakes nobody.
            let waited = if self.links.iter().all(|link| link.inbox.is_empty()) {
                tokio::select! {
                    question = self.questions.recv() => match question {
                        Some(question) => {
                            self.stage(question);
                            Ok(())
                        }
                        None => break,
                    },
                    notice = next(&mut self.notices) => match notice {
                        Some(notice) => {
                            self.notice(notice);
                            Ok(())
                        }
                        None => {
                            tracing::error!("the backplane has ended; the process ends");
                            std::process::exit(1);
                        }
                    },
                    woken = eventfd.readable() => woken.map(|guard| take_wake(guard)),
                    () = tokio::time::sleep(BEHIND_PATIENCE), if behind => Ok(()),
                }
            } else {
                // Handlers get their turn even while shards never stop answering.
                tokio::task::yield_now().await;
                Ok(())
            };
            self.sleeper.unpark();
            waited?;
        }
        self.sleeper.unpark();
        Ok(())
    }

    fn stage(
        &mut self,
        Question {
            shard,
            request,
            asker,
        }: Question,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        self.unanswered.insert(id, asker);
        self.links[shard.index()]
            .outbox
            .batch()
            .messages
            .push(Message::Request {
                id,
                request: Box::new(request),
            });
    }

    fn take_notices(&mut self) {
        for _ in 0..NOTICES_A_TURN {
            let Some(Ok(notice)) = self.notices.as_mut().map(mpsc::Receiver::try_recv) else {
                return;
            };
            self.notice(notice);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Followed { channel, life } => {
                let batch = self.links[channel.home.index()].outbox.batch();
                let channel = channel_ref(&channel, batch);
                batch.messages.push(Message::Followed { channel, life });
            }
            Notice::Heard(heard) => self.heard(&heard),
            Notice::Published {
                shard,
                reply,
                error,
            } => {
                let batch = self.links[shard.index()].outbox.batch();
                batch.messages.push(Message::Published { reply, error });
            }
        }
    }

    fn heard(&mut self, heard: &Heard) {
        let mut start = 0;
        for (channel, end) in &heard.publications {
            let publication = &heard.bytes[start..*end];
            start = *end;
            let outbox = &mut self.links[channel.home.index()].outbox;
            if outbox.backlog_bytes() > HEARD_BYTES {
                if let Some(backplane) = &self.backplane {
                    backplane.count_lost(1);
                }
                continue;
            }
            let batch = outbox.batch();
            let channel = channel_ref(channel, batch);
            let publication = put(batch, publication);
            batch.messages.push(Message::Heard {
                channel,
                publication,
            });
        }
    }

    /// Hands over what is staged; true when a ring was full and it must be tried again soon.
    fn publish(&mut self) -> bool {
        let mut behind = false;
        for link in &mut self.links {
            behind |= !link.outbox.publish();
        }
        behind
    }

    fn take_answers(&mut self) {
        for (shard, link) in self.links.iter_mut().enumerate() {
            while let Some(mut batch) = link.inbox.take() {
                for message in batch.messages.drain(..) {
                    match message {
                        Message::Response { id, response } => {
                            if let Some(asker) = self.unanswered.remove(&id) {
                                // Nobody listens any more when the caller's patience ended.
                                let _ = asker.answer.send(*response);
                            }
                        }
                        Message::KeyWanted { kind } => {
                            self.keys_wanted.tell(kind, ShardId(shard as u16));
                        }
                        Message::Publish {
                            channel,
                            publication,
                            reply,
                            ..
                        } => {
                            let Some(backplane) = &self.backplane else {
                                continue;
                            };
                            let name = channel.name.of(&batch.bytes);
                            let publication = publication.of(&batch.bytes).to_vec();
                            let asker = Publisher::Client(ShardId(shard as u16), reply);
                            let name = std::str::from_utf8(name).unwrap_or_default();
                            if let Err(error) = backplane.publish(name, publication, asker) {
                                let error = Some(error);
                                let answer = Message::Published { reply, error };
                                link.outbox.batch().messages.push(answer);
                            }
                        }
                        Message::Follow {
                            name,
                            hash,
                            namespace,
                            life,
                        } => {
                            let home = ShardId(shard as u16);
                            let channel = Arc::new(Linked {
                                name,
                                hash,
                                namespace,
                                home,
                            });
                            if let Some(backplane) = &self.backplane {
                                backplane.order(Order::Follow { channel, life });
                            }
                        }
                        Message::Unfollow { name, life } => {
                            if let Some(backplane) = &self.backplane {
                                backplane.order(Order::Unfollow { name, life });
                            }
                        }
                        // Between shards.
                        _ => {}
                    }
                }
                link.inbox.recycle(batch);
            }
        }
    }
}

/// A channel as a message names it.
fn channel_ref(channel: &Linked, batch: &mut Batch<Message>) -> ChannelRef {
    ChannelRef {
        hash: channel.hash,
        name: put(batch, channel.name.as_bytes()),
        namespace: channel.namespace,
    }
}

/// Takes the wake out of the eventfd, so that the next wait waits.
fn take_wake(mut guard: AsyncFdReadyGuard<'_, OwnedFd>) {
    acknowledge(guard.get_inner());
    guard.clear_ready();
}
