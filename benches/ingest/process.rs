//! What a process costs, as Linux counts it.

use std::fs;

/// CPU seconds used so far by a process, user and system.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |stat| stat.cpu_seconds)
}

/// CPU seconds used so far by this process, by those that it started and that still run (the candidate, and the broker
/// and its neighbours where they are ours), and by a broker that is not.
pub(crate) fn family_cpu_seconds(broker: Option<u32>) -> f64 {
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let belongs = |pid: u32, stat: &Stat| pid == own || stat.parent == own || Some(pid) == broker;
    let family = pids.filter_map(|pid| stat(pid).filter(|stat| belongs(pid, stat)));
    family.map(|stat| stat.cpu_seconds).sum()
}

struct Stat {
    parent: u32,
    cpu_seconds: f64,
}

/// Fields 4, 14 and 15 of `/proc/PID/stat` (proc(5)), counted after the command's closing bracket; 100 ticks a second
/// on every Linux that this runs on.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = text.rsplit(')').next()?;
    let field = |number: usize| after.split_whitespace().nth(number - 3);
    let ticks = |number: usize| field(number)?.parse::<f64>().ok();
    Some(Stat { parent: field(4)?.parse().ok()?, cpu_seconds: (ticks(14)? + ticks(15)?) / 100.0 })
}

/// The most memory that a process has had resident, in MiB.
pub(crate) fn peak_memory_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

/// CPU seconds that the whole machine has been idle so far, added over its processors.
pub(crate) fn idle_seconds() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    uptime.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

/// Descriptors that a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
