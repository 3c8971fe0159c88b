//! This process as the kernel sees it, from `/proc/self`.

use std::time::{Duration, Instant};

/// Units of times in `/proc` a second, on every Linux x86_64.
const USER_HZ: f64 = 100.0;
/// Unit of the resident size.
const PAGE_BYTES: u64 = 4096;

/// A reading; fields that could not be read are zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time since start, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors (connections of the io_uring reactor are in its own table and do not count).
    pub open_fds: u64,
    /// RLIMIT_NOFILE, soft.
    pub max_fds: u64,
    /// When the process started, seconds since 1970.
    pub start_seconds: f64,
}

impl Usage {
    /// Reads it now.
    pub fn read() -> Self {
        let mut usage = Self::default();
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            usage.parse_stat(&stat, boot_seconds());
        }
        usage.open_fds =
            std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        usage.max_fds = limit.current.unwrap_or(u64::MAX);
        usage
    }

    /// Takes the fields of `/proc/self/stat` (proc(5)), counted from behind the last `)`: the name may hold anything.
    fn parse_stat(&mut self, stat: &str, boot: f64) {
        let Some((_, rest)) = stat.rsplit_once(')') else {
            return;
        };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) numbers fields from 1 and `rest` starts with field 3.
        let field = |number: usize| {
            fields
                .get(number - 3)
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.cpu_seconds = (field(14) + field(15)) as f64 / USER_HZ;
        self.threads = field(20);
        self.start_seconds = boot + field(22) as f64 / USER_HZ;
        self.virtual_bytes = field(23);
        self.resident_bytes = field(24) * PAGE_BYTES;
    }
}

fn boot_seconds() -> f64 {
    std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
        })
        .unwrap_or(0.0)
}

/// CPU use between two looks, as a percentage of one core.
#[derive(Debug)]
pub struct CpuMeter {
    last: Option<(Instant, f64)>,
    percent: f64,
}

impl Default for CpuMeter {
    fn default() -> Self {
        Self {
            last: None,
            percent: 0.0,
        }
    }
}

impl CpuMeter {
    /// Takes a reading at `now`; readings closer than a second keep the last figure.
    pub fn percent(&mut self, now: Instant, cpu_seconds: f64) -> f64 {
        match self.last {
            Some((then, _)) if now.duration_since(then) < Duration::from_secs(1) => {}
            Some((then, before)) => {
                self.percent =
                    (cpu_seconds - before) / now.duration_since(then).as_secs_f64() * 100.0;
                self.last = Some((now, cpu_seconds));
            }
            None => self.last = Some((now, cpu_seconds)),
        }
        self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let usage = Usage::read();
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert!(usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1);
        assert!(usage.open_fds >= 3);
        assert!(usage.max_fds >= usage.open_fds);
        assert!(usage.start_seconds > 1e9);
    }

    #[test]
    fn survives_a_name_with_parentheses() {
        let mut usage = Usage::default();
        let stat = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 300 100 0 0 20 0 5 0 1000 4096 10 0";
        usage.parse_stat(stat, 50.0);
        assert_eq!(
            (
                usage.cpu_seconds,
                usage.threads,
                usage.start_seconds,
                usage.virtual_bytes,
                usage.resident_bytes
            ),
            (4.0, 5, 60.0, 4096, 40960)
        );
    }

    #[test]
    fn cpu_is_a_percentage_of_one_core() {
        let mut meter = CpuMeter::default();
        let start = Instant::now();
        assert_eq!(meter.percent(start, 1.0), 0.0);
        assert_eq!(meter.percent(start + Duration::from_secs(2), 2.0), 50.0);
        assert_eq!(
            meter.percent(start + Duration::from_millis(2500), 9.0),
            50.0
        );
    }
}
