//! From values to places on an axis.

/// An axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Equal distances are equal differences.
    Linear {
        /// Value at its beginning.
        low: f64,
        /// Value at its end.
        high: f64,
    },
    /// Equal distances are equal ratios.
    Log {
        /// Value at its beginning, above zero.
        low: f64,
        /// Value at its end.
        high: f64,
    },
}

impl Scale {
    /// A linear axis with room around all of `values`; from zero where `from_zero`.
    #[must_use]
    pub fn linear(values: impl IntoIterator<Item = f64>, from_zero: bool) -> Self {
        let (mut low, mut high) = ends(values).unwrap_or((0.0, 1.0));
        if from_zero {
            low = low.min(0.0);
        }
        if high <= low {
            let room = (high.abs() * 0.1).max(1e-9);
            (low, high) = (if from_zero { low } else { low - room }, high + room);
        }
        let room = 0.06 * (high - low);
        Self::Linear {
            low: if from_zero { low } else { low - room },
            high: high + room,
        }
    }

    /// A logarithmic axis with room around all positive `values`.
    #[must_use]
    pub fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = ends(values.into_iter().filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        // At least a factor of two, so that noise does not look like a mountain.
        let room = (0.5 * (2.0 / (high / low)).ln()).max(0.04 * (high / low).ln());
        let room = room.max(0.05).exp();
        Self::Log {
            low: low / room,
            high: high * room,
        }
    }

    /// Where a value lies: 0 at the beginning, 1 at the end, and no further.
    #[must_use]
    pub fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } if value > 0.0 => (value / low).ln() / (high / low).ln(),
            Self::Log { .. } => 0.0,
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Round values along it, about `wanted` of them.
    #[must_use]
    pub fn ticks(self, wanted: usize) -> Vec<f64> {
        match self {
            Self::Linear { low, high } => linear_ticks(low, high, wanted),
            Self::Log { low, high } => log_ticks(low, high, wanted),
        }
    }
}

/// The least and the largest; `None` of nothing finite.
fn ends(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    finite.fold(None, |ends, value| {
        let (low, high) = ends.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

fn linear_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let span = high - low;
    if !(span.is_finite() && span > 0.0) || wanted == 0 {
        return Vec::new();
    }
    let rough = span / wanted as f64;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * decade)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * decade);
    let first = (low / step).ceil();
    let last = (high / step).floor();
    let count = (last - first).clamp(0.0, 100.0) as u32;
    // A zero that is a hair off would be written with a sign.
    (0..=count)
        .map(|index| (first + f64::from(index)) * step)
        .map(|value| if value.abs() < step * 1e-9 { 0.0 } else { value })
        .filter(|value| *value >= low - step * 1e-9 && *value <= high + step * 1e-9)
        .collect()
}

fn log_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let choices: [&[f64]; 4] = [&[1.0, 2.0, 3.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    if last - first > 60 {
        return Vec::new();
    }
    let with = |steps: &[f64], every: i32| -> Vec<f64> {
        (first..=last)
            .filter(|decade| decade.rem_euclid(every) == 0)
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(|value| *value >= low && *value <= high)
            .collect()
    };
    let fits = |ticks: &Vec<f64>| ticks.len() <= wanted + 2;
    let dense = choices.into_iter().map(|steps| with(steps, 1)).find(fits);
    dense.unwrap_or_else(|| {
        let every = ((last - first) as usize / wanted.max(1) + 1) as i32;
        with(&[1.0], every)
    })
}

/// A tick's label: as few digits as tell it, thousands as `k`, millions as `M`.
#[must_use]
pub fn tick_label(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Six significant digits hide what addition left behind.
    let digits = if scaled == 0.0 {
        0
    } else {
        (5 - scaled.abs().log10().floor() as i32).clamp(0, 9) as usize
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let labels = |scale: Scale, wanted| scale.ticks(wanted).into_iter().map(tick_label).collect::<Vec<_>>();
        assert_eq!(labels(Scale::Linear { low: -0.02, high: 1.03 }, 5), ["0", "0.5", "1"]);
        assert_eq!(
            labels(Scale::Linear { low: 0.31, high: 0.452 }, 5),
            ["0.35", "0.4", "0.45"]
        );
        assert_eq!(
            labels(Scale::Log { low: 0.9, high: 1200.0 }, 5),
            ["1", "3", "10", "30", "100", "300", "1000"]
        );
        assert_eq!(labels(Scale::Log { low: 4.0, high: 9.0 }, 5), ["5", "7"]);
        assert_eq!(
            labels(Scale::Log { low: 1e3, high: 3e7 }, 5),
            ["1000", "10k", "100k", "1M", "10M"]
        );
    }

    #[test]
    fn places_stay_on_the_axis_whatever_comes() {
        let scales = [
            Scale::linear([], false),
            Scale::linear([5.0], false),
            Scale::linear([f64::NAN, 2.0, f64::INFINITY], true),
            Scale::log([]),
            Scale::log([0.0, -1.0, 3.0]),
        ];
        for scale in scales {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 2.0, 1e300] {
                let share = scale.share(value);
                assert!((0.0..=1.0).contains(&share), "{scale:?} {value} {share}");
            }
            assert!(scale.ticks(5).iter().all(|tick| tick.is_finite()), "{scale:?}");
        }
        assert_eq!(Scale::Linear { low: 1.0, high: 3.0 }.share(2.0), 0.5);
        assert!((Scale::Log { low: 1.0, high: 100.0 }.share(10.0) - 0.5).abs() < 1e-12);
    }
}
