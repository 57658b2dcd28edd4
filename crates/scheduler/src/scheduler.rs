//! The scheduler: events in, actions out.

use std::time::Duration;

use equipoise_fleet::{Fleet, FleetDelta, ModelState};
use equipoise_policy::{Candidate, Constraint, Policy, Request, SettingsError, Target};
use equipoise_types::{DecisionId, IdHash, InstanceId, RandomStream, RequestId, Timestamp};
use indexmap::IndexMap;

use crate::cascade::Cascade;
use crate::explanation::Explanations;
use crate::exploration::Exploration;
use crate::outcome::Outcomes;
use crate::placement::{Decision, Placement};
use crate::prospect::{Prospect, Prospects};
use crate::queue::{Crowded, Gated, Newcomer, Pending, Queue, Walk};
use crate::retry::RetryBudget;
use crate::roster::Roster;
use crate::standing::Standings;
use crate::tenants::{Spending, Tenants};
use crate::{Action, Dispatch, Event, Failure, FeedbackError, Judgement, Refusal, SchedulerConfig};

pub use by_load::Sight;

/// While requests wait, they are looked at again at least this often: room may come from another router's request.
const QUEUE_POLL: Duration = Duration::from_millis(20);
/// Waiting requests with hard wishes that a walk through the queue tries in vain before it leaves them to the next.
const MISSES_PER_WALK: usize = 8;

/// The state machine. One owner; `&mut self` is the only lock.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    policy: Box<dyn Policy>,
    fleet: Fleet,
    /// Arrived, and waiting for their batch to be complete.
    arrivals: Vec<Pending>,
    batch_due: Option<Timestamp>,
    queue: Queue,
    queue_poll: Option<Timestamp>,
    retries: RetryBudget,
    /// Dispatched and not ended: kept for a retry.
    out: IndexMap<RequestId, Pending, IdHash>,
    decisions: u64,
    random: RandomStream,
    /// How all instances stand in the batch that is being decided.
    standings: Standings,
    /// Whether these are of the batch that is being decided.
    looked: bool,
    roster: Roster,
    /// What was decided ahead of its event.
    foreseen: Option<by_load::Foreseen>,
    // Reused between decisions.
    candidates: Vec<Candidate>,
    /// The policy's, of each candidate of a dispatch.
    scores: Vec<Option<f64>>,
    ruled_out: Vec<(InstanceId, Constraint)>,
    explanations: Explanations,
    explains: bool,
    exploration: Exploration,
    cascade: Cascade,
    outcomes: Outcomes,
    last_feedback: Option<Result<Judgement, FeedbackError>>,
    regret: f64,
    tenants: Tenants,
    /// Dispatches of the batch that is being decided, where there is something to improve.
    members: Vec<improve::Member>,
    improving: bool,
}

impl Scheduler {
    /// A scheduler over an empty fleet.
    ///
    /// # Errors
    /// For an unknown policy and for settings that make no sense.
    pub fn new(config: SchedulerConfig) -> Result<Self, SettingsError> {
        config.validate()?;
        let (policy, cascade) = config.policy()?;
        let random = RandomStream::new(config.seed).derive("policy");
        let fleet = Fleet::new(config.telemetry_stale_s);
        let exploring = RandomStream::new(config.seed).derive("exploration");
        Ok(Self {
            tenants: Tenants::new(&config.tenants),
            exploration: Exploration::new(config.exploration, exploring),
            cascade: Cascade::new(cascade),
            retries: RetryBudget::new(config.retries),
            config,
            policy,
            fleet,
            arrivals: Vec::new(),
            batch_due: None,
            queue: Queue::default(),
            queue_poll: None,
            out: IndexMap::default(),
            decisions: 0,
            random,
            standings: Standings::default(),
            looked: false,
            roster: Roster::default(),
            foreseen: None,
            candidates: Vec::new(),
            scores: Vec::new(),
            ruled_out: Vec::new(),
            explanations: Explanations::default(),
            explains: true,
            outcomes: Outcomes::default(),
            last_feedback: None,
            regret: 0.0,
            members: Vec::new(),
            improving: false,
        })
    }

    /// The same, for who never asks for an [explanation](Self::explanation). It decides alike, and where a policy looks at
    /// loads alone, only the instance that it takes is predicted.
    #[must_use]
    pub fn without_explanations(mut self) -> Self {
        self.explains = false;
        self
    }

    /// The same, for who never asks for an SLO and looks at no bound of an estimate: none is worked out, or learned.
    #[must_use]
    pub fn without_bounds(mut self) -> Self {
        self.fleet = self.fleet.without_bounds();
        self
    }

    /// The same, for who never asks for an SLO and looks at nothing of a dispatch but where it goes. Under a policy that looks
    /// at loads alone, which has to stay, no estimate is worked out or learned from, but for quality; else no bound.
    #[must_use]
    pub fn without_estimates(mut self) -> Self {
        if self.looks_at_load_only() && self.config.tenants.is_empty() && self.cascade.is_off() {
            self.fleet = self.fleet.without_estimates();
            self
        } else {
            self.without_bounds()
        }
    }

    /// Whether nothing depends on what is estimated, nor on the tokens of answers before their end.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.fleet.is_blind()
    }

    /// What it was told.
    #[must_use]
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// What it knows.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Requests that wait at the router.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// When the one that has waited longest at the router arrived.
    #[must_use]
    pub fn queued_since(&self) -> Option<Timestamp> {
        self.queue.oldest_arrival()
    }

    /// Requests that are dispatched and not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.out.len()
    }

    /// When it wants an [`Event::Timer`], if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        [self.batch_due, self.queue.next_expiry(), self.queue_poll]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes one event in and appends what to do. Never fails: an event about a request that is not known (ended
    /// twice, say) changes nothing.
    pub fn on_event(&mut self, now: Timestamp, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Arrived(requests) => self.arrived(now, requests, actions),
            Event::FirstToken { request } => self.fleet.first_token(now, request),
            Event::Tokens { request, count } => self.fleet.tokens(request, count),
            Event::Finished { request, usage } => {
                if let Some(pending) = self.out.swap_remove(&request) {
                    if let Some(suspect) = pending.suspect {
                        self.fleet.blame(now, suspect);
                    }
                    let released = self
                        .fleet
                        .finished(now, request, usage.map(|usage| usage.output_tokens));
                    self.settle(now, request, released, true, usage);
                    self.serve_queue(now, actions);
                }
            }
            Event::Judged {
                request,
                confidence,
                usage,
            } => self.judged(now, request, confidence, usage, actions),
            Event::Hedged { request, twin } => self.hedge(now, request, twin, actions),
            Event::Failed { request, failure } => self.failed(now, request, failure, actions),
            Event::Cancelled { request } => self.cancelled(now, request, actions),
            Event::Fleet(delta) => {
                // A new instance gets work with the operator's wish for it, which follows: it may be drained.
                let brings_room = !matches!(delta, FleetDelta::Remove { .. } | FleetDelta::Upsert(_));
                // A delta about an instance that is gone comes late, and says nothing any more.
                if self.fleet.apply(now, delta).is_ok() && brings_room {
                    self.serve_queue(now, actions);
                }
            }
            Event::Configured { config } => self.configure(now, *config, actions),
            Event::Feedback { decision, score } => self.last_feedback = Some(self.feedback(now, decision, score)),
            Event::Timer => {}
        }
        if self.batch_due.is_some_and(|due| due <= now) {
            self.decide_batch(now, actions);
        }
        self.expire(now, actions);
        if self.queue_poll.is_some_and(|due| due <= now) {
            self.serve_queue(now, actions);
        }
    }

    fn knows(&self, request: RequestId) -> bool {
        self.out.contains_key(&request)
            || self.queue.contains(request)
            || self.arrivals.iter().any(|pending| pending.request.id == request)
    }

    fn arrived(&mut self, now: Timestamp, requests: Vec<Request>, actions: &mut Vec<Action>) {
        for mut request in requests {
            self.bind(&mut request);
            // An id that is taken would answer one request twice and lose the other.
            if !self.knows(request.id) {
                self.retries.arrived(now);
                self.arrivals.push(Pending {
                    request,
                    arrived_at: now,
                    tried: Vec::new(),
                    last_failure: None,
                    suspect: None,
                    gated: None,
                    escalated: false,
                    owes_retry: false,
                });
            }
        }
        let batching = self.policy.batching();
        if self.arrivals.is_empty() {
            return;
        }
        if batching.window_s <= 0.0 || self.arrivals.len() >= batching.max_requests {
            self.decide_batch(now, actions);
        } else if self.batch_due.is_none() {
            self.batch_due = Some(now + Duration::try_from_secs_f64(batching.window_s).unwrap_or_default());
        }
    }

    fn decide_batch(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.batch_due = None;
        let mut batch = std::mem::take(&mut self.arrivals);
        self.begin_batch(now);
        if batch.len() > 1 {
            let models: Vec<&ModelState> = self.fleet.models().filter(|model| model.is_served()).collect();
            let lengths = |request: &Request| -> Vec<f64> {
                let of = |model: &&ModelState| Prospect::of(now, request, model).length.mean;
                models.iter().map(of).collect()
            };
            let mut keyed: Vec<(f64, Pending)> = batch
                .drain(..)
                .map(|pending| (self.policy.order_key(&lengths(&pending.request)), pending))
                .collect();
            keyed.sort_by(|a, b| b.0.total_cmp(&a.0));
            batch.extend(keyed.into_iter().map(|(_, pending)| pending));
        }
        let first_action = actions.len();
        self.improving = self.config.improve_batches && batch.len() > 1;
        for pending in batch.drain(..) {
            if self.stands_for_all(&pending.request) && self.queue.waits_before(&pending.request) {
                self.wait(now, pending, actions);
            } else {
                self.place(now, pending, actions);
            }
        }
        self.arrivals = batch;
        if std::mem::take(&mut self.improving) {
            self.improve_batch(now, &mut actions[first_action..]);
        }
    }

    /// True where one who waits stands for all behind it that ask for the same: what it has no room for, they have none for.
    /// Not where each may choose a model as well and waits for its own best: then whoever waits for the largest model would
    /// keep the others from instances that are free.
    fn stands_for_all(&self, request: &Request) -> bool {
        let chooses = request.target == Target::Auto && self.policy.binds_late();
        request.wishes.are_plain() && !chooses
    }

    fn begin_batch(&mut self, now: Timestamp) {
        self.fleet.advance(now);
        self.looked = false;
        // A policy that looks at loads alone is content with the roster, until a request needs more.
        if !self.looks_at_load_only() {
            self.look_around(now);
        }
    }

    /// Looks at all instances, once a batch.
    fn look_around(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        self.standings.take(now, &self.fleet);
        let present = self.standings.iter().filter(|(_, standing)| standing.present);
        let mut loads = present.map(|(id, standing)| (id, standing.load, standing.slots));
        self.policy.begin_batch(&mut loads);
    }

    /// Decides one request and carries the decision out in the ledger.
    fn place(&mut self, now: Timestamp, pending: Pending, actions: &mut Vec<Action>) {
        let ahead = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        match self.decide(now, &pending, ahead) {
            Placement::Take(candidate, score) => self.dispatch(now, pending, &candidate, score, actions),
            Placement::Wait => self.wait(now, pending, actions),
            Placement::Refuse(reason) => self.refuse(&pending, reason, actions),
        }
    }

    /// Where instances were tried and nobody else is available, it is the tries that failed the request.
    fn refuse(&self, pending: &Pending, reason: Refusal, actions: &mut Vec<Action>) {
        let exhausted = matches!(reason, Refusal::Unavailable { .. }) && !pending.tried.is_empty();
        let mut reason = if exhausted { self.exhausted(pending) } else { reason };
        self.say_when(pending, &mut reason);
        actions.push(Action::Refuse {
            request: pending.request.id,
            reason,
        });
    }

    fn decide(&mut self, now: Timestamp, pending: &Pending, ahead: u32) -> Placement {
        if let Some(placement) = self.decide_by_load(now, pending, ahead) {
            return placement;
        }
        self.look_around(now);
        let (mut decision, policy, random) = self.decision(now, pending, ahead);
        decision.place(&pending.request, &pending.tried, policy, random)
    }

    fn decision(
        &mut self,
        now: Timestamp,
        pending: &Pending,
        ahead: u32,
    ) -> (Decision<'_>, &mut dyn Policy, &mut RandomStream) {
        let left = self.tenants.left(now, pending.request.tenant.as_deref());
        let terse = self.is_terse(&pending.request, ahead) && left.is_none();
        let decision = Decision {
            now,
            left,
            prospects: Prospects::of(now, &self.fleet, &pending.request),
            fleet: &self.fleet,
            standings: &self.standings,
            late_binding: self.config.late_binding,
            waited_s: now.secs_since(pending.arrived_at),
            ahead,
            terse,
            candidates: &mut self.candidates,
            ruled_out: &mut self.ruled_out,
        };
        (decision, self.policy.as_mut(), &mut self.random)
    }

    fn dispatch(
        &mut self,
        now: Timestamp,
        mut pending: Pending,
        candidate: &Candidate,
        score: Option<f64>,
        actions: &mut Vec<Action>,
    ) {
        let request = &pending.request;
        // A second try is no time for experiments.
        let explored = if pending.tried.is_empty() {
            self.exploration.instead_of(now, request, candidate, &self.candidates)
        } else {
            None
        };
        let (candidate, score) = match &explored {
            Some(other) => (other, self.policy.score(request, other)),
            None => (candidate, score),
        };
        self.tenants.reserve(
            now,
            request.id,
            request.tenant.as_deref(),
            Spending::estimated(candidate),
        );
        let (decision, quality) = (DecisionId(self.decisions), candidate.estimate().quality);
        let gate = if pending.escalated {
            None
        } else {
            self.cascade.gate(request, candidate, &self.candidates)
        };
        // Of an answer that is held back no token is seen before the last.
        let silent = !request.streams || gate.is_some();
        let uncached = request.prompt_tokens.saturating_sub(candidate.cached_tokens);
        self.fleet.book(
            now,
            request.id,
            candidate.instance,
            uncached,
            silent,
            candidate.prediction,
        );
        if self.looked {
            self.standings.renew(now, &self.fleet, candidate.instance);
        }
        if !self.improving {
            self.fleet.note_prefix(candidate.instance, &request.prefix.blocks);
        }
        actions.push(Action::Dispatch(Dispatch {
            request: request.id,
            decision,
            instance: candidate.instance,
            attempt: u32::try_from(pending.tried.len()).unwrap_or(u32::MAX).saturating_add(1),
            estimate: *candidate.estimate(),
            score,
            waited_s: now.secs_since(pending.arrived_at),
            explored: explored.is_some(),
            gate,
        }));
        let scored = |candidate: &Candidate| self.policy.score(request, candidate);
        self.scores.clear();
        self.scores.extend(self.candidates.iter().map(scored));
        let (candidates, scores) = (&self.candidates, &self.scores);
        self.outcomes
            .keep(request, candidate, candidates, scores, self.policy.as_ref());
        pending.gated = gate.map(|gate| Gated {
            gate,
            decision,
            quality,
        });
        let id = pending.request.id;
        // An answer that may be replaced stays where its gate was set for.
        let bounded = self.tenants.is_bounded(pending.request.tenant.as_deref());
        let movable = explored.is_none() && gate.is_none() && !bounded;
        self.out.insert(id, pending);
        if self.improving {
            self.note_member(id, candidate, score, movable);
        }
        self.explain(now, id, candidate.instance, explored.is_some());
        self.decisions += 1;
    }

    /// The last of a decision: what it looked at goes into its explanation.
    fn explain(&mut self, now: Timestamp, request: RequestId, chosen: InstanceId, explored: bool) {
        if !self.explains {
            return;
        }
        let mut explanation = self.explanations.blank();
        explanation.decision = DecisionId(self.decisions);
        explanation.request = request;
        explanation.at = now;
        explanation.chosen = chosen;
        explanation.explored = explored;
        std::mem::swap(&mut explanation.candidates, &mut self.candidates);
        std::mem::swap(&mut explanation.scores, &mut self.scores);
        std::mem::swap(&mut explanation.ruled_out, &mut self.ruled_out);
        self.explanations.keep(explanation);
    }

    /// Why a decision fell as it did, if it is not too long ago.
    #[must_use]
    pub fn explanation(&self, decision: DecisionId) -> Option<&crate::Explanation> {
        self.explanations.of(decision)
    }

    fn wait(&mut self, now: Timestamp, pending: Pending, actions: &mut Vec<Action>) {
        let request = pending.request.id;
        let answer_tokens = Prospects::of(now, &self.fleet, &pending.request).answer_tokens();
        let tokens = u64::from(pending.request.prompt_tokens).saturating_add(answer_tokens);
        let limit = self.config.queue_limit as usize;
        // Before anything is worked out that only those who wait need: an overloaded router refuses most.
        let crowded_out = match self.queue.make_room(&pending.request, tokens, limit) {
            Ok(crowded_out) => crowded_out,
            Err(crowded) => return self.refuse_for_crowd(crowded, actions),
        };
        let slo = self.decision(now, &pending, 0).0.longest_wait_s(&pending.request);
        let slo = slo.map_or(Duration::MAX, |wait_s| {
            Duration::try_from_secs_f64(wait_s).unwrap_or_default()
        });
        let newcomer = Newcomer {
            tokens,
            plain: self.stands_for_all(&pending.request),
            expires_at: self.patience_ends(&pending).min(pending.arrived_at + slo),
            pending,
        };
        let ahead = self.queue.push(newcomer);
        self.queue_poll.get_or_insert(now + QUEUE_POLL);
        actions.push(Action::Queue { request, ahead });
        if let Some(crowded_out) = crowded_out {
            self.refuse_for_crowd(crowded_out, actions);
        }
    }

    fn refuse_for_crowd(&self, crowded: Crowded, actions: &mut Vec<Action>) {
        let reason = Refusal::QueueFull {
            limit: self.config.queue_limit,
            retry_after_s: self.retry_after_s(crowded.waiting),
        };
        let request = crowded.request;
        actions.push(Action::Refuse { request, reason });
    }

    fn patience_ends(&self, pending: &Pending) -> Timestamp {
        let patience = Duration::try_from_secs_f64(self.config.queue_timeout_s).unwrap_or(Duration::MAX);
        let deadline = pending.request.wishes.deadline.unwrap_or(Timestamp::MAX);
        deadline.min(pending.arrived_at + patience)
    }

    /// Walks the queue from the front and places whom it can. Where one stands for all, a miss does so too; the
    /// others are tried one by one, so many a walk, and the next walk goes on where this one stopped.
    fn serve_queue(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.queue.is_empty() {
            self.queue_poll = None;
            return;
        }
        self.begin_batch(now);
        let mut walk = Walk::default();
        loop {
            let may_retry = self.retries.allows(now, self.out.len());
            let Some(pending) = self.queue.next(&walk, MISSES_PER_WALK, may_retry) else {
                break;
            };
            let (id, mut pending) = (pending.request.id, pending.clone());
            // Who goes first is a matter of fairness, not of whether a free instance is worth taking: that it is when the
            // last in line would rather have it than wait for all before it. Asked as if it were alone, the first would
            // hold out for a better instance, and everybody behind it with it.
            let line = u32::try_from(self.queue.len() - 1).unwrap_or(u32::MAX);
            match self.decide(now, &pending, line) {
                Placement::Take(candidate, score) => {
                    self.queue.take(id);
                    // Paid once: it may fail again, and wait for another reason.
                    if std::mem::take(&mut pending.owes_retry) {
                        self.retries.spend(now);
                    }
                    self.dispatch(now, pending, &candidate, score, actions);
                }
                Placement::Wait => self.queue.missed(&mut walk, id),
                Placement::Refuse(reason) => {
                    self.queue.remove(id);
                    self.refuse(&pending, reason, actions);
                }
            }
        }
        self.queue.walked(&walk, MISSES_PER_WALK);
        self.queue_poll = (!self.queue.is_empty()).then(|| now + QUEUE_POLL);
    }

    fn expire(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        while let Some(pending) = self.queue.pop_expired(now) {
            let waited_ms = u64::try_from(now.since(pending.arrived_at).as_millis()).unwrap_or(u64::MAX);
            let retry_after_s = self.retry_after_s(self.queue.waiting_for(&pending.request.target));
            let reason = if now < self.patience_ends(&pending) {
                Refusal::SloMissed {
                    reasons: "nobody became free in time".to_owned(),
                    waited_ms,
                    retry_after_s,
                }
            } else {
                Refusal::QueueTimeout {
                    waited_ms,
                    retry_after_s,
                }
            };
            actions.push(Action::Refuse {
                request: pending.request.id,
                reason,
            });
        }
        if self.queue.is_empty() {
            self.queue_poll = None;
        }
    }

    /// A hint for `Retry-After`: a second, and one more for each quarter of the group's places that is taken.
    fn retry_after_s(&self, waiting: usize) -> u32 {
        let quarters = 4 * waiting / (self.config.queue_limit as usize).max(1);
        1 + u32::try_from(quarters).unwrap_or(4).min(4)
    }

    fn failed(&mut self, now: Timestamp, request: RequestId, failure: Failure, actions: &mut Vec<Action>) {
        let Some(mut pending) = self.out.swap_remove(&request) else {
            return;
        };
        let at_fault = matches!(failure, Failure::Unreached | Failure::Final);
        let released = self.fleet.abandoned(now, request, at_fault);
        self.settle(now, request, released, false, None);
        if let (Some(booking), true) = (released, failure != Failure::Final) {
            let second_error = failure == Failure::Errored && pending.suspect.is_some();
            if failure == Failure::Errored {
                pending.suspect = Some(booking.instance);
            }
            pending.tried.push(booking.instance);
            pending.last_failure = Some(failure);
            if !second_error && pending.tried.len() < self.config.attempts_max as usize {
                self.retry(now, failure, pending, actions);
            } else {
                let reason = self.exhausted(&pending);
                actions.push(Action::Refuse { request, reason });
            }
        }
        self.serve_queue(now, actions);
    }

    /// Within the budget it goes on at once. Beyond it, what was lost with a connection waits until the budget allows it:
    /// nothing was wrong with it, and an instance that dies may lose many at a time. What an engine refused or failed is not
    /// repeated: that is how retries turn an overload into an outage.
    fn retry(&mut self, now: Timestamp, failure: Failure, mut pending: Pending, actions: &mut Vec<Action>) {
        if self.retries.allows(now, self.out.len()) {
            self.retries.spend(now);
            self.begin_batch(now);
            self.place(now, pending, actions);
        } else if failure == Failure::Unreached {
            pending.owes_retry = true;
            self.wait(now, pending, actions);
        } else {
            let (request, reason) = (pending.request.id, self.exhausted(&pending));
            actions.push(Action::Refuse { request, reason });
        }
    }

    fn exhausted(&self, pending: &Pending) -> Refusal {
        let attempts = u32::try_from(pending.tried.len()).unwrap_or(u32::MAX);
        let last = pending.tried.last().and_then(|last| self.fleet.instance(*last));
        let instance = last.map_or_else(String::new, |instance| instance.spec.name.clone());
        match pending.last_failure {
            Some(Failure::Overloaded) => Refusal::Overloaded { attempts, instance },
            Some(Failure::Errored) => Refusal::Errored { attempts, instance },
            _ => Refusal::Exhausted { attempts, instance },
        }
    }

    fn cancelled(&mut self, now: Timestamp, request: RequestId, actions: &mut Vec<Action>) {
        self.arrivals.retain(|pending| pending.request.id != request);
        self.queue.remove(request);
        if self.out.swap_remove(&request).is_some() {
            let released = self.fleet.abandoned(now, request, false);
            self.settle(now, request, released, false, None);
            self.serve_queue(now, actions);
        }
    }
}

mod by_load;
mod configure;
mod escalation;
mod feedback;
mod hedging;
mod improve;
mod spending;
#[cfg(test)]
pub(crate) mod tests;
