//! What the driver does for the scheduler, and what it tells it.

use std::cmp::Reverse;

use equipoise_engine::{EngineEvent, EngineRequest};
use equipoise_scheduler::{Action, Dispatch, Event, Failure, Sight, TokenUsage};
use equipoise_trace::{MOONCAKE_BLOCK_TOKENS, TraceError, WorkloadRecord};
use equipoise_types::{RequestId, Timestamp};

use super::Driver;
use crate::cascade;
use crate::feed::Sink;
use crate::happening::{Happening, ReportKind};
use crate::instance::Progress;
use crate::request::{Place, Requests};
use crate::routers::Routers;
use crate::{RequestEnding, RequestSink};

/// Tells the router of a request what it has heard.
fn pass_on<S: Sink>(progress: Progress, requests: &Requests, routers: &mut Routers<S>, actions: &mut Vec<Action>) {
    let Progress { at, request, count } = progress;
    let Some(place) = requests.place(request) else {
        // It has ended since, and its end told as much.
        return;
    };
    let home = requests.at(place).home as usize;
    if !routers.is_away(home) {
        routers.give(home, at, Event::Tokens { request, count }, actions);
    }
}

impl<W, S, R> Driver<'_, W, S, R>
where
    W: Iterator<Item = Result<WorkloadRecord, TraceError>>,
    S: Sink,
    R: RequestSink,
{
    /// Gives a router an event and carries out what it answers.
    pub(crate) fn give(&mut self, router: usize, event: Event) {
        if self.routers.is_away(router) {
            return;
        }
        self.prepare(&event);
        let mut actions = std::mem::take(&mut self.actions);
        self.routers.give(router, self.now, event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Dispatch(dispatch) => self.dispatch(&dispatch),
                Action::Queue { request, .. } => {
                    if let Some(place) = self.requests.place(request) {
                        self.requests.at_mut(place).queued = true;
                    }
                }
                Action::Refuse { request, reason } => self.refuse(request, reason.code()),
                Action::Deliver { request } => self.deliver(request),
            }
        }
        self.actions = actions;
    }

    /// Tells the scheduler what it may look at because of this event. One that is alone says itself what that is; a record
    /// shows everything, whoever looks at it.
    fn prepare(&mut self, event: &Event) {
        if self.routers.len() > 1 || S::RECORDS || self.options.step_by_step {
            if self.may_decide(event) {
                self.hear(self.now);
            }
            return;
        }
        match self.routers.foresee(self.now, event) {
            Sight::Nothing => {}
            Sight::Everything => self.hear(self.now),
            Sight::Of(instance) => {
                if self.quiet_until[instance.index()] < self.now {
                    self.hear_of(instance.index(), self.now);
                }
            }
        }
    }

    /// Whether the scheduler may look at its ledger because of this event. It does not where a token comes, and where an
    /// answer ends or the fleet is told of while nobody waits.
    fn may_decide(&self, event: &Event) -> bool {
        match event {
            Event::FirstToken { .. } | Event::Tokens { .. } | Event::Feedback { .. } => false,
            Event::Finished { .. } | Event::Fleet(_) => self.routers.any_queued(),
            _ => true,
        }
    }

    /// Gives the routers all progress that they have heard of before `before`.
    pub(super) fn hear(&mut self, before: Timestamp) {
        if self.options.step_by_step {
            while self.hear_progress(before) {}
            return;
        }
        for instance in 0..self.instances.len() {
            if self.quiet_until[instance] < before {
                self.hear_of(instance, before);
            }
        }
    }

    /// The same of one instance.
    fn hear_of(&mut self, instance: usize, before: Timestamp) {
        self.advance(instance);
        let Self {
            instances,
            requests,
            routers,
            actions,
            ..
        } = self;
        instances[instance].hear(before, |progress| pass_on(progress, requests, routers, actions));
        self.quiet_until[instance] = self.instances[instance].quiet_until();
    }

    /// Where every step is an event: the next progress, if it is heard of before `before`.
    pub(super) fn hear_progress(&mut self, before: Timestamp) -> bool {
        let next = self.progress.peek().map(|Reverse(next)| *next);
        let Some(next) = next.filter(|next| next.at < before) else {
            return false;
        };
        self.progress.pop();
        pass_on(next, &self.requests, &mut self.routers, &mut self.actions);
        true
    }

    /// Brings an instance up to the present.
    pub(crate) fn advance(&mut self, instance: usize) {
        if self.instances[instance].advance(self.now, &mut self.requests) {
            self.plan_wake(instance);
        }
    }

    /// The router hears of it a hop later.
    pub(crate) fn plan_report(&mut self, instance: usize, request: RequestId, kind: ReportKind) {
        let instance = u32::try_from(instance).unwrap_or(u32::MAX);
        let report = Happening::Report {
            instance,
            request,
            kind,
        };
        self.plan(self.now + self.hop, report);
    }

    /// Plans when an instance has to be looked at, and forgets what was planned before.
    pub(crate) fn plan_wake(&mut self, instance: usize) {
        let site = &self.instances[instance];
        self.quiet_until[instance] = site.quiet_until();
        let Some(at) = site.wakes_at() else { return };
        self.agenda.wake(instance, at);
    }

    pub(super) fn wake(&mut self, instance: u32) {
        let index = instance as usize;
        if self.instances[index].is_due(self.now) {
            self.end_step(index);
            self.begin_step(index);
        } else if self.instances[index].wakes_up(self.now) {
            self.changed = true;
            self.begin_step(index);
        } else {
            self.instances[index].advance(self.now, &mut self.requests);
            self.plan_wake(index);
        }
    }

    fn dispatch(&mut self, dispatch: &Dispatch) {
        let Some(place) = self.requests.place(dispatch.request) else {
            return;
        };
        let instance = dispatch.instance.0;
        let state = self.requests.at_mut(place);
        if self.options.slo.is_some() {
            state.promise = Some((self.now, dispatch.estimate.bounds));
        }
        state.sent(instance, dispatch.decision, dispatch.gate.is_some());
        let request = dispatch.request;
        self.plan(self.now + self.hop, Happening::Submit { instance, request });
    }

    /// How good the answer is that a request got where it was sent last.
    fn quality(&self, place: Place) -> Option<f64> {
        let state = self.requests.at(place);
        let model = &self.instances[state.instance? as usize].spec.model;
        let truth = self.options.truth(state.id.0 as usize, &model.name);
        truth.map_or(model.quality, |answer| Some(answer.quality))
    }

    /// Shows an answer that was held back, whole.
    fn deliver(&mut self, request: RequestId) {
        if let Some(place) = self.requests.place(request) {
            self.requests.at_mut(place).first_token_at = Some(self.now);
            self.finish(place);
        }
    }

    /// How sure of itself the answer is. Of one that nobody has graded, the model's declared quality is what is known.
    fn confidence(&self, place: Place) -> f64 {
        let state = self.requests.at(place);
        let model = state
            .instance
            .map(|instance| &self.instances[instance as usize].spec.model.name);
        let quality = self.quality(place).unwrap_or(0.5);
        let request = u32::try_from(state.id.0).unwrap_or(u32::MAX);
        cascade::confidence(self.options.seed, request, model.map_or("", String::as_str), quality)
    }

    /// The client has the whole answer. Tells the router how good it was, where somebody does.
    fn finish(&mut self, place: Place) {
        let share = self.options.feedback_share;
        if share > 0.0 && self.random.uniform() < share {
            let state = self.requests.at(place);
            let home = state.home as usize;
            if let (Some(decision), Some(score)) = (state.decision, self.quality(place)) {
                self.give(home, Event::Feedback { decision, score });
            }
        }
        self.end_request(place, RequestEnding::Finished);
    }

    pub(crate) fn refuse(&mut self, request: RequestId, reason: &'static str) {
        if let Some(place) = self.requests.place(request) {
            self.end_request(place, RequestEnding::Refused(reason));
        }
    }

    /// Counts a request that has ended, tells of it and forgets it.
    pub(super) fn end_request(&mut self, place: Place, ending: RequestEnding) {
        let state = self.requests.end(place);
        let instances = &self.instances;
        let spec = |instance: u32| &instances[instance as usize].spec;
        let record = self.tally.ended(self.now, &state, ending, spec, self.options);
        if let Some(sink) = &mut self.told {
            sink.request(&record);
        }
    }

    pub(super) fn submit(&mut self, instance: u32, request: RequestId) {
        let index = instance as usize;
        let Some(place) = self.requests.place(request) else {
            return;
        };
        if !self.instances[index].is_up() {
            self.plan_report(index, request, ReportKind::Lost);
            return;
        }
        self.advance(index);
        if self.instances[index].cut(self.now) {
            self.end_step(index);
        }
        self.changed = true;
        let site = &mut self.instances[index];
        let record = &self.requests.at(place).record;
        let wanted_tokens = self
            .options
            .truth(request.0 as usize, &site.spec.model.name)
            .map_or(record.output_tokens, |answer| answer.output_tokens);
        // An engine stops an answer at the end of its context.
        let room = site.context_tokens.saturating_sub(record.prompt_tokens);
        let output_tokens = wanted_tokens.min(room);
        let blocks = record.prefix_blocks.as_deref();
        let blocks = blocks.filter(|_| self.options.prefix_cache).unwrap_or_default();
        let hits = u32::try_from(site.prefixes.admit(blocks)).unwrap_or(u32::MAX);
        // The last prompt token is computed in any case.
        let cached_tokens = hits
            .saturating_mul(MOONCAKE_BLOCK_TOKENS)
            .min(record.prompt_tokens.saturating_sub(1));
        let asked = EngineRequest {
            id: place.engine_id(),
            prompt_tokens: record.prompt_tokens,
            output_tokens,
            cached_tokens,
        };
        if site.interrupt(self.now, &mut self.requests) {
            self.plan_wake(index);
        }
        if self.instances[index].engine.submit(asked).is_err() {
            self.plan_report(index, request, ReportKind::Refused);
        } else {
            let state = self.requests.at_mut(place);
            state.truncated = output_tokens < wanted_tokens;
            state.cached_tokens = cached_tokens;
        }
        self.begin_step(index);
    }

    fn begin_step(&mut self, instance: usize) {
        if self.instances[instance].begin(self.now, &self.requests) {
            self.plan_wake(instance);
        }
    }

    fn end_step(&mut self, instance: usize) {
        self.changed = true;
        let mut events = std::mem::take(&mut self.engine_events);
        self.instances[instance].end(self.now, &mut self.requests, &mut events);
        let opaque = self.instances[instance].engine.model().fixed_seconds().is_some();
        for index in 0..events.len() {
            let place = Place::of_engine_id(events[index].id());
            // The end tells as much as the progress that came with it; of an opaque box all comes at the end.
            let ends = opaque || events.get(index + 1) == Some(&EngineEvent::Finished { id: events[index].id() });
            self.note(instance, place, events[index], ends);
        }
        events.clear();
        self.engine_events = events;
        self.quiet_until[instance] = self.instances[instance].quiet_until();
    }

    /// Turns what happened in an engine into what its response streams tell the router.
    fn note(&mut self, instance: usize, place: Place, event: EngineEvent, ends: bool) {
        let state = self.requests.at_mut(place);
        let request = state.id;
        let kind = match event {
            EngineEvent::Preempted { .. } => return,
            EngineEvent::Finished { .. } => {
                self.instances[instance].settle(place, &mut self.requests);
                ReportKind::Finished
            }
            EngineEvent::FirstToken { .. } if state.generated == 0 => {
                state.first_token(self.now);
                ReportKind::FirstToken
            }
            EngineEvent::FirstToken { .. } | EngineEvent::Token { .. } => {
                let Some(count) = state.token(self.now).filter(|_| !ends) else {
                    return;
                };
                if self.options.step_by_step {
                    let at = self.now + self.hop;
                    self.progress.push(Reverse(Progress { at, request, count }));
                } else {
                    self.instances[instance].tell(self.now, request, count);
                }
                return;
            }
        };
        self.plan_report(instance, request, kind);
    }

    pub(super) fn report(&mut self, request: RequestId, kind: ReportKind) {
        let Some(place) = self.requests.place(request) else {
            return;
        };
        let state = self.requests.at_mut(place);
        let home = state.home as usize;
        match kind {
            ReportKind::Lost => self.lost(place),
            ReportKind::FirstToken => {
                if !state.held {
                    state.first_token_at = Some(self.now);
                }
                self.give(home, Event::FirstToken { request });
            }
            ReportKind::Finished => {
                let usage = Some(TokenUsage {
                    prompt_tokens: state.record.prompt_tokens,
                    output_tokens: state.generated,
                });
                if state.held {
                    let confidence = self.confidence(place);
                    let judged = Event::Judged {
                        request,
                        confidence,
                        usage,
                    };
                    return self.give(home, judged);
                }
                self.give(home, Event::Finished { request, usage });
                self.finish(place);
            }
            ReportKind::Refused => {
                self.refuse(request, "engine");
                let failure = Failure::Final;
                self.give(home, Event::Failed { request, failure });
            }
        }
    }
}
