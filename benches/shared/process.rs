//! What a process costs, as Linux counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// CPU seconds used so far by a process, user and system.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    stat(&format!("/proc/{pid}/stat")).map_or(0.0, |stat| stat.cpu_seconds)
}

/// CPU seconds used so far by a process, by all that come of it and still run, and by those of them that have ended.
pub(crate) fn tree_cpu_seconds(root: u32) -> f64 {
    let stats = all();
    tree(&stats, &[root])
        .iter()
        .filter_map(|pid| stats.get(pid))
        .map(|stat| stat.cpu_seconds + stat.reaped_seconds)
        .sum()
}

/// CPU seconds used so far by this process and all that come of it (the candidate, and the broker and its neighbours
/// where they are ours), and by a broker that is not.
pub(crate) fn family_cpu_seconds(broker: Option<u32>) -> f64 {
    let stats = all();
    let roots: Vec<u32> = std::iter::once(std::process::id()).chain(broker).collect();
    tree(&stats, &roots)
        .iter()
        .filter_map(|pid| stats.get(pid))
        .map(|stat| stat.cpu_seconds + stat.reaped_seconds)
        .sum()
}

/// A child of this process by a word of its command line.
pub(crate) fn child(word: &str) -> Option<u32> {
    let own = std::process::id();
    let is_it = |pid: u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|&byte| byte == 0).any(|one| one == word.as_bytes() || one.ends_with(format!("/{word}").as_bytes()))
    };
    all().into_iter().find(|(pid, stat)| stat.parent == own && is_it(*pid)).map(|(pid, _)| pid)
}

/// The calling thread's own place under `/proc`.
pub(crate) fn this_thread() -> Option<String> {
    let place = fs::read_link("/proc/thread-self").ok()?;
    Some(format!("/proc/{}/stat", place.display()))
}

/// CPU seconds used so far by the thread of that place ([`this_thread`]).
pub(crate) fn thread_cpu_seconds(place: &str) -> f64 {
    stat(place).map_or(0.0, |stat| stat.cpu_seconds)
}

struct Stat {
    parent: u32,
    cpu_seconds: f64,
    /// Of children that have ended and were waited for.
    reaped_seconds: f64,
}

/// Fields 4 and 14 to 17 of `/proc/PID/stat` (proc(5)), counted after the command's closing bracket; 100 ticks a second
/// on every Linux that this runs on.
fn stat(place: &str) -> Option<Stat> {
    let text = fs::read_to_string(place).ok()?;
    let after = text.rsplit(')').next()?;
    let field = |number: usize| after.split_whitespace().nth(number - 3);
    let seconds = |number: usize| field(number)?.parse::<f64>().ok().map(|ticks| ticks / 100.0);
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        cpu_seconds: seconds(14)? + seconds(15)?,
        reaped_seconds: seconds(16)? + seconds(17)?,
    })
}

fn all() -> BTreeMap<u32, Stat> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(&format!("/proc/{pid}/stat"))?))).collect()
}

/// The roots and all that come of them: Postgres, for one, works in children of its own.
fn tree(stats: &BTreeMap<u32, Stat>, roots: &[u32]) -> BTreeSet<u32> {
    let mut tree: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let children = stats.iter().filter(|(pid, stat)| tree.contains(&stat.parent) && !tree.contains(*pid));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        if children.is_empty() {
            return tree;
        }
        tree.extend(children);
    }
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
