//! Wire formats, free of I/O and clocks: HTTP upgrade, WebSocket, the Centrifuge client protocol, channel names, tokens.
pub mod centrifuge;
pub mod channel;
pub mod codes;
pub mod http;
pub mod proxy;
pub mod token;
pub mod websocket;
