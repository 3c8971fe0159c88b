//! What one thread hands another in a tick.

use std::mem::size_of;

/// Capacity that an empty batch may keep: bytes, and bytes of messages.
const KEPT_BYTES: usize = 1024 * 1024;

/// Messages and the bytes they speak of, handed over as one.
#[derive(Debug)]
pub struct Batch<M> {
    /// In the order said.
    pub messages: Vec<M>,
    /// What the messages point into, by start and length.
    pub bytes: Vec<u8>,
}

impl<M> Default for Batch<M> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

impl<M> Batch<M> {
    /// Whether there is nothing to hand over. Bytes without a message count as something.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.bytes.is_empty()
    }

    /// Appends bytes and says where they stand: start and length.
    ///
    /// # Panics
    /// Beyond 4 GiB. A sender gives its peer up at 64 MiB.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> (u32, u32) {
        let start = u32::try_from(self.bytes.len()).expect("a batch is below 4 GiB");
        let len = u32::try_from(bytes.len()).expect("a body is below 4 GiB");
        self.bytes.extend_from_slice(bytes);
        (start, len)
    }

    /// Empties the batch and keeps its capacity.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes.clear();
    }

    /// Bytes it carries, the messages themselves included, what they own elsewhere not.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.messages.len() * size_of::<M>()
    }

    /// Empties the batch for its next use; capacity left from an unusual one is given back.
    pub fn recycle(&mut self) {
        self.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        if self.messages.capacity() * size_of::<M>() > KEPT_BYTES {
            self.messages = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_bytes_stand() {
        let mut batch = Batch::<()>::default();
        assert!(batch.is_empty());
        assert_eq!(batch.push_bytes(b"abc"), (0, 3));
        assert_eq!(batch.push_bytes(b""), (3, 0));
        assert_eq!(batch.push_bytes(b"de"), (3, 2));
        assert_eq!(batch.bytes, b"abcde");
        assert!(!batch.is_empty());
    }

    #[test]
    fn counts_bytes_and_messages() {
        let mut batch = Batch::<u64>::default();
        batch.push_bytes(&[0; 10]);
        batch.messages.push(1);
        assert_eq!(batch.size(), 18);
        batch.clear();
        assert_eq!(batch.size(), 0);
    }

    #[test]
    fn keeps_usual_capacity_and_gives_absurd_capacity_back() {
        let mut batch = Batch::<u64>::default();
        batch.push_bytes(&[0; 100_000]);
        batch.messages.extend(0..1000);
        batch.recycle();
        assert!(batch.is_empty());
        assert!(batch.bytes.capacity() >= 100_000);
        assert!(batch.messages.capacity() >= 1000);

        batch.push_bytes(&vec![0; KEPT_BYTES + 1]);
        batch.messages.extend(0..KEPT_BYTES as u64);
        batch.recycle();
        assert_eq!(batch.bytes.capacity(), 0);
        assert_eq!(batch.messages.capacity(), 0);
    }
}
