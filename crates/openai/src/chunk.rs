//! One chunk of a streamed answer, read cheaply.

use crate::usage::{Usage, WireUsage};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// The token limit was reached.
    Length,
    /// The answer is a tool call.
    ToolCalls,
    /// Anything else (`content_filter`, `abort`, `error`, …).
    Other,
}

impl<'de> Deserialize<'de> for FinishReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = FinishReason;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a finish reason")
            }
            fn visit_str<E>(self, name: &str) -> Result<FinishReason, E> {
                Ok(match name {
                    "stop" => FinishReason::Stop,
                    "length" => FinishReason::Length,
                    "tool_calls" | "function_call" => FinishReason::ToolCalls,
                    _ => FinishReason::Other,
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// What one stream chunk says, without its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSummary {
    /// Choices in the chunk.
    pub choices: u32,
    /// Choices that carry something the model produced (text, reasoning, a refusal or a tool call). vLLM sends one chunk per
    /// token at light load but joins tokens when the client reads slowly, and holds one back in the middle of a
    /// multi-byte character: this is a lower bound on tokens, [`Usage`] is the truth.
    pub content_choices: u32,
    /// Why a choice ended, if one did in this chunk (the last one if several did).
    pub finish_reason: Option<FinishReason>,
    /// Token counts, if the chunk has them.
    pub usage: Option<Usage>,
    /// The chunk is an `{"error": …}` object: the engine failed in the middle of the stream.
    pub is_error: bool,
    /// The stream of a response ends with this event; there is no `[DONE]` after it.
    pub is_end: bool,
}

impl ChunkSummary {
    /// Reads one `data:` payload; `None` if it is not a JSON object (as `[DONE]` is not).
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let wire: WireChunk = serde_json::from_slice(data).ok()?;
        let choices = wire.choices.unwrap_or_default();
        let usage = wire.usage.or(wire.response.and_then(|response| response.usage));
        let kind = wire.kind.unwrap_or(EventKind::Other);
        let finish_reason = match kind {
            EventKind::Completed => Some(FinishReason::Stop),
            EventKind::Incomplete => Some(FinishReason::Length),
            _ => choices.finish_reason,
        };
        Some(Self {
            choices: choices.count,
            content_choices: choices.with_content + u32::from(kind == EventKind::Delta),
            finish_reason,
            usage: usage.map(Usage::from),
            is_error: wire.error.is_some() || kind == EventKind::Failed,
            is_end: matches!(kind, EventKind::Completed | EventKind::Incomplete),
        })
    }

    /// The chunk that exists only because of `stream_options.include_usage`: no choices, just token counts. Hide it from
    /// a client that did not ask for it (see [`crate::with_stream_usage`]).
    #[must_use]
    pub fn is_usage_only(&self) -> bool {
        self.choices == 0 && self.usage.is_some() && !self.is_end
    }
}

/// The id of a response: of a whole one, or of an event of its stream that carries it (`response.created`). `None` for
/// anything else.
#[must_use]
pub fn response_id(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Whole {
        #[serde(default)]
        id: Option<String>,
        #[serde(default)]
        object: Option<String>,
        #[serde(default)]
        response: Option<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        id: String,
    }
    let whole: Whole = serde_json::from_slice(json).ok()?;
    let is_response = whole.object.as_deref() == Some("response");
    whole
        .response
        .map(|inner| inner.id)
        .or(whole.id.filter(|_| is_response))
}

/// What an event of a response's stream is, by its `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventKind {
    /// Something that the model produced.
    Delta,
    Completed,
    /// A limit ended it.
    Incomplete,
    Failed,
    Other,
}

impl<'de> Deserialize<'de> for EventKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = EventKind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event's type")
            }
            fn visit_str<E>(self, name: &str) -> Result<EventKind, E> {
                Ok(match name {
                    "response.completed" => EventKind::Completed,
                    "response.incomplete" => EventKind::Incomplete,
                    "response.failed" | "error" => EventKind::Failed,
                    _ if name.starts_with("response.") && name.ends_with(".delta") => EventKind::Delta,
                    _ => EventKind::Other,
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

#[derive(Deserialize)]
struct WireResponse {
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireChunk {
    #[serde(default, rename = "type")]
    kind: Option<EventKind>,
    #[serde(default)]
    response: Option<WireResponse>,
    #[serde(default)]
    choices: Option<Choices>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Default)]
struct Choices {
    count: u32,
    with_content: u32,
    finish_reason: Option<FinishReason>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    text: Presence,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<FinishReason>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Presence,
    #[serde(default)]
    reasoning: Presence,
    #[serde(default)]
    reasoning_content: Presence,
    #[serde(default)]
    refusal: Presence,
    #[serde(default)]
    tool_calls: Presence,
    #[serde(default)]
    function_call: Presence,
}

impl Delta {
    fn has_content(&self) -> bool {
        let parts = [&self.content, &self.reasoning, &self.reasoning_content];
        let rarer = [&self.refusal, &self.tool_calls, &self.function_call];
        parts.into_iter().chain(rarer).any(|part| part.0)
    }
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Choices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices, A::Error> {
                let mut seen = Choices::default();
                while let Some(choice) = list.next_element::<WireChoice>()? {
                    seen.count += 1;
                    let content = choice.text.0 || choice.delta.is_some_and(|delta| delta.has_content());
                    seen.with_content += u32::from(content);
                    seen.finish_reason = choice.finish_reason.or(seen.finish_reason);
                }
                Ok(seen)
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// Whether a value holds anything: not null, not an empty string, list or object.
#[derive(Default)]
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Presence;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Presence, E> {
                Ok(Presence(false))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_str<E>(self, text: &str) -> Result<Presence, E> {
                Ok(Presence(!text.is_empty()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Presence, A::Error> {
                let mut some = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    some = true;
                }
                Ok(Presence(some))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Presence, A::Error> {
                let mut some = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    some = true;
                }
                Ok(Presence(some))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &str) -> ChunkSummary {
        ChunkSummary::parse(data.as_bytes()).expect("a JSON object")
    }

    #[test]
    fn the_chunks_of_a_vllm_chat_stream() {
        let role = parse(
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null}"#,
        );
        assert_eq!((role.choices, role.content_choices, role.finish_reason), (1, 0, None));
        let token = parse(
            r#"{"choices":[{"index":0,"delta":{"content":" file"},"logprobs":null,"finish_reason":"length","stop_reason":null}]}"#,
        );
        assert_eq!(
            (token.content_choices, token.finish_reason),
            (1, Some(FinishReason::Length))
        );
        let usage = parse(r#"{"choices":[],"usage":{"prompt_tokens":13,"total_tokens":17,"completion_tokens":4}}"#);
        assert!(usage.is_usage_only());
        assert_eq!(usage.usage.map(|usage| usage.completion_tokens), Some(4));
    }

    #[test]
    fn continuous_usage_is_not_the_usage_only_chunk() {
        let chunk =
            parse(r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
        assert!(!chunk.is_usage_only() && chunk.usage.is_some());
    }

    #[test]
    fn the_events_of_a_response() {
        let created = r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","usage":null}}"#;
        assert_eq!((parse(created).content_choices, parse(created).is_end), (0, false));
        assert_eq!(response_id(created.as_bytes()).as_deref(), Some("resp_1"));
        let delta = parse(r#"{"type":"response.output_text.delta","delta":"Hello","item_id":"m","logprobs":[]}"#);
        assert_eq!((delta.content_choices, delta.finish_reason), (1, None));
        let end = parse(
            r#"{"type":"response.completed","response":{"id":"resp_1","usage":{"input_tokens":7,"output_tokens":3}}}"#,
        );
        assert!(end.is_end && !end.is_usage_only() && !end.is_error);
        assert_eq!(
            end.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens)),
            Some((7, 3))
        );
        assert!(parse(r#"{"type":"response.failed","response":{"id":"resp_1"}}"#).is_error);
        assert_eq!(
            response_id(br#"{"id":"resp_2","object":"response"}"#).as_deref(),
            Some("resp_2")
        );
        assert_eq!(response_id(br#"{"id":"chatcmpl-1","object":"chat.completion"}"#), None);
    }

    #[test]
    fn several_choices_text_tools_and_errors() {
        let two = parse(r#"{"choices":[{"text":"a"},{"text":"","finish_reason":"stop"}]}"#);
        assert_eq!(
            (two.choices, two.content_choices, two.finish_reason),
            (2, 1, Some(FinishReason::Stop))
        );
        let tool =
            parse(r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]},"finish_reason":"tool_calls"}],"usage":null}"#);
        assert_eq!(
            (tool.content_choices, tool.finish_reason),
            (1, Some(FinishReason::ToolCalls))
        );
        assert!(parse(r#"{"error":{"message":"x"}}"#).is_error);
        assert_eq!(ChunkSummary::parse(b"[DONE]"), None);
        assert_eq!(ChunkSummary::parse(b"{\"choices\":["), None);
    }
}
