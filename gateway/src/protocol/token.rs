//! Connection and subscription tokens (JWT).
