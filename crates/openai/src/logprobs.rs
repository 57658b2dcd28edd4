//! Log-probabilities of a chat's tokens: asking for them, reading how sure an answer is of itself, and taking them out
//! again for a client that did not ask.

use bytes::Bytes;
use serde::Deserialize;

use crate::json::{elements, members};
use crate::rewrite::{Edit, RewriteError, insertion, named, splice, top_level};

/// Whether a chat request asks for the log-probabilities of its answer's tokens.
#[must_use]
pub fn asks_for_logprobs(body: &[u8]) -> bool {
    top_level(body).is_ok_and(|top| named(&top, body, "logprobs").any(|member| &body[member.value.clone()] == b"true"))
}

/// The body of a chat request with `logprobs` true; every other byte stays as it is.
///
/// # Errors
/// The body is not a JSON object.
pub fn with_logprobs(body: &Bytes) -> Result<Bytes, RewriteError> {
    let top = top_level(body)?;
    let mut edits: Vec<Edit> = named(&top, body, "logprobs")
        .map(|member| Edit::new(member.value.clone(), "true"))
        .collect();
    if edits.is_empty() {
        edits.push(insertion(body, 0, top.is_empty(), "\"logprobs\":true"));
    }
    Ok(splice(body, &edits))
}

/// A chat answer, or a chunk of one, with the `logprobs` of every choice null; every other byte stays as it is. What is
/// no such object comes back unchanged.
#[must_use]
pub fn without_logprobs(json: &Bytes) -> Bytes {
    let edits = || -> Result<Vec<Edit>, usize> {
        let top = members(json, 0..json.len())?;
        let mut edits = Vec::new();
        for choices in named(&top, json, "choices") {
            for choice in elements(json, choices.value.clone())? {
                let inside = members(json, choice)?;
                edits.extend(named(&inside, json, "logprobs").map(|member| Edit::new(member.value.clone(), "null")));
            }
        }
        Ok(edits)
    };
    edits().map_or_else(|_| json.clone(), |edits| splice(json, &edits))
}

/// How sure an answer is of itself: the geometric mean of the probabilities of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Confidence {
    logprobs: f64,
    tokens: u32,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    choices: Vec<WireChoice>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    logprobs: Option<WireLogprobs>,
}

#[derive(Deserialize)]
struct WireLogprobs {
    #[serde(default)]
    content: Option<Vec<WireToken>>,
}

#[derive(Deserialize)]
struct WireToken {
    logprob: f64,
}

impl Confidence {
    /// Takes in a whole answer or a chunk of a stream; what has no log-probabilities changes nothing.
    pub fn take(&mut self, json: &[u8]) {
        let wire = serde_json::from_slice::<Wire>(json).ok();
        let logprobs = wire
            .into_iter()
            .flat_map(|wire| wire.choices)
            .filter_map(|choice| choice.logprobs);
        for token in logprobs.filter_map(|logprobs| logprobs.content).flatten() {
            // vLLM writes -9999 for what cannot happen.
            self.logprobs += token.logprob.clamp(-100.0, 0.0);
            self.tokens = self.tokens.saturating_add(1);
        }
    }

    /// [0, 1]; `None` where no token had a log-probability.
    #[must_use]
    pub fn geometric_mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| (self.logprobs / f64::from(self.tokens)).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"id":"x", "choices":[{"index":0,"message":{"content":"a \"logprobs\": b"},
        "logprobs": {"content":[{"token":"a","logprob":-0.5},{"token":"b","logprob":-1.5,"top_logprobs":[]}]},"finish_reason":"stop"}],"n":1.0}"#;

    #[test]
    fn confidence_is_the_geometric_mean() {
        let mut confidence = Confidence::default();
        assert_eq!(confidence.geometric_mean(), None);
        confidence.take(b"[DONE]");
        confidence.take(br#"{"choices":[{"logprobs":null}]}"#);
        assert_eq!(confidence.geometric_mean(), None);
        confidence.take(ANSWER.as_bytes());
        let mean = confidence.geometric_mean().expect("two tokens");
        assert!((mean - (-1.0_f64).exp()).abs() < 1e-12);
        confidence.take(br#"{"choices":[{"logprobs":{"content":[{"logprob":-9999.0}]}}]}"#);
        assert!(confidence.geometric_mean().expect("three").is_normal());
    }

    #[test]
    fn only_the_log_probabilities_are_taken_out() {
        let without = without_logprobs(&Bytes::from(ANSWER));
        let expected = format!(
            "{}null{}",
            &ANSWER[..ANSWER.find("{\"content\":[{\"token\"").expect("there")],
            &ANSWER[ANSWER.find(",\"finish_reason\"").expect("there")..]
        );
        assert_eq!(without, expected.as_bytes());
        for other in [
            "[DONE]",
            "{}",
            "{\"choices\":7}",
            "{\"choices\":[1]}",
            "{\"choices\":[]}",
        ] {
            assert_eq!(without_logprobs(&Bytes::from(other)), other);
        }
    }

    #[test]
    fn they_are_asked_for_once() {
        for (body, asked) in [
            (r#"{"model":"m"}"#, r#"{"logprobs":true,"model":"m"}"#),
            (r#"{"logprobs": false,"a":1}"#, r#"{"logprobs": true,"a":1}"#),
            (r#"{"logprobs":null}"#, r#"{"logprobs":true}"#),
        ] {
            assert!(!asks_for_logprobs(body.as_bytes()));
            let with = with_logprobs(&Bytes::from(body)).expect("an object");
            assert_eq!(with, asked.as_bytes());
            assert!(asks_for_logprobs(&with));
        }
        assert!(with_logprobs(&Bytes::from("[]")).is_err());
    }
}
