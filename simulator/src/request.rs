//! What a run remembers of each request.

use equipoise_types::{DecisionId, MilliJoules, Timestamp};

/// Answer tokens after which progress is reported to the scheduler...
const REPORT_TOKENS: u32 = 16;
/// ...or time after which it is, nanoseconds. The live router follows the same rule.
const REPORT_NANOS: u64 = 100_000_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Not yet.
    #[default]
    Open,
    /// With an answer.
    Finished(Timestamp),
    /// Without.
    Refused,
}

/// One request on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestState {
    /// Where it was sent last.
    pub(crate) instance: Option<u32>,
    /// Whether it ever waited at the router.
    pub(crate) queued: bool,
    /// Prompt tokens that its engine had computed before, for others.
    pub(crate) cached_tokens: u32,
    /// Its answer was cut at the end of the model's context.
    pub(crate) truncated: bool,
    pub(crate) first_token_at: Option<Timestamp>,
    pub(crate) ending: Ending,
    /// Energy of its part of all steps.
    pub(crate) energy: MilliJoules,
    pub(crate) generated: u32,
    /// Its answer is held back until it is judged.
    pub(crate) held: bool,
    /// The decision that sent it where it is.
    pub(crate) decision: Option<DecisionId>,
    /// A first answer that was not good enough to show: where it came from, what it took, its tokens.
    pub(crate) replaced: Option<(u32, MilliJoules, u32)>,
    reported: u32,
    reported_at: Timestamp,
}

impl RequestState {
    /// It goes to an instance; the second time because the first answer was not good enough.
    pub(crate) fn sent(&mut self, instance: u32, decision: DecisionId, held: bool) {
        if let Some(first) = self.instance.replace(instance) {
            self.replaced = Some((first, self.energy, self.generated));
            self.energy = MilliJoules::ZERO;
            self.generated = 0;
        }
        (self.decision, self.held) = (Some(decision), held);
    }

    /// Its instance is gone, and it is to be sent again: where it was and what it took there, for nothing.
    pub(crate) fn start_again(&mut self) -> Option<(u32, MilliJoules)> {
        let instance = self.instance.take()?;
        let energy = std::mem::take(&mut self.energy);
        (self.generated, self.reported, self.held) = (0, 0, false);
        Some((instance, energy))
    }

    /// Notes the first token.
    pub(crate) fn first_token(&mut self, now: Timestamp) {
        self.generated = 1;
        self.reported = 1;
        self.reported_at = now;
    }

    /// Notes one more token; how many to report now, if it is time.
    pub(crate) fn token(&mut self, now: Timestamp) -> Option<u32> {
        self.generated += 1;
        let count = self.generated - self.reported;
        if count < REPORT_TOKENS && now.0 - self.reported_at.0 < REPORT_NANOS {
            return None;
        }
        self.reported = self.generated;
        self.reported_at = now;
        Some(count)
    }
}
