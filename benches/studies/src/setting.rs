//! What all runs of a study share: the fleet, the prompts, the workloads.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use equipoise_config::{FleetConfig, FleetFile};
use equipoise_predict::Predictor;
use equipoise_simulator::{PromptSet, SimulationOptions, simulate};
use equipoise_trace::{ReadOptions, Workload, WorkloadGenerator, WorkloadRecord};
use equipoise_types::Timestamp;

use crate::arm::Arm;
use crate::outcome::Outcome;

/// A fleet and the prompts that it is asked.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The fleet; its scheduler is each arm's.
    pub fleet: FleetConfig,
    /// Held-out prompts with forecasts and truth.
    pub prompts: PromptSet,
}

/// When requests come.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// A Poisson process.
    Poisson {
        /// Mean arrivals per second.
        rate_per_s: f64,
        /// How long, seconds.
        seconds: f64,
    },
    /// Those of a recorded trace, played faster.
    Trace {
        /// Its records in order of arrival.
        records: Arc<[WorkloadRecord]>,
        /// How many times as fast.
        speed: f64,
    },
}

impl Arrivals {
    /// The workload of a seed. A trace has one order of arrivals; its seed decides the prompts alone.
    ///
    /// # Errors
    /// When there would be too many.
    pub fn workload(&self, seed: u64) -> anyhow::Result<Vec<WorkloadRecord>> {
        match self {
            Self::Poisson { rate_per_s, seconds } => {
                let generator = WorkloadGenerator {
                    requests: (rate_per_s * seconds).ceil().max(1.0) as usize,
                    rate_per_s: *rate_per_s,
                    seed,
                    ..WorkloadGenerator::default()
                };
                Ok(generator.generate()?.records)
            }
            Self::Trace { records, speed } => {
                let faster = |record: &WorkloadRecord| WorkloadRecord {
                    arrival: Timestamp::from_secs_f64(record.arrival.as_secs_f64() / speed),
                    ..record.clone()
                };
                Ok(records.iter().map(faster).collect())
            }
        }
    }

    /// Reads a trace, at most `most` records of it.
    ///
    /// # Errors
    /// A file that is absent or malformed.
    pub fn read(path: &Path, most: usize, speed: f64) -> anyhow::Result<Self> {
        let mut records = Workload::load(path, &ReadOptions::default())?.records;
        records.truncate(most);
        Ok(Self::Trace {
            records: records.into(),
            speed,
        })
    }
}

impl Setting {
    /// Reads a fleet file and joins it with the held-out prompts of ZeroEval in the data folder.
    ///
    /// # Errors
    /// Files that are absent or malformed, by name.
    pub fn read(fleet: &Path, data: &Path) -> anyhow::Result<Self> {
        let fleet = FleetFile::load(fleet)?;
        let mut models: Vec<String> = fleet.instances.iter().map(|one| one.spec.model.name.clone()).collect();
        models.sort();
        models.dedup();
        let predictor = Predictor::embedded()?;
        let prompts = PromptSet::zero_eval(data, &models, Some(&predictor)).with_context(|| {
            format!(
                "no graded prompts in {}; point EQUIPOISE_DATA at the folder with quality/",
                data.display()
            )
        })?;
        Ok(Self { fleet, prompts })
    }

    /// One run.
    ///
    /// # Errors
    /// A fleet or an arm that makes no sense.
    pub fn run(&self, arm: &Arm, arrivals: &Arrivals, seed: u64) -> anyhow::Result<Outcome> {
        let mut records = arrivals.workload(seed)?;
        let questions = self.prompts.ask(records.len(), seed);
        questions.put_into(&mut records);
        let fleet = FleetConfig {
            pii: None,
            tls: None,
            engine_tls: None,
            grpc_tls: None,
            scheduler: arm.scheduler(&self.fleet.scheduler),
            instances: self.fleet.instances.clone(),
        };
        let options = SimulationOptions {
            seed,
            questions: Some(Arc::new(questions)),
            ..SimulationOptions::default()
        };
        let results = simulate(&fleet, &records, &options).with_context(|| format!("arm {}", arm.name))?;
        let result = results.first().context("a run has a result")?;
        Ok(Outcome::of(result, &fleet))
    }
}
