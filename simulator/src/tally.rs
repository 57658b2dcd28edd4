//! What is added up of requests as they end, so that nothing need be kept of them.

use std::collections::BTreeMap;

use equipoise_fleet::InstanceSpec;
use equipoise_types::Timestamp;

use crate::quantiles::Distribution;
use crate::request::RequestState;
use crate::slo::SloTally;
use crate::{RequestEnding, RequestRecord, SimulationOptions};

/// Sums over the requests that have ended.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) finished: u64,
    pub(crate) refused: u64,
    pub(crate) unfinished: u64,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    pub(crate) truncated: u64,
    pub(crate) escalated: u64,
    pub(crate) queued: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Of finished requests; `None` where one is not known.
    pub(crate) quality: Option<f64>,
    /// Graded answers, and the sum of their squared qualities.
    graded: (u64, f64),
    /// Of finished requests; `None` where one is not priced.
    pub(crate) usd: Option<f64>,
    pub(crate) ttft_s: Distribution,
    pub(crate) tpot_s: Distribution,
    pub(crate) e2e_s: Distribution,
    /// By instance: finished requests and their answer tokens.
    pub(crate) instances: Vec<(u64, u64)>,
    pub(crate) slo: SloTally,
    /// By request, where that is asked for: the instance that it was sent to last.
    pub(crate) sent_to: Option<Vec<Option<u32>>>,
}

impl Tally {
    pub(crate) fn new(instances: usize, sent_to: bool) -> Self {
        Self {
            finished: 0,
            refused: 0,
            unfinished: 0,
            refusals: BTreeMap::new(),
            truncated: 0,
            escalated: 0,
            queued: 0,
            prompt_tokens: 0,
            cached_prompt_tokens: 0,
            output_tokens: 0,
            quality: Some(0.0),
            graded: (0, 0.0),
            usd: Some(0.0),
            ttft_s: Distribution::default(),
            tpot_s: Distribution::default(),
            e2e_s: Distribution::default(),
            instances: vec![(0, 0); instances],
            slo: SloTally::default(),
            sent_to: sent_to.then(Vec::new),
        }
    }

    /// Half the width of the mean quality's 95 % confidence interval, where it is of graded answers.
    pub(crate) fn quality_ci95(&self) -> Option<f64> {
        let (graded, squares) = self.graded;
        let finished = self.finished as f64;
        let mean = self.quality.filter(|_| graded == self.finished && graded > 1)? / finished;
        let variance = (squares / finished - mean * mean).max(0.0);
        Some(1.96 * (variance / finished).sqrt())
    }

    /// One has ended `now`. What is to be told of it.
    pub(crate) fn ended<'a>(
        &mut self,
        now: Timestamp,
        state: &'a RequestState,
        ending: RequestEnding,
        specs: impl Fn(u32) -> &'a InstanceSpec,
        options: &SimulationOptions,
    ) -> RequestRecord<'a> {
        self.queued += u64::from(state.queued);
        if let Some(sent_to) = &mut self.sent_to {
            let index = state.id.0 as usize;
            sent_to.resize(sent_to.len().max(index + 1), None);
            sent_to[index] = state.instance;
        }
        if let Some(goal) = &options.slo {
            self.slo.ended(goal, now, state, ending);
        }
        match ending {
            RequestEnding::Finished => self.finished += 1,
            RequestEnding::Refused(reason) => {
                self.refused += 1;
                *self.refusals.entry(reason).or_default() += 1;
            }
            RequestEnding::Unfinished => self.unfinished += 1,
        }
        let spec = state.instance.map(&specs);
        let finished = ending == RequestEnding::Finished;
        let seconds = |at: Timestamp| at.secs_since(state.record.arrival);
        let mut quality = None;
        if finished && let (Some(index), Some(spec)) = (state.instance, spec) {
            quality = self.answered(now, state, index, spec, &specs, options);
        }
        RequestRecord {
            id: state.id,
            arrival: state.record.arrival,
            model: spec.map(|spec| spec.model.name.as_str()),
            instance: spec.map(|spec| spec.name.as_str()),
            tenant: state.record.tenant.as_deref(),
            prompt_tokens: state.record.prompt_tokens,
            cached_tokens: state.cached_tokens,
            output_tokens: state.generated,
            ttft_s: state.first_token_at.map(seconds),
            e2e_s: finished.then(|| seconds(now)),
            energy: state
                .replaced
                .map_or(state.energy, |(_, energy, _)| energy + state.energy),
            ending,
            quality,
            queued: state.queued,
            truncated: state.truncated,
            escalated: state.replaced.is_some(),
        }
    }

    /// One was answered in full; how well, where that is known.
    fn answered<'a>(
        &mut self,
        now: Timestamp,
        state: &RequestState,
        index: u32,
        spec: &InstanceSpec,
        specs: impl Fn(u32) -> &'a InstanceSpec,
        options: &SimulationOptions,
    ) -> Option<f64> {
        let record = &state.record;
        self.truncated += u64::from(state.truncated);
        self.escalated += u64::from(state.replaced.is_some());
        self.prompt_tokens += u64::from(record.prompt_tokens);
        self.cached_prompt_tokens += u64::from(state.cached_tokens);
        self.output_tokens += u64::from(state.generated);
        if let Some((requests, tokens)) = self.instances.get_mut(index as usize) {
            *requests += 1;
            *tokens += u64::from(state.generated);
        }
        let first_token_at = state.first_token_at.unwrap_or(now);
        self.ttft_s.add(first_token_at.secs_since(record.arrival));
        self.e2e_s.add(now.secs_since(record.arrival));
        // An answer that was held back comes all at once.
        if state.generated > 1 && first_token_at < now {
            let further = f64::from(state.generated - 1);
            self.tpot_s.add(now.secs_since(first_token_at) / further);
        }
        let truth = options.truth(state.id.0 as usize, &spec.model.name);
        if let Some(answer) = truth {
            self.graded.0 += 1;
            self.graded.1 += answer.quality * answer.quality;
        }
        let quality = truth.map_or(spec.model.quality, |answer| Some(answer.quality));
        self.quality = self.quality.zip(quality).map(|(sum, quality)| sum + quality);
        let charge = |spec: &InstanceSpec, tokens: u32| {
            let price = spec.model.price;
            price.map(|price| price.usd(f64::from(record.prompt_tokens), f64::from(tokens)))
        };
        let first = match state.replaced {
            Some((first, _, tokens)) => charge(specs(first), tokens),
            None => Some(0.0),
        };
        let usd = charge(spec, state.generated)
            .zip(first)
            .map(|(last, first)| last + first);
        self.usd = self.usd.zip(usd).map(|(sum, usd)| sum + usd);
        quality
    }
}
