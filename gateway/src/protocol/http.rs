//! The HTTP/1.1 upgrade request and its answers (RFC 6455 section 4).
