//! What came of a run, in numbers.

use std::collections::BTreeMap;

use equipoise_scheduler::SchedulerConfig;
use equipoise_types::{MilliJoules, Timestamp};
use serde::Serialize;

use crate::instance::SimulatedInstance;
use crate::quantiles::Distribution;
use crate::routers::RouterOptions;
use crate::tally::Tally;
use crate::{SimulationOptions, SloResult, Timeline};

/// One policy's run. Times are as a client behind the router sees them, from arrival.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyResult {
    /// The policy's name.
    pub policy: String,
    /// The seed of its random draws.
    pub seed: u64,
    /// How many routers shared the work and how old their state was; `None` of one, which sees all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routers: Option<RouterOptions>,
    /// Requests in the workload: finished, refused and unfinished together.
    pub offered: u64,
    /// Answered in full.
    pub finished: u64,
    /// Not served; `refusals` says why.
    pub refused: u64,
    /// Neither: a fault of the scheduler. Zero.
    pub unfinished: u64,
    /// Requests refused, by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Finished requests whose answer was cut at the end of the model's context.
    pub truncated: u64,
    /// Finished requests whose first answer was not sure enough and was replaced by a better model's. Both are charged.
    pub escalated: u64,
    /// Requests that waited at the router for a while.
    pub queued: u64,
    /// From the start of the workload to the last end, virtual seconds.
    pub duration_s: f64,
    /// Mean quality over finished requests: of the graded answers where requests carry prompts, else the declared quality of
    /// the models that answered; `None` where one is not declared.
    pub quality_mean: Option<f64>,
    /// Half the width of that mean's 95 % confidence interval, where it is of graded answers (normal approximation over the
    /// requests).
    pub quality_ci95: Option<f64>,
    /// Time to first token, seconds.
    pub ttft_s: Option<Percentiles>,
    /// Time per output token after the first, seconds, over answers of at least two tokens.
    pub tpot_s: Option<Percentiles>,
    /// Time to the last token, seconds.
    pub e2e_s: Option<Percentiles>,
    /// Prompt tokens of finished requests.
    pub prompt_tokens: u64,
    /// Of these, tokens that the engine's cache held already.
    pub cached_prompt_tokens: u64,
    /// Answer tokens of finished requests.
    pub output_tokens: u64,
    /// Answer tokens per second of `duration_s`.
    pub output_tokens_per_s: f64,
    /// Energy of the whole fleet.
    pub energy: EnergyTotals,
    /// Energy of steps per finished request, joules; `None` where no instance has a known draw.
    pub joules_per_request_active: Option<f64>,
    /// All energy, idle draw included, per finished request, joules.
    pub joules_per_request_loaded: Option<f64>,
    /// Energy of steps per answer token, joules.
    pub joules_per_output_token_active: Option<f64>,
    /// All energy per answer token, joules.
    pub joules_per_output_token_loaded: Option<f64>,
    /// Price of a thousand finished requests, US dollars; `None` where a model is not priced.
    pub usd_per_1000_requests: Option<f64>,
    /// Requests thrown out of a batch for lack of KV memory and computed again.
    pub preemptions: u64,
    /// How well the SLO was kept, where requests carry one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloResult>,
    /// Who answered how much, in order of name.
    pub models: Vec<ModelShare>,
    /// Every instance, in order of the fleet file.
    pub instances: Vec<InstanceResult>,
    /// The course of time.
    #[serde(skip)]
    pub timeline: Timeline,
    /// By request: the instance that it was sent to last, as an index into `instances`. Empty after
    /// [`simulate_stream`](crate::simulate_stream), which keeps nothing of a request.
    #[serde(skip)]
    pub sent_to: Vec<Option<u32>>,
}

/// A distribution in a few numbers. Quantiles of up to a million values are exact, interpolated between neighbours; of more
/// they are within a thousandth of the value. Mean and maximum are exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// Energy in whole millijoules: `measured = attributed + idle + unattributed`, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EnergyTotals {
    /// All of it.
    pub measured_mj: MilliJoules,
    /// Steps, split over the requests in them, refused ones included.
    pub attributed_mj: MilliJoules,
    /// Of the attributed: for computing prompts, by the shares of those who had some computed in a step.
    pub prefill_mj: MilliJoules,
    /// Between steps.
    pub idle_mj: MilliJoules,
    /// Steps without anybody in them.
    pub unattributed_mj: MilliJoules,
}

/// One model's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelShare {
    /// Its name.
    pub model: String,
    /// Requests it finished.
    pub requests: u64,
    /// Of all finished requests, [0, 1].
    pub share: f64,
}

/// One instance's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceResult {
    /// Its name.
    pub instance: String,
    /// Its model.
    pub model: String,
    /// Requests it finished.
    pub requests: u64,
    /// Of all finished requests, [0, 1].
    pub share: f64,
    /// Answer tokens.
    pub output_tokens: u64,
    /// Share of `duration_s` in which a step ran, [0, 1].
    pub busy_share: f64,
    /// Preemptions.
    pub preemptions: u64,
    /// How often a request found it asleep.
    #[serde(skip_serializing_if = "is_zero")]
    pub wakes: u32,
    /// Share of `duration_s` in which it slept, [0, 1].
    #[serde(skip_serializing_if = "is_nothing")]
    pub asleep_share: f64,
    /// Its energy.
    pub energy: EnergyTotals,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_nothing(share: &f64) -> bool {
    *share <= 0.0
}

impl Percentiles {
    /// `None` of nothing.
    fn of(distribution: &mut Distribution) -> Option<Self> {
        let [p50, p95, p99] = distribution.quantiles([0.5, 0.95, 0.99])?;
        Some(Self {
            mean: distribution.mean()?,
            p50,
            p95,
            p99,
            max: distribution.max()?,
        })
    }
}

impl EnergyTotals {
    fn add(&mut self, other: Self) {
        self.measured_mj += other.measured_mj;
        self.attributed_mj += other.attributed_mj;
        self.prefill_mj += other.prefill_mj;
        self.idle_mj += other.idle_mj;
        self.unattributed_mj += other.unattributed_mj;
    }

    /// True where every millijoule is accounted for.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.attributed_mj + self.idle_mj + self.unattributed_mj == self.measured_mj
    }
}

impl PolicyResult {
    /// Of a run that ended `now`.
    pub(crate) fn of(
        now: Timestamp,
        mut tally: Tally,
        instances: &[SimulatedInstance],
        options: &SimulationOptions,
        config: &SchedulerConfig,
        timeline: Timeline,
    ) -> Self {
        let duration_s = now.as_secs_f64();
        let finished = tally.finished as f64;
        let share = |requests: u64| {
            if tally.finished > 0 {
                requests as f64 / finished
            } else {
                0.0
            }
        };
        let mut energy = EnergyTotals::default();
        let mut models: BTreeMap<&str, u64> = BTreeMap::new();
        let mut results = Vec::with_capacity(instances.len());
        for (instance, &(requests, output_tokens)) in instances.iter().zip(&tally.instances) {
            *models.entry(&instance.spec.model.name).or_default() += requests;
            let result = InstanceResult {
                requests,
                share: share(requests),
                output_tokens,
                ..InstanceResult::of(now, instance)
            };
            energy.add(result.energy);
            results.push(result);
        }
        let active = (energy.attributed_mj + energy.unattributed_mj).as_joules().0;
        let loaded = energy.measured_mj.as_joules().0;
        // Opaque boxes draw nothing that is known: no figure rather than a zero.
        let per = |joules: f64, count: u64| (count > 0 && loaded > 0.0).then(|| joules / count as f64);
        let offered = tally.finished + tally.refused + tally.unfinished;
        Self {
            policy: config.policy.clone(),
            seed: config.seed,
            routers: Some(options.routers).filter(|routers| routers.count > 1),
            offered,
            finished: tally.finished,
            refused: tally.refused,
            unfinished: tally.unfinished,
            refusals: std::mem::take(&mut tally.refusals),
            truncated: tally.truncated,
            escalated: tally.escalated,
            queued: tally.queued,
            duration_s,
            quality_mean: tally.quality.filter(|_| tally.finished > 0).map(|sum| sum / finished),
            quality_ci95: tally.quality_ci95(),
            ttft_s: Percentiles::of(&mut tally.ttft_s),
            tpot_s: Percentiles::of(&mut tally.tpot_s),
            e2e_s: Percentiles::of(&mut tally.e2e_s),
            prompt_tokens: tally.prompt_tokens,
            cached_prompt_tokens: tally.cached_prompt_tokens,
            output_tokens: tally.output_tokens,
            output_tokens_per_s: if duration_s > 0.0 {
                tally.output_tokens as f64 / duration_s
            } else {
                0.0
            },
            energy,
            joules_per_request_active: per(active, tally.finished),
            joules_per_request_loaded: per(loaded, tally.finished),
            joules_per_output_token_active: per(active, tally.output_tokens),
            joules_per_output_token_loaded: per(loaded, tally.output_tokens),
            usd_per_1000_requests: tally.usd.filter(|_| tally.finished > 0).map(|sum| 1e3 * sum / finished),
            slo: options
                .slo
                .as_ref()
                .map(|goal| SloResult::of(goal, &mut tally.slo, offered)),
            preemptions: results.iter().map(|instance| instance.preemptions).sum(),
            models: models
                .into_iter()
                .map(|(model, requests)| ModelShare {
                    model: model.to_owned(),
                    requests,
                    share: share(requests),
                })
                .collect(),
            instances: results,
            timeline,
            sent_to: tally.sent_to.unwrap_or_default(),
        }
    }
}

impl InstanceResult {
    /// Everything about an instance but who was served there.
    fn of(now: Timestamp, instance: &SimulatedInstance) -> Self {
        let duration_s = now.as_secs_f64();
        let (attributed_mj, idle_mj) = instance.totals(now);
        let (prefill_mj, unattributed_mj) = instance.energy_parts();
        let (wakes, asleep_s) = instance.sleeps(now);
        Self {
            instance: instance.spec.name.clone(),
            model: instance.spec.model.name.clone(),
            requests: 0,
            share: 0.0,
            output_tokens: 0,
            busy_share: if duration_s > 0.0 {
                instance.busy_s() / duration_s
            } else {
                0.0
            },
            preemptions: instance.engine.stats().preemptions_total,
            wakes,
            asleep_share: if duration_s > 0.0 { asleep_s / duration_s } else { 0.0 },
            energy: EnergyTotals {
                measured_mj: attributed_mj + idle_mj + unattributed_mj,
                attributed_mj,
                prefill_mj,
                idle_mj,
                unattributed_mj,
            },
        }
    }
}

/// The results as JSON with a fixed order of keys: the same runs give the same bytes.
#[must_use]
pub fn to_json(results: &[PolicyResult]) -> String {
    #[derive(Serialize)]
    struct Document<'a> {
        equipoise_simulation: u32,
        results: &'a [PolicyResult],
    }
    let document = Document {
        equipoise_simulation: 1,
        results,
    };
    // Strings, numbers and lists always serialise.
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
