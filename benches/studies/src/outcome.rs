//! What came of one run, as far as a study compares it.

use equipoise_config::FleetConfig;
use equipoise_simulator::PolicyResult;
use serde::Serialize;

/// One run in a few figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Mean label of the answers over all requests that were offered: what is refused is as bad as wrong.
    pub quality: f64,
    /// Time to the last token, 95th percentile, seconds.
    pub e2e_p95_s: f64,
    /// The same, mean.
    pub e2e_mean_s: f64,
    /// Time to the first token, 95th percentile, seconds.
    pub ttft_p95_s: f64,
    /// Energy of engine steps per finished request, joules.
    pub joules: f64,
    /// All energy per finished request, the draw between steps included, joules.
    pub joules_with_idle: f64,
    /// What the fleet draws above its idle draw, per finished request, joules.
    pub joules_above_idle: f64,
    /// US dollars of a thousand requests.
    pub usd_per_1000: f64,
    /// Refused or unfinished, share of all.
    pub unserved: f64,
    /// Finished requests per second of the run.
    pub finished_per_s: f64,
    /// Mean number of instances in which a step ran.
    pub busy_instances: f64,
    /// Model and its share of the answers.
    pub shares: Vec<(String, f64)>,
}

impl Outcome {
    /// Of a simulation's result.
    #[must_use]
    pub fn of(result: &PolicyResult, fleet: &FleetConfig) -> Self {
        let offered = (result.offered as f64).max(1.0);
        let finished = result.finished as f64;
        let infinite = f64::INFINITY;
        let idle_watts: f64 = fleet
            .instances
            .iter()
            .filter_map(|instance| instance.step_model().ok())
            .map(|model| model.idle_watts().0)
            .sum();
        let measured = result.energy.measured_mj.as_joules().0;
        let per_request = |joules: f64| if finished > 0.0 { joules / finished } else { infinite };
        Self {
            quality: result.quality_mean.unwrap_or(0.0) * finished / offered,
            e2e_p95_s: result.e2e_s.map_or(infinite, |times| times.p95),
            e2e_mean_s: result.e2e_s.map_or(infinite, |times| times.mean),
            ttft_p95_s: result.ttft_s.map_or(infinite, |times| times.p95),
            joules: result.joules_per_request_active.unwrap_or(infinite),
            joules_with_idle: per_request(measured),
            joules_above_idle: per_request(measured - idle_watts * result.duration_s),
            usd_per_1000: result.usd_per_1000_requests.unwrap_or(infinite),
            unserved: 1.0 - finished / offered,
            finished_per_s: finished / result.duration_s.max(1e-9),
            busy_instances: result.instances.iter().map(|instance| instance.busy_share).sum(),
            shares: result
                .models
                .iter()
                .map(|share| (share.model.clone(), share.share))
                .collect(),
        }
    }
}
