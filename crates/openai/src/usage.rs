//! Token counts as an engine reports them.

use serde::{Deserialize, Serialize};

/// The `usage` object of an answer or of a stream's last chunk, tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, the cached ones included.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
    /// Prompt tokens that came from the engine's prefix cache; `None`: the engine does not say
    /// (vLLM says it only with `--enable-prompt-tokens-details`).
    pub cached_tokens: Option<u32>,
}

/// `usage` as it is on the wire: anything may be missing or null.
#[derive(Deserialize)]
pub(crate) struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    // The names of the same in a response.
    #[serde(default)]
    input_tokens: Option<u32>,
    #[serde(default)]
    output_tokens: Option<u32>,
    #[serde(default)]
    input_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let details = wire.prompt_tokens_details.or(wire.input_tokens_details);
        Self {
            prompt_tokens: wire.prompt_tokens.or(wire.input_tokens).unwrap_or(0),
            completion_tokens: wire.completion_tokens.or(wire.output_tokens).unwrap_or(0),
            cached_tokens: details.and_then(|details| details.cached_tokens),
        }
    }
}

impl Usage {
    /// The usage of a whole answer that did not stream; `None` where the body has none or is not JSON.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            usage: Option<WireUsage>,
        }
        serde_json::from_slice::<Answer>(body).ok()?.usage.map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_vllm_sends() {
        let body =
            br#"{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"a"}],"service_tier":null,
            "usage":{"prompt_tokens":4,"total_tokens":8,"completion_tokens":4,"prompt_tokens_details":null}}"#;
        assert_eq!(
            Usage::from_body(body),
            Some(Usage {
                prompt_tokens: 4,
                completion_tokens: 4,
                cached_tokens: None
            })
        );
        let body =
            br#"{"usage":{"prompt_tokens":40,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":32}}}"#;
        assert_eq!(Usage::from_body(body).and_then(|usage| usage.cached_tokens), Some(32));
    }

    #[test]
    fn a_response_counts_under_other_names() {
        let body = br#"{"usage":{"input_tokens":40,"input_tokens_details":{"cached_tokens":32},"output_tokens":4}}"#;
        assert_eq!(
            Usage::from_body(body),
            Some(Usage {
                prompt_tokens: 40,
                completion_tokens: 4,
                cached_tokens: Some(32)
            })
        );
    }

    #[test]
    fn no_usage_is_none_not_zero() {
        assert_eq!(Usage::from_body(b"{}"), None);
        assert_eq!(Usage::from_body(br#"{"usage":null}"#), None);
        assert_eq!(Usage::from_body(b"oops"), None);
    }
}
