//! One shard over a scripted reactor: what it does in which tick is seen exactly.

mod keys;
mod proxies;
mod stand;
mod tls;
mod tokens;
