//! A pool of equal receive buffers.

/// Bytes of one buffer, as with io_uring.
const BUFFER_BYTES: usize = 2048;

/// The buffers, and which of them are free.
pub(super) struct Buffers {
    bytes: Vec<u8>,
    free: Vec<u16>,
    is_out: Vec<bool>,
}

impl Buffers {
    pub(super) fn new(count: u16) -> Self {
        Self {
            bytes: vec![0; usize::from(count) * BUFFER_BYTES],
            free: (0..count).rev().collect(),
            is_out: vec![false; usize::from(count)],
        }
    }

    pub(super) fn take(&mut self) -> Option<u16> {
        let id = self.free.pop()?;
        self.is_out[usize::from(id)] = true;
        Some(id)
    }

    pub(super) fn put_back(&mut self, id: u16) {
        assert!(
            std::mem::take(&mut self.is_out[usize::from(id)]),
            "buffer {id} was not out"
        );
        self.free.push(id);
    }

    /// The whole of a buffer that is out.
    pub(super) fn bytes(&mut self, id: u16) -> &mut [u8] {
        assert!(self.is_out[usize::from(id)], "buffer {id} is not out");
        let start = usize::from(id) * BUFFER_BYTES;
        &mut self.bytes[start..start + BUFFER_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_out_and_comes_back() {
        let mut buffers = Buffers::new(2);
        let (one, two) = (buffers.take().unwrap(), buffers.take().unwrap());
        assert_eq!(buffers.take(), None);
        buffers.bytes(one).fill(1);
        assert_eq!(buffers.bytes(two)[0], 0);
        buffers.put_back(one);
        assert_eq!(buffers.take(), Some(one));
    }

    #[test]
    #[should_panic(expected = "was not out")]
    fn giving_a_buffer_back_twice_is_refused() {
        let mut buffers = Buffers::new(2);
        let id = buffers.take().unwrap();
        buffers.put_back(id);
        buffers.put_back(id);
    }
}
