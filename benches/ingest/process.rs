//! What a process costs, as Linux counts it.

use std::fs;

/// CPU seconds used so far by a process, user and system.
pub fn cpu_seconds(pid: u32) -> f64 {
    // Fields 14 and 15 of /proc/PID/stat (proc(5)), counted after the command's closing bracket; 100 ticks a second on
    // every Linux that this runs on.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| after.split_whitespace().nth(field - 3).and_then(|n| n.parse::<f64>().ok());
    (ticks(14).unwrap_or(0.0) + ticks(15).unwrap_or(0.0)) / 100.0
}

/// The most memory that a process has had resident, in MiB.
pub fn peak_memory_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

/// CPU seconds that the whole machine has been idle so far, added over its processors.
pub fn idle_seconds() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    uptime.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0)
}
