//! What a tenant's settings do to its requests, and what requests came to.

use equipoise_fleet::Released;
use equipoise_policy::{CAPABILITIES_LABEL, Request};
use equipoise_types::{RequestId, Timestamp};

use super::Scheduler;
use crate::queue::Pending;
use crate::tenants::Spending;
use crate::{Refusal, TokenUsage};

impl Scheduler {
    /// A tenant's labels and models bind its requests, whatever they ask for. Needs are let go of where no instance says what it can do:
    /// the request then waits in line like any other.
    pub(super) fn bind(&self, request: &mut Request) {
        if let Some(tenant) = request.tenant.as_ref().and_then(|name| self.config.tenants.get(name)) {
            for (key, value) in &tenant.labels {
                request.wishes.labels.insert(key.clone(), value.clone());
            }
            request.wishes.models.clone_from(&tenant.models);
        }
        let declares = |instance: &equipoise_fleet::Instance| instance.spec.labels.contains_key(CAPABILITIES_LABEL);
        if !request.wishes.needs.is_empty() && !self.fleet.iter().any(declares) {
            request.wishes.needs.clear();
        }
    }

    /// When a tenant may try again, in a refusal for its budget: when the cheapest that was ruled out would do.
    pub(super) fn say_when(&self, pending: &Pending, reason: &mut Refusal) {
        let Refusal::BudgetExhausted {
            tenant, retry_after_s, ..
        } = reason
        else {
            return;
        };
        let mut least = Spending {
            usd: f64::INFINITY,
            joules: f64::INFINITY,
        };
        for (id, constraint) in &self.ruled_out {
            let instance = self
                .fleet
                .instance(*id)
                .filter(|_| *constraint == equipoise_policy::Constraint::Budget);
            if let Some(instance) = instance {
                let price = instance.price();
                let tokens = f64::from(pending.request.max_output_tokens.unwrap_or(1));
                let usd = f64::from(pending.request.prompt_tokens) * price.input_usd + tokens * price.output_usd;
                least.usd = least.usd.min(usd);
            }
        }
        // Joules are not known without a prediction: the whole bucket is the honest bound.
        *retry_after_s = self.tenants.retry_after_s(tenant, least);
    }

    /// Ends a reservation with what the request came to: tokens as the engine counted them, or as they were seen, at the
    /// instance's price; the predicted joules for the tokens there were. A request that failed before its first token
    /// came to nothing; an answer in one piece without counts came to what was predicted.
    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        request: RequestId,
        released: Option<Released>,
        answered: bool,
        usage: Option<TokenUsage>,
    ) {
        let Some(booking) = released else { return };
        let output = usage.map_or(booking.output_tokens, |usage| usage.output_tokens);
        let estimate = booking.prediction.estimate;
        let price = self
            .fleet
            .instance(booking.instance)
            .map(equipoise_fleet::Instance::price);
        let prompt = match usage {
            Some(usage) => usage.prompt_tokens,
            None if booking.first_token_at.is_some() => booking.prompt_tokens,
            None => 0,
        };
        let usd = price.map_or(0.0, |price| {
            f64::from(prompt) * price.input_usd + f64::from(output) * price.output_usd
        });
        let share = f64::from(output) / estimate.output_tokens.max(1.0);
        let unseen = answered && usage.is_none() && output == 0;
        let spent = if unseen {
            Spending {
                usd: estimate.cost_usd,
                joules: estimate.energy.0,
            }
        } else {
            Spending {
                usd,
                joules: estimate.energy.0 * share,
            }
        };
        self.tenants.settle(now, request, spent);
    }
}
