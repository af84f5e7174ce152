//! How much memory this process may use.

/// Bytes of memory of the machine, or of the container where that is less. `None` where it cannot be
/// known (in simulation, on other systems than Linux).
pub fn available() -> Option<u64> {
    read()
}

#[cfg(all(target_os = "linux", not(madsim)))]
fn read() -> Option<u64> {
    use std::fs::read_to_string;
    let number = |path: String| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = control_groups(&groups).into_iter().filter_map(number);
    let machine = total(&read_to_string("/proc/meminfo").unwrap_or_default());
    limits.chain(machine).min()
}

#[cfg(not(all(target_os = "linux", not(madsim))))]
fn read() -> Option<u64> {
    None
}

/// The files that hold the limits of the control groups named in `/proc/self/cgroup`, and of those
/// around them, in either version. Inside a container the paths may name what is outside: files that
/// are not there are no limits, and the root's is always asked.
#[cfg(all(target_os = "linux", not(madsim)))]
fn control_groups(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, name) = if kinds.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if kinds.split(',').any(|kind| kind == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{name}"));
            match path.rfind('/') {
                Some(end) => path = &path[..end],
                None => break,
            }
        }
    }
    files
}

/// The machine's memory as `/proc/meminfo` tells it.
#[cfg(all(target_os = "linux", not(madsim)))]
fn total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(all(test, target_os = "linux", not(madsim)))]
mod tests {
    use super::*;

    #[test]
    fn every_control_group_around_the_process_is_asked() {
        let both = "4:cpu,memory:/docker/ab\n3:pids:/x\n0::/a.slice/b\n";
        let expected = [
            "/sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/a.slice/b/memory.max",
            "/sys/fs/cgroup/a.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(control_groups(both), expected);
        assert_eq!(control_groups("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert!(control_groups("garbage\n1\n").is_empty());
    }

    #[test]
    fn the_machines_memory_is_read() {
        let text = "MemTotal:       24637576 kB\nMemFree:  1 kB\n";
        assert_eq!(total(text), Some(24_637_576 * 1024));
        assert_eq!(total("MemTotal: much\n"), None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
