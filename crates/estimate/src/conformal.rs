//! When a confident answer may be shown unchecked: a threshold whose risk is controlled by outcomes.
//!
//! Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022): of `n` exchangeable outcomes with losses
//! `L_i(λ)` in [0, 1] that do not rise with λ, the least λ with `(Σ L_i(λ) + 1) / (n + 1) ≤ α` has an expected loss of at
//! most α on the next one. Here `L_i(λ)` is how bad answer *i* was if its confidence reaches λ, and 0 if it does not, for
//! then it would not have been shown.

use std::collections::VecDeque;

/// Keeps the share of bad answers among the unchecked at or below a declared risk. Bounded memory.
///
/// Only answers that were shown get outcomes, so the declared threshold is also the least: nothing is known below it.
/// Outcomes raise it as far as the risk demands, and as they are forgotten it comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct ConformalThreshold {
    declared: f64,
    risk: f64,
    memory: usize,
    /// Confidence and loss, oldest first.
    outcomes: VecDeque<(f64, f64)>,
    current: f64,
}

/// Above every confidence: nothing passes.
const NOTHING: f64 = f64::INFINITY;

impl ConformalThreshold {
    /// `declared` is used until there are outcomes enough to say anything about `risk` (α, in (0, 1)); the last `memory`
    /// outcomes count.
    #[must_use]
    pub fn new(declared: f64, risk: f64, memory: usize) -> Self {
        Self {
            declared,
            risk,
            memory: memory.max(1),
            outcomes: VecDeque::new(),
            current: declared,
        }
    }

    /// The least confidence that passes; infinite where even the most confident answers were too often bad.
    #[must_use]
    pub fn current(&self) -> f64 {
        self.current
    }

    /// Takes in how good an answer of some confidence was, both in [0, 1]; anything else changes nothing.
    pub fn observe(&mut self, confidence: f64, score: f64) {
        if !(0.0..=1.0).contains(&confidence) || !(0.0..=1.0).contains(&score) {
            return;
        }
        if self.outcomes.len() == self.memory {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back((confidence, 1.0 - score));
        self.current = self.least();
    }

    fn least(&self) -> f64 {
        let count = self.outcomes.len() as f64;
        let allowed = self.risk * (count + 1.0) - 1.0;
        if allowed < 0.0 {
            // Not even a record without a fault would do: too few to tell.
            return self.declared;
        }
        let mut sorted: Vec<(f64, f64)> = self.outcomes.iter().copied().collect();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        // From the most confident down, as long as the losses that would have been shown stay within what is allowed.
        // Answers of one confidence pass together or not at all.
        let (mut lost, mut threshold) = (0.0, NOTHING);
        for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
            lost += tied.iter().map(|outcome| outcome.1).sum::<f64>();
            if lost > allowed {
                return threshold.max(self.declared);
            }
            threshold = tied[0].0;
        }
        self.declared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::RandomStream;

    /// A confidence, and a score that is good with that probability raised to a power: above 1 is overconfident.
    fn outcome(random: &mut RandomStream, power: f64) -> (f64, f64) {
        let confidence = random.uniform();
        let good = random.uniform() < confidence.powf(power);
        (confidence, f64::from(u8::from(good)))
    }

    #[test]
    fn the_risk_on_the_next_answer_is_kept() {
        let (risk, mut shown_and_bad, runs) = (0.1, 0.0, 4000);
        for run in 0..runs {
            let mut random = RandomStream::new(run);
            let mut threshold = ConformalThreshold::new(0.0, risk, 200);
            for _ in 0..60 {
                let (confidence, score) = outcome(&mut random, 3.0);
                threshold.observe(confidence, score);
            }
            let (confidence, score) = outcome(&mut random, 3.0);
            if confidence >= threshold.current() {
                shown_and_bad += 1.0 - score;
            }
        }
        let share = shown_and_bad / runs as f64;
        // Three standard errors of the mean above α; and not so careful that nothing is shown.
        assert!(
            share < risk + 3.0 * (risk * (1.0 - risk) / runs as f64).sqrt(),
            "{share}"
        );
        assert!(share > 0.05, "{share}");
    }

    #[test]
    fn few_outcomes_leave_it_as_declared_and_bad_ones_raise_it() {
        let mut threshold = ConformalThreshold::new(0.6, 0.1, 50);
        for _ in 0..8 {
            threshold.observe(0.7, 0.0);
        }
        assert_eq!(threshold.current(), 0.6, "nine are needed for a risk of a tenth");
        threshold.observe(0.7, 0.0);
        assert_eq!(threshold.current(), f64::INFINITY);
        for _ in 0..20 {
            threshold.observe(0.9, 1.0);
        }
        assert_eq!(threshold.current(), 0.9);
        // What is long ago is forgotten.
        for _ in 0..50 {
            threshold.observe(0.9, 1.0);
        }
        assert_eq!(threshold.current(), 0.6);
        threshold.observe(f64::NAN, 0.0);
        threshold.observe(0.9, 7.0);
        assert_eq!(threshold.current(), 0.6);
    }

    #[test]
    fn answers_of_one_confidence_pass_together() {
        let mut threshold = ConformalThreshold::new(0.0, 0.2, 100);
        for good in [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0] {
            threshold.observe(0.5, good);
        }
        // Three of ten are bad; (3 + 1) / 11 is more than a fifth.
        assert_eq!(threshold.current(), f64::INFINITY);
    }
}
