//! CPU time of this process's threads by name (Linux).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// How often this thread was put on a processor: where the number stays the same, nobody else ran in between.
#[derive(Debug)]
pub struct Turns(File);

impl Turns {
    /// Of the thread that asks.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn of_this_thread() -> io::Result<Self> {
        File::open("/proc/thread-self/schedstat").map(Self)
    }

    /// The number so far; `None` where it cannot be read.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let mut text = [0_u8; 96];
        let length = self.0.read_at(&mut text, 0).ok()?;
        // The third figure (Documentation/scheduler/sched-stats).
        let statistics = str::from_utf8(&text[..length]).ok()?;
        statistics.split_whitespace().nth(2)?.parse().ok()
    }
}

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
