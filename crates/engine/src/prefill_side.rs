//! Disaggregated prefill: prompts are computed on other GPUs, and their keys and values are sent over.

use crate::deployment::Link;
use crate::step::StepModel;
use equipoise_types::Watts;

/// The engines that compute an instance's prompts.
#[derive(Clone, Debug)]
pub struct PrefillSide {
    /// One of them.
    pub engine: StepModel,
    /// How many there are, each with one prompt at a time; at least 1.
    pub count: u32,
    /// From them to where the answers are computed.
    pub link: Link,
    /// What is sent for a token of the prompt, bytes.
    pub kv_bytes_per_token: f64,
}

impl PrefillSide {
    /// From the end of a prompt's computation until its keys and values have arrived, seconds.
    #[must_use]
    pub fn transfer_seconds(&self, prompt_tokens: u32) -> f64 {
        self.link.latency_seconds + f64::from(prompt_tokens) * self.kv_bytes_per_token / self.link.bytes_per_second
    }

    /// Draw of all of them with nothing to do.
    #[must_use]
    pub fn idle_watts(&self) -> Watts {
        Watts(f64::from(self.count) * self.engine.idle_watts().0)
    }
}
