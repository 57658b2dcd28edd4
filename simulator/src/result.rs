//! What came of a run, in numbers.

use std::collections::BTreeMap;

use equipoise_scheduler::SchedulerConfig;
use equipoise_types::{MilliJoules, RequestId, Timestamp, quantile_of_sorted};
use serde::Serialize;

use crate::driver::Driver;
use crate::request::Ending;
use crate::routers::RouterOptions;
use crate::{RequestEnding, RequestRecord, RequestSink, SloResult};

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
    /// By request: the instance that it was sent to last, as an index into `instances`.
    #[serde(skip)]
    pub sent_to: Vec<Option<u32>>,
}

/// A distribution in a few numbers; quantiles are exact, interpolated between neighbours.
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
    /// Its energy.
    pub energy: EnergyTotals,
}

impl Percentiles {
    /// Of these values; `None` of none.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: quantile_of_sorted(&values, 0.5)?,
            p95: quantile_of_sorted(&values, 0.95)?,
            p99: quantile_of_sorted(&values, 0.99)?,
            max: *values.last()?,
        })
    }
}

impl EnergyTotals {
    fn add(&mut self, other: Self) {
        self.measured_mj += other.measured_mj;
        self.attributed_mj += other.attributed_mj;
        self.idle_mj += other.idle_mj;
        self.unattributed_mj += other.unattributed_mj;
    }

    /// True where every millijoule is accounted for.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.attributed_mj + self.idle_mj + self.unattributed_mj == self.measured_mj
    }
}

/// Sums over the finished requests.
#[derive(Default)]
struct Sums {
    finished: u64,
    refused: u64,
    truncated: u64,
    escalated: u64,
    queued: u64,
    prompt_tokens: u64,
    cached_prompt_tokens: u64,
    output_tokens: u64,
    quality: Option<f64>,
    /// Graded answers, and the sum of their squared qualities.
    graded: (u64, f64),
    usd: Option<f64>,
    ttft_s: Vec<f64>,
    tpot_s: Vec<f64>,
    e2e_s: Vec<f64>,
    models: BTreeMap<String, u64>,
}

impl Sums {
    fn quality_ci95(&self) -> Option<f64> {
        let (graded, squares) = self.graded;
        let finished = self.finished as f64;
        let mean = self.quality.filter(|_| graded == self.finished && graded > 1)? / finished;
        let variance = (squares / finished - mean * mean).max(0.0);
        Some(1.96 * (variance / finished).sqrt())
    }
}

impl PolicyResult {
    /// Counts a run that has ended.
    pub(crate) fn of<S>(driver: &Driver<'_, S>, config: &SchedulerConfig) -> Self {
        let mut instances = instance_results(driver);
        let sums = sum_requests(driver, &mut instances);
        let duration_s = driver.now.as_secs_f64();
        let finished = sums.finished as f64;
        let share = |requests: u64| {
            if sums.finished > 0 {
                requests as f64 / finished
            } else {
                0.0
            }
        };
        let mut energy = EnergyTotals::default();
        for instance in &mut instances {
            instance.share = share(instance.requests);
            energy.add(instance.energy);
        }
        let active = (energy.attributed_mj + energy.unattributed_mj).as_joules().0;
        let loaded = energy.measured_mj.as_joules().0;
        // Opaque boxes draw nothing that is known: no figure rather than a zero.
        let per = |joules: f64, count: u64| (count > 0 && loaded > 0.0).then(|| joules / count as f64);
        let offered = driver.requests.len() as u64;
        Self {
            policy: config.policy.clone(),
            seed: config.seed,
            routers: Some(driver.options.routers).filter(|routers| routers.count > 1),
            offered,
            finished: sums.finished,
            refused: sums.refused,
            unfinished: offered - sums.finished - sums.refused,
            refusals: driver.refusals.clone(),
            truncated: sums.truncated,
            escalated: sums.escalated,
            queued: sums.queued,
            duration_s,
            quality_mean: sums.quality.filter(|_| sums.finished > 0).map(|sum| sum / finished),
            quality_ci95: sums.quality_ci95(),
            ttft_s: Percentiles::of(sums.ttft_s),
            tpot_s: Percentiles::of(sums.tpot_s),
            e2e_s: Percentiles::of(sums.e2e_s),
            prompt_tokens: sums.prompt_tokens,
            cached_prompt_tokens: sums.cached_prompt_tokens,
            output_tokens: sums.output_tokens,
            output_tokens_per_s: if duration_s > 0.0 {
                sums.output_tokens as f64 / duration_s
            } else {
                0.0
            },
            energy,
            joules_per_request_active: per(active, sums.finished),
            joules_per_request_loaded: per(loaded, sums.finished),
            joules_per_output_token_active: per(active, sums.output_tokens),
            joules_per_output_token_loaded: per(loaded, sums.output_tokens),
            usd_per_1000_requests: sums.usd.filter(|_| sums.finished > 0).map(|sum| 1e3 * sum / finished),
            slo: driver
                .options
                .slo
                .as_ref()
                .map(|goal| SloResult::of(driver, goal, &driver.slo)),
            preemptions: instances.iter().map(|instance| instance.preemptions).sum(),
            models: sums
                .models
                .into_iter()
                .map(|(model, requests)| ModelShare {
                    model,
                    requests,
                    share: share(requests),
                })
                .collect(),
            instances,
            sent_to: driver.requests.iter().map(|state| state.instance).collect(),
        }
    }
}

impl<S> Driver<'_, S> {
    /// Tells of every request, in the order of the workload.
    pub(crate) fn tell(&self, sink: &mut impl RequestSink) {
        for (request, (state, record)) in self.requests.iter().zip(self.records).enumerate() {
            let spec = state.instance.map(|index| &self.instances[index as usize].spec);
            let seconds = |at: Timestamp| at.secs_since(record.arrival);
            let finished_at = match state.ending {
                Ending::Finished(at) => Some(at),
                Ending::Open | Ending::Refused => None,
            };
            let quality = finished_at.zip(spec).and_then(|(_, spec)| {
                let truth = self.options.truth(request, &spec.model.name);
                truth.map_or(spec.model.quality, |answer| Some(answer.quality))
            });
            sink.request(&RequestRecord {
                id: RequestId(request as u64),
                arrival: record.arrival,
                model: spec.map(|spec| spec.model.name.as_str()),
                instance: spec.map(|spec| spec.name.as_str()),
                tenant: record.tenant.as_deref(),
                prompt_tokens: record.prompt_tokens,
                cached_tokens: state.cached_tokens,
                output_tokens: state.generated,
                ttft_s: state.first_token_at.map(seconds),
                e2e_s: finished_at.map(seconds),
                energy: state
                    .replaced
                    .map_or(state.energy, |(_, energy, _)| energy + state.energy),
                ending: match state.ending {
                    Ending::Finished(_) => RequestEnding::Finished,
                    Ending::Refused => RequestEnding::Refused("refused"),
                    Ending::Open => RequestEnding::Unfinished,
                },
                quality,
                queued: state.queued,
                truncated: state.truncated,
                escalated: state.replaced.is_some(),
            });
        }
    }
}

/// Everything about the instances but who was served there.
fn instance_results<S>(driver: &Driver<'_, S>) -> Vec<InstanceResult> {
    let duration_s = driver.now.as_secs_f64();
    let of = |instance: &crate::instance::SimulatedInstance| {
        let (measured_mj, idle_mj) = instance.totals(driver.now);
        InstanceResult {
            instance: instance.spec.name.clone(),
            model: instance.spec.model.name.clone(),
            requests: 0,
            share: 0.0,
            output_tokens: 0,
            busy_share: if duration_s > 0.0 {
                instance.busy_s / duration_s
            } else {
                0.0
            },
            preemptions: instance.engine.stats().preemptions_total,
            energy: EnergyTotals {
                measured_mj,
                attributed_mj: MilliJoules::ZERO,
                idle_mj,
                unattributed_mj: instance.unattributed,
            },
        }
    };
    driver.instances.iter().map(of).collect()
}

/// Adds up the requests, for the whole and for the instance that served each.
fn sum_requests<S>(driver: &Driver<'_, S>, instances: &mut [InstanceResult]) -> Sums {
    let mut sums = Sums {
        quality: Some(0.0),
        usd: Some(0.0),
        ..Sums::default()
    };
    for instance in &driver.instances {
        sums.models.insert(instance.spec.model.name.clone(), 0);
    }
    for (request, (state, record)) in driver.requests.iter().zip(driver.records).enumerate() {
        sums.queued += u64::from(state.queued);
        sums.refused += u64::from(state.ending == Ending::Refused);
        let Some(index) = state.instance.map(|index| index as usize) else {
            continue;
        };
        // Nothing fails in a simulation, and what an engine refuses ends there: a request that was sent twice has had a
        // first answer.
        instances[index].energy.attributed_mj += state.energy;
        if let Some((first, energy, _)) = state.replaced {
            instances[first as usize].energy.attributed_mj += energy;
        }
        let Ending::Finished(finished_at) = state.ending else {
            continue;
        };
        let seconds = |at: Timestamp| at.secs_since(record.arrival);
        sums.finished += 1;
        sums.truncated += u64::from(state.truncated);
        sums.escalated += u64::from(state.replaced.is_some());
        sums.prompt_tokens += u64::from(record.prompt_tokens);
        sums.cached_prompt_tokens += u64::from(state.cached_tokens);
        sums.output_tokens += u64::from(state.generated);
        instances[index].requests += 1;
        instances[index].output_tokens += u64::from(state.generated);
        let first_token_at = state.first_token_at.unwrap_or(finished_at);
        sums.ttft_s.push(seconds(first_token_at));
        sums.e2e_s.push(seconds(finished_at));
        // An answer that was held back comes all at once.
        if state.generated > 1 && first_token_at < finished_at {
            sums.tpot_s
                .push(finished_at.secs_since(first_token_at) / f64::from(state.generated - 1));
        }
        let model = &driver.instances[index].spec.model;
        if let Some(count) = sums.models.get_mut(&model.name) {
            *count += 1;
        }
        let truth = driver.options.truth(request, &model.name);
        if let Some(answer) = truth {
            sums.graded.0 += 1;
            sums.graded.1 += answer.quality * answer.quality;
        }
        let quality = truth.map_or(model.quality, |answer| Some(answer.quality));
        sums.quality = sums.quality.zip(quality).map(|(sum, quality)| sum + quality);
        let charge = |instance: usize, tokens: u32| {
            let price = driver.instances[instance].spec.model.price;
            price.map(|price| price.usd(f64::from(record.prompt_tokens), f64::from(tokens)))
        };
        let first = match state.replaced {
            Some((first, _, tokens)) => charge(first as usize, tokens),
            None => Some(0.0),
        };
        let usd = charge(index, state.generated)
            .zip(first)
            .map(|(last, first)| last + first);
        sums.usd = sums.usd.zip(usd).map(|(sum, usd)| sum + usd);
    }
    sums
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
