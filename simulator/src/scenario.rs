//! A scenario, ready to run: its files are read, its cells are listed.

mod in_words;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use equipoise_config::{ArmConfig, PromptsConfig, ScenarioConfig, SloConfig, WorkloadSource};
use equipoise_predict::{ArtifactError, Predictor};
use equipoise_trace::{GeneratorError, TraceError, WorkloadRecord};
use xxhash_rust::xxh3::xxh3_128;

use workload::Requests;

use crate::{
    ConditionOptions, Distributions, Mismatch, PolicyResult, PromptError, PromptSet, RequestRecord, RequestSink,
    RouterOptions, RunOutcome, SimulationError, SimulationOptions, SloGoal, simulate_stream,
};

/// A scenario whose files have been read.
#[derive(Clone, Debug)]
pub struct Scenario {
    config: ScenarioConfig,
    /// The segment of the trace, where the workload is one.
    trace: Option<Arc<[WorkloadRecord]>>,
    prompts: Option<PromptSet>,
    /// Stands for all of it that decides what a cell's run does, but for the cell.
    shared: u128,
}

/// One run of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenarioCell {
    /// Its place in the grid.
    pub index: usize,
    /// Mean requests per second; `None`: the workload's own.
    pub rate_per_s: Option<f64>,
    /// The policy with its settings.
    pub arm: ArmConfig,
    /// The seed.
    pub seed: u64,
}

/// Why a scenario does not run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A path in the data folder, and no data folder.
    #[error("`data:{}` lies in the data folder, and none is named: set EQUIPOISE_DATA or --data", .0.display())]
    NoData(PathBuf),
    /// Nobody knows this format.
    #[error("the trace's format `{0}` is not known; leave `format` out, and the first bytes tell")]
    Format(String),
    /// The segment is empty.
    #[error("no request of {} lies in the segment that was asked for", .0.display())]
    EmptySegment(PathBuf),
    /// All requests come at once.
    #[error("all requests of {} arrive at once: there is no rate to change", .0.display())]
    NoRate(PathBuf),
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The generator refuses.
    #[error("[workload]: {0}")]
    Generator(#[from] GeneratorError),
    /// The prompts cannot be read.
    #[error("[workload] prompts: {0}")]
    Prompts(#[from] PromptError),
    /// The embedded predictor cannot be read.
    #[error(transparent)]
    Predictor(#[from] ArtifactError),
    /// The simulation does not start.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// Energy was lost or made up.
    #[error("policy {policy}: attributed + idle + unattributed is not what was measured; please report this")]
    Energy {
        /// Whose run it was.
        policy: String,
    },
}

/// Sees every request of a cell, beside the report.
struct Both<'a, Sink> {
    distributions: Distributions,
    sink: &'a mut Sink,
}

impl<Sink: RequestSink> RequestSink for Both<'_, Sink> {
    fn request(&mut self, record: &RequestRecord<'_>) {
        self.distributions.request(record);
        self.sink.request(record);
    }
}

/// A hash of what all cells have in common. Names and the rest of the grid have no part in it.
fn shared(config: &ScenarioConfig, trace: Option<&[WorkloadRecord]>, prompts: Option<&PromptSet>) -> u128 {
    let mut config = config.clone();
    config.name.clear();
    config.arms.clear();
    config.seeds.clear();
    config.sweep = Default::default();
    let requests = trace.map(|trace| (trace.len(), trace.last()));
    let prompts = prompts.map(|prompts| prompts.prompts().len());
    let version = env!("CARGO_PKG_VERSION");
    xxh3_128(format!("{version} {config:?} {requests:?} {prompts:?}").as_bytes())
}

impl Scenario {
    /// Reads what the scenario names; `data` is the data folder.
    ///
    /// # Errors
    /// A file that is absent or malformed.
    pub fn open(config: ScenarioConfig, data: Option<&Path>) -> Result<Self, ScenarioError> {
        let trace = match &config.workload.source {
            WorkloadSource::Trace(trace) => Some(workload::segment(trace, config.workload.requests, data)?),
            WorkloadSource::Generated(_) => None,
        };
        let prompts = match config.workload.prompts {
            None => None,
            Some(PromptsConfig::ZeroEval) => {
                let Some(data) = data else {
                    return Err(ScenarioError::NoData("quality".into()));
                };
                let mut models: Vec<String> = config
                    .fleet
                    .instances
                    .iter()
                    .map(|one| one.spec.model.name.clone())
                    .collect();
                models.sort();
                models.dedup();
                Some(PromptSet::zero_eval(data, &models, Some(&Predictor::embedded()?))?)
            }
        };
        let shared = shared(&config, trace.as_deref(), prompts.as_ref());
        Ok(Self {
            config,
            trace,
            prompts,
            shared,
        })
    }

    /// What the file says.
    #[must_use]
    pub fn config(&self) -> &ScenarioConfig {
        &self.config
    }

    /// Its runs: rate by rate, arm by arm, seed by seed; with `sweep`, along the axes of the sweep as well.
    #[must_use]
    pub fn cells(&self, sweep: bool) -> Vec<ScenarioCell> {
        let config = &self.config;
        let mut arms: Vec<&ArmConfig> = config.arms.iter().collect();
        let mut seeds = config.seeds.clone();
        let mut rates: Vec<Option<f64>> = vec![None];
        if sweep {
            arms.extend(&config.sweep.arms);
            seeds.extend(&config.sweep.seeds);
            if !config.sweep.rates_per_s.is_empty() {
                rates = config.sweep.rates_per_s.iter().copied().map(Some).collect();
            }
        }
        let mut taken = std::collections::BTreeSet::new();
        seeds.retain(|seed| taken.insert(*seed));
        let mut cells = Vec::new();
        for rate_per_s in rates {
            for arm in &arms {
                for seed in &seeds {
                    cells.push(ScenarioCell {
                        index: cells.len(),
                        rate_per_s,
                        arm: (*arm).clone(),
                        seed: *seed,
                    });
                }
            }
        }
        cells
    }

    /// A name of everything that decides what a cell's run does: another name, another run. What else is in the grid has no
    /// part in it.
    #[must_use]
    pub fn fingerprint(&self, cell: &ScenarioCell) -> String {
        let (rate, arm, seed) = (cell.rate_per_s, &cell.arm, cell.seed);
        let text = format!("{:032x} {rate:?} {arm:?} {seed}", self.shared);
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }

    /// Runs one cell on this thread; `sink` hears of every request.
    ///
    /// # Errors
    /// The workload or the simulation refuses.
    pub fn run(&self, cell: &ScenarioCell, sink: &mut impl RequestSink) -> Result<RunOutcome, ScenarioError> {
        let (result, seen) = self.result(cell, sink)?;
        let (arm, rate) = (&cell.arm.label, cell.rate_per_s);
        let faults = self.config.faults.iter();
        Ok(RunOutcome {
            faults: faults.map(|fault| in_words::span(&self.config, fault)).collect(),
            ..RunOutcome::of(arm, rate, &result, seen, &self.config.facility)
        })
    }

    pub(crate) fn result(
        &self,
        cell: &ScenarioCell,
        sink: &mut impl RequestSink,
    ) -> Result<(PolicyResult, Distributions), ScenarioError> {
        let config = &self.config;
        // How many questions are asked has to be known beforehand; nothing else holds the workload.
        let (questions, workload) = match &self.prompts {
            None => (None, self.workload(cell)?),
            Some(prompts) => {
                let mut records = self.workload(cell)?.collect::<Result<Vec<_>, _>>()?;
                let questions = prompts.ask(records.len(), cell.seed);
                questions.put_into(&mut records);
                let records: Requests<'_> = Box::new(records.into_iter().map(Ok));
                (Some(Arc::new(questions)), records)
            }
        };
        let mut fleet = config.fleet.clone();
        fleet.scheduler.policy.clone_from(&cell.arm.policy);
        fleet.scheduler.settings = cell.arm.settings;
        let options = SimulationOptions {
            questions,
            ..self.options(cell.seed)
        };
        let mut both = Both {
            distributions: Distributions::default(),
            sink,
        };
        let result = simulate_stream(&fleet, workload, &options, &mut both)?;
        if !result.energy.is_conserved() {
            return Err(ScenarioError::Energy { policy: result.policy });
        }
        Ok((result, both.distributions))
    }

    fn options(&self, seed: u64) -> SimulationOptions {
        let config = &self.config;
        let network = config.network;
        let mismatch = config.mismatch;
        SimulationOptions {
            seed,
            hop_s: network.hop_s,
            telemetry_interval_s: network.telemetry_interval_s,
            mismatch: Mismatch {
                speed_sd: mismatch.speed_sd,
                noise_sd: mismatch.noise_sd,
                drift_sd: mismatch.drift_sd,
                stall_share: mismatch.stall_share,
            },
            slo: config.slo.map(|slo: SloConfig| SloGoal {
                ttft_s: slo.ttft_s,
                e2e_s: slo.e2e_s,
                confidence: slo.confidence,
                enforced: slo.enforced,
            }),
            feedback_share: network.feedback_share,
            routers: RouterOptions {
                count: network.routers,
                state_interval_s: network.state_interval_s,
                state_age_s: network.state_age_s,
            },
            conditions: ConditionOptions {
                faults: config.faults.clone(),
                autoscaling: config.autoscaling.clone(),
                racks: config.racks.clone(),
            },
            ..SimulationOptions::default()
        }
    }

    /// What was simulated, in words: one line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let config = &self.config;
        let instances = &config.fleet.instances;
        let mut models: Vec<&str> = instances.iter().map(|one| one.spec.model.name.as_str()).collect();
        models.sort_unstable();
        models.dedup();
        let gpus: u32 = instances.iter().map(|one| one.spec.tensor_parallel).sum();
        let mut notes = vec![
            format!(
                "Fleet: {} instances on {gpus} GPUs; {}.",
                instances.len(),
                models.join(", ")
            ),
            format!("Workload: {}.", in_words::workload(config)),
        ];
        let mismatch = config.mismatch;
        notes.push(if mismatch.speed_sd + mismatch.noise_sd + mismatch.drift_sd + mismatch.stall_share > 0.0 {
            format!(
                "Engines differ from what the scheduler believes: standard deviation of log speed {} per instance, {} per \
                 step, {} in the course of minutes; {} of steps stall.",
                mismatch.speed_sd, mismatch.noise_sd, mismatch.drift_sd, mismatch.stall_share
            )
        } else {
            "Engines are exactly what the scheduler believes: no mismatch.".to_owned()
        });
        notes.extend(in_words::conditions(config));
        if let Some(slo) = config.slo {
            let limit = |what: &str, limit: Option<f64>| limit.map(|limit| format!("{what} {limit} s"));
            let limits = [limit("TTFT", slo.ttft_s), limit("E2E", slo.e2e_s)];
            let limits: Vec<String> = limits.into_iter().flatten().collect();
            let how = if slo.enforced { "asked for" } else { "only counted" };
            notes.push(format!("SLO: {} at {}, {how}.", limits.join(", "), slo.confidence));
        }
        let carbon = match config.facility.carbon_g_per_kwh.as_slice() {
            [] => String::new(),
            [value] => format!(", {value} g CO2e/kWh"),
            _ => ", carbon by the hour".to_owned(),
        };
        notes.push(format!("Facility: PUE {}{carbon}.", config.facility.pue));
        notes
    }
}

#[cfg(test)]
pub(crate) mod tests;
