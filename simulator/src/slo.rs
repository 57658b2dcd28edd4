//! An SLO that every request of a run carries, and how well it was kept.

use equipoise_scheduler::Wishes;
use equipoise_types::Timestamp;
use serde::Serialize;

use crate::quantiles::Distribution;
use crate::request::RequestState;
use crate::{RequestEnding, SimulationError};

/// What every request asks for. Times count from its arrival at the router.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SloGoal {
    /// Time to first token, seconds.
    pub ttft_s: Option<f64>,
    /// Time to last token, seconds.
    pub e2e_s: Option<f64>,
    /// With which probability, in (0, 1).
    pub confidence: f64,
    /// False: the scheduler is not told, and the run only shows who would have been in time.
    pub enforced: bool,
}

impl SloGoal {
    pub(crate) fn check(&self) -> Result<(), SimulationError> {
        let times = [("slo.ttft_s", self.ttft_s), ("slo.e2e_s", self.e2e_s)];
        for (option, time) in times {
            if let Some(seconds) = time.filter(|seconds| !(*seconds > 0.0 && *seconds <= 86_400.0)) {
                let allowed = "above zero and at most 86400";
                return Err(SimulationError::Time {
                    option,
                    seconds,
                    allowed,
                });
            }
        }
        if self.confidence > 0.0 && self.confidence < 1.0 {
            Ok(())
        } else {
            Err(SimulationError::Confidence(self.confidence))
        }
    }

    pub(crate) fn wishes(&self) -> Wishes {
        let told = |slo: Option<f64>| slo.filter(|_| self.enforced);
        Wishes {
            ttft_slo_s: told(self.ttft_s),
            e2e_slo_s: told(self.e2e_s),
            slo_confidence: Some(self.confidence),
            ..Wishes::default()
        }
    }

    /// The largest of observed over limit: above 1 it is violated.
    fn use_of(&self, ttft_s: f64, e2e_s: f64) -> f64 {
        let share = |seconds: f64, limit: Option<f64>| limit.map_or(0.0, |limit| seconds / limit);
        share(ttft_s, self.ttft_s).max(share(e2e_s, self.e2e_s))
    }
}

/// How well the SLO of a run was kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SloResult {
    /// Limit of the time to first token, seconds.
    pub ttft_s: Option<f64>,
    /// Limit of the time to the last token, seconds.
    pub e2e_s: Option<f64>,
    /// With which probability it was asked for.
    pub confidence: f64,
    /// Whether the scheduler knew.
    pub enforced: bool,
    /// Requests sent to an instance.
    pub admitted: u64,
    /// Requests refused.
    pub refused: u64,
    /// Admitted, and not answered in time.
    pub violated: u64,
    /// Of those admitted, [0, 1].
    pub violated_share: f64,
    /// Where the true share is with 95 % confidence, were the requests independent (Wilson's interval).
    pub violated_share_95: [f64; 2],
    /// Answered in time, of all requests, [0, 1].
    pub goodput_share: f64,
    /// 95th percentile of observed over limit, of those admitted.
    pub p95_of_limit: Option<f64>,
    /// Share of first tokens that came within the bound that was predicted at dispatch.
    pub ttft_coverage: Option<f64>,
    /// The same of last tokens.
    pub e2e_coverage: Option<f64>,
}

/// Wilson's interval of a share, at 95 %.
fn wilson(count: u64, of: u64) -> [f64; 2] {
    const Z: f64 = 1.96;
    if of == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (of as f64, count as f64 / of as f64);
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0)]
}

/// Counts requests as they end.
#[derive(Debug, Default)]
pub(crate) struct SloTally {
    admitted: u64,
    refused: u64,
    violated: u64,
    ttft_within: u64,
    e2e_within: u64,
    uses: Distribution,
}

impl SloTally {
    /// One has ended.
    pub(crate) fn ended(&mut self, goal: &SloGoal, now: Timestamp, state: &RequestState, ending: RequestEnding) {
        let Some((promised_at, bounds)) = state.promise else {
            self.refused += u64::from(matches!(ending, RequestEnding::Refused(_)));
            return;
        };
        self.admitted += 1;
        if ending != RequestEnding::Finished {
            // Sent, and never answered: late without end.
            self.violated += 1;
            return;
        }
        let (first, last) = (state.first_token_at.unwrap_or(now), now);
        let arrival = state.record.arrival;
        let used = goal.use_of(first.secs_since(arrival), last.secs_since(arrival));
        self.violated += u64::from(used > 1.0);
        self.ttft_within += u64::from(first.secs_since(promised_at) <= bounds.ttft_s);
        self.e2e_within += u64::from(last.secs_since(promised_at) <= bounds.e2e_s);
        self.uses.add(used);
    }
}

impl SloResult {
    /// Of a run that has ended, with so many requests.
    pub(crate) fn of(goal: &SloGoal, tally: &mut SloTally, offered: u64) -> Self {
        let share = |count: u64, of: u64| if of == 0 { 0.0 } else { count as f64 / of as f64 };
        let answered = tally.uses.count();
        let SloTally {
            admitted,
            refused,
            violated,
            ttft_within,
            e2e_within,
            ..
        } = *tally;
        Self {
            ttft_s: goal.ttft_s,
            e2e_s: goal.e2e_s,
            confidence: goal.confidence,
            enforced: goal.enforced,
            admitted,
            refused,
            violated,
            violated_share: share(violated, admitted),
            violated_share_95: wilson(violated, admitted),
            goodput_share: share(admitted - violated, offered),
            p95_of_limit: tally.uses.quantiles([0.95]).map(|[p95]| p95),
            ttft_coverage: (answered > 0).then(|| share(ttft_within, answered)),
            e2e_coverage: (answered > 0).then(|| share(e2e_within, answered)),
        }
    }

    /// A line for people.
    pub(crate) fn line(&self) -> String {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let optional = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
        let [least, most] = self.violated_share_95;
        format!(
            "{} admitted, {} refused; {} of those admitted late ({least:.3} to {most:.3}), p95 at {} of the limit; in time {} of \
             all; within the predicted bound TTFT {}, E2E {}",
            self.admitted,
            self.refused,
            percent(self.violated_share),
            optional(self.p95_of_limit),
            percent(self.goodput_share),
            optional(self.ttft_coverage),
            optional(self.e2e_coverage),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // 5 of 100: 0.0215 to 0.1118 in any table.
        let [least, most] = wilson(5, 100);
        assert!(
            (least - 0.0215).abs() < 5e-4 && (most - 0.1118).abs() < 5e-4,
            "{least} {most}"
        );
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        assert_eq!(wilson(0, 10)[0], 0.0);
    }
}
