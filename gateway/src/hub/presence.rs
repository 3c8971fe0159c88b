//! Who is in a channel, on this node. Kept at the channel's home, in namespaces that ask for it.

use crate::ids::ClientId;
use crate::protocol::centrifuge::publication::ClientInfoRef;
use std::collections::HashMap;

/// The clients of one channel.
#[derive(Debug, Default)]
pub struct Presence {
    clients: HashMap<ClientId, Box<[u8]>>,
    /// Connections by user, so that counting users costs nothing.
    users: HashMap<Box<str>, u32>,
}

fn user_of(info: &[u8]) -> &str {
    ClientInfoRef::parse(info).map_or("", |info| info.user)
}

impl Presence {
    /// A client is here, with this Protobuf `ClientInfo`.
    pub fn insert(&mut self, client: ClientId, info: &[u8]) {
        if let Some(old) = self.clients.insert(client, info.into()) {
            self.forget_user(user_of(&old));
        }
        *self.users.entry(user_of(info).into()).or_default() += 1;
    }

    /// A client has left; its info, if it was here.
    pub fn remove(&mut self, client: ClientId) -> Option<Box<[u8]>> {
        let info = self.clients.remove(&client)?;
        self.forget_user(user_of(&info));
        Some(info)
    }

    fn forget_user(&mut self, user: &str) {
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
    }

    /// Connections and distinct users.
    pub fn counts(&self) -> (u32, u32) {
        (self.clients.len() as u32, self.users.len() as u32)
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Clients and their Protobuf `ClientInfo`.
    pub fn clients(&self) -> impl Iterator<Item = (ClientId, &[u8])> {
        self.clients.iter().map(|(client, info)| (*client, &**info))
    }
}
