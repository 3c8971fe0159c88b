//! Bytes for one connection alone: the rest of a frame that a send cut, then replies and pushes, in this order.

/// A queue of bytes with whole frames behind its front.
#[derive(Debug, Default)]
pub struct Private {
    bytes: Vec<u8>,
    /// How many have left.
    sent: usize,
    /// How many of those that wait, at the front, go out as they are although the connection speaks TLS.
    raw: usize,
    /// How many of those that wait belong to publications: they are not the client's doing and do not count.
    publications: usize,
}

impl Private {
    /// What has not left.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Whether everything has left.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Bytes that count against `queue_max_size`.
    pub fn counted(&self) -> usize {
        self.waiting()
            .len()
            .saturating_sub(self.raw + self.publications)
    }

    /// Where whole frames are appended.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends what belongs to publications: the rest of one that was cut, or the newest of each key.
    pub fn put_publications(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.publications += self.bytes.len() - before;
    }

    /// Puts bytes of TLS itself behind others of this kind, before everything else. They do not count.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        let at = self.sent + self.raw;
        self.bytes.splice(at..at, bytes.iter().copied());
        self.raw += bytes.len();
    }

    /// How many of the bytes that wait are raw; they are the first.
    pub fn raw(&self) -> usize {
        self.raw
    }

    /// Forgets what is not raw.
    pub fn drop_all_but_raw(&mut self) {
        self.bytes.truncate(self.sent + self.raw);
        self.publications = 0;
    }

    /// `count` bytes have left.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        let raw = self.raw.min(count);
        self.raw -= raw;
        let count = count - raw;
        self.publications = self.publications.saturating_sub(count);
        debug_assert!(self.sent <= self.bytes.len());
        // Move the rest to the front now and then, so that a connection that is always a little behind does not grow.
        if self.sent == self.bytes.len() {
            self.clear();
        } else if self.sent > 64 * 1024 && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Empties it; keeps its capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
        self.raw = 0;
        self.publications = 0;
    }

    /// Bytes of memory it holds.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_cut_publication_does_not_count() {
        let mut private = Private::default();
        private.put_publications(|out| out.extend_from_slice(&[1; 100]));
        private.tail().extend_from_slice(&[2; 10]);
        assert_eq!(private.counted(), 10);
        private.advance(50);
        assert_eq!((private.counted(), private.waiting().len()), (10, 60));
        private.advance(55);
        assert_eq!(private.counted(), 5);
        private.advance(5);
        assert!(private.is_empty());
    }

    #[test]
    fn it_does_not_grow_when_it_is_always_a_little_behind() {
        let mut private = Private::default();
        for _ in 0..10_000 {
            private.tail().extend_from_slice(&[0; 100]);
            let all_but_one = private.waiting().len() - 1;
            private.advance(all_but_one);
        }
        assert!(private.capacity() < 1 << 20);
    }
}
