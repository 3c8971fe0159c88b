//! Who a connection is, from its connect on.

use crate::ids::ClientId;

/// User and client id, and what only some have.
#[derive(Debug)]
pub struct Identity {
    /// The user; "" is anonymous.
    pub user: Box<str>,
    /// This connection's id.
    pub client: ClientId,
    /// Unix seconds when the connection expires; 0: never.
    pub expire_at: u64,
    /// What only some connections have.
    pub extras: Extras,
}

const _: () = assert!(std::mem::size_of::<Identity>() <= 48);

/// `conn_info`, and [`SubExtra`]s by view. Most connections have neither: one word then.
#[derive(Debug, Default)]
pub struct Extras(Option<Box<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    conn_info: Box<[u8]>,
    subs: Vec<SubExtra>,
}

/// What a subscription token said.
#[derive(Debug)]
pub struct SubExtra {
    /// The subscription's view.
    pub view: u32,
    /// `chan_info`; empty: none.
    pub chan_info: Box<[u8]>,
    /// Unix seconds when the subscription expires; 0: never.
    pub expire_at: u64,
    /// When the timer that looks after that comes, in milliseconds of the shard's clock; 0: there is none. Only that one
    /// counts: whoever subscribes again and again must not leave a timer behind each time.
    pub due: u64,
}

impl Extras {
    /// With `conn_info`, from the token; empty: none.
    pub fn new(conn_info: Vec<u8>) -> Self {
        let mut extras = Self::default();
        extras.set_conn_info(conn_info);
        extras
    }

    /// Keeps another `conn_info`, or none.
    pub fn set_conn_info(&mut self, conn_info: Vec<u8>) {
        if self.0.is_some() || !conn_info.is_empty() {
            self.0.get_or_insert_default().conn_info = conn_info.into();
            self.give_back();
        }
    }

    /// What is kept for a view.
    pub fn get(&self, view: u32) -> Option<&SubExtra> {
        self.0.as_ref()?.subs.iter().find(|e| e.view == view)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, view: u32) -> Option<&mut SubExtra> {
        self.0.as_mut()?.subs.iter_mut().find(|e| e.view == view)
    }

    /// Where nothing is kept, nothing is held.
    fn give_back(&mut self) {
        let is_empty = |kept: &Kept| kept.conn_info.is_empty() && kept.subs.is_empty();
        if self.0.as_deref().is_some_and(is_empty) {
            self.0 = None;
        }
    }

    /// Keeps `chan_info` and `expire_at` for a view; when both are empty, nothing but the timer that is to come.
    pub fn set(&mut self, view: u32, chan_info: Box<[u8]>, expire_at: u64) {
        let is_timed = self.get(view).is_some_and(|e| e.due > 0);
        if chan_info.is_empty() && expire_at == 0 && !is_timed {
            if let Some(kept) = &mut self.0 {
                kept.subs.retain(|e| e.view != view);
            }
            self.give_back();
        } else if let Some(extra) = self.get_mut(view) {
            extra.chan_info = chan_info;
            extra.expire_at = expire_at;
        } else {
            self.0.get_or_insert_default().subs.push(SubExtra {
                view,
                chan_info,
                expire_at,
                due: 0,
            });
        }
    }
}

impl Identity {
    /// `conn_info`, from the token; empty: none.
    pub fn conn_info(&self) -> &[u8] {
        self.extras.0.as_ref().map_or(&[], |kept| &kept.conn_info)
    }

    /// `chan_info` in a channel.
    pub fn chan_info(&self, view: Option<u32>) -> &[u8] {
        view.and_then(|view| self.extras.get(view))
            .map_or(&[], |e| &e.chan_info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_subscribes_again_and_again_keeps_one_timer() {
        let mut extras = Extras::default();
        extras.set(3, Box::default(), 1000);
        extras.get_mut(3).unwrap().due = 61_000;
        for _ in 0..100 {
            extras.set(3, Box::default(), 0);
            assert_eq!(
                extras.get(3).map(|e| (e.expire_at, e.due)),
                Some((0, 61_000))
            );
            extras.set(3, b"info"[..].into(), 1000);
            assert_eq!(extras.get(3).unwrap().due, 61_000);
        }
        // When it has come there is nothing to keep.
        extras.get_mut(3).unwrap().due = 0;
        extras.set(3, Box::default(), 0);
        assert!(extras.get(3).is_none());
        assert!(extras.0.is_none());
    }

    #[test]
    fn what_is_empty_is_not_held() {
        let mut extras = Extras::new(b"info".to_vec());
        extras.set(3, b"chan"[..].into(), 0);
        extras.set_conn_info(Vec::new());
        assert!(extras.get(3).is_some());
        extras.set_conn_info(b"other".to_vec());
        extras.set(3, Box::default(), 0);
        assert!(extras.0.is_some() && extras.get(3).is_none());
        extras.set_conn_info(Vec::new());
        assert!(extras.0.is_none() && Extras::new(Vec::new()).0.is_none());
    }
}
