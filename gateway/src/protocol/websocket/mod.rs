//! The WebSocket codec, server side (RFC 6455).
