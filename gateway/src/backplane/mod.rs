//! What links nodes. Today: one node, in memory.
