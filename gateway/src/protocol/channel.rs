//! Channel names: namespaces, user-limited and private channels, subjects.
