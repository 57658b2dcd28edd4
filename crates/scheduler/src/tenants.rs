//! Tenants: where their requests may go, and what they may spend in a window.
//!
//! A budget is a bucket that holds what the window allows and fills evenly over it. A dispatch reserves its estimate; its end
//! puts that back and takes what it came to. A bucket that an underestimate has overdrawn stays below zero until it has
//! filled again: it can be overdrawn by the errors of the estimates that were out, never by a decision.

use std::collections::{BTreeMap, BTreeSet};

use equipoise_policy::{Candidate, SettingsError};
use equipoise_types::{RequestId, Timestamp};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::KeyHash;

const HOUR_S: f64 = 3600.0;
const DAY_S: f64 = 24.0 * HOUR_S;
/// More tenants than this in one configuration is a slip of the hand.
pub(crate) const MOST_TENANTS: usize = 10_000;
/// Figures smaller than this share of a budget are rounding.
const ROUNDING: f64 = 1e-9;

/// What holds for one tenant, `[tenants.NAME]`. What is absent does not bind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// Labels that an instance must carry to get this tenant's requests; a request cannot ask for other values.
    pub labels: BTreeMap<String, String>,
    /// US dollars in an hour.
    pub usd_per_hour: Option<f64>,
    /// US dollars in a day.
    pub usd_per_day: Option<f64>,
    /// Joules in an hour.
    pub joules_per_hour: Option<f64>,
    /// Joules in a day.
    pub joules_per_day: Option<f64>,
    /// Models that its requests may ask for, and that `auto` may choose from; empty: all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<String>,
    /// Who is this tenant. With keys for any tenant, a request without a known one is not let in. The router's business: no
    /// event log has it.
    #[serde(skip_serializing)]
    #[schemars(with = "Vec<String>")]
    pub keys: Vec<KeyHash>,
    /// Requests that its keys may send in a minute.
    #[serde(skip_serializing)]
    pub requests_per_minute: Option<u32>,
    /// Prompt and answer tokens in a minute.
    #[serde(skip_serializing)]
    pub tokens_per_minute: Option<u32>,
}

impl TenantSettings {
    fn budgets(&self) -> [(&'static str, Option<f64>, Unit, f64); 4] {
        [
            ("usd_per_hour", self.usd_per_hour, Unit::Usd, HOUR_S),
            ("usd_per_day", self.usd_per_day, Unit::Usd, DAY_S),
            ("joules_per_hour", self.joules_per_hour, Unit::Joules, HOUR_S),
            ("joules_per_day", self.joules_per_day, Unit::Joules, DAY_S),
        ]
    }

    pub(crate) fn validate(&self) -> Result<(), SettingsError> {
        for (name, value, ..) in self.budgets() {
            if let Some(value) = value
                && !(value > 0.0 && value <= 1e15)
            {
                return Err(SettingsError::Range {
                    name,
                    value,
                    least: f64::MIN_POSITIVE,
                    most: 1e15,
                });
            }
        }
        for (name, value) in [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
        ] {
            if value == Some(0) {
                return Err(SettingsError::Range {
                    name,
                    value: 0.0,
                    least: 1.0,
                    most: f64::from(u32::MAX),
                });
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Usd,
    Joules,
}

/// What a request costs, estimated or settled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spending {
    pub(crate) usd: f64,
    pub(crate) joules: f64,
}

impl Spending {
    pub(crate) fn estimated(candidate: &Candidate) -> Self {
        let estimate = candidate.estimate();
        Self {
            usd: estimate.cost_usd.max(0.0),
            joules: estimate.energy.0.max(0.0),
        }
    }

    fn of(self, unit: Unit) -> f64 {
        match unit {
            Unit::Usd => self.usd,
            Unit::Joules => self.joules,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    unit: Unit,
    capacity: f64,
    per_s: f64,
    level: f64,
    filled_at: Timestamp,
}

impl Bucket {
    fn window_s(&self) -> f64 {
        (self.capacity / self.per_s).round()
    }

    fn fill(&mut self, now: Timestamp) {
        self.level = (self.level + now.secs_since(self.filled_at) * self.per_s).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
    }
}

/// What a tenant may still spend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Left {
    usd: f64,
    joules: f64,
}

impl Left {
    pub(crate) fn allows(&self, candidate: &Candidate) -> bool {
        let estimate = Spending::estimated(candidate);
        estimate.usd <= self.usd && estimate.joules <= self.joules
    }
}

/// All budgets of one scheduler, and what is reserved of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenants {
    buckets: BTreeMap<String, Vec<Bucket>>,
    reserved: IndexMap<RequestId, (String, Spending)>,
}

impl Tenants {
    pub(crate) fn new(settings: &BTreeMap<String, TenantSettings>) -> Self {
        let buckets = |tenant: &TenantSettings| {
            let declared = tenant
                .budgets()
                .into_iter()
                .filter_map(|(_, capacity, unit, window_s)| {
                    let capacity = capacity?;
                    let per_s = capacity / window_s;
                    Some(Bucket {
                        unit,
                        capacity,
                        per_s,
                        level: capacity,
                        filled_at: Timestamp::ZERO,
                    })
                });
            declared.collect::<Vec<Bucket>>()
        };
        let all = settings.iter().map(|(name, tenant)| (name.clone(), buckets(tenant)));
        Self {
            buckets: all.filter(|(_, buckets)| !buckets.is_empty()).collect(),
            reserved: IndexMap::new(),
        }
    }

    /// Takes other budgets over. What is spent of one stays spent, whatever the budget is now; what is reserved stays so.
    pub(crate) fn configure(&mut self, now: Timestamp, settings: &BTreeMap<String, TenantSettings>) {
        let mut fresh = Self::new(settings).buckets;
        for (name, buckets) in &mut fresh {
            let before = self.buckets.get(name);
            for bucket in buckets {
                bucket.filled_at = now;
                let same = |held: &&Bucket| held.unit == bucket.unit && held.window_s() == bucket.window_s();
                if let Some(mut held) = before.and_then(|before| before.iter().find(same)).copied() {
                    held.fill(now);
                    bucket.level -= held.capacity - held.level;
                }
            }
        }
        self.buckets = fresh;
    }

    /// What is left to a tenant; `None` where no budget binds.
    pub(crate) fn left(&mut self, now: Timestamp, tenant: Option<&str>) -> Option<Left> {
        let buckets = self.buckets.get_mut(tenant?)?;
        let mut left = Left {
            usd: f64::INFINITY,
            joules: f64::INFINITY,
        };
        for bucket in buckets {
            bucket.fill(now);
            let least = match bucket.unit {
                Unit::Usd => &mut left.usd,
                Unit::Joules => &mut left.joules,
            };
            *least = least.min(bucket.level + ROUNDING * bucket.capacity);
        }
        Some(left)
    }

    /// True where a budget binds a tenant.
    pub(crate) fn is_bounded(&self, tenant: Option<&str>) -> bool {
        tenant.is_some_and(|tenant| self.buckets.contains_key(tenant))
    }

    /// Takes the estimate of a dispatched request out of its tenant's buckets.
    pub(crate) fn reserve(&mut self, now: Timestamp, request: RequestId, tenant: Option<&str>, estimate: Spending) {
        let Some((tenant, buckets)) = tenant.and_then(|tenant| Some((tenant, self.buckets.get_mut(tenant)?))) else {
            return;
        };
        if self.reserved.contains_key(&request) {
            return;
        }
        for bucket in buckets {
            bucket.fill(now);
            bucket.level -= estimate.of(bucket.unit);
        }
        self.reserved.insert(request, (tenant.to_owned(), estimate));
    }

    /// Ends a reservation: `spent` is what it came to.
    pub(crate) fn settle(&mut self, now: Timestamp, request: RequestId, spent: Spending) {
        let Some((tenant, estimate)) = self.reserved.swap_remove(&request) else {
            return;
        };
        for bucket in self.buckets.get_mut(&tenant).into_iter().flatten() {
            bucket.fill(now);
            let back = estimate.of(bucket.unit) - spent.of(bucket.unit).max(0.0);
            bucket.level = (bucket.level + back).min(bucket.capacity);
        }
    }

    /// Seconds until a tenant may spend the least of `wanted`, at least 1; a request that is dearer than the whole budget
    /// is told the whole window.
    pub(crate) fn retry_after_s(&self, tenant: &str, wanted: Spending) -> u32 {
        let mut longest = 1.0_f64;
        for bucket in self.buckets.get(tenant).into_iter().flatten() {
            let short = wanted.of(bucket.unit).min(bucket.capacity) - bucket.level;
            longest = longest.max(short / bucket.per_s);
        }
        longest.ceil().min(DAY_S) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenants(usd_per_hour: f64) -> Tenants {
        let settings = TenantSettings {
            usd_per_hour: Some(usd_per_hour),
            ..TenantSettings::default()
        };
        Tenants::new(&BTreeMap::from([("acme".to_owned(), settings)]))
    }

    fn usd(usd: f64) -> Spending {
        Spending { usd, joules: 0.0 }
    }

    #[test]
    fn what_was_not_spent_comes_back_and_time_fills_the_rest() {
        let mut tenants = tenants(3600.0);
        let at = Timestamp::from_secs_f64;
        tenants.reserve(at(0.0), RequestId(1), Some("acme"), usd(3000.0));
        assert_eq!(tenants.left(at(0.0), Some("acme")).expect("bound").usd.round(), 600.0);
        assert_eq!(tenants.retry_after_s("acme", usd(1000.0)), 400);
        tenants.settle(at(0.0), RequestId(1), usd(1000.0));
        tenants.settle(at(0.0), RequestId(1), usd(1000.0));
        assert_eq!(tenants.left(at(0.0), Some("acme")).expect("bound").usd.round(), 2600.0);
        assert_eq!(
            tenants.left(at(100.0), Some("acme")).expect("bound").usd.round(),
            2700.0
        );
        assert_eq!(tenants.left(at(1e6), Some("acme")).expect("bound").usd.round(), 3600.0);
        assert_eq!(tenants.left(at(1e6), Some("other")), None);
        assert_eq!(tenants.left(at(1e6), None), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let settings = TenantSettings {
                joules_per_day: Some(value),
                ..TenantSettings::default()
            };
            assert!(settings.validate().is_err(), "{value}");
        }
    }

    proptest! {
        /// Whoever asks before spending stays within the budget and what it filled by, but for the errors of estimates.
        #[test]
        fn spent_and_reserved_stay_within_the_budget(
            steps in proptest::collection::vec((0.0..60.0_f64, 0.0..40.0_f64, 0.0..2.0_f64, any::<bool>()), 1..200),
        ) {
            const BUDGET: f64 = 100.0;
            let mut tenants = tenants(BUDGET);
            let (mut now_s, mut spent, mut errors) = (0.0, 0.0, 0.0);
            let mut out: Vec<(RequestId, f64, f64)> = Vec::new();
            for (index, (pause_s, estimate, factor, ends)) in steps.into_iter().enumerate() {
                now_s += pause_s;
                let now = Timestamp::from_secs_f64(now_s);
                let left = tenants.left(now, Some("acme")).expect("bound");
                if estimate <= left.usd {
                    let id = RequestId(index as u64);
                    tenants.reserve(now, id, Some("acme"), usd(estimate));
                    out.push((id, estimate, factor));
                }
                if ends && let Some((id, estimate, factor)) = out.pop() {
                    let actual = estimate * factor;
                    tenants.settle(now, id, usd(actual));
                    spent += actual;
                    errors += (actual - estimate).max(0.0);
                }
                let reserved: f64 = out.iter().map(|(_, estimate, _)| estimate).sum();
                prop_assert!(reserved >= 0.0 && spent >= 0.0);
                let allowed = BUDGET + now_s * BUDGET / HOUR_S;
                prop_assert!(spent + reserved <= allowed + errors + 1e-6, "{spent} + {reserved} > {allowed} + {errors}");
                prop_assert_eq!(out.len(), tenants.reserved.len());
            }
        }
    }
}
