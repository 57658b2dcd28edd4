//! What an emulator is started with.

use equipoise_engine::StepModel;
use std::net::SocketAddr;

/// One emulated instance.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// The name under which the model is served.
    pub model_name: String,
    /// How long steps take and what they draw.
    pub step_model: StepModel,
    /// Of answer lengths and words: the same seed and prompt give the same answer.
    pub seed: u64,
    /// How long answers are.
    pub output_lengths: OutputLengths,
    /// GPUs of the instance, for the metrics page; the step model's draw covers all of them already.
    pub gpus: u32,
    /// Requests that may wait; one more is answered 503.
    pub max_waiting: u32,
}

impl EmulatorConfig {
    /// An instance on a free port of the loopback interface, with one GPU and default lengths.
    #[must_use]
    pub fn new(model_name: impl Into<String>, step_model: StepModel) -> Self {
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            model_name: model_name.into(),
            step_model,
            seed: 0,
            output_lengths: OutputLengths::default(),
            gpus: 1,
            max_waiting: 4096,
        }
    }

    /// Longest prompt and answer together, tokens: the model's context, or the KV cache where that is smaller.
    #[must_use]
    pub fn max_model_len(&self) -> u32 {
        /// An opaque box has no context of its own.
        const OPAQUE_CONTEXT_TOKENS: u32 = 32_768;
        if self.step_model.fixed_seconds().is_some() {
            return OPAQUE_CONTEXT_TOKENS;
        }
        let kv = u32::try_from(self.step_model.kv_capacity_tokens()).unwrap_or(u32::MAX);
        self.step_model.context_tokens().min(kv)
    }
}

/// The log-normal distribution of answer lengths, before `max_tokens` cuts them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputLengths {
    /// Mean, tokens.
    pub mean_tokens: f64,
    /// Standard deviation of the logarithm; 0 makes all answers equally long.
    pub sigma: f64,
}

impl Default for OutputLengths {
    /// Mean 200 tokens; production chat traces have a spread of about this size.
    fn default() -> Self {
        Self {
            mean_tokens: 200.0,
            sigma: 0.8,
        }
    }
}
