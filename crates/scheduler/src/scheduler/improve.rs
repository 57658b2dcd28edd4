//! The improvement pass on a decided batch: bookings and actions that have not left the scheduler yet are mended.

use std::collections::BTreeMap;

use equipoise_estimate::InstanceLoad;
use equipoise_policy::Candidate;
use equipoise_types::{DecisionId, InstanceId, RequestId, Timestamp};
use smallvec::SmallVec;

use super::Scheduler;
use crate::Action;
use crate::improvement::{ALTERNATIVES, EVALUATIONS_EACH, Placed, improve};
use crate::placement::Decision;
use crate::prospect::{Asked, Prospects};

/// A request of the batch that is being decided, dispatched.
#[derive(Clone, Debug)]
pub(super) struct Member {
    request: RequestId,
    decision: DecisionId,
    /// What it adds to the instance where the greedy pass put it.
    candidate: Candidate,
    prompt_tokens: u32,
    placed: Placed,
}

/// What a request adds to an instance before its first token.
fn added(candidate: &Candidate, prompt_tokens: u32) -> (u64, u64) {
    let uncached = prompt_tokens.saturating_sub(candidate.cached_tokens);
    (u64::from(uncached), candidate.estimate().output_tokens.ceil() as u64)
}

fn add(load: &mut InstanceLoad, (prefill, decode): (u64, u64)) {
    load.in_flight += 1;
    load.prefilling += 1;
    load.pending_prefill_tokens += prefill;
    load.pending_decode_tokens += decode;
}

fn take_away(load: &mut InstanceLoad, (prefill, decode): (u64, u64)) {
    load.in_flight = load.in_flight.saturating_sub(1);
    load.prefilling = load.prefilling.saturating_sub(1);
    load.pending_prefill_tokens = load.pending_prefill_tokens.saturating_sub(prefill);
    load.pending_decode_tokens = load.pending_decode_tokens.saturating_sub(decode);
}

impl Scheduler {
    /// Notes a dispatch of the batch. `movable`: its place is the policy's own choice.
    pub(super) fn note_member(&mut self, request: RequestId, chosen: &Candidate, score: Option<f64>, movable: bool) {
        let Some(pending) = self.out.get(&request) else { return };
        let prompt_tokens = pending.request.prompt_tokens;
        let mut best: SmallVec<[(f64, InstanceId); ALTERNATIVES]> = SmallVec::new();
        if movable && score.is_some() {
            let scored = self.candidates.iter().zip(&self.scores);
            for (candidate, score) in scored.filter(|(other, _)| other.instance != chosen.instance) {
                let Some(score) = *score else { break };
                let place = best.iter().position(|(least, _)| score > *least).unwrap_or(best.len());
                if place < ALTERNATIVES {
                    best.truncate(ALTERNATIVES - 1);
                    best.insert(place, (score, candidate.instance));
                }
            }
        }
        let placed = Placed {
            instance: chosen.instance,
            score: score.unwrap_or_default(),
            alternatives: best.into_iter().map(|(_, instance)| instance).collect(),
        };
        let decision = DecisionId(self.decisions);
        self.members.push(Member {
            request,
            decision,
            candidate: *chosen,
            prompt_tokens,
            placed,
        });
    }

    /// Improves the batch whose dispatches are the last of `actions`, and lets its prompts be remembered.
    pub(super) fn improve_batch(&mut self, now: Timestamp, actions: &mut [Action]) {
        let members = std::mem::take(&mut self.members);
        let movable = members.iter().filter(|member| !member.placed.alternatives.is_empty());
        // Where others have sent something that is not reported yet, plans this fine are about a fleet that is not there.
        let sure = members.iter().all(|member| member.candidate.crowded.is_none());
        if sure && movable.count() > 1 {
            self.mend(now, &members, actions);
        }
        for member in &members {
            let instance = self
                .fleet
                .ledger()
                .booking(member.request)
                .map(|booking| booking.instance);
            if let (Some(instance), Some(pending)) = (instance, self.out.get(&member.request)) {
                self.fleet.note_prefix(instance, &pending.request.prefix.blocks);
            }
        }
        self.members = members;
        self.members.clear();
    }

    fn mend(&mut self, now: Timestamp, members: &[Member], actions: &mut [Action]) {
        // Loads without the batch.
        let mut loads: BTreeMap<InstanceId, InstanceLoad> = BTreeMap::new();
        for member in members {
            for id in member
                .placed
                .alternatives
                .iter()
                .copied()
                .chain([member.placed.instance])
            {
                if let Some(instance) = self.fleet.instance(id) {
                    loads.entry(id).or_insert_with(|| self.fleet.load(now, instance));
                }
            }
        }
        for member in members {
            if let Some(load) = loads.get_mut(&member.placed.instance) {
                take_away(load, added(&member.candidate, member.prompt_tokens));
            }
        }
        let mut batch: Vec<Placed> = members.iter().map(|member| member.placed.clone()).collect();
        // What each adds where: it does not depend on who else is there.
        let mut additions: BTreeMap<(usize, InstanceId), (u64, u64)> = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            let key = (index, member.placed.instance);
            additions.insert(key, added(&member.candidate, member.prompt_tokens));
        }
        let prospects: Vec<Option<Prospects>> = members
            .iter()
            .map(|member| Some(Prospects::of(now, &self.fleet, &self.out.get(&member.request)?.request)))
            .collect();
        let mut tried = Vec::with_capacity(1);
        let mut at = |plan: &[InstanceId], index: usize| -> Option<Candidate> {
            let instance = self.fleet.instance(plan[index])?;
            let mut load = *loads.get(&plan[index])?;
            for before in (0..index).filter(|before| plan[*before] == plan[index]) {
                add(&mut load, *additions.get(&(before, plan[before]))?);
            }
            let pending = self.out.get(&members[index].request)?;
            let asked = Asked {
                request: &pending.request,
                waited_s: now.secs_since(pending.arrived_at),
                prospects: prospects.get(index)?.as_ref()?,
            };
            let standing = self.standings.get(plan[index])?;
            Decision::beside(now, &self.fleet, asked, instance, standing, load, &mut tried).ok()?;
            let candidate = tried.pop()?;
            additions.insert((index, plan[index]), added(&candidate, members[index].prompt_tokens));
            (!candidate.is_saturated()).then_some(candidate)
        };
        let improved = improve(&mut batch, EVALUATIONS_EACH * members.len(), |plan, index| {
            let candidate = at(plan, index)?;
            self.policy
                .score(&self.out.get(&members[index].request)?.request, &candidate)
        });
        if !improved {
            return;
        }
        let plan: Vec<InstanceId> = batch.iter().map(|placed| placed.instance).collect();
        let latest: Option<Vec<Candidate>> = (0..members.len()).map(|index| at(&plan, index)).collect();
        let Some(latest) = latest else { return };
        for ((member, placed), candidate) in members.iter().zip(&batch).zip(&latest) {
            if *candidate != member.candidate {
                self.rebook(now, member, candidate, placed.score, actions);
            }
        }
    }

    fn rebook(&mut self, now: Timestamp, member: &Member, to: &Candidate, score: f64, actions: &mut [Action]) {
        let silent = self
            .out
            .get(&member.request)
            .is_some_and(|pending| !pending.request.streams);
        if self.fleet.abandoned(now, member.request, false).is_none() {
            return;
        }
        let uncached = member.prompt_tokens.saturating_sub(to.cached_tokens);
        self.fleet
            .book(now, member.request, to.instance, uncached, silent, to.prediction);
        for changed in [member.candidate.instance, to.instance] {
            self.standings.renew(now, &self.fleet, changed);
        }
        self.outcomes.choose_again(member.decision, to);
        self.explanations.choose_again(member.decision, to.instance);
        for action in actions {
            if let Action::Dispatch(dispatch) = action
                && dispatch.request == member.request
            {
                dispatch.instance = to.instance;
                dispatch.estimate = *to.estimate();
                dispatch.score = Some(score);
            }
        }
    }
}
