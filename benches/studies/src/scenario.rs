//! The loads of a study, as shares of what the fleet can do.

use std::path::Path;

use crate::arm::{Arm, Family};
use crate::setting::{Arrivals, Setting};

/// One way in which requests come.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// `Poisson 30 %`.
    pub name: String,
    /// Mean rate as a share of the fleet's capacity.
    pub load: f64,
    /// When requests come.
    pub arrivals: Arrivals,
}

/// Requests per second that the fleet finishes while every engine is full: of two bursts that arrive at once, one twice
/// as large as the other, the difference in answers over the difference in time, so that neither the beginning nor the end
/// counts. Each engine takes the next request as soon as it has a free slot (`least-requests`), whatever its model.
///
/// # Errors
/// As a run.
pub fn capacity_per_s(setting: &Setting, requests: usize, seed: u64) -> anyhow::Result<f64> {
    let arm = Arm::named("least-requests", Family::Balancer);
    let burst = |requests: usize| {
        let arrivals = Arrivals::Poisson {
            rate_per_s: 1e6,
            seconds: requests as f64 / 1e6,
        };
        setting.run(&arm, &arrivals, seed).map(|outcome| {
            let seconds = requests as f64 / outcome.finished_per_s;
            (requests as f64, seconds)
        })
    };
    let (small, large) = (burst(requests)?, burst(2 * requests)?);
    Ok((large.0 - small.0) / (large.1 - small.1))
}

/// A Poisson process at a share of the capacity: for `seconds`, and for at least so many requests.
#[must_use]
pub fn poisson(load: f64, capacity_per_s: f64, seconds: f64, least: usize) -> Scenario {
    let rate_per_s = load * capacity_per_s;
    Scenario {
        name: format!("Poisson {:.0} %", 100.0 * load),
        load,
        arrivals: Arrivals::Poisson {
            rate_per_s,
            seconds: seconds.max(least as f64 / rate_per_s),
        },
    }
}

/// The arrivals of a trace, played so much faster that their mean rate is a share of the capacity.
///
/// # Errors
/// A file that is absent or malformed.
pub fn trace(name: &str, path: &Path, load: f64, capacity_per_s: f64, requests: usize) -> anyhow::Result<Scenario> {
    let Arrivals::Trace { records, .. } = Arrivals::read(path, requests, 1.0)? else {
        anyhow::bail!("a trace was read as something else");
    };
    let seconds = records.last().map_or(0.0, |last| last.arrival.as_secs_f64());
    let rate_per_s = records.len() as f64 / seconds.max(1e-9);
    Ok(Scenario {
        name: format!("{name} {:.0} %", 100.0 * load),
        load,
        arrivals: Arrivals::Trace {
            records,
            speed: load * capacity_per_s / rate_per_s,
        },
    })
}
