//! Answers on the wire, as vLLM 0.32 writes them.

mod response;

use crate::length::{Finish, Length};
use crate::tokenizer::word;
use equipoise_openai::Endpoint;
use equipoise_types::RandomStream;
use std::fmt::Write as _;

const FINGERPRINT: &str = "equipoise-emulator";

/// One answer. Its words are known from the start; the engine says when they come.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) endpoint: Endpoint,
    pub(crate) id: String,
    /// Seconds since the Unix epoch.
    pub(crate) created: u64,
    /// The model's name as a JSON string, quotes included.
    pub(crate) model_json: String,
    /// What the words are made up from.
    pub(crate) key: u64,
    pub(crate) length: Length,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) include_usage: bool,
    /// Log-probabilities of the tokens were asked for (chat only).
    pub(crate) logprobs: bool,
}

/// Writing to a `String` cannot fail, so the results of `write!` are dropped.
impl Answer {
    /// The whole answer, for a client that does not stream.
    pub(crate) fn whole(&self) -> String {
        let Self {
            id,
            created,
            model_json,
            ..
        } = self;
        let text: String = (0..self.length.tokens).map(|index| word(self.key, index)).collect();
        let finish = self.length.finish.name();
        let usage = self.usage(true);
        let logprobs = self.logprobs_of(0, self.length.tokens);
        match self.endpoint {
            Endpoint::Chat => format!(
                "{{\"id\":\"{id}\",\"object\":\"chat.completion\",\"created\":{created},\"model\":{model_json},\
                 \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\"refusal\":null,\
                 \"annotations\":null,\"audio\":null,\"function_call\":null,\"reasoning\":null}},\"logprobs\":{logprobs},\
                 \"finish_reason\":\"{finish}\",\"stop_reason\":null,\"token_ids\":null}}],\"service_tier\":null,\
                 \"system_fingerprint\":\"{FINGERPRINT}\",\"usage\":{usage},\"prompt_logprobs\":null,\
                 \"prompt_token_ids\":null,\"kv_transfer_params\":null}}"
            ),
            Endpoint::Responses => self.whole_response(),
            _ => format!(
                "{{\"id\":\"{id}\",\"object\":\"text_completion\",\"created\":{created},\"model\":{model_json},\
                 \"choices\":[{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,\"finish_reason\":\"{finish}\",\
                 \"stop_reason\":null,\"token_ids\":null,\"prompt_logprobs\":null,\"prompt_token_ids\":null}}],\
                 \"service_tier\":null,\"system_fingerprint\":\"{FINGERPRINT}\",\"usage\":{usage},\
                 \"kv_transfer_params\":null}}"
            ),
        }
    }

    /// Appends the frames of tokens `from..to`, one each; before the first of a chat comes the one with the role, and
    /// the last says why the answer ends.
    pub(crate) fn write_tokens(&self, from: u32, to: u32, out: &mut String) {
        if self.endpoint == Endpoint::Responses {
            return self.write_response_tokens(from, to, out);
        }
        if from == 0 && to > 0 && self.endpoint == Endpoint::Chat {
            self.open(out);
            out.push_str(
                "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\
                 \"finish_reason\":null}],\"prompt_token_ids\":null}\n\n",
            );
        }
        for index in from..to {
            let last = (index + 1 == self.length.tokens).then_some(self.length.finish);
            self.write_token(index, last, out);
        }
    }

    fn write_token(&self, index: u32, last: Option<Finish>, out: &mut String) {
        self.open(out);
        let (text, logprobs) = (word(self.key, index), self.logprobs_of(index, index + 1));
        let finish = last.map_or("null", |finish| match finish {
            Finish::Stop => "\"stop\"",
            Finish::Length => "\"length\"",
        });
        let _ = match self.endpoint {
            Endpoint::Chat => {
                let stop_reason = if last.is_some() { "\"stop_reason\":null," } else { "" };
                write!(
                    out,
                    "{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"logprobs\":{logprobs},\
                     \"finish_reason\":{finish},{stop_reason}\"token_ids\":null}}]"
                )
            }
            _ => write!(
                out,
                "{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,\"finish_reason\":{finish},\
                 \"stop_reason\":null,\"prompt_token_ids\":null,\"token_ids\":null}}]"
            ),
        };
        if last.is_some() && !self.include_usage {
            let _ = write!(out, ",\"system_fingerprint\":\"{FINGERPRINT}\"");
        }
        out.push_str("}\n\n");
    }

    /// Made up as the words are: tokens of one answer are alike, and from answer to answer their probability is anything
    /// from a third to one.
    fn logprobs_of(&self, from: u32, to: u32) -> String {
        if !self.logprobs {
            return "null".to_owned();
        }
        let mut random = RandomStream::new(self.key).derive("logprobs");
        let logprob = (1.0 / 3.0 + 2.0 / 3.0 * random.uniform()).ln();
        let tokens: Vec<String> = (from..to)
            .map(|index| {
                let token = word(self.key, index);
                format!("{{\"token\":\"{token}\",\"logprob\":{logprob:.6},\"bytes\":null,\"top_logprobs\":[]}}")
            })
            .collect();
        format!("{{\"content\":[{}]}}", tokens.join(","))
    }

    /// Appends what ends the stream.
    pub(crate) fn write_end(&self, out: &mut String) {
        if self.endpoint == Endpoint::Responses {
            return self.write_response_end(out);
        }
        if self.include_usage {
            self.open(out);
            let usage = self.usage(false);
            let _ = write!(
                out,
                "],\"usage\":{usage},\"system_fingerprint\":\"{FINGERPRINT}\"}}\n\n"
            );
        }
        out.push_str("data: [DONE]\n\n");
    }

    /// Appends a frame up to the first choice.
    fn open(&self, out: &mut String) {
        let Self {
            id,
            created,
            model_json,
            ..
        } = self;
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        let _ = write!(
            out,
            "data: {{\"id\":\"{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model_json},\
             \"choices\":["
        );
    }

    /// Cached tokens are told when there are some, as by a vLLM with `--enable-prompt-tokens-details`.
    fn usage(&self, whole: bool) -> String {
        let (prompt, completion) = (self.prompt_tokens, self.length.tokens);
        let total = u64::from(prompt) + u64::from(completion);
        let details = match (self.cached_tokens, whole) {
            (0, true) => ",\"prompt_tokens_details\":null,\"completion_tokens_details\":null".to_owned(),
            (0, false) => String::new(),
            (cached, _) => format!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}"),
        };
        format!("{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\"completion_tokens\":{completion}{details}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_openai::{ChunkSummary, FinishReason, SseParser, Usage};

    fn answer(endpoint: Endpoint, include_usage: bool) -> Answer {
        Answer {
            endpoint,
            id: "x-1".to_owned(),
            created: 7,
            model_json: "\"m\\\"1\"".to_owned(),
            key: 3,
            length: Length {
                tokens: 3,
                finish: Finish::Length,
            },
            prompt_tokens: 13,
            cached_tokens: 0,
            include_usage,
            logprobs: false,
        }
    }

    fn frames(answer: &Answer) -> Vec<String> {
        let mut text = String::new();
        answer.write_tokens(0, 1, &mut text);
        answer.write_tokens(1, 3, &mut text);
        answer.write_end(&mut text);
        let mut frames = Vec::new();
        SseParser::default()
            .push(text.as_bytes(), |event| {
                let data = event.data.unwrap_or_default();
                frames.push(String::from_utf8(data.into_owned()).expect("UTF-8"));
            })
            .expect("short frames");
        frames
    }

    #[test]
    fn a_chat_stream_looks_like_vllm_s() {
        let frames = frames(&answer(Endpoint::Chat, true));
        let head = r#"{"id":"x-1","object":"chat.completion.chunk","created":7,"model":"m\"1","choices":["#;
        let word = |index| word(3, index);
        assert_eq!(
            frames,
            [
                format!(
                    r#"{head}{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}],"prompt_token_ids":null}}"#
                ),
                format!(
                    r#"{head}{{"index":0,"delta":{{"content":"{}"}},"logprobs":null,"finish_reason":null,"token_ids":null}}]}}"#,
                    word(0)
                ),
                format!(
                    r#"{head}{{"index":0,"delta":{{"content":"{}"}},"logprobs":null,"finish_reason":null,"token_ids":null}}]}}"#,
                    word(1)
                ),
                format!(
                    r#"{head}{{"index":0,"delta":{{"content":"{}"}},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}}]}}"#,
                    word(2)
                ),
                format!(
                    r#"{head}],"usage":{{"prompt_tokens":13,"total_tokens":16,"completion_tokens":3}},"system_fingerprint":"equipoise-emulator"}}"#
                ),
                "[DONE]".to_owned(),
            ]
        );
    }

    #[test]
    fn a_completion_stream_without_usage() {
        let frames = frames(&answer(Endpoint::Completions, false));
        assert_eq!(frames.len(), 4);
        let summaries: Vec<_> = frames
            .iter()
            .filter_map(|frame| ChunkSummary::parse(frame.as_bytes()))
            .collect();
        assert_eq!(summaries.len(), 3);
        assert!(
            summaries
                .iter()
                .all(|summary| summary.content_choices == 1 && summary.usage.is_none())
        );
        assert_eq!(summaries[2].finish_reason, Some(FinishReason::Length));
    }

    #[test]
    fn whole_answers_are_json_with_usage() {
        for endpoint in [Endpoint::Chat, Endpoint::Completions] {
            let mut answer = answer(endpoint, false);
            answer.cached_tokens = 8;
            let body = answer.whole();
            let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(value["model"], "m\"1");
            assert_eq!(value["choices"][0]["finish_reason"], "length");
            let usage = Usage {
                prompt_tokens: 13,
                completion_tokens: 3,
                cached_tokens: Some(8),
            };
            assert_eq!(Usage::from_body(body.as_bytes()), Some(usage));
        }
    }
}
