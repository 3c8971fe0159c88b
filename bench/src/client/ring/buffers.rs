//! Provided buffers: the kernel picks one for each receive.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::BUFFER_GROUP;

/// A ring of provided buffers in memory of its own.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    memory: NonNull<u8>,
    memory_layout: Layout,
    count: u16,
    bytes: u32,
    tail: u16,
}

impl Buffers {
    pub(super) fn register(uring: &IoUring, count: u16, bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && bytes > 0);
        let entries_layout =
            Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), 4096)
                .expect("a small table");
        let memory_layout =
            Layout::from_size_align(usize::from(count) * bytes as usize, 4096).expect("a few MiB");
        let mut buffers = Self {
            entries: allocate(entries_layout).cast(),
            entries_layout,
            memory: allocate(memory_layout),
            memory_layout,
            count,
            bytes,
            tail: 0,
        };
        // SAFETY: the table is page aligned, zeroed, and freed only after the ring is gone (field order of `Ring`).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                count,
                BUFFER_GROUP,
                0,
            )?;
        }
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// What the kernel wrote into buffer `id`.
    pub(super) fn filled(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < self.count && len <= self.bytes as usize);
        // SAFETY: in bounds; the kernel wrote `len` bytes of this buffer and does not touch it before it is given back.
        unsafe {
            let start = self
                .memory
                .as_ptr()
                .add(usize::from(id) * self.bytes as usize);
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Puts a buffer at the tail; the kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: both offsets are within their allocations; the kernel reads no entry at or behind the tail. The tail
        // itself lies in the first entry's last field, which the three setters leave alone.
        unsafe {
            let address = self
                .memory
                .as_ptr()
                .add(usize::from(id) * self.bytes as usize);
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(address as u64);
            entry.set_len(self.bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(super) fn publish(&mut self) {
        // SAFETY: `tail` points into the first entry, 2-byte aligned; the kernel only reads it.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with these layouts in `register`; the ring that knew them has cancelled its receives.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: both layouts have a size above zero.
    let pointer = unsafe { alloc_zeroed(layout) };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout))
}
