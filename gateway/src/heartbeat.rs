//! Pings without timers.
