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
    /// A timer looks after that.
    pub is_timed: bool,
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

    /// Keeps `chan_info` and `expire_at` for a view; nothing when both are empty.
    pub fn set(&mut self, view: u32, chan_info: Box<[u8]>, expire_at: u64) {
        if chan_info.is_empty() && expire_at == 0 {
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
                is_timed: false,
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
