//! A scheduler over a large fleet with work on every instance, and single decisions timed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use equipoise_config::FleetFile;
use equipoise_fleet::FleetDelta;
use equipoise_predict::{Predictor, Roster};
use equipoise_scheduler::{Action, Event, Prefix, Request, Scheduler, SchedulerConfig, Target, Wishes};
use equipoise_types::{RandomStream, RequestId, Timestamp};

/// The 13 instances of the RouteBalance paper.
const FLEET: &str = include_str!("../../deploy/fleets/routebalance-13.toml");
/// Requests that each instance has when the measurement begins; a batch like this is what such engines run at.
const IN_FLIGHT_EACH: u64 = 24;
/// Medians and spreads of a conversation trace, tokens (Azure 2023: mean prompt 1,155, mean answer 211).
const PROMPT_MEDIAN: f64 = 900.0;
const PROMPT_SIGMA: f64 = 0.7;
/// What people ask, short and long.
const PROMPTS: [&str; 4] = [
    "What is the capital of France?",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did \
     Natalia sell altogether in April and May? Explain step by step.",
    "Write a function in Rust that reads a CSV file of orders, groups them by customer, and prints the ten customers with \
     the largest totals. Handle malformed lines by counting them, and write unit tests for the parser. Then explain \
     the complexity of each step and how it would change if the file did not fit into memory.",
    "Summarise the following text in three sentences. The Normans were the people who in the 10th and 11th centuries gave \
     their name to Normandy, a region in France. They were descended from Norse raiders and pirates from Denmark, Iceland \
     and Norway who, under their leader Rollo, agreed to swear fealty to King Charles III of West Francia. Through \
     generations of assimilation and mixing with the native Frankish and Roman-Gaulish populations, their descendants \
     would gradually merge with the Carolingian-based cultures of West Francia.",
];

/// What a request asks.
fn prompt(id: RequestId) -> &'static str {
    PROMPTS[id.0 as usize % PROMPTS.len()]
}

/// The label by which the first requests are put where they belong.
const PLACE: &str = "place";

/// A scheduler with work, and what is needed to ask it.
#[derive(Debug)]
pub struct BusyScheduler {
    scheduler: Scheduler,
    now: Timestamp,
    next_id: u64,
    random: RandomStream,
    actions: Vec<Action>,
}

impl BusyScheduler {
    /// The paper's fleet, repeated up to `instances`, each with 24 requests in flight: three of four in their answer, the
    /// rest still in their prompt.
    ///
    /// # Errors
    /// For an unknown policy, and when the work cannot be placed.
    pub fn new(policy: &str, instances: usize) -> anyhow::Result<Self> {
        Self::with(policy, instances, true)
    }

    /// The same, with batches improved or not.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(policy: &str, instances: usize, improve_batches: bool) -> anyhow::Result<Self> {
        let fleet = FleetFile::parse(FLEET, "routebalance-13.toml")?;
        let config = SchedulerConfig {
            policy: policy.to_owned(),
            improve_batches,
            ..fleet.scheduler
        };
        let mut busy = Self {
            scheduler: Scheduler::new(config)?,
            now: Timestamp::from_secs_f64(1.0),
            next_id: 0,
            random: RandomStream::new(1).derive("bench"),
            actions: Vec::new(),
        };
        for (index, declared) in fleet.instances.iter().cycle().take(instances).enumerate() {
            let mut spec = declared.spec.clone();
            spec.name = format!("{}-copy-{index}", spec.name);
            spec.labels.insert(PLACE.to_owned(), index.to_string());
            busy.on_event(Event::Fleet(FleetDelta::Upsert(spec)));
        }
        for _ in 0..IN_FLIGHT_EACH {
            for index in 0..instances {
                busy.put_work_on(index)?;
            }
        }
        Ok(busy)
    }

    fn on_event(&mut self, event: Event) {
        self.actions.clear();
        self.scheduler.on_event(self.now, event, &mut self.actions);
    }

    fn request(&mut self) -> Request {
        self.next_id += 1;
        Request {
            id: RequestId(self.next_id),
            target: Target::Auto,
            tenant: None,
            prompt_tokens: self.random.log_normal(PROMPT_MEDIAN, PROMPT_SIGMA).clamp(1.0, 6000.0) as u32,
            max_output_tokens: Some(1024),
            streams: true,
            forecast: None,
            prefix: Prefix::default(),
            wishes: Wishes::default(),
        }
    }

    fn put_work_on(&mut self, index: usize) -> anyhow::Result<()> {
        let mut request = self.request();
        let id = request.id;
        request.wishes.labels = BTreeMap::from([(PLACE.to_owned(), index.to_string())]);
        self.decide(request)?;
        if !id.0.is_multiple_of(4) {
            self.now += Duration::from_micros(10);
            self.on_event(Event::FirstToken { request: id });
            let count = self.random.below(200) as u32;
            self.on_event(Event::Tokens { request: id, count });
        }
        Ok(())
    }

    /// The time that the scheduler takes for one request. A policy that waits for its batch window is told when that is
    /// over; both calls count, the window does not.
    fn decide(&mut self, request: Request) -> anyhow::Result<Duration> {
        let id = request.id;
        self.actions.clear();
        let event = Event::Arrived(vec![request]);
        let started = Instant::now();
        self.scheduler.on_event(self.now, event, &mut self.actions);
        let mut spent = started.elapsed();
        if self.actions.is_empty() {
            let due = self
                .scheduler
                .next_wakeup()
                .context("a request is neither decided nor waited for")?;
            self.now = due.max(self.now);
            let started = Instant::now();
            self.scheduler.on_event(self.now, Event::Timer, &mut self.actions);
            spent += started.elapsed();
        }
        match self.actions.first() {
            Some(Action::Dispatch(dispatch)) if dispatch.request == id => Ok(spent),
            other => bail!("expected request {id:?} to be dispatched, got {other:?}"),
        }
    }

    /// Times one decision, then cancels the request: the load stays what it was.
    ///
    /// # Errors
    /// When the request is not dispatched at once.
    pub fn time_one(&mut self) -> anyhow::Result<Duration> {
        self.now += Duration::from_millis(1);
        let request = self.request();
        let id = request.id;
        let spent = self.decide(request)?;
        self.on_event(Event::Cancelled { request: id });
        Ok(spent)
    }

    /// The prompt that [`Self::time_batch`] begins with next.
    #[must_use]
    pub fn next_prompt(&self) -> &'static str {
        prompt(RequestId(self.next_id + 1))
    }

    /// What a router would ask a predictor about: the models of this fleet.
    #[must_use]
    pub fn roster(&self, predictor: &Predictor) -> Roster {
        let mut roster = Roster::new(predictor);
        for instance in self.scheduler.fleet().iter() {
            let model = &instance.spec.model;
            roster.declare(&model.name, model.architecture.as_deref(), model.quality);
        }
        roster
    }

    /// Times a batch of requests that arrive together, from the text of their prompts: forecasts, estimates, filters,
    /// scores, assignment and booking. Answers with the sum of their scores, too; afterwards the load is what it was.
    ///
    /// # Errors
    /// When one is not dispatched at once.
    pub fn time_batch(
        &mut self,
        predictor: &Predictor,
        roster: &Roster,
        size: usize,
    ) -> anyhow::Result<(Duration, f64)> {
        self.now += Duration::from_millis(1);
        let mut batch: Vec<Request> = (0..size).map(|_| self.request()).collect();
        let ids: Vec<RequestId> = batch.iter().map(|request| request.id).collect();
        let texts: Vec<&str> = ids.iter().map(|id| prompt(*id)).collect();
        self.actions.clear();
        let started = Instant::now();
        for (request, text) in batch.iter_mut().zip(texts) {
            request.forecast = Some(roster.forecast(predictor, text));
        }
        self.scheduler
            .on_event(self.now, Event::Arrived(batch), &mut self.actions);
        let spent = started.elapsed();
        let (mut score, mut dispatched) = (0.0, 0);
        for action in &self.actions {
            if let Action::Dispatch(dispatch) = action {
                dispatched += 1;
                score += dispatch.score.unwrap_or_default();
            }
        }
        if dispatched != size {
            bail!("of {size} requests only {dispatched} were dispatched");
        }
        for request in ids {
            self.on_event(Event::Cancelled { request });
        }
        Ok((spent, score))
    }

    /// Requests in flight on the whole fleet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.scheduler.in_flight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_decides_and_the_load_stays() {
        for policy in equipoise_policy::names() {
            let mut busy = BusyScheduler::new(policy, 13).expect("starts");
            for _ in 0..50 {
                busy.time_one().expect("dispatched");
            }
            assert_eq!(busy.in_flight(), 13 * 24, "{policy}");
        }
    }
}
