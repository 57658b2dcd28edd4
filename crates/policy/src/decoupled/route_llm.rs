//! RouteLLM (Ong et al., ICLR 2025): two models; the strong one where its predicted win rate reaches a threshold.
//!
//! Strong is the dearest, weak the cheapest; in between is nobody. The win rate is that of two independent attempts:
//! strong right and weak wrong, against the reverse.

use super::{ModelOption, ModelRouter, largest};

/// The study's threshold is 0.11593, calibrated there for half the traffic on other models and another scale of win
/// rates; its sweep is .05, .11593, .2, .3, .5. Here half means what it says, and is the default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteLlm {
    threshold: f64,
}

impl RouteLlm {
    /// With its parameter, or the default.
    pub(crate) fn new(threshold: Option<f64>) -> Self {
        Self {
            threshold: threshold.unwrap_or(0.5),
        }
    }
}

impl ModelRouter for RouteLlm {
    fn choose(&self, options: &[ModelOption]) -> usize {
        let strong = largest(options, |option| option.cost_usd);
        let weak = largest(options, |option| -option.cost_usd);
        let (right, wrong) = (options[strong].quality, options[weak].quality);
        let (wins, losses) = (right * (1.0 - wrong), wrong * (1.0 - right));
        let win_rate = if wins + losses > 0.0 {
            wins / (wins + losses)
        } else {
            0.5
        };
        if win_rate >= self.threshold { strong } else { weak }
    }
}
