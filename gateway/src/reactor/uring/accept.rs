//! Accepting: one-shot ACCEPTs into direct descriptors, each with its own address buffer.
//!
//! A multishot accept could neither tell the address nor be throttled. The number armed is the accept budget of a poll.
//!
//! An accept that finds nobody has made a socket, an inode and a file all the same, and throws them away: 4 µs, as much as
//! one that finds somebody. So where the kernel can (6.10) it waits first and tries when somebody has come.

use super::probe::{kernel_release, kernel_version};
use super::{Completion, Op, State, Tag, UringReactor};
use crate::reactor::Event;
use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};
use rustix::net::Shutdown;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Accepts armed at a time.
pub(super) const ACCEPTS: u32 = 64;
/// How long to leave accepting alone when the kernel is out of files or memory.
const PAUSE_MILLIS: u64 = 100;
/// IORING_ACCEPT_POLL_FIRST, and the first kernel that takes it.
const POLL_FIRST: (u16, (u32, u32)) = (1 << 2, (6, 10));

/// Where the kernel writes one peer's address.
struct Address {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

/// The listener and its armed accepts.
pub(super) struct Accepts {
    listener: Option<TcpListener>,
    /// Owned: `ACCEPTS` of them, from a box. Raw, because the kernel writes them behind the borrow checker's back.
    addresses: *mut Address,
    is_leaked: bool,
    /// Indices of addresses that no accept uses.
    idle: Vec<u32>,
    pub(super) armed: u32,
    /// What the kernel is asked for beside the accept.
    flags: u16,
    pub(super) is_stopping: bool,
    /// The table is full: nothing is armed until a slot comes free.
    is_full: bool,
    /// Not before this moment (in ms): the kernel was short of something.
    not_before: u64,
}

impl Accepts {
    pub(super) fn new(listener: Option<TcpListener>) -> Self {
        let one = || Address {
            // SAFETY: all-zero bytes are a valid `sockaddr_storage` (integers and byte arrays).
            storage: unsafe { std::mem::zeroed() },
            len: 0,
        };
        let addresses: Box<[Address]> = (0..ACCEPTS).map(|_| one()).collect();
        Self {
            is_stopping: listener.is_none(),
            listener,
            addresses: Box::into_raw(addresses).cast(),
            is_leaked: false,
            idle: (0..ACCEPTS).collect(),
            armed: 0,
            flags: flags_for(&kernel_release()),
            is_full: false,
            not_before: 0,
        }
    }

    /// Shortens a wait that would last longer than a pause of accepting.
    pub(super) fn cap(&self, patience: Duration, now: u64) -> Duration {
        match self.not_before {
            0 => patience,
            then => patience.min(Duration::from_millis(then.saturating_sub(now).max(1))),
        }
    }

    /// Never frees the address buffers: the kernel may still write to them.
    pub(super) fn leak(&mut self) {
        self.is_leaked = true;
    }
}

impl Drop for Accepts {
    fn drop(&mut self) {
        if !self.is_leaked {
            let all = std::ptr::slice_from_raw_parts_mut(self.addresses, ACCEPTS as usize);
            // SAFETY: made by `Box::into_raw` from a box of this many; the reactor has seen the last completion of every
            // accept (else it calls `leak`), so the kernel no longer knows them.
            drop(unsafe { Box::from_raw(all) });
        }
    }
}

impl UringReactor {
    /// Arms as many accepts as there are buffers and free slots. Called once a poll.
    pub(super) fn arm_accepts(&mut self) {
        if self.accepts.is_stopping {
            return;
        }
        if self.accepts.not_before != 0 {
            if self.clock.millis() < self.accepts.not_before {
                return;
            }
            self.accepts.not_before = 0;
        }
        while self.in_use + self.accepts.armed < self.slots.len() as u32 {
            let Some(index) = self.accepts.idle.pop() else {
                break;
            };
            self.arm_accept(index);
        }
        // Accepts are armed in front of every free slot: none armed means that none is free.
        let is_full = self.accepts.armed == 0;
        if is_full && !self.accepts.is_full {
            self.stats.accepts_paused += 1;
        }
        self.accepts.is_full = is_full;
    }

    fn arm_accept(&mut self, index: u32) {
        let listener = self
            .accepts
            .listener
            .as_ref()
            .expect("accepts are armed on a listener")
            .as_raw_fd();
        // SAFETY: `index` is below ACCEPTS, and idle: the kernel does not use this one now.
        let (address, len) = unsafe {
            let one = self.accepts.addresses.add(index as usize);
            (*one).len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            (&raw mut (*one).storage, &raw mut (*one).len)
        };
        let entry = opcode::Accept::new(Fd(listener), address.cast(), len)
            .file_index(Some(DestinationSlot::auto_target()))
            .build()
            .user_data(Tag::new(Op::Accept, index, 0).pack());
        let entry = with_flags(entry, self.accepts.flags);
        // SAFETY: the address buffer is left alone until this accept's completion (only then is its index idle again) and
        // is freed only when no accept is armed. The listener stays open until then as well.
        unsafe { self.push(&entry) };
        self.accepts.armed += 1;
    }

    pub(super) fn on_accept(&mut self, completion: Completion, events: &mut Vec<Event>) {
        let index = completion.tag.slot;
        self.accepts.armed -= 1;
        self.accepts.idle.push(index);
        if completion.result >= 0 {
            let number = completion.result as u32;
            let slot = &mut self.slots[number as usize];
            assert!(
                slot.state == State::Free,
                "slot {number} was given away twice: {slot:?}"
            );
            assert!(
                slot.armed == 0,
                "slot {number} was freed with operations armed"
            );
            slot.state = State::Accepted;
            self.in_use += 1;
            // SAFETY: `index` is below ACCEPTS; its accept is over, so the kernel has written it and is done with it.
            let peer = unsafe { address(&(*self.accepts.addresses.add(index as usize)).storage) };
            events.push(Event::Accepted { slot: number, peer });
        } else if matches!(
            -completion.result,
            libc::ENFILE | libc::EMFILE | libc::ENOMEM | libc::ENOBUFS
        ) {
            // Out of files or memory, not of slots (those are counted): leave it alone for a moment.
            self.stats.accepts_paused += 1;
            self.accepts.not_before = self.clock.millis() + PAUSE_MILLIS;
        }
        // Any other error is of a connection that was gone before it was accepted.
        if self.accepts.is_stopping && self.accepts.armed == 0 {
            self.accepts.listener = None;
        }
    }

    pub(super) fn stop_accepts(&mut self) {
        if self.accepts.is_stopping {
            return;
        }
        self.accepts.is_stopping = true;
        let Some(listener) = &self.accepts.listener else {
            return;
        };
        // Armed accepts hold the file, so closing it would not stop it from listening; this does, at once.
        let _ = rustix::net::shutdown(listener, Shutdown::Both);
        if self.accepts.armed == 0 {
            self.accepts.listener = None;
            return;
        }
        // Those that the shutdown does not end by itself. The file is closed behind the last one's completion: an entry
        // still in the queue names it by number.
        for index in 0..ACCEPTS {
            if !self.accepts.idle.contains(&index) {
                self.push_cancel(Tag::new(Op::Accept, index, 0));
            }
        }
        self.submit();
    }
}

/// An unknown flag would fail every accept, so a kernel that does not tell its version is not asked.
fn flags_for(release: &str) -> u16 {
    let (flag, since) = POLL_FIRST;
    match kernel_version(release) {
        Some(version) if version >= since => flag,
        _ => 0,
    }
}

/// Puts an accept's own flags into an entry, for which the crate has no setter.
fn with_flags(mut entry: squeue::Entry, flags: u16) -> squeue::Entry {
    const _: () = assert!(size_of::<squeue::Entry>() == 64);
    // SAFETY: an entry is the kernel's `struct io_uring_sqe` (`repr(C)` around it, 64 bytes, aligned to 8); its second u16
    // is `ioprio`, where ACCEPT has its flags.
    unsafe { (&raw mut entry).cast::<u16>().add(1).write(flags) };
    entry
}

/// Reads a peer's address; an IPv4 address in IPv6 clothes comes out as IPv4, so that limits by address see one client.
fn address(storage: &libc::sockaddr_storage) -> SocketAddr {
    let start: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage (large and aligned enough for any address) holds this type.
            let v4 = unsafe { &*start.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*start.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            SocketAddr::new(ip.to_canonical(), u16::from_be(v6.sin6_port))
        }
        // Not a TCP socket; and a peer that is gone already has no address.
        _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage<T>(family: i32, value: T) -> libc::sockaddr_storage {
        assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>());
        // SAFETY: zero is a valid `sockaddr_storage`; the value fits (asserted), and both are plain integers.
        unsafe {
            let mut storage: libc::sockaddr_storage = std::mem::zeroed();
            (&raw mut storage).cast::<T>().write(value);
            storage.ss_family = family as u16;
            storage
        }
    }

    #[test]
    fn accepts_wait_first_where_the_kernel_can() {
        for (release, flags) in [
            ("6.18.44-cloud", 4),
            ("6.10.0", 4),
            ("6.9.7", 0),
            ("odd", 0),
        ] {
            assert_eq!(flags_for(release), flags, "{release}");
        }
        // The crate's multishot accept has its flag in the same place.
        let bytes = |entry: &squeue::Entry| {
            // SAFETY: 64 bytes of integers.
            unsafe { std::mem::transmute_copy::<_, [u8; 64]>(entry) }
        };
        let multi = opcode::AcceptMulti::new(Fd(3)).build();
        let ours = with_flags(
            opcode::Accept::new(Fd(3), std::ptr::null_mut(), std::ptr::null_mut()).build(),
            1,
        );
        assert_eq!(bytes(&ours), bytes(&multi));
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let v4 = libc::sockaddr_in {
            sin_family: 0,
            sin_port: 8000u16.to_be(),
            sin_addr: libc::in_addr {
                s_addr: u32::from(Ipv4Addr::new(127, 1, 2, 3)).to_be(),
            },
            sin_zero: [0; 8],
        };
        assert_eq!(
            address(&storage(libc::AF_INET, v4)),
            "127.1.2.3:8000".parse().unwrap()
        );
        for (text, want) in [("::1", "[::1]:9"), ("::ffff:10.0.0.7", "10.0.0.7:9")] {
            let ip: Ipv6Addr = text.parse().unwrap();
            let v6 = libc::sockaddr_in6 {
                sin6_family: 0,
                sin6_port: 9u16.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                sin6_scope_id: 0,
            };
            assert_eq!(address(&storage(libc::AF_INET6, v6)), want.parse().unwrap());
        }
    }
}
