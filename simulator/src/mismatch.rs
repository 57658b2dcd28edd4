//! Engines that are not what the scheduler believes: a simulation whose truth is its estimators' belief proves nothing
//! about them.

use equipoise_types::{RandomStream, Timestamp};

/// How far the engines' step times are from the model that predictions start from. All zero: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mismatch {
    /// Every instance is slower or faster by a factor of its own: standard deviation of its logarithm.
    pub speed_sd: f64,
    /// Every step is: standard deviation of the logarithm.
    pub noise_sd: f64,
    /// Every instance's speed swings in the course of minutes: standard deviation of the logarithm.
    pub drift_sd: f64,
    /// Share of steps that take [`STALL`] times as long, as when memory is collected or a driver hangs for a moment.
    pub stall_share: f64,
}

/// How long a stalled step takes, in steps.
pub const STALL: f64 = 5.0;
/// Shortest and longest period of the drift, seconds.
const PERIOD_S: (f64, f64) = (120.0, 900.0);

impl Mismatch {
    /// Speeds, noise and drift of one standard deviation, and a stalled step in a thousand.
    #[must_use]
    pub fn of(sd: f64) -> Self {
        Self {
            speed_sd: sd,
            noise_sd: sd,
            drift_sd: sd,
            stall_share: if sd > 0.0 { 1e-3 } else { 0.0 },
        }
    }

    /// One instance's own; `None` where there is no mismatch.
    pub(crate) fn slowness(&self, seed: u64, name: &str) -> Option<Slowness> {
        if *self == Self::default() {
            return None;
        }
        let mut random = RandomStream::new(seed).derive("mismatch").derive(name);
        let level = self.speed_sd * random.normal();
        let period_s = PERIOD_S.0 + (PERIOD_S.1 - PERIOD_S.0) * random.uniform();
        Some(Slowness {
            level,
            // A sine's standard deviation is its amplitude over the root of two.
            amplitude: self.drift_sd * std::f64::consts::SQRT_2,
            turns_per_s: 1.0 / period_s,
            phase: random.uniform(),
            noise_sd: self.noise_sd,
            stall_share: self.stall_share,
            random,
        })
    }
}

/// How much slower than its model one engine is.
#[derive(Clone, Debug)]
pub(crate) struct Slowness {
    level: f64,
    amplitude: f64,
    turns_per_s: f64,
    phase: f64,
    noise_sd: f64,
    stall_share: f64,
    random: RandomStream,
}

impl Slowness {
    /// Factor on the time of the step that begins now.
    pub(crate) fn factor(&mut self, now: Timestamp) -> f64 {
        let turns = now.as_secs_f64() * self.turns_per_s + self.phase;
        let drift = self.amplitude * (std::f64::consts::TAU * turns).sin();
        let stall = if self.random.uniform() < self.stall_share {
            STALL
        } else {
            1.0
        };
        stall * (self.level + drift + self.noise_sd * self.random.normal()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_differ_and_the_same_seed_gives_the_same() {
        let factors = |seed, name| {
            let mut slowness = Mismatch::of(0.15).slowness(seed, name).expect("mismatched");
            let at = |step: u32| Timestamp::from_secs_f64(f64::from(step));
            (0..2000).map(|step| slowness.factor(at(step))).collect::<Vec<f64>>()
        };
        assert_eq!(factors(1, "a"), factors(1, "a"));
        assert_ne!(factors(1, "a"), factors(1, "b"));
        assert_ne!(factors(1, "a"), factors(2, "a"));
        let many: Vec<f64> = (0..200).map(|seed| factors(seed, "a")[7].ln()).collect();
        let sd = (many.iter().map(|log| log * log).sum::<f64>() / 200.0).sqrt();
        assert!((sd - 0.15 * 3_f64.sqrt()).abs() < 0.06, "{sd}");
        assert!(Mismatch::default().slowness(1, "a").is_none());
    }
}
