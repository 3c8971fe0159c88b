//! Memory: the server's own, and the kernel's for its sockets.

use std::fs;
use std::io;

/// Bytes of the pages TCP counts in.
pub const PAGE: u64 = 4096;

/// A reading of everything that grows with connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Bytes: the processes' proportional share of their pages (`smaps_rollup`).
    pub pss: u64,
    /// Bytes: the processes' page tables (`VmPTE`).
    pub page_tables: u64,
    /// Bytes: kernel objects of the whole machine, both ends' sockets among them.
    pub slab: u64,
    /// Pages: what TCP has accounted for data (`/proc/net/sockstat`).
    pub tcp_pages: u64,
    /// TCP sockets in use on the machine.
    pub tcp_in_use: u64,
}

impl Memory {
    /// Reads it now.
    ///
    /// # Errors
    /// When a process is gone or may not be looked into.
    pub fn read(pids: &[u32]) -> io::Result<Self> {
        let mut memory = of_kernel()?;
        memory.pss = Self::read_pss(pids)?;
        for &pid in pids {
            memory.page_tables += kilobytes(&of_process(pid, "status")?, "VmPTE:");
        }
        Ok(memory)
    }

    /// Only the processes' pages, in bytes. It walks the page tables: milliseconds for each gigabyte.
    ///
    /// # Errors
    /// When a process is gone or may not be looked into.
    pub fn read_pss(pids: &[u32]) -> io::Result<u64> {
        let each = |&pid: &u32| Ok(kilobytes(&of_process(pid, "smaps_rollup")?, "Pss:"));
        pids.iter().map(each).sum()
    }
}

/// Only what the kernel tells of the whole machine.
pub fn of_kernel() -> io::Result<Memory> {
    let sockstat = fs::read_to_string("/proc/net/sockstat")?;
    Ok(Memory {
        slab: kilobytes(&fs::read_to_string("/proc/meminfo")?, "Slab:"),
        tcp_pages: tcp_field(&sockstat, "mem"),
        tcp_in_use: tcp_field(&sockstat, "inuse"),
        ..Memory::default()
    })
}

fn of_process(pid: u32, name: &str) -> io::Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
}

/// The bytes of a line `name   123 kB`.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// A field of the line `TCP: inuse 5 orphan 0 … mem 2`.
fn tcp_field(text: &str, name: &str) -> u64 {
    let words = text
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .unwrap_or_default();
    let mut words = words.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        assert_eq!(
            kilobytes("Rss:  9 kB\nPss:   12 kB\nPss_Dirty: 3 kB\n", "Pss:"),
            12 * 1024
        );
        let sockstat =
            "sockets: used 90\nTCP: inuse 7 orphan 0 tw 1 alloc 8 mem 3\nUDP: inuse 1 mem 2\n";
        assert_eq!(
            (tcp_field(sockstat, "inuse"), tcp_field(sockstat, "mem")),
            (7, 3)
        );
        let memory = Memory::read(&[std::process::id()]).unwrap();
        assert!(memory.pss > 0 && memory.slab > 0 && memory.page_tables > 0);
    }
}
