//! The energy meter of a simulated instance, in integers: whatever order or grouping energy is added up in, the sums are the
//! same.

use equipoise_engine::{EnergyTerms, StepPart, StepWork};
use equipoise_types::{Joules, MilliJoules, Timestamp};

const PICOJOULES_PER_JOULE: f64 = 1e12;
const PICOJOULES_PER_MILLIJOULE: u128 = 1_000_000_000;

/// What each part of a step is charged with, whole picojoules: the Shapley value of the affine step energy, as
/// `equipoise_energy::attribute_step` says it, rounded down to picojoules *per unit of work*. So a share is a linear function
/// of the work with whole coefficients, and shares over many steps can be added up in any grouping. The energy of the step
/// is the sum of its shares: less than what the model says by at most a picojoule for every token that it read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Of everybody in the step.
    pub(crate) each: u64,
    pub(crate) per_prefill_token: u64,
    pub(crate) per_decode_token: u64,
    pub(crate) per_kv_token: u64,
}

impl Shares {
    /// Of a step that draws `joules`. Terms that are all zero share equally.
    pub(crate) fn of(joules: f64, terms: &EnergyTerms, work: &StepWork) -> Self {
        let parts = f64::from(work.prefill_seqs) + f64::from(work.decode_seqs);
        let kv_tokens = (work.kv_tokens + work.prefill_kv_tokens) as f64;
        let modelled = terms.fixed_joules
            + f64::from(work.prefill_tokens) * terms.joules_per_prefill_token
            + f64::from(work.decode_seqs) * terms.joules_per_decode_token
            + kv_tokens * terms.joules_per_kv_token;
        Self::split(joules, terms, modelled, parts)
    }

    /// Of a step that only decodes: the same, with `terms` prepared for its batch.
    #[inline]
    pub(crate) fn of_decoding(joules: f64, terms: &DecodingTerms, kv_tokens: u64) -> Self {
        let modelled = terms.modelled + kv_tokens as f64 * terms.of.joules_per_kv_token;
        Self::split(joules, &terms.of, modelled, terms.parts)
    }

    /// Splits what was drawn as the terms, which come to `modelled` joules in all, split that.
    #[inline]
    fn split(joules: f64, terms: &EnergyTerms, modelled: f64, parts: f64) -> Self {
        if joules <= 0.0 || parts <= 0.0 {
            return Self::default();
        }
        let picojoules = joules * PICOJOULES_PER_JOULE;
        if modelled <= 0.0 {
            return Self {
                each: (picojoules / parts) as u64,
                ..Self::default()
            };
        }
        let scale = picojoules / modelled;
        Self {
            each: (scale * terms.fixed_joules / parts) as u64,
            per_prefill_token: (scale * terms.joules_per_prefill_token) as u64,
            per_decode_token: (scale * terms.joules_per_decode_token) as u64,
            per_kv_token: (scale * terms.joules_per_kv_token) as u64,
        }
    }

    /// One part's.
    pub(crate) fn share(&self, part: &StepPart) -> u128 {
        u128::from(self.each)
            + u128::from(self.per_prefill_token) * u128::from(part.prefill_tokens)
            + u128::from(self.per_decode_token) * u128::from(part.decode_tokens)
            + u128::from(self.per_kv_token) * u128::from(part.kv_tokens)
    }
}

/// What [`Shares::of`] needs of a batch that only decodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodingTerms {
    of: EnergyTerms,
    /// What a step is modelled to take beside its context, joules.
    modelled: f64,
    parts: f64,
}

impl DecodingTerms {
    pub(crate) fn new(of: EnergyTerms, seqs: u32) -> Self {
        Self {
            modelled: of.fixed_joules + f64::from(seqs) * of.joules_per_decode_token,
            parts: f64::from(seqs),
            of,
        }
    }
}

/// What an instance has drawn. Measured = attributed + idle, to the millijoule: what is attributed is what requests were
/// charged with, and nobody else is in a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    pub(crate) idle_watts: f64,
    /// Of all steps, picojoules.
    busy: u128,
    /// Of these, of those whose prompts were computed.
    prefill: u128,
    /// Of steps that nobody was left in, picojoules.
    lost: u128,
    /// Of requests that have left, what does not make a millijoule yet: the next one's.
    carry: u128,
    attributed: MilliJoules,
    idle_joules: f64,
    sampled_at: Timestamp,
    sampled_joules: f64,
}

impl Meter {
    pub(crate) fn new(idle_watts: f64) -> Self {
        Self {
            idle_watts,
            ..Self::default()
        }
    }

    /// Drawn between steps, joules.
    pub(crate) fn idle(&mut self, joules: f64) {
        self.idle_joules += joules;
    }

    /// A step, or several, charged to who was in them.
    pub(crate) fn busy(&mut self, picojoules: u128) {
        self.busy += picojoules;
    }

    /// Of what [`Self::busy`] was told: for prompts.
    pub(crate) fn prefill(&mut self, picojoules: u128) {
        self.prefill += picojoules;
    }

    /// Drawn for somebody who is gone.
    pub(crate) fn lose(&mut self, picojoules: u128) {
        self.lost += picojoules;
    }

    /// Drawn in a step that broke off, joules.
    pub(crate) fn lose_joules(&mut self, joules: f64) {
        self.lose((joules.max(0.0) * PICOJOULES_PER_JOULE) as u128);
    }

    /// Energy of prompts, and of nobody.
    pub(crate) fn parts(&self) -> (MilliJoules, MilliJoules) {
        let whole =
            |picojoules: u128| MilliJoules(u64::try_from(picojoules / PICOJOULES_PER_MILLIJOULE).unwrap_or(u64::MAX));
        (whole(self.prefill).min(self.attributed), whole(self.lost))
    }

    /// A request leaves the engine: what it is charged with in whole millijoules.
    pub(crate) fn settle(&mut self, picojoules: u128) -> MilliJoules {
        let exact = picojoules + self.carry;
        self.carry = exact % PICOJOULES_PER_MILLIJOULE;
        let whole = MilliJoules(u64::try_from(exact / PICOJOULES_PER_MILLIJOULE).unwrap_or(u64::MAX));
        self.attributed += whole;
        whole
    }

    /// All energy drawn so far, joules, beside `open` of what goes on.
    pub(crate) fn joules(&self, open: f64) -> f64 {
        (self.busy + self.lost) as f64 / PICOJOULES_PER_JOULE + self.idle_joules + open
    }

    /// Mean draw since it was asked last, watts; `None` where nothing is known of it.
    pub(crate) fn sample(&mut self, now: Timestamp, open_joules: f64) -> Option<f64> {
        let joules = self.joules(open_joules);
        let seconds = now.secs_since(self.sampled_at);
        let watts = (self.idle_watts > 0.0 && seconds > 0.0).then(|| (joules - self.sampled_joules) / seconds);
        self.sampled_at = now;
        self.sampled_joules = joules;
        watts
    }

    /// Attributed energy, and idle energy beside `open_joules` of what goes on. Everybody has left by then; the last fraction
    /// of a millijoule is rounded away.
    pub(crate) fn totals(&self, open_joules: f64) -> (MilliJoules, MilliJoules) {
        let idle = Joules(self.idle_joules + open_joules).to_millijoules();
        (self.attributed, idle)
    }
}

#[cfg(test)]
mod tests {
    use equipoise_types::RequestId;

    use super::*;

    #[test]
    fn shares_are_the_step_and_settle_without_loss() {
        let terms = EnergyTerms {
            fixed_joules: 3.0,
            joules_per_prefill_token: 0.02,
            joules_per_decode_token: 0.04,
            joules_per_kv_token: 2e-6,
        };
        let part = |prefill_tokens, decode_tokens, kv_tokens| StepPart {
            id: RequestId(0),
            prefill_tokens,
            decode_tokens,
            kv_tokens,
        };
        let parts = [part(0, 1, 1234), part(0, 1, 77), part(300, 0, 512)];
        let work = StepWork {
            prefill_tokens: 300,
            prefill_seqs: 1,
            prefill_kv_tokens: 512,
            decode_seqs: 2,
            kv_tokens: 1311,
            ..StepWork::default()
        };
        let shares = Shares::of(7.5, &terms, &work);
        let all: u128 = parts.iter().map(|part| shares.share(part)).sum();
        let short = 7_500_000_000_000 - i128::try_from(all).expect("small");
        assert!((0..3000).contains(&short), "{short}");
        // The golden rule: as the energy crate splits it, to the millijoule.
        let modelled = 3.0 + 300.0 * 0.02 + 2.0 * 0.04 + 1823.0 * 2e-6;
        let first = 7.5 / modelled * (1.0 + 0.04 + 1234.0 * 2e-6) * 1e12;
        assert!((shares.share(&parts[0]) as f64 - first).abs() < 2000.0);
        let mut meter = Meter::new(50.0);
        let settled: u64 = parts.iter().map(|part| meter.settle(shares.share(part)).0).sum();
        assert_eq!(u128::from(settled), all / 1_000_000_000);
        assert_eq!(meter.totals(2.0), (MilliJoules(settled), MilliJoules(2000)));
        let zero = Shares::of(3.0, &EnergyTerms::default(), &work);
        assert_eq!(zero.share(&parts[0]), 1_000_000_000_000);
        assert_eq!(Shares::of(0.0, &terms, &work), Shares::default());
        for (joules, kv_tokens) in [(0.0, 9), (1e-9, 0), (2.6, 1311), (7.123, 98_765)] {
            for terms in [terms, EnergyTerms::default()] {
                let work = StepWork {
                    decode_seqs: 5,
                    kv_tokens,
                    ..StepWork::default()
                };
                let decoding = Shares::of_decoding(joules, &DecodingTerms::new(terms, 5), kv_tokens);
                assert_eq!(decoding, Shares::of(joules, &terms, &work));
            }
        }
    }
}
