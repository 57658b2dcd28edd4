//! Prompt size: characters per token, learned from what engines count.

use equipoise_types::Ewma;
use parking_lot::Mutex;

/// English in a byte-level BPE: about four characters to a token.
const PRIOR_CHARS_PER_TOKEN: f64 = 4.0;
/// What engines count includes the chat template's tokens: short prompts would teach too small a ratio.
const MIN_CHARS: u64 = 200;

/// The running ratio over all models: their tokenizers differ by less than their prompts do.
#[derive(Debug)]
pub(crate) struct PromptSize(Mutex<Ewma>);

impl Default for PromptSize {
    fn default() -> Self {
        Self(Mutex::new(Ewma::new(0.02)))
    }
}

impl PromptSize {
    pub(crate) fn chars_per_token(&self) -> f64 {
        self.0.lock().value().unwrap_or(PRIOR_CHARS_PER_TOKEN)
    }

    pub(crate) fn observe(&self, chars: u64, tokens: u32) {
        if chars >= MIN_CHARS && tokens > 0 {
            self.0
                .lock()
                .observe((chars as f64 / f64::from(tokens)).clamp(0.5, 20.0));
        }
    }
}
