//! Many steps of one batch, one after the other, without the machinery around each.
//!
//! Steps of a [steady batch](Engine::steady) are known from their first: `n` sequences, and `n` tokens of context more each
//! time. What a step costs is computed by the same expression as ever, rounded to the same nanosecond and the same
//! picojoules; what is saved is the forming of batches, the charging of each request for each step, and the driver's queue.
//! Shares are linear in a request's context with whole coefficients ([`Shares`]), so three sums over the steps charge it
//! for all of them: with `e_i` for everybody and `k_i` per token of context, one whose context was `c` pays
//! `Σ e_i + c Σ k_i + Σ i k_i`.

use equipoise_engine::{Engine, SteadyBatch, Step, StepModel, StepWork};
use equipoise_types::{RequestId, Timestamp};

use super::{RunningStep, SimulatedInstance, nanos};
use crate::meter::Shares;
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
    lines: Vec<Line>,
    /// No progress is due before so many steps have ended...
    next_due: i64,
    /// ...or before this time.
    next_due_at: Timestamp,
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

impl Run {
    /// One of a steady batch begins `now`.
    pub(super) fn new(steady: &SteadyBatch, now: Timestamp, engine: &Engine, requests: &Requests) -> Self {
        let line = |id: RequestId| {
            let place = Place::of_engine_id(id);
            let state = requests.at(place);
            Line {
                request: state.id,
                place,
                told: i64::from(state.reported) - i64::from(state.generated),
                told_at: state.reported_at,
            }
        };
        let mut run = Self {
            seqs: steady.seqs,
            left: steady.steps,
            then_ends: steady.then_ends,
            done: 0,
            told: 0,
            each: 0,
            per_kv_token: 0,
            for_growth: 0,
            lines: engine.running().map(line).collect(),
            next_due: 0,
            next_due_at: now,
        };
        run.find_due();
        run
    }

    /// Its first step.
    pub(super) fn step(steady: &SteadyBatch, model: &StepModel) -> Step {
        let work = StepWork {
            decode_seqs: steady.seqs,
            kv_tokens: steady.kv_tokens,
            ..StepWork::default()
        };
        Step {
            work,
            cost: model.cost(&work),
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
    pub(super) fn visible_from(&self, running: &RunningStep, model: &StepModel) -> Timestamp {
        // The steps after the running one; the one that ends an answer comes after the run.
        let steps = u64::from(self.left - 1) + u64::from(self.then_ends);
        if steps == 0 {
            return running.ends;
        }
        let work = StepWork {
            kv_tokens: running.step.work.kv_tokens + u64::from(self.seqs) * (steps + 1) / 2,
            ..running.step.work
        };
        let mean = nanos(model.cost(&work).seconds);
        // Each is rounded by half a nanosecond, and so is their mean.
        Timestamp(
            running
                .ends
                .0
                .saturating_add(mean.saturating_sub(2).saturating_mul(steps)),
        )
    }

    /// No progress is due at the engine before then. `longer`: no later step is shorter than the running one.
    pub(super) fn next_progress(&self, running: &RunningStep, longer: bool) -> Timestamp {
        if !longer {
            return running.ends;
        }
        let steps = u64::try_from(self.next_due - i64::from(self.done) - 1).unwrap_or(0);
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
            let (ends, work) = (running.ends, running.step.work);
            let index = u128::from(run.done - run.told);
            run.done += 1;
            run.left -= 1;
            let over = run.left == 0;
            let due = i64::from(run.done) >= run.next_due || ends >= run.next_due_at;
            let Some((_, shares)) = self.finish_step(ends) else {
                return false;
            };
            self.charge(&shares, &work, index);
            if due {
                self.tell_progress(ends);
            }
            if over {
                self.leave_run(false, requests);
                self.begin(ends, requests);
                return true;
            }
            let work = StepWork {
                kv_tokens: work.kv_tokens + u64::from(work.decode_seqs),
                ..work
            };
            let cost = self.engine.model().cost(&work);
            self.start(ends, Step { work, cost });
        }
        false
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

    /// A step ends, and somebody's progress is due.
    fn tell_progress(&mut self, now: Timestamp) {
        let Some(run) = &mut self.run else { return };
        let done = i64::from(run.done);
        let at = now + self.hop;
        for line in &mut run.lines {
            let count = done - line.told;
            if count < i64::from(REPORT_TOKENS) && now.0 - line.told_at.0 < REPORT_NANOS {
                continue;
            }
            (line.told, line.told_at) = (done, now);
            self.progress.push_back(super::Progress {
                at,
                request: line.request,
                count: u32::try_from(count).unwrap_or(0),
            });
        }
        run.find_due();
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

    /// The run is over.
    fn leave_run(&mut self, begun: bool, requests: &mut Requests) {
        self.tell_engine(begun, requests);
        let Some(run) = self.run.take() else { return };
        for line in run.lines {
            let state = requests.at_mut(line.place);
            let told = i64::from(state.generated) - (i64::from(run.done) - line.told);
            state.reported = u32::try_from(told).unwrap_or(0);
            state.reported_at = line.told_at;
        }
    }

    /// Makes the running step of a run an ordinary one, because what follows will be another batch; true where there was a run.
    pub(crate) fn interrupt(&mut self, requests: &mut Requests) -> bool {
        if self.run.is_none() {
            return false;
        }
        // The step takes its blocks when the engine begins it.
        self.leave_run(false, requests);
        let begun = self.engine.begin_long_step();
        debug_assert_eq!(begun, self.step.map(|running| running.step), "a step of a steady batch");
        true
    }
}
