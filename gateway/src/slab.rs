//! Slabs.
