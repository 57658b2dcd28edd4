//! Draws and moments of the distributions that arrivals and lengths follow.

use equipoise_types::RandomStream;

/// Gamma with the given shape and scale 1 (mean = variance = shape), by Marsaglia and Tsang, "A simple method for
/// generating gamma variables", ACM TOMS 26(3), 2000; their section 6 for shapes below 1.
pub(crate) fn gamma(stream: &mut RandomStream, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - stream.uniform()).powf(1.0 / shape);
        return gamma(stream, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = stream.normal();
        let v = (1.0 + c * x).powi(3);
        // Of uniform draws in (0, 1].
        let u = 1.0 - stream.uniform();
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Weibull with the given shape and scale 1, by inversion.
pub(crate) fn weibull(stream: &mut RandomStream, shape: f64) -> f64 {
    stream.exponential(1.0).powf(1.0 / shape)
}

/// The logarithm of the gamma function for positive arguments, by Lanczos' approximation with g = 7 and 9 terms
/// (relative error below 1e-13).
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let tail: f64 = COEFFICIENTS[1..]
        .iter()
        .zip(1..)
        .map(|(coefficient, index)| coefficient / (x + f64::from(index)))
        .sum();
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + (COEFFICIENTS[0] + tail).ln()
}

/// The mean of a Weibull distribution with scale 1: Γ(1 + 1/k).
pub(crate) fn weibull_mean(shape: f64) -> f64 {
    ln_gamma(1.0 + 1.0 / shape).exp()
}

/// The coefficient of variation of a Weibull distribution: sqrt(Γ(1 + 2/k) / Γ(1 + 1/k)² − 1).
pub(crate) fn weibull_cv(shape: f64) -> f64 {
    let ratio = ln_gamma(1.0 + 2.0 / shape) - 2.0 * ln_gamma(1.0 + 1.0 / shape);
    (ratio.exp() - 1.0).max(0.0).sqrt()
}

/// The shape of the Weibull distribution with a coefficient of variation, which falls with the shape: by bisection
/// between the shapes 0.05 (cv 4 · 10⁵) and 100 (cv 0.013).
pub(crate) fn weibull_shape(cv: f64) -> f64 {
    let (mut low, mut high) = (0.05_f64, 100.0_f64);
    for _ in 0..100 {
        let middle = (low * high).sqrt();
        if weibull_cv(middle) > cv {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low * high).sqrt()
}

/// Counts of lengths, to draw from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    values: Vec<u32>,
    /// The weight of all values up to this one.
    cumulative: Vec<f64>,
}

impl Histogram {
    /// From values and weights; `None` if no weight is above zero, or one is no weight.
    pub(crate) fn new(bins: impl IntoIterator<Item = (u32, f64)>) -> Option<Self> {
        let mut histogram = Self {
            values: Vec::new(),
            cumulative: Vec::new(),
        };
        let mut total = 0.0;
        for (value, weight) in bins {
            if !(weight.is_finite() && weight >= 0.0) {
                return None;
            }
            if weight > 0.0 {
                total += weight;
                histogram.values.push(value);
                histogram.cumulative.push(total);
            }
        }
        (total > 0.0 && total.is_finite()).then_some(histogram)
    }

    pub(crate) fn draw(&self, stream: &mut RandomStream) -> u32 {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let at = stream.uniform() * total;
        let index = self.cumulative.partition_point(|&cumulative| cumulative <= at);
        self.values[index.min(self.values.len() - 1)]
    }

    #[cfg(test)]
    pub(crate) fn mean(&self) -> f64 {
        let mut below = 0.0;
        let mut sum = 0.0;
        for (&value, &cumulative) in self.values.iter().zip(&self.cumulative) {
            sum += f64::from(value) * (cumulative - below);
            below = cumulative;
        }
        sum / below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        const DRAWS: usize = 200_000;
        let values: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / DRAWS as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / DRAWS as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn gamma_has_its_moments() {
        for shape in [0.05, 0.4, 1.0, 3.7, 50.0] {
            let mut stream = RandomStream::new(3);
            let (mean, cv) = moments(|| gamma(&mut stream, shape));
            assert!((mean / shape - 1.0).abs() < 0.03, "shape {shape}: mean {mean}");
            assert!((cv * shape.sqrt() - 1.0).abs() < 0.03, "shape {shape}: cv {cv}");
        }
    }

    #[test]
    fn weibull_has_its_moments() {
        // Γ(3/2) = √π / 2, and the exponential distribution.
        assert!((weibull_mean(2.0) - 0.886_226_925_452_758).abs() < 1e-12);
        assert!((weibull_cv(1.0) - 1.0).abs() < 1e-12);
        for shape in [0.5, 1.0, 2.5] {
            let mut stream = RandomStream::new(4);
            let (mean, cv) = moments(|| weibull(&mut stream, shape));
            assert!(
                (mean / weibull_mean(shape) - 1.0).abs() < 0.03,
                "shape {shape}: mean {mean}"
            );
            assert!((cv / weibull_cv(shape) - 1.0).abs() < 0.03, "shape {shape}: cv {cv}");
        }
        for cv in [0.1, 0.5, 1.0, 3.0, 20.0] {
            assert!((weibull_cv(weibull_shape(cv)) / cv - 1.0).abs() < 1e-9, "{cv}");
        }
    }

    #[test]
    fn a_histogram_draws_what_it_counts() {
        let histogram = Histogram::new([(3, 1.0), (10, 0.0), (20, 3.0)]).expect("weights");
        assert!((histogram.mean() - 15.75).abs() < 1e-12);
        let mut stream = RandomStream::new(5);
        let mean = (0..20_000).map(|_| f64::from(histogram.draw(&mut stream))).sum::<f64>() / 20_000.0;
        assert!((mean - 15.75).abs() < 0.2, "{mean}");
        assert_eq!(Histogram::new([(3, 0.0)]), None);
        assert_eq!(Histogram::new([(3, f64::NAN)]), None);
        assert_eq!(Histogram::new([]), None);
    }
}
