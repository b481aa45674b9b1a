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
    resident()[0]
}

/// Resident memory of this process, and what of it is pages of files, in bytes; 0 if unknown.
pub(crate) fn resident() -> [u64; 2] {
    #[cfg(target_os = "linux")]
    {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split_ascii_whitespace().skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0));
        let page = rustix::param::page_size() as u64;
        [0; 2].map(|_: u64| pages.next().unwrap_or(0) * page)
    }
    #[cfg(not(target_os = "linux"))]
    [0; 2]
}

/// Bytes of memory that this process may use: what its control group says, or what the machine has.
pub(crate) fn memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let limit = group_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
    let info = read("/proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(|rest| {
        rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    });
    [limit, total].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// The least memory limit of the control groups that a process is in, as its `/proc/self/cgroup` names them, and of
/// those they are in, version 1 and 2. Within a container the groups of its own are all there are, whatever their names
/// outside.
fn group_limit(mounted: &Path, groups: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match (number, controllers) {
            ("0", "") => (mounted.to_owned(), "memory.max"),
            (_, controllers) if controllers.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let own = if is_plain { root.join(path) } else { root.clone() };
        limits.extend(own.ancestors().take_while(|folder| folder.starts_with(&root)).map(|folder| folder.join(file)));
    }
    // Where nothing is said of groups, as in some containers, there may still be one.
    limits.extend([mounted.join("memory.max"), mounted.join("memory/memory.limit_in_bytes")]);
    let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    limits.iter().filter_map(read).min()
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
    fn the_least_limit_of_all_groups_counts() {
        let check = |files: &[(&str, &str)], groups: &str, expected: Option<u64>| {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            assert_eq!(group_limit(folder.path(), groups), expected, "{files:?} {groups:?}");
        };
        let nested = [("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n"), ("a/b/c/memory.max", "2000\n")];
        check(&nested, "0::/a/b/c\n", Some(1000));
        check(&nested, "0::/x\n", None);
        check(&[("memory.max", "500")], "0::/elsewhere/outside\n", Some(500));
        check(&[("memory.max", "500")], "", Some(500));
        check(&[("memory.max", "max")], "0::/\n", None);
        let old =
            [("memory/memory.limit_in_bytes", "9223372036854771712"), ("memory/docker/x/memory.limit_in_bytes", "700")];
        check(&old, "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/docker/x\n", Some(700));
        check(&old, "4:memory:/../../etc\n", Some(9_223_372_036_854_771_712));
    }

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
    }
}
