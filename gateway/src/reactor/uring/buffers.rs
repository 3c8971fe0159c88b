//! The provided buffers: one block of memory, cut into equal buffers that kernel and shard pass to and fro.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Bytes of one receive buffer: a full Ethernet packet, and most frames of a client.
pub(super) const BUFFER_BYTES: u32 = 2048;
/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;
const PAGE: usize = 4096;

/// Page-aligned, zeroed memory (touched, so it is counted at start and not by the first connections).
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(bytes: usize) -> Self {
        let layout =
            Layout::from_size_align(bytes.next_multiple_of(PAGE), PAGE).expect("a sane size");
        // SAFETY: the size is not zero: callers ask for at least one buffer, and it is rounded up to a page.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })
            .unwrap_or_else(|| handle_alloc_error(layout));
        for page in (0..layout.size()).step_by(PAGE) {
            // SAFETY: inside the block, which nobody else knows yet. Volatile, so that the page is really touched.
            unsafe { start.as_ptr().add(page).write_volatile(0) };
        }
        Self { start, layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The buffers of a ring. A buffer is the kernel's, or taken by a completion, or (in `out`) the shard's.
pub(super) struct Buffers {
    /// `None` after [`Buffers::leak`].
    memory: Option<(Pages, Pages)>,
    ring: *mut BufRingEntry,
    bytes: *mut u8,
    count: u16,
    size: u32,
    /// Where the next buffer is put, counted without end.
    tail: u16,
    /// Buffers the kernel has.
    free: u32,
    /// One bit a buffer: it has been handed to the shard.
    out: Vec<u64>,
}

impl Buffers {
    /// `count` buffers of `size` bytes, all of them the kernel's.
    pub(super) fn new(count: u16, size: u32) -> Self {
        assert!(
            count.is_power_of_two() && count <= 32_768,
            "{count} buffers"
        );
        let ring = Pages::new(usize::from(count) * size_of::<BufRingEntry>());
        let bytes = Pages::new(usize::from(count) * size as usize);
        let mut buffers = Self {
            ring: ring.start.as_ptr().cast(),
            bytes: bytes.start.as_ptr(),
            memory: Some((ring, bytes)),
            count,
            size,
            tail: 0,
            free: 0,
            out: vec![0; usize::from(count).div_ceil(64)],
        };
        for id in 0..count {
            buffers.provide(id);
        }
        buffers
    }

    /// Makes them known to a ring that does not outlive them (the reactor drops the ring first).
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: `ring` points to `count` entries of page-aligned memory that is freed only after the ring, or never.
        unsafe { submitter.register_buf_ring_with_flags(self.ring as u64, self.count, GROUP, 0) }
    }

    /// Buffers that a receive may find.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// A completion has taken a buffer for the shard.
    pub(super) fn hand_out(&mut self, id: u16) {
        self.take(id);
        let (word, bit) = self.place(id);
        assert!(self.out[word] & bit == 0, "buffer {id} was filled twice");
        self.out[word] |= bit;
    }

    /// A completion has taken a buffer that nobody wants: an end, or a life that is over.
    pub(super) fn put_back(&mut self, id: u16) {
        self.take(id);
        self.provide(id);
    }

    /// The shard is done with a buffer.
    pub(super) fn take_back(&mut self, id: u16) {
        let (word, bit) = self.place(id);
        assert!(self.out[word] & bit != 0, "buffer {id} was not out");
        self.out[word] &= !bit;
        self.provide(id);
    }

    /// The first `len` bytes of a buffer that is out.
    pub(super) fn bytes(&mut self, id: u16, len: u32) -> &mut [u8] {
        let (word, bit) = self.place(id);
        assert!(self.out[word] & bit != 0, "buffer {id} is not out");
        assert!(len <= self.size, "{len} bytes of a buffer of {}", self.size);
        // SAFETY: inside the block (`place` checks the number, the assertion the length) and initialised (zeroed at
        // first). The kernel does not write a buffer that is out, and `&mut self` allows one slice at a time.
        unsafe {
            let start = self.bytes.add(usize::from(id) * self.size as usize);
            std::slice::from_raw_parts_mut(start, len as usize)
        }
    }

    /// Never frees the memory: the kernel may still know it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(self.memory.take());
    }

    fn place(&self, id: u16) -> (usize, u64) {
        assert!(id < self.count, "there is no buffer {id}");
        (usize::from(id / 64), 1 << (id % 64))
    }

    fn take(&mut self, id: u16) {
        assert!(id < self.count, "there is no buffer {id}");
        self.free = self
            .free
            .checked_sub(1)
            .expect("the kernel filled more buffers than it had");
    }

    fn provide(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
        debug_assert!(self.free <= u32::from(self.count));
        // SAFETY: `index` is below `count`; the kernel does not read the entry before the tail passes it, and at most
        // `count` buffers are provided at a time, so it has read the entry's former content. `tail` of entry 0 (which
        // lies in a field these setters leave alone) is only ever accessed atomically.
        unsafe {
            let entry = &mut *self.ring.add(index);
            entry.set_addr(self.bytes.add(usize::from(id) * self.size as usize) as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.ring).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_out_and_comes_back() {
        let mut buffers = Buffers::new(4, 64);
        assert_eq!(buffers.free(), 4);
        buffers.hand_out(2);
        assert_eq!(buffers.free(), 3);
        buffers.bytes(2, 64).fill(7);
        assert_eq!(buffers.bytes(2, 3), [7, 7, 7]);
        buffers.take_back(2);
        assert_eq!(buffers.free(), 4);
    }

    #[test]
    #[should_panic(expected = "not out")]
    fn bytes_of_a_buffer_that_is_the_kernels_are_refused() {
        Buffers::new(4, 64).bytes(1, 1);
    }

    #[test]
    #[should_panic(expected = "was not out")]
    fn giving_a_buffer_back_twice_is_refused() {
        let mut buffers = Buffers::new(4, 64);
        buffers.hand_out(0);
        buffers.take_back(0);
        buffers.take_back(0);
    }
}
