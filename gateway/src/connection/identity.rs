//! Who a connection is, from its connect on.

use crate::ids::ClientId;

/// User, client id and info.
#[derive(Debug)]
pub struct Identity {
    /// The user; "" is anonymous.
    pub user: Box<str>,
    /// This connection's id.
    pub client: ClientId,
    /// `conn_info`, from the token; empty: none.
    pub conn_info: Box<[u8]>,
    /// Unix seconds when the connection expires; 0: never.
    pub expire_at: u64,
    /// What only some subscriptions have.
    pub extras: SubExtras,
}

const _: () = assert!(std::mem::size_of::<Identity>() <= 64);

/// [`SubExtra`]s by view. Most connections have none: one word then.
#[derive(Debug, Default)]
// A box of a list: a list alone is three words.
#[expect(clippy::box_collection)]
pub struct SubExtras(Option<Box<Vec<SubExtra>>>);

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

impl SubExtras {
    /// What is kept for a view.
    pub fn get(&self, view: u32) -> Option<&SubExtra> {
        self.0.as_ref()?.iter().find(|e| e.view == view)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, view: u32) -> Option<&mut SubExtra> {
        self.0.as_mut()?.iter_mut().find(|e| e.view == view)
    }

    /// Keeps `chan_info` and `expire_at` for a view; when both are empty, nothing but the timer that is to come.
    pub fn set(&mut self, view: u32, chan_info: Box<[u8]>, expire_at: u64) {
        let is_timed = self.get(view).is_some_and(|e| e.due > 0);
        if chan_info.is_empty() && expire_at == 0 && !is_timed {
            if let Some(extras) = &mut self.0 {
                extras.retain(|e| e.view != view);
                if extras.is_empty() {
                    self.0 = None;
                }
            }
        } else if let Some(extra) = self.get_mut(view) {
            extra.chan_info = chan_info;
            extra.expire_at = expire_at;
        } else {
            self.0.get_or_insert_default().push(SubExtra {
                view,
                chan_info,
                expire_at,
                due: 0,
            });
        }
    }
}

impl Identity {
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
        let mut extras = SubExtras::default();
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
    }
}
