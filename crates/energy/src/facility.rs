//! From the GPUs to the facility: power usage effectiveness, carbon, and how many tokens a facility's power can yield.

use equipoise_types::{Joules, Timestamp, Watts};
use serde::{Deserialize, Serialize};

/// Power usage effectiveness where none is given: the mean of Uptime Institute's surveys (1.55 in 2022, 1.58 in 2023);
/// large operators reach 1.1.
pub const DEFAULT_PUE: f64 = 1.56;

const JOULES_PER_KWH: f64 = 3.6e6;

/// Energy at the facility's meter for energy at the computers, by the power usage effectiveness `pue`; one below 1 reads as 1.
#[must_use]
pub fn facility_energy(computers: Joules, pue: f64) -> Joules {
    Joules(computers.0 * pue.max(1.0))
}

/// Carbon intensity of the grid over time: a named, versioned series, so that a report can say what it was made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CarbonSeries {
    /// Name and version.
    pub id: String,
    /// From when on, and grams of CO2 equivalent per kWh; sorted by time. The first value also holds before.
    pub grams_per_kwh: Vec<(Timestamp, f64)>,
}

impl CarbonSeries {
    /// Grams of CO2 equivalent of facility energy that was drawn evenly from `start` to `end`; `None` for an empty series.
    #[must_use]
    pub fn grams(&self, facility: Joules, start: Timestamp, end: Timestamp) -> Option<f64> {
        let intensity = self.mean(start, end)?;
        Some(facility.0 / JOULES_PER_KWH * intensity)
    }

    fn mean(&self, start: Timestamp, end: Timestamp) -> Option<f64> {
        let at_start = self
            .grams_per_kwh
            .partition_point(|&(from, _)| from <= start)
            .saturating_sub(1);
        let (_, first) = *self.grams_per_kwh.get(at_start)?;
        if end <= start {
            return Some(first);
        }
        let (mut sum, mut since, mut value) = (0.0, start, first);
        for &(from, next) in self.grams_per_kwh[at_start + 1..]
            .iter()
            .take_while(|&&(from, _)| from < end)
        {
            if from > since {
                sum += value * from.secs_since(since);
                since = from;
            }
            value = next;
        }
        sum += value * end.secs_since(since);
        Some(sum / end.secs_since(start))
    }
}

/// What limits a pool's tokens: the token production function (arXiv 2605.11733),
/// `rate = min(K_eff / c_tok, theta * P_facility / e_tok) * Phi * U`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenProduction {
    /// Throughput that the GPUs reach in practice, FLOP/s (K_eff).
    pub effective_flops: f64,
    /// FLOPs that a token takes (c_tok).
    pub flops_per_token: f64,
    /// Power that the facility may draw (P_facility).
    pub facility_power: Watts,
    /// Share of it that reaches the GPUs as power above idle (theta): 1 / PUE, less the idle share.
    pub delivered_share: f64,
    /// Energy above idle that a token takes (e_tok).
    pub joules_per_token: f64,
    /// Share of tokens that are of use: not retried, cancelled or thrown away (Phi).
    pub useful_share: f64,
    /// Share of time with work (U).
    pub utilisation: f64,
}

/// Which ceiling binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ceiling {
    /// More power would not yield more tokens.
    Compute,
    /// More GPUs would not yield more tokens.
    Power,
}

/// What a pool can yield.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Production {
    /// Useful tokens per second.
    pub tokens_per_second: f64,
    /// What binds.
    pub binding: Ceiling,
    /// How far above lies the other ceiling, as a share of the binding one.
    pub slack: f64,
}

impl TokenProduction {
    /// The rate and what binds it; `None` unless both costs per token are positive. At equality compute binds.
    #[must_use]
    pub fn production(&self) -> Option<Production> {
        if !(self.flops_per_token > 0.0 && self.joules_per_token > 0.0) {
            return None;
        }
        let compute = self.effective_flops / self.flops_per_token;
        let power = self.delivered_share * self.facility_power.0 / self.joules_per_token;
        let (binding, low, high) = if power < compute {
            (Ceiling::Power, power, compute)
        } else {
            (Ceiling::Compute, compute, power)
        };
        let slack = if low > 0.0 { high / low - 1.0 } else { f64::INFINITY };
        Some(Production {
            tokens_per_second: low * self.useful_share * self.utilisation,
            binding,
            slack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn carbon_follows_the_series() {
        let series = CarbonSeries {
            id: "grid-1".to_owned(),
            grams_per_kwh: vec![
                (Timestamp(0), 100.0),
                (Timestamp(HOUR), 300.0),
                (Timestamp(2 * HOUR), 500.0),
            ],
        };
        let grams = |start, end| {
            series
                .grams(Joules(3.6e6), Timestamp(start), Timestamp(end))
                .expect("not empty")
        };
        assert_eq!(grams(0, HOUR), 100.0);
        assert_eq!(grams(HOUR / 2, 3 * HOUR / 2), 200.0);
        assert_eq!(grams(0, 4 * HOUR), 350.0);
        assert_eq!(grams(5 * HOUR, 5 * HOUR), 500.0);
        assert_eq!(facility_energy(Joules(10.0), 0.2), Joules(10.0));
        assert_eq!(facility_energy(Joules(10.0), 1.5), Joules(15.0));
        let empty = CarbonSeries {
            id: String::new(),
            grams_per_kwh: Vec::new(),
        };
        assert_eq!(empty.grams(Joules(1.0), Timestamp(0), Timestamp(1)), None);
    }

    #[test]
    fn the_label_flips_where_the_power_ceiling_crosses() {
        let at = |watts| {
            let pool = TokenProduction {
                effective_flops: 4e14,
                flops_per_token: 1.6e10,
                facility_power: Watts(watts),
                delivered_share: 0.5,
                joules_per_token: 0.1,
                useful_share: 0.9,
                utilisation: 0.8,
            };
            pool.production().expect("positive costs")
        };
        // 25,000 tokens a second of compute cost 2,500 W above idle: 5,000 W at the facility.
        assert_eq!(at(5000.0).binding, Ceiling::Compute);
        assert_eq!(at(4999.9).binding, Ceiling::Power);
        assert_eq!(
            at(10_000.0),
            Production {
                tokens_per_second: 18_000.0,
                binding: Ceiling::Compute,
                slack: 1.0
            }
        );
        assert_eq!(
            at(2500.0),
            Production {
                tokens_per_second: 9000.0,
                binding: Ceiling::Power,
                slack: 1.0
            }
        );
    }
}
