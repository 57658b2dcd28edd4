//! How an opaque instance slows down under load: a line through what was observed, learned with bounded memory.

/// What is known without data: sixteen requests in flight double the time. Between a batching engine on a large GPU
/// (hundreds) and a box with a few slots.
const PRIOR_SLOPE: f64 = 1.0 / 16.0;
/// The prior's weight against the data, in squared requests of spread: one observation two requests off the mean.
const PRIOR_SPREAD: f64 = 4.0;
/// Each observation weighs this much less when the next one comes: about fifty are remembered.
const MEMORY: f64 = 0.98;
/// Load never speeds anybody up, and ties must go to the less busy.
const SLOPE_BOUNDS: (f64, f64) = (1.0 / 128.0, 2.0);
/// One answer may be this many times slower or faster than the mean before it counts as an outlier.
const OUTLIER: f64 = 4.0;

/// Time as `level * (1 + slope * in_flight)`: a weighted least-squares line, of which only the slope is kept. The
/// level is the business of [`crate::Residual`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LoadSlope {
    weight: f64,
    load: f64,
    load_squared: f64,
    time: f64,
    load_time: f64,
}

impl LoadSlope {
    /// Takes in how long an answer took, relative to one without load, with so many others in flight.
    pub(crate) fn observe(&mut self, in_flight: u32, mut time: f64) {
        if !(time.is_finite() && time > 0.0) {
            return;
        }
        if self.weight > 3.0 {
            let mean = self.time / self.weight;
            time = time.clamp(mean / OUTLIER, mean * OUTLIER);
        }
        let load = f64::from(in_flight);
        let fade = |sum: f64, new: f64| sum * MEMORY + new;
        self.weight = fade(self.weight, 1.0);
        self.load = fade(self.load, load);
        self.load_squared = fade(self.load_squared, load * load);
        self.time = fade(self.time, time);
        self.load_time = fade(self.load_time, load * time);
    }

    /// Times are this much longer with so many others in flight than with none.
    pub(crate) fn factor(&self, in_flight: u32) -> f64 {
        1.0 + self.slope() * f64::from(in_flight)
    }

    fn slope(&self) -> f64 {
        if self.weight <= 0.0 {
            return PRIOR_SLOPE;
        }
        let (load, time) = (self.load / self.weight, self.time / self.weight);
        let covariance = self.load_time - self.load * time;
        let spread = self.load_squared - self.load * load;
        // The prior's line goes through the mean of the data.
        let prior = PRIOR_SLOPE * time / (1.0 + PRIOR_SLOPE * load);
        let slope = (covariance + PRIOR_SPREAD * prior) / (spread + PRIOR_SPREAD);
        let level = (time - slope * load).max(0.05 * time);
        (slope / level).clamp(SLOPE_BOUNDS.0, SLOPE_BOUNDS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn learned(time: impl Fn(u32) -> f64) -> LoadSlope {
        let mut slope = LoadSlope::default();
        for round in 0..200_u32 {
            let in_flight = round * 7 % 25;
            slope.observe(in_flight, time(in_flight));
        }
        slope
    }

    #[test]
    fn a_line_is_found() {
        let slope = learned(|in_flight| 3.0 * (1.0 + 0.2 * f64::from(in_flight)));
        assert!((slope.factor(10) - 3.0).abs() < 0.05, "{slope:?}");
    }

    #[test]
    fn a_box_with_slots_is_steep_and_a_batching_engine_flat() {
        let slots = learned(|in_flight| (f64::from(in_flight + 1) / 8.0).max(1.0));
        let batching = learned(|in_flight| 1.0 + f64::from(in_flight) / 200.0);
        assert!(slots.factor(24) > 2.5, "{}", slots.factor(24));
        assert!(batching.factor(24) < 1.3, "{}", batching.factor(24));
    }

    proptest! {
        #[test]
        fn load_never_helps(pairs in proptest::collection::vec((0_u32..300, 1e-6..1e6_f64), 0..100)) {
            let mut slope = LoadSlope::default();
            for (in_flight, time) in pairs {
                slope.observe(in_flight, time);
                prop_assert!(slope.factor(0) == 1.0 && slope.factor(9) > 1.0 && slope.factor(9).is_finite());
            }
        }
    }
}
