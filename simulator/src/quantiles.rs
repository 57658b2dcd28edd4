//! A distribution of positive numbers with bounded memory.

use equipoise_types::quantile_of_sorted;
use hdrhistogram::Histogram;

/// So many values are kept as they are, 8 bytes each.
const EXACT: usize = 1 << 20;
/// Fixed point of the sketch: times have nanoseconds.
const SCALE: f64 = 1e9;
/// The sketch tells values apart that differ by a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Exact up to a million values. Beyond, quantiles are those of a histogram whose cells are a thousandth wide, about 0.7 MB
/// whatever there is in it; mean and maximum stay exact.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distribution {
    exact: Vec<f64>,
    sketch: Option<Histogram<u64>>,
    count: u64,
    sum: f64,
    max: f64,
}

impl Distribution {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
        if let Some(sketch) = &mut self.sketch {
            record(sketch, value);
        } else if self.exact.len() < EXACT {
            self.exact.push(value);
        } else {
            self.sketch(value);
        }
    }

    fn sketch(&mut self, value: f64) {
        // One more digit would take ten times as much; these figures are always valid.
        let Ok(mut sketch) = Histogram::new(SIGNIFICANT_DIGITS) else {
            return self.exact.push(value);
        };
        sketch.auto(true);
        for value in self.exact.drain(..).chain([value]) {
            record(&mut sketch, value);
        }
        self.exact = Vec::new();
        self.sketch = Some(sketch);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// `None` of nothing.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// `None` of nothing.
    pub(crate) fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }

    /// These quantiles, each in [0, 1]; `None` of nothing.
    pub(crate) fn quantiles<const N: usize>(&mut self, wanted: [f64; N]) -> Option<[f64; N]> {
        if self.count == 0 {
            return None;
        }
        if let Some(sketch) = &self.sketch {
            let of = |quantile| (sketch.value_at_quantile(quantile) as f64 / SCALE).min(self.max);
            return Some(wanted.map(of));
        }
        self.exact.sort_by(f64::total_cmp);
        Some(wanted.map(|quantile| quantile_of_sorted(&self.exact, quantile).unwrap_or_default()))
    }
}

fn record(sketch: &mut Histogram<u64>, value: f64) {
    let scaled = (value * SCALE).round() as u64;
    // The sketch grows with its largest value; where that is beyond all measure it goes into the last cell.
    if sketch.record(scaled).is_err() {
        sketch.saturating_record(scaled);
    }
}

#[cfg(test)]
mod tests {
    use equipoise_types::RandomStream;

    use super::*;

    #[test]
    fn the_sketch_is_within_a_thousandth() {
        let mut random = RandomStream::new(3);
        let values: Vec<f64> = (0..EXACT + 200_000).map(|_| random.log_normal(0.7, 1.3)).collect();
        let mut distribution = Distribution::default();
        for &value in &values {
            distribution.add(value);
        }
        assert!(distribution.sketch.is_some() && distribution.exact.capacity() == 0);
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let wanted = [0.01, 0.5, 0.95, 0.99, 0.9999];
        let found = distribution.quantiles(wanted).expect("values");
        for (quantile, found) in wanted.into_iter().zip(found) {
            let exact = quantile_of_sorted(&sorted, quantile).expect("values");
            assert!((found / exact - 1.0).abs() < 1.2e-3, "{quantile}: {found} {exact}");
        }
        assert_eq!(distribution.max(), sorted.last().copied());
        assert_eq!(
            distribution.mean(),
            Some(values.iter().sum::<f64>() / values.len() as f64)
        );
    }

    #[test]
    fn few_values_are_exact() {
        let mut distribution = Distribution::default();
        assert_eq!((distribution.quantiles([0.5]), distribution.mean()), (None, None));
        for value in [3.0, 1.0, 2.0] {
            distribution.add(value);
        }
        assert_eq!(distribution.quantiles([0.0, 0.5, 1.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(distribution.count(), 3);
    }
}
