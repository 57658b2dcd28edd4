//! CPU time of this process's threads by name (Linux).

use std::fs;
use std::time::Duration;

/// CPU time so far of all living threads whose name begins with `prefix`; `None` where the system does not tell.
#[must_use]
pub fn of_threads(prefix: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let task = task.ok()?.path();
        // A thread may end while it is looked at.
        let Ok(name) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if name.starts_with(prefix) {
            // The first figure is the time on a CPU, nanoseconds (Documentation/scheduler/sched-stats).
            let statistics = fs::read_to_string(task.join("schedstat")).ok()?;
            let nanoseconds: u64 = statistics.split_whitespace().next()?.parse().ok()?;
            total += Duration::from_nanos(nanoseconds);
        }
    }
    Some(total)
}
