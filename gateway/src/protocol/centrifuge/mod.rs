//! The Centrifuge client protocol v2, JSON and Protobuf.
