//! Rooms, and the queue of one member. One thread, so no locks.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;

use super::LONGEST_QUEUE;

/// What waits for one connection. One task waits on it.
pub struct Outbox<T>(RefCell<State<T>>);

struct State<T> {
    frames: VecDeque<T>,
    ending: Ending,
    /// Who waits for frames, and for an overflow.
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

#[derive(PartialEq)]
enum Ending {
    None,
    /// Nothing is added; what waits still goes out.
    Finished,
    Overflown,
}

impl<T> Outbox<T> {
    /// An empty one.
    pub fn new() -> Rc<Self> {
        Rc::new(Self(RefCell::new(State {
            frames: VecDeque::new(),
            ending: Ending::None,
            reader: None,
            watcher: None,
        })))
    }

    /// Adds a frame behind the others.
    pub fn push(&self, frame: T) {
        let mut state = self.0.borrow_mut();
        if state.ending != Ending::None {
            return;
        }
        if state.frames.len() == LONGEST_QUEUE {
            state.ending = Ending::Overflown;
            state.frames = VecDeque::new();
            wake(&mut state.watcher);
        } else {
            state.frames.push_back(frame);
        }
        wake(&mut state.reader);
    }

    /// Takes no more: the connection ends when what waits has gone.
    pub fn finish(&self) {
        let mut state = self.0.borrow_mut();
        if state.ending == Ending::None {
            state.ending = Ending::Finished;
            wake(&mut state.reader);
        }
    }

    /// Waits for frames and hands all of them to `take`; none when the connection is over.
    pub async fn drain<R>(&self, take: impl Fn(&mut VecDeque<T>) -> R) -> Option<R> {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            match (state.frames.is_empty(), &state.ending) {
                (false, _) => Poll::Ready(Some(take(&mut state.frames))),
                (true, Ending::None) => {
                    state.reader = Some(context.waker().clone());
                    Poll::Pending
                }
                (true, _) => Poll::Ready(None),
            }
        })
        .await
    }

    /// Both halves of a connection. Whichever ends first ends it, as does an overflow: dropping the others cancels what they
    /// have submitted.
    pub async fn attend(
        &self,
        receiving: impl Future<Output = ()>,
        sending: impl Future<Output = ()>,
    ) {
        tokio::select! {
            biased;
            () = receiving => {}
            () = sending => {}
            () = self.overflow() => {}
        }
    }

    /// Waits until the member has fallen too far behind.
    async fn overflow(&self) {
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if state.ending == Ending::Overflown {
                return Poll::Ready(());
            }
            state.watcher = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

impl Outbox<Bytes> {
    /// Waits for frames, for one write: a single one as it is shared, several put together.
    pub async fn joined(&self) -> Option<Bytes> {
        self.drain(|frames| {
            if frames.len() == 1 {
                return frames.pop_front().expect("one");
            }
            let mut all = Vec::with_capacity(frames.iter().map(Bytes::len).sum());
            for frame in frames.drain(..) {
                all.extend_from_slice(&frame);
            }
            all.into()
        })
        .await
    }
}

type Room<T> = Rc<RefCell<Vec<Rc<Outbox<T>>>>>;

/// All rooms that have members, by path.
pub struct Rooms<T>(RefCell<HashMap<String, Room<T>>>);

/// A connection's place in a room; dropping it leaves the room.
pub struct Seat<T> {
    rooms: Rc<Rooms<T>>,
    path: String,
    room: Room<T>,
    outbox: Rc<Outbox<T>>,
}

impl<T: Clone> Rooms<T> {
    /// None yet.
    pub fn new() -> Rc<Self> {
        Rc::new(Self(RefCell::default()))
    }

    /// Enters the room of this path; `/echo` is a room for each.
    pub fn enter(self: &Rc<Self>, path: &str, outbox: &Rc<Outbox<T>>) -> Seat<T> {
        let room = match path {
            "/echo" => Room::default(),
            _ => {
                let mut rooms = self.0.borrow_mut();
                Rc::clone(rooms.entry(path.to_owned()).or_default())
            }
        };
        room.borrow_mut().push(Rc::clone(outbox));
        Seat {
            rooms: Rc::clone(self),
            path: path.to_owned(),
            room,
            outbox: Rc::clone(outbox),
        }
    }
}

impl<T: Clone> Seat<T> {
    /// Gives a frame to all members.
    pub fn say(&self, frame: &T) {
        for member in self.room.borrow().iter() {
            member.push(frame.clone());
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let mut members = self.room.borrow_mut();
        let place = members
            .iter()
            .position(|member| Rc::ptr_eq(member, &self.outbox));
        members.swap_remove(place.expect("a member until now"));
        if members.is_empty() {
            self.rooms.0.borrow_mut().remove(&self.path);
        }
    }
}
