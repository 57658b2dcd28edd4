//! Time as the agent tells it: wall time that never goes back, and ticks that all tasks share.

use equipoise_types::Timestamp;
use parking_lot::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Wall time in nanoseconds since the Unix epoch, for stamps of samples.
///
/// It follows the system's clock forwards; when that is set back it goes on at the monotonic clock's pace, so that
/// intervals never overlap. Restart the agent after setting a clock back by much.
#[derive(Debug)]
pub(crate) struct WallClock {
    last: Mutex<(u64, Instant)>,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self {
            last: Mutex::new((system_ns(), Instant::now())),
        }
    }

    /// Now, with the Unix epoch as the run's epoch.
    pub(crate) fn now(&self) -> Timestamp {
        let mut last = self.last.lock();
        let instant = Instant::now();
        let paced = Timestamp(last.0) + instant.duration_since(last.1);
        *last = (paced.0.max(system_ns()), instant);
        Timestamp(last.0)
    }
}

fn system_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The next tick after `now`: ticks lie at `origin` plus whole intervals, plus `phase`. Those that were missed are
/// skipped, so work that takes longer than an interval does not pile up.
pub(crate) fn next_tick(origin: Instant, interval: Duration, phase: Duration, now: Instant) -> Instant {
    let interval_ns = interval.as_nanos().max(1);
    let first = origin + phase;
    let passed = now.saturating_duration_since(first).as_nanos() / interval_ns;
    let next = if now < first { 0 } else { passed + 1 };
    first + Duration::from_nanos(u64::try_from(next.saturating_mul(interval_ns)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_skipped_and_ticks_stay_aligned() {
        let origin = Instant::now();
        let ms = Duration::from_millis;
        let next = |phase, now| next_tick(origin, ms(200), ms(phase), origin + ms(now)) - origin;
        assert_eq!(next(0, 0), ms(200));
        assert_eq!(next(0, 199), ms(200));
        assert_eq!(next(0, 200), ms(400));
        assert_eq!(next(0, 1234), ms(1400));
        assert_eq!(next(25, 0), ms(25));
        assert_eq!(next(25, 30), ms(225));
    }

    #[test]
    fn stamps_do_not_go_back() {
        let clock = WallClock::new();
        let ahead = system_ns() + 1_000_000_000;
        clock.last.lock().0 = ahead;
        let first = clock.now();
        assert!(first.0 >= ahead, "the system's clock lies behind and is not followed");
        assert!(clock.now() >= first);
    }
}
