//! Where a saving comes from: which model answers, on which instance, and what is found in prefix caches.
//!
//! Two policies A and B each say for every request which model answers and on which instance of it. Runs that take the
//! models from one and the placement from the other fill the square between A and B:
//!
//! | | placed by A | placed by B |
//! | --- | --- | --- |
//! | models of A | A itself | a counterfactual |
//! | models of B | a counterfactual | B itself |
//!
//! In a counterfactual every request asks for the model by name that the other run gave it, so that the placing policy
//! decides among that model's instances only. The saving is split by Shapley: each part is its effect averaged over both
//! orders, and the parts add up to the whole.

use std::sync::Arc;

use anyhow::Context as _;
use equipoise_config::FleetConfig;
use equipoise_scheduler::Target;
use equipoise_simulator::{PolicyResult, SimulationOptions, simulate};
use equipoise_trace::{MOONCAKE_BLOCK_TOKENS, WorkloadRecord};
use equipoise_types::RandomStream;

use crate::arm::Arm;
use crate::setting::{Arrivals, Setting};
use equipoise_simulator::{cores, parallel_map};
use equipoise_types::Mean;

/// Blocks of a system prompt that requests of one tenant share, 512 tokens each.
const SHARED_BLOCKS: u64 = 3;
/// Tenants, each with its own.
const TENANTS: usize = 16;

/// Parts of a saving, joules per request, over the seeds. They add up to `from - to`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Parts {
    /// Joules per request of A.
    pub from: Mean,
    /// Joules per request of B.
    pub to: Mean,
    /// By answering with other models.
    pub models: Mean,
    /// By placing on other instances of the same models.
    pub placement: Mean,
    /// By what prefix caches save B more than A.
    pub reuse: Mean,
}

/// One seed's workload.
struct Workload<'a> {
    setting: &'a Setting,
    records: Vec<WorkloadRecord>,
    options: SimulationOptions,
}

impl Workload<'_> {
    fn run(&self, arm: &Arm, targets: &[Target], prefix_cache: bool) -> anyhow::Result<PolicyResult> {
        let fleet = FleetConfig {
            pii: None,
            tls: None,
            engine_tls: None,
            grpc_tls: None,
            scheduler: arm.scheduler(&self.setting.fleet.scheduler),
            instances: self.setting.fleet.instances.clone(),
        };
        let options = SimulationOptions {
            targets: targets.to_vec(),
            prefix_cache,
            ..self.options.clone()
        };
        let mut results = simulate(&fleet, &self.records, &options)?;
        results.pop().context("a run has a result")
    }

    /// The model that answered each request, as what to ask for.
    fn models(&self, result: &PolicyResult) -> Vec<Target> {
        let model = |instance: Option<u32>| match instance {
            Some(instance) => Target::Model(self.setting.fleet.instances[instance as usize].spec.model.name.clone()),
            None => Target::Auto,
        };
        result.sent_to.iter().map(|instance| model(*instance)).collect()
    }
}

fn joules(result: &PolicyResult) -> f64 {
    result.joules_per_request_active.unwrap_or(f64::NAN)
}

/// Gives every request the system prompt of a tenant drawn by chance, ahead of its own.
fn share_system_prompts(records: &mut [WorkloadRecord], seed: u64) {
    let mut random = RandomStream::new(seed).derive("tenants");
    for record in records {
        let tenant = random.below(TENANTS) as u64;
        record.prompt_tokens += SHARED_BLOCKS as u32 * MOONCAKE_BLOCK_TOKENS;
        record.prefix_blocks = Some((1..=SHARED_BLOCKS).map(|block| tenant * 1000 + block).collect());
    }
}

/// The parts of one seed: from, to, models, placement, reuse.
fn of_seed(workload: &Workload<'_>, from: &Arm, to: &Arm, reuse: bool) -> anyhow::Result<[f64; 5]> {
    let (a, b) = (workload.run(from, &[], false)?, workload.run(to, &[], false)?);
    let (models_a, models_b) = (workload.models(&a), workload.models(&b));
    let placed_by_b = joules(&workload.run(to, &models_a, false)?);
    let placed_by_a = joules(&workload.run(from, &models_b, false)?);
    let (a, b) = (joules(&a), joules(&b));
    let models = 0.5 * ((a - placed_by_a) + (placed_by_b - b));
    let placement = 0.5 * ((a - placed_by_b) + (placed_by_a - b));
    if !reuse {
        return Ok([a, b, models, placement, 0.0]);
    }
    let (a_on, b_on) = (
        joules(&workload.run(from, &[], true)?),
        joules(&workload.run(to, &[], true)?),
    );
    Ok([a_on, b_on, models, placement, (a_on - b_on) - (a - b)])
}

/// Splits the saving of `to` over `from`. With `shared_prompts` every request has one of 16 system prompts of 1,536 tokens
/// ahead of its own, and the whole is what both do with prefix caches; else no two prompts have anything in common.
///
/// # Errors
/// As a run.
pub fn parts(
    setting: &Setting,
    from: &Arm,
    to: &Arm,
    arrivals: &Arrivals,
    seeds: u64,
    shared_prompts: bool,
) -> anyhow::Result<Parts> {
    let of = |seed: u64| {
        let mut records = arrivals.workload(seed)?;
        let questions = setting.prompts.ask(records.len(), seed);
        questions.put_into(&mut records);
        if shared_prompts {
            share_system_prompts(&mut records, seed);
        }
        let options = SimulationOptions {
            seed,
            questions: Some(Arc::new(questions)),
            ..SimulationOptions::default()
        };
        let workload = Workload {
            setting,
            records,
            options,
        };
        of_seed(&workload, from, to, shared_prompts)
    };
    let seeds = parallel_map((1..=seeds).collect(), cores(), of);
    let seeds = seeds.into_iter().collect::<anyhow::Result<Vec<[f64; 5]>>>()?;
    let mean = |part: usize| Mean::of(&seeds.iter().map(|seed| seed[part]).collect::<Vec<f64>>());
    Ok(Parts {
        from: mean(0),
        to: mean(1),
        models: mean(2),
        placement: mean(3),
        reuse: mean(4),
    })
}
