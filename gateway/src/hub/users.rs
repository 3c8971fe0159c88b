//! Users whose home is this shard: how many connections each has on the node, and when the last one ended.

use std::collections::{HashMap, VecDeque};

/// Users that are gone and still remembered, at most, on one shard.
const REMEMBERED_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct User {
    connections: u32,
    /// Unix seconds; 0 while a connection is open that is the first.
    last_seen: u64,
}

/// Users by name. The anonymous user "" is counted like any other but never limited.
#[derive(Debug, Default)]
pub struct Users {
    users: HashMap<Box<str>, User>,
    /// Users in the order in which their last connections ended; an entry of one who came back is skipped.
    gone: VecDeque<(Box<str>, u64)>,
    online: usize,
}

impl Users {
    /// A connection begins. `false`: the user has `limit` already (0: no limit), and it is not counted.
    pub fn arrive(&mut self, user: &str, limit: u32) -> bool {
        if !self.users.contains_key(user) {
            self.users.insert(user.into(), User::default());
        }
        let entry = self.users.get_mut(user).expect("just inserted");
        if limit > 0 && !user.is_empty() && entry.connections >= limit {
            return false;
        }
        self.online += usize::from(entry.connections == 0);
        entry.connections += 1;
        true
    }

    /// A counted connection has ended.
    pub fn leave(&mut self, user: &str, unix_seconds: u64) {
        let Some(entry) = self.users.get_mut(user) else {
            return;
        };
        entry.connections -= 1;
        entry.last_seen = unix_seconds;
        if entry.connections == 0 {
            self.online -= 1;
            self.gone.push_back((user.into(), unix_seconds));
        }
        while self.gone.len() > REMEMBERED_MAX {
            let Some((user, seen)) = self.gone.pop_front() else {
                return;
            };
            if self
                .users
                .get(&user)
                .is_some_and(|u| u.connections == 0 && u.last_seen == seen)
            {
                self.users.remove(&user);
            }
        }
    }

    /// Connections now, and when the last one that ended did.
    pub fn status(&self, user: &str) -> (u32, Option<u64>) {
        match self.users.get(user) {
            Some(u) => (u.connections, (u.last_seen > 0).then_some(u.last_seen)),
            None => (0, None),
        }
    }

    /// Users with a connection.
    pub fn online(&self) -> usize {
        self.online
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_over_the_limit_is_not_let_in_nor_counted() {
        let mut users = Users::default();
        assert!(users.arrive("a", 2) && users.arrive("a", 2) && !users.arrive("a", 2));
        assert!(
            users.arrive("", 1) && users.arrive("", 1),
            "anonymous connections are not limited"
        );
        users.leave("a", 10);
        assert!(users.arrive("a", 2));
        assert_eq!(users.status("a"), (2, Some(10)));
    }

    #[test]
    fn last_seen_outlives_the_connection() {
        let mut users = Users::default();
        users.arrive("a", 0);
        users.leave("a", 77);
        assert_eq!((users.status("a"), users.online()), ((0, Some(77)), 0));
        assert_eq!(users.status("b"), (0, None));
    }
}
