//! The io_uring reactor.
