//! What a report keeps of one run: figures, distributions, a timeline. It is written to disk and read again.

use std::collections::BTreeMap;

use equipoise_config::FacilityConfig;
use equipoise_energy::{CarbonSeries, facility_energy};
use equipoise_types::{Joules, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Distribution, Percentiles, PolicyResult, RequestRecord, RequestSink, Timeline};

/// One run of one policy under one seed at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// Which policy with which settings.
    pub arm: String,
    /// Mean requests per second that were asked for; `None`: as the workload comes.
    pub rate_per_s: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// The figures.
    pub figures: RunFigures,
    /// Times to first token, seconds.
    pub ttft_s: Distribution,
    /// Times to last token, seconds.
    pub e2e_s: Distribution,
    /// The course of time.
    pub timeline: Timeline,
    /// What went wrong meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultSpan>,
}

/// When something was wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// From when on, seconds from the start.
    pub from_s: f64,
    /// Until when; `None`: to the end.
    pub until_s: Option<f64>,
    /// What, in words.
    pub what: String,
}

/// A run in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFigures {
    /// Requests in the workload.
    pub offered: u64,
    /// Answered in full.
    pub finished: u64,
    /// Not served.
    pub refused: u64,
    /// Why, and how many.
    pub refusals: BTreeMap<String, u64>,
    /// Neither finished nor refused. Zero.
    pub unfinished: u64,
    /// Requests that waited at a router.
    pub queued: u64,
    /// First answers that were replaced.
    pub escalated: u64,
    /// Requests thrown out of a batch and computed again.
    pub preemptions: u64,
    /// Virtual seconds.
    pub duration_s: f64,
    /// Mean quality of the answers.
    pub quality: Option<f64>,
    /// Time to first token, seconds.
    pub ttft_s: Option<Spread>,
    /// Time per output token, seconds.
    pub tpot_s: Option<Spread>,
    /// Time to last token, seconds.
    pub e2e_s: Option<Spread>,
    /// Answer tokens per second.
    pub output_tokens_per_s: f64,
    /// All energy per finished request, joules.
    pub joules_per_request: Option<f64>,
    /// Without the draw between steps.
    pub joules_per_request_active: Option<f64>,
    /// All energy per answer token, joules.
    pub joules_per_output_token: Option<f64>,
    /// Price of a thousand requests, US dollars.
    pub usd_per_1000_requests: Option<f64>,
    /// By cause.
    pub energy: EnergyByCause,
    /// At the facility's meter.
    pub facility: Option<FacilityFigures>,
    /// Requests by the model that answered.
    pub models: Vec<(String, u64)>,
    /// How the SLO was kept.
    pub slo: Option<SloFigures>,
}

/// A distribution in four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// What the GPUs' joules went into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnergyByCause {
    /// Steps, the shares of those whose prompts were computed in them.
    pub prefill_joules: f64,
    /// Steps, the shares of those who got answer tokens.
    pub decode_joules: f64,
    /// Between steps.
    pub idle_joules: f64,
    /// Steps that nobody finished: an engine died in them.
    pub unattributed_joules: f64,
}

/// Beyond the GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FacilityFigures {
    /// Energy at the facility's meter, kWh.
    pub kwh: f64,
    /// Grams of CO2 equivalent, where the grid is known.
    pub carbon_g: Option<f64>,
}

/// How an SLO was kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SloFigures {
    /// Of those admitted, answered too late, [0, 1].
    pub violated_share: f64,
    /// Answered in time, of all, [0, 1].
    pub goodput_share: f64,
}

impl From<Percentiles> for Spread {
    fn from(percentiles: Percentiles) -> Self {
        let Percentiles {
            mean, p50, p95, p99, ..
        } = percentiles;
        Self { mean, p50, p95, p99 }
    }
}

/// Distributions of a run, request by request.
#[derive(Clone, Debug, Default)]
pub struct Distributions {
    /// Times to first token, seconds.
    pub ttft_s: Distribution,
    /// Times to last token, seconds.
    pub e2e_s: Distribution,
}

impl RequestSink for Distributions {
    fn request(&mut self, record: &RequestRecord<'_>) {
        if let Some(seconds) = record.e2e_s {
            self.e2e_s.observe(seconds);
            self.ttft_s.observe(record.ttft_s.unwrap_or(seconds));
        }
    }
}

impl RunOutcome {
    /// Of a run's result and what was seen of its requests.
    #[must_use]
    pub fn of(
        arm: &str,
        rate_per_s: Option<f64>,
        result: &PolicyResult,
        distributions: Distributions,
        facility: &FacilityConfig,
    ) -> Self {
        Self {
            arm: arm.to_owned(),
            rate_per_s,
            seed: result.seed,
            figures: figures(result, facility),
            ttft_s: distributions.ttft_s,
            e2e_s: distributions.e2e_s,
            timeline: result.timeline.clone(),
            faults: Vec::new(),
        }
    }
}

fn figures(result: &PolicyResult, facility: &FacilityConfig) -> RunFigures {
    let joules = |millijoules: equipoise_types::MilliJoules| millijoules.as_joules().0;
    let energy = &result.energy;
    RunFigures {
        offered: result.offered,
        finished: result.finished,
        refused: result.refused,
        refusals: result
            .refusals
            .iter()
            .map(|(why, count)| ((*why).to_owned(), *count))
            .collect(),
        unfinished: result.unfinished,
        queued: result.queued,
        escalated: result.escalated,
        preemptions: result.preemptions,
        duration_s: result.duration_s,
        quality: result.quality_mean,
        ttft_s: result.ttft_s.map(Spread::from),
        tpot_s: result.tpot_s.map(Spread::from),
        e2e_s: result.e2e_s.map(Spread::from),
        output_tokens_per_s: result.output_tokens_per_s,
        joules_per_request: result.joules_per_request_loaded,
        joules_per_request_active: result.joules_per_request_active,
        joules_per_output_token: result.joules_per_output_token_loaded,
        usd_per_1000_requests: result.usd_per_1000_requests,
        energy: EnergyByCause {
            prefill_joules: joules(energy.prefill_mj),
            decode_joules: joules(energy.attributed_mj) - joules(energy.prefill_mj),
            idle_joules: joules(energy.idle_mj),
            unattributed_joules: joules(energy.unattributed_mj),
        },
        facility: (energy.measured_mj.0 > 0).then(|| at_the_meter(result, facility)),
        models: result
            .models
            .iter()
            .map(|share| (share.model.clone(), share.requests))
            .collect(),
        slo: result.slo.map(|slo| SloFigures {
            violated_share: slo.violated_share,
            goodput_share: slo.goodput_share,
        }),
    }
}

/// Energy at the facility's meter, and its carbon in the course of time. The day begins with the workload.
fn at_the_meter(result: &PolicyResult, facility: &FacilityConfig) -> FacilityFigures {
    const HOUR_S: f64 = 3600.0;
    let all = facility_energy(result.energy.measured_mj.as_joules(), facility.pue);
    let kwh = all.0 / 3.6e6;
    let hours = facility.carbon_g_per_kwh.len();
    if hours == 0 {
        return FacilityFigures { kwh, carbon_g: None };
    }
    let mut values = Vec::new();
    if hours == 1 {
        values.push((Timestamp::ZERO, facility.carbon_g_per_kwh[0]));
    } else {
        let last = (result.duration_s / HOUR_S).ceil().min(1e6) as usize;
        let at = |hour: usize| Timestamp::from_secs_f64(hour as f64 * HOUR_S);
        values.extend((0..=last).map(|hour| (at(hour), facility.carbon_g_per_kwh[hour % hours])));
    }
    let series = CarbonSeries {
        id: "scenario".to_owned(),
        grams_per_kwh: values,
    };
    let timeline = &result.timeline;
    let bins = timeline.watts.iter().zip(&timeline.seconds).enumerate();
    let grams = bins.filter_map(|(index, (watts, seconds))| {
        let joules = Joules(f64::from(*watts) * f64::from(*seconds));
        let start_s = index as f64 * timeline.bin_s;
        let start = Timestamp::from_secs_f64(start_s);
        let end = Timestamp::from_secs_f64(start_s + f64::from(*seconds));
        series.grams(facility_energy(joules, facility.pue), start, end)
    });
    FacilityFigures {
        kwh,
        carbon_g: Some(grams.sum()),
    }
}
