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
    pub extras: Vec<SubExtra>,
}

const _: () = assert!(std::mem::size_of::<Identity>() <= 88);

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

impl Identity {
    /// `chan_info` in a channel.
    pub fn chan_info(&self, view: Option<u32>) -> &[u8] {
        self.extras
            .iter()
            .find(|e| Some(e.view) == view)
            .map_or(&[], |e| &e.chan_info)
    }
}
