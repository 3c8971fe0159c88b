//! Which way a figure is better: the one table of it.

use std::fmt;

/// What a larger value of a figure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    LowerIsBetter,
    HigherIsBetter,
    /// It describes the machine, the load or the generator, not the server.
    Neither,
}

use Direction::{HigherIsBetter, LowerIsBetter, Neither};

const TABLE: &[(&str, Direction)] = &[
    // fanout
    ("deliveries_per_second", HigherIsBetter),
    ("publications_per_second", HigherIsBetter),
    ("bytes_per_delivery", LowerIsBetter),
    ("server_ns_per_delivery", LowerIsBetter),
    ("server_cpu", Neither),
    ("server_pss", LowerIsBetter),
    ("server_pss_most", LowerIsBetter),
    ("generator_cpu", Neither),
    ("limit_send_ns", Neither),
    ("limit_uring_ns", Neither),
    ("limit_uring_many_frame_ns", Neither),
    ("limit_uring_as_served_ns", Neither),
    ("ratio_to_send", LowerIsBetter),
    ("ratio_to_uring", LowerIsBetter),
    ("ratio_to_uring_many", LowerIsBetter),
    ("ratio_to_uring_as_served", LowerIsBetter),
    ("latency_p50_ms", LowerIsBetter),
    ("latency_p90_ms", LowerIsBetter),
    ("latency_p99_ms", LowerIsBetter),
    ("latency_p999_ms", LowerIsBetter),
    ("latency_p9999_ms", LowerIsBetter),
    ("latency_max_ms", LowerIsBetter),
    // hot room, echo, churn, slow, mixed
    ("rate_held", HigherIsBetter),
    ("echoes_per_second", HigherIsBetter),
    ("joins_per_second", HigherIsBetter),
    ("joins_behind", LowerIsBetter),
    ("join_p50", LowerIsBetter),
    ("join_p99", LowerIsBetter),
    ("p99_without", LowerIsBetter),
    ("p99_with", LowerIsBetter),
    ("server_us_per_pair", LowerIsBetter),
    ("healthy_p99_without", LowerIsBetter),
    ("healthy_p99_with", LowerIsBetter),
    ("healthy_p99_ratio", LowerIsBetter),
    ("healthy_lost", LowerIsBetter),
    ("slow_cut", Neither),
    ("server_pss_per_slow", LowerIsBetter),
    ("tcp_memory_per_slow", LowerIsBetter),
    ("reconnects", Neither),
    // storm, recover
    ("all_back", LowerIsBetter),
    ("plain_back", LowerIsBetter),
    ("connects_per_second", HigherIsBetter),
    ("retries", LowerIsBetter),
    ("server_us_per_connection", LowerIsBetter),
    ("bare_us_per_connection", Neither),
    ("all_back_to_bare", LowerIsBetter),
    ("established_p50_calm", LowerIsBetter),
    ("established_p99_calm", LowerIsBetter),
    ("established_p50", LowerIsBetter),
    ("established_p99", LowerIsBetter),
    ("established_max", LowerIsBetter),
    ("established_deliveries", Neither),
    ("own_sends_late_p99", Neither),
    ("recovered", Neither),
    ("unrecovered", LowerIsBetter),
    ("recovered_per_second", HigherIsBetter),
    ("server_ns_per_recovered", LowerIsBetter),
    ("ratio_to_fan_out", LowerIsBetter),
    // idle
    ("server_pss_per_connection", LowerIsBetter),
    ("server_pss_after_window", LowerIsBetter),
    ("server_page_tables_per_connection", LowerIsBetter),
    ("server_pss_fresh", LowerIsBetter),
    ("slab_both_ends", LowerIsBetter),
    ("tcp_memory", LowerIsBetter),
    ("bare_socket", Neither),
    ("generator_end", Neither),
    ("server_kernel", LowerIsBetter),
    ("server_user_and_kernel", LowerIsBetter),
    ("ratio_to_bare", LowerIsBetter),
    ("server_cpu_per_connection", LowerIsBetter),
    ("pings_per_connection", Neither),
    ("open_cpu_per_connection", LowerIsBetter),
    // limit: the kernel's costs, which only another machine or kernel changes
    ("send_ns", LowerIsBetter),
    ("uring_ns", LowerIsBetter),
    ("uring_to_send", LowerIsBetter),
    ("send_many_ns", LowerIsBetter),
    ("uring_many_ns", LowerIsBetter),
    ("uring_many_to_send", LowerIsBetter),
    ("uring_many_frame_ns", LowerIsBetter),
    ("uring_many_frame_to_send", LowerIsBetter),
    ("upgrade_us", LowerIsBetter),
    // every run
    ("core_round_trip_ns", Neither),
    ("core_round_trip_after_ns", Neither),
];

/// Latency by group of a mix: the rest of the key is the group's name.
const OF_A_GROUP: &str = "p99_of_";

impl Direction {
    /// That of a figure; none when the table does not have it.
    pub fn of(key: &str) -> Option<Self> {
        if key.starts_with(OF_A_GROUP) {
            return Some(LowerIsBetter);
        }
        let row = TABLE.iter().find(|(name, _)| *name == key)?;
        Some(row.1)
    }

    /// How much worse `b` is than `a`, in percent; below zero when it is better, none when there is no saying.
    pub fn worsening(self, a: f64, b: f64) -> Option<f64> {
        let by = match self {
            LowerIsBetter => b - a,
            HigherIsBetter => a - b,
            Neither => return None,
        };
        match (a == b, a == 0.0) {
            (true, _) => Some(0.0),
            // From nothing to something has no percentage: all that is worse is too much.
            (false, true) => Some(by.signum() * f64::INFINITY),
            (false, false) => Some(by / a.abs() * 100.0),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LowerIsBetter => "lower is better",
            HigherIsBetter => "higher is better",
            Neither => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_is_above_zero_either_way() {
        let worse = |d: Direction, a, b| d.worsening(a, b).unwrap();
        assert_eq!(worse(LowerIsBetter, 100.0, 110.0), 10.0);
        assert_eq!(worse(HigherIsBetter, 100.0, 110.0), -10.0);
        assert_eq!(worse(HigherIsBetter, 100.0, 75.0), 25.0);
        assert_eq!(worse(LowerIsBetter, 0.0, 0.0), 0.0);
        assert_eq!(worse(LowerIsBetter, 0.0, 1.0), f64::INFINITY);
        // PSS may have shrunk.
        assert_eq!(worse(LowerIsBetter, -10.0, -5.0), 50.0);
        assert_eq!(Neither.worsening(1.0, 2.0), None);
    }

    #[test]
    fn no_figure_has_two_rows() {
        let mut names: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
