//! Batches between threads.
