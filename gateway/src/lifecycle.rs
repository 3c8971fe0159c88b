//! Starting, ready, draining, stopped.
