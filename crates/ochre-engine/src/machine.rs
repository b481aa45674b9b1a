//! What the machine has and what is used of it, as far as it can be told: on Linux, from `/proc` and the
//! control group. Elsewhere nothing is known, and nothing is held back for it.

use std::path::Path;

/// A machine with so many processors.
pub(crate) struct Machine {
    processors: usize,
}

/// Processor time used since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    all_ticks: u64,
    busy_ticks: u64,
    own_ticks: u64,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { processors: std::thread::available_parallelism().map_or(1, usize::from) }
    }

    pub(crate) fn processors(&self) -> usize {
        self.processors
    }

    pub(crate) fn usage(&self) -> Usage {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        usage_of(&read("/proc/stat"), &read("/proc/self/stat"))
    }

    /// Resident memory of this process, mapped files included, in bytes; 0 if unknown.
    pub(crate) fn resident_bytes(&self) -> u64 {
        resident_bytes()
    }
}

/// Resident memory of this process, mapped files included, in bytes; 0 if unknown.
pub(crate) fn resident_bytes() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// Bytes of memory that this process may use: what its control group says, or what the machine has.
pub(crate) fn memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = groups.iter().filter_map(|path| read(path).trim().parse::<u64>().ok()).min();
    let info = read("/proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|rest| {
        rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    [limit, total].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// Bytes that are free on the file system of a path, as `df` tells them; `None` if it cannot be told.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(path).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Makes this thread, and those that it starts from now on, one of a lower priority. On Linux a thread has a
/// priority of its own; elsewhere this does nothing.
pub(crate) fn step_down() {
    #[cfg(target_os = "linux")]
    {
        // Refused, the thread stays as it is.
        let _ = rustix::process::setpriority_process(None, 10);
    }
}

fn usage_of(stat: &str, own: &str) -> Usage {
    let numbers: Vec<u64> = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .map(|rest| rest.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect())
        .unwrap_or_default();
    // user nice system idle iowait irq softirq steal
    let all: u64 = numbers.iter().take(8).sum();
    let idle: u64 = numbers.iter().skip(3).take(2).sum();
    // The name in parentheses may hold anything; after it come state and eleven fields, then our times.
    let own_ticks = own.rsplit_once(')').map_or(0, |(_, rest)| {
        rest.split_ascii_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    });
    Usage { all_ticks: all, busy_ticks: all - idle, own_ticks }
}

impl Usage {
    /// The share of all processors that other processes used since `before`; 0 if too little time passed.
    pub(crate) fn others_since(&self, before: &Self) -> f64 {
        let all = self.all_ticks.saturating_sub(before.all_ticks);
        // A tick is 10 ms of one processor.
        if all < 10 {
            return 0.0;
        }
        let own = self.own_ticks.saturating_sub(before.own_ticks);
        let others = self.busy_ticks.saturating_sub(before.busy_ticks).saturating_sub(own);
        others as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_use_is_what_is_busy_and_not_our_own() {
        let stat = |busy: u64, idle: u64| format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n");
        let own = |ticks: u64| format!("17 (a )name) S 1 1 1 0 -1 4 0 0 0 0 {ticks} 0 0 0 20");
        let before = usage_of(&stat(100, 100), &own(50));
        let after = usage_of(&stat(180, 120), &own(70));
        assert!((after.others_since(&before) - 0.6).abs() < 1e-9);
        assert_eq!(before.others_since(&before), 0.0);
        assert_eq!(usage_of("", ""), Usage::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_what_it_has() {
        assert!(resident_bytes() > 1 << 20);
        assert!(memory_bytes() > resident_bytes());
        assert!(free_bytes(Path::new("/")).is_some());
    }
}
