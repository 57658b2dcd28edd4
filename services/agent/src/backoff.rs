//! How long to wait before the next attempt to reach the control plane.

use equipoise_types::RandomStream;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Exponential back-off from 100 ms to 1 s, each wait drawn from the upper half of its span, so that the agents of a
/// fleet do not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    random: RandomStream,
    span: Duration,
}

impl Backoff {
    pub(crate) fn new(random: RandomStream) -> Self {
        Self { random, span: FIRST }
    }

    /// The wait before the next attempt; the one after will be longer.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.span.mul_f64(0.5 + 0.5 * self.random.uniform());
        self.span = (self.span * 2).min(LONGEST);
        wait
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        self.span = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_differ_between_nodes() {
        let waits = |node: &str| {
            let mut backoff = Backoff::new(RandomStream::new(0).derive(node));
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        let a = waits("a");
        assert!(a[0] >= FIRST / 2 && a[0] <= FIRST, "{a:?}");
        assert!(a[7] >= LONGEST / 2 && a.iter().all(|&wait| wait <= LONGEST), "{a:?}");
        assert_eq!(a, waits("a"));
        assert_ne!(a, waits("b"));
        let mut backoff = Backoff::new(RandomStream::new(0));
        backoff.next();
        backoff.next();
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
