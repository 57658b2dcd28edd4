//! Many steps of one batch, one after the other, without the machinery around each.
//!
//! Steps of a [steady batch](Engine::steady) are known from their first: `n` sequences, and `n` tokens of context more each
//! time. What a step costs is computed by the same expression as ever, rounded to the same nanosecond and the same
//! picojoules; what is saved is the forming of batches, the charging of each request for each step, and the driver's queue.
//! Shares are linear in a request's context with whole coefficients ([`Shares`]), so three sums over the steps charge it
//! for all of them: with `e_i` for everybody and `k_i` per token of context, one whose context was `c` pays
//! `Σ e_i + c Σ k_i + Σ i k_i`.
//!
//! Nor is anybody told of tokens while they come. When steps ended is kept, and what was reported by then is worked out when
//! somebody looks: reports that nobody had read before the next one are one report.

use equipoise_engine::{Decoding, EnergyTerms, Engine, SteadyBatch, Step, StepWork};
use equipoise_types::{RequestId, Timestamp};

use super::{Progress, RunningStep, SimulatedInstance, nanos};
use crate::meter::{DecodingTerms, Shares};
use crate::request::{Place, REPORT_NANOS, REPORT_TOKENS, Requests};

/// See the module.
#[derive(Debug)]
pub(super) struct Run {
    seqs: u32,
    /// Steps of the run that have not ended, the running one included.
    left: u32,
    /// The step after the run is one more of the kind and ends an answer.
    then_ends: bool,
    /// Steps that have ended.
    done: u32,
    /// Of these, those that the engine has been told of.
    told: u32,
    /// Over the steps that it has not been told of: what each pays whatever its context...
    each: u128,
    /// ...per token of context...
    per_kv_token: u128,
    /// ...and for the tokens by which contexts have grown.
    for_growth: u128,
    decoding: Decoding,
    terms: DecodingTerms,
    /// When each of the steps that are done ended.
    ends: Vec<Timestamp>,
    lines: Vec<Line>,
    /// No progress is due before so many steps have ended...
    next_due: i64,
    /// ...or before this time.
    next_due_at: Timestamp,
}

/// Buffers that one run leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Spare {
    ends: Vec<Timestamp>,
    lines: Vec<Line>,
}

/// One answer's progress.
#[derive(Clone, Copy, Debug)]
struct Line {
    request: RequestId,
    place: Place,
    /// When progress was told last, in steps of this run; negative before it.
    told: i64,
    told_at: Timestamp,
}

impl Line {
    /// The next report among the steps that ended at `ends`: after how many of them, and when. As often as
    /// [`RequestState::token`](crate::request::RequestState::token) says.
    fn next(&self, ends: &[Timestamp]) -> Option<(i64, Timestamp)> {
        let first = usize::try_from(self.told).unwrap_or(0);
        let last = usize::try_from(self.told + i64::from(REPORT_TOKENS))
            .unwrap_or(0)
            .max(1);
        let due_at = self.told_at.0 + REPORT_NANOS;
        let seen = &ends[first.min(ends.len())..last.min(ends.len())];
        let late = seen.iter().position(|end| end.0 >= due_at);
        let done = match late {
            Some(index) => first + index + 1,
            None if last <= ends.len() => last,
            None => return None,
        };
        Some((i64::try_from(done).unwrap_or(i64::MAX), ends[done - 1]))
    }

    /// Takes the next report, if it is heard of at most at `latest`: how many tokens it tells of, and when at the engine.
    fn take(&mut self, ends: &[Timestamp], latest: Timestamp) -> Option<(u32, Timestamp)> {
        let (done, at) = self.next(ends).filter(|(_, at)| *at <= latest)?;
        let count = u32::try_from(done - self.told).unwrap_or(0);
        (self.told, self.told_at) = (done, at);
        Some((count, at))
    }
}

impl Run {
    /// One of a steady batch begins `now`. `requests`: all that are open, where somebody wants to hear of their progress.
    pub(super) fn new(
        steady: &SteadyBatch,
        now: Timestamp,
        engine: &Engine,
        terms: EnergyTerms,
        requests: Option<&Requests>,
        spare: Spare,
    ) -> Self {
        let Spare { mut ends, mut lines } = spare;
        ends.clear();
        lines.clear();
        let line = |requests: &Requests, id: RequestId| {
            let place = Place::of_engine_id(id);
            let state = requests.at(place);
            Line {
                request: state.id,
                place,
                told: i64::from(state.reported) - i64::from(state.generated),
                told_at: state.reported_at,
            }
        };
        if let Some(requests) = requests {
            lines.extend(engine.running().map(|id| line(requests, id)));
        }
        let mut run = Self {
            seqs: steady.seqs,
            left: steady.steps,
            then_ends: steady.then_ends,
            done: 0,
            told: 0,
            each: 0,
            per_kv_token: 0,
            for_growth: 0,
            decoding: engine.model().decoding(steady.seqs),
            terms: DecodingTerms::new(terms, steady.seqs),
            ends,
            lines,
            next_due: 0,
            next_due_at: now,
        };
        run.find_due();
        run
    }

    /// One of its steps.
    pub(super) fn step(&self, kv_tokens: u64) -> Step {
        Step {
            work: StepWork {
                decode_seqs: self.seqs,
                kv_tokens,
                ..StepWork::default()
            },
            cost: self.decoding.cost(kv_tokens),
        }
    }

    fn find_due(&mut self) {
        let (mut due, mut due_at) = (i64::MAX, Timestamp::MAX);
        for line in &self.lines {
            due = due.min(line.told + i64::from(REPORT_TOKENS));
            due_at = due_at.min(Timestamp(line.told_at.0 + REPORT_NANOS));
        }
        (self.next_due, self.next_due_at) = (due, due_at);
    }

    /// Nobody outside can see anything of it before then, beside progress: the end of the step that ends an answer, less
    /// what rounding may have added. Step times are convex in the context, so their mean is at least that of the mean context.
    pub(super) fn visible_from(&self, running: &RunningStep) -> Timestamp {
        // The steps after the running one; the one that ends an answer comes after the run.
        let steps = u64::from(self.left - 1) + u64::from(self.then_ends);
        if steps == 0 {
            return running.ends;
        }
        let kv_tokens = running.step.work.kv_tokens + u64::from(self.seqs) * (steps + 1) / 2;
        let mean = nanos(self.decoding.cost(kv_tokens).seconds);
        // Each is rounded by half a nanosecond, and so is their mean.
        Timestamp(
            running
                .ends
                .0
                .saturating_add(mean.saturating_sub(2).saturating_mul(steps)),
        )
    }

    /// No progress that was not heard of is due at the engine before then. `longer`: no later step is shorter than the
    /// running one.
    pub(super) fn next_progress(&self, running: &RunningStep, longer: bool) -> Timestamp {
        let by_tokens = usize::try_from(self.next_due - 1).unwrap_or(0);
        let by_time = self.ends.partition_point(|end| *end < self.next_due_at);
        if let Some(end) = self.ends.get(by_tokens.min(by_time)) {
            return *end;
        }
        if !longer {
            return running.ends;
        }
        let steps = (by_tokens - self.ends.len()) as u64;
        let more = steps.saturating_mul(running.ends.0 - running.began.0);
        let by_tokens = Timestamp(running.ends.0.saturating_add(more));
        by_tokens.min(self.next_due_at.max(running.ends))
    }
}

impl SimulatedInstance {
    /// Ends all steps of a run that are over by `now`, and begins what follows; true where the run ended.
    pub(crate) fn advance(&mut self, now: Timestamp, requests: &mut Requests) -> bool {
        while let (Some(run), Some(running)) = (&mut self.run, &self.step)
            && running.ends <= now
        {
            if !self.pace.varies() && run.left > 1 {
                self.stride(now);
                continue;
            }
            let (ends, work) = (running.ends, running.step.work);
            let index = u128::from(run.done - run.told);
            run.done += 1;
            run.left -= 1;
            if !self.mute {
                run.ends.push(ends);
            }
            let over = run.left == 0;
            let Some((_, shares)) = self.finish_step(ends) else {
                return false;
            };
            self.charge(&shares, &work, index);
            if over {
                self.leave_run(now, false, requests);
                self.begin(ends, requests);
                return true;
            }
            if let Some(run) = &self.run {
                let step = run.step(work.kv_tokens + u64::from(work.decode_seqs));
                self.start(ends, step);
            }
        }
        false
    }

    /// The same where every step takes as long as its model says: all but the last step of the run, without looking at
    /// anything else. At least one is over.
    fn stride(&mut self, now: Timestamp) {
        let (Some(run), Some(running)) = (&mut self.run, &mut self.step) else {
            return;
        };
        let seqs = u64::from(run.seqs);
        let (first_began, first_kv_tokens) = (running.began, running.step.work.kv_tokens);
        let (mut ends, mut began) = (running.ends, running.began);
        let mut kv_tokens = first_kv_tokens;
        let mut cost = running.step.cost;
        let mut joules = running.joules;
        let mut most_watts = 0.0_f64;
        let first_index = u64::from(run.done - run.told);
        let (mut each, mut per_kv_token, mut for_growth) = (0_u128, 0_u128, 0_u128);
        let mut steps = 0_u64;
        while ends <= now && steps + 1 < u64::from(run.left) {
            let shares = Shares::of_decoding(joules, &run.terms, kv_tokens);
            each += u128::from(shares.each) + u128::from(shares.per_decode_token);
            per_kv_token += u128::from(shares.per_kv_token);
            for_growth += u128::from(shares.per_kv_token) * u128::from(steps);
            if !self.mute {
                run.ends.push(ends);
            }
            steps += 1;
            kv_tokens += seqs;
            cost = run.decoding.cost(kv_tokens);
            most_watts = most_watts.max(cost.watts.0);
            joules = cost.joules.0;
            began = ends;
            ends = Timestamp(ends.0.saturating_add(nanos(cost.seconds)));
        }
        // What all of them took together: each step read `seqs` tokens of context more than the one before it.
        let whole =
            each * u128::from(seqs) + per_kv_token * u128::from(first_kv_tokens) + for_growth * u128::from(seqs);
        self.meter.busy(whole);
        run.each += each;
        run.per_kv_token += per_kv_token;
        run.for_growth += for_growth + per_kv_token * u128::from(first_index);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        run.done += steps;
        run.left -= steps;
        self.busy_nanos += began.0 - first_began.0;
        self.idle_since = began;
        self.pace.note_watts(most_watts);
        *running = RunningStep {
            step: run.step(kv_tokens),
            stretch: 1.0,
            watts: self.pace.plain_watts(&cost),
            joules,
            began,
            ends,
        };
    }

    fn charge(&mut self, shares: &Shares, work: &StepWork, index: u128) {
        let Some(run) = &mut self.run else { return };
        let each = u128::from(shares.each) + u128::from(shares.per_decode_token);
        let per_kv_token = u128::from(shares.per_kv_token);
        run.each += each;
        run.per_kv_token += per_kv_token;
        run.for_growth += index * per_kv_token;
        let whole = each * u128::from(work.decode_seqs) + per_kv_token * u128::from(work.kv_tokens);
        self.meter.busy(whole);
    }

    /// Takes all progress of which the router hears before `before`, what comes of one request as one; the last time of
    /// each is in it. It has been brought up to the present.
    pub(crate) fn hear(&mut self, before: Timestamp, mut tell: impl FnMut(Progress)) {
        if self.first_heard < before {
            let mut first_heard = Timestamp::MAX;
            self.progress.retain(|next| {
                let heard = next.at < before;
                if heard {
                    tell(*next);
                } else {
                    first_heard = first_heard.min(next.at);
                }
                !heard
            });
            self.first_heard = first_heard;
        }
        let Some(run) = &mut self.run else { return };
        let Some(latest) = before.0.checked_sub(1 + self.hop_nanos) else {
            return;
        };
        for line in &mut run.lines {
            let (mut count, mut at) = (0, Timestamp::ZERO);
            while let Some((more, when)) = line.take(&run.ends, Timestamp(latest)) {
                (count, at) = (count + more, when);
            }
            if count > 0 {
                let at = at + self.hop;
                let request = line.request;
                tell(Progress { at, request, count });
            }
        }
        run.find_due();
    }

    /// Steps of the run that have ended and that the engine has not been told of; `None` where there is no run.
    pub(super) fn untold_steps(&self) -> Option<u32> {
        self.run.as_ref().map(|run| run.done - run.told)
    }

    /// Tells the engine of the steps that have ended and charges who was in them. `begun`: the run goes on, its next step has
    /// begun.
    pub(super) fn tell_engine(&mut self, begun: bool, requests: &mut Requests) {
        let Some(run) = &mut self.run else { return };
        let steps = run.done - run.told;
        let (each, per_kv_token, for_growth) = (run.each, run.per_kv_token, run.for_growth);
        self.engine.skip(steps, begun, |id, context| {
            let state = requests.at_mut(Place::of_engine_id(id));
            state.generated += steps;
            state.picojoules += each + per_kv_token * u128::from(context) + for_growth;
        });
        run.told = run.done;
        (run.each, run.per_kv_token, run.for_growth) = (0, 0, 0);
    }

    /// The run is over, and it is `now`. What was told and not heard yet is kept; what the router could have heard of by now
    /// as one.
    fn leave_run(&mut self, now: Timestamp, begun: bool, requests: &mut Requests) {
        self.tell_engine(begun, requests);
        let Some(mut run) = self.run.take() else { return };
        for line in &mut run.lines {
            let mut before: Option<Progress> = None;
            while let Some((count, at)) = line.take(&run.ends, Timestamp::MAX) {
                let mut next = Progress {
                    at: at + self.hop,
                    request: line.request,
                    count,
                };
                if let Some(before) = before.take_if(|_| next.at < now) {
                    next.count += before.count;
                } else if let Some(before) = before.take() {
                    self.push(before);
                }
                before = Some(next);
            }
            if let Some(last) = before {
                self.push(last);
            }
            let state = requests.at_mut(line.place);
            let told = i64::from(state.generated) - (i64::from(run.done) - line.told);
            state.reported = u32::try_from(told).unwrap_or(0);
            state.reported_at = line.told_at;
        }
        let Run { ends, lines, .. } = run;
        self.spare = Spare { ends, lines };
    }

    /// Makes the running step of a run an ordinary one, because what follows will be another batch; true where there was a run.
    pub(crate) fn interrupt(&mut self, now: Timestamp, requests: &mut Requests) -> bool {
        if self.run.is_none() {
            return false;
        }
        // The step takes its blocks when the engine begins it.
        self.leave_run(now, false, requests);
        let begun = self.engine.begin_long_step();
        debug_assert_eq!(begun, self.step.map(|running| running.step), "a step of a steady batch");
        true
    }
}
