//! The simulation.
pub mod faults;
