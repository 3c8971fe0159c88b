//! One file a scenario, its question at its head.

pub mod fanout;
pub mod idle;
pub mod limit;
