//! The state of one connection, free of I/O.
