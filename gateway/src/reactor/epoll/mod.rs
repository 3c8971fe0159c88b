//! The epoll reactor: the fallback where io_uring is refused.
