//! What a decision needs to know of a request, read from the raw body in one pass.

use crate::error::ErrorResponse;
use crate::prompt::{
    Instructions, Items, Messages, Prompt, PromptPart, Prompts, StreamOptions, TextOptions, Texts, Written,
};
use crate::skipped::Skipped;
use crate::{Endpoint, Task};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// The part of a request that a decision looks at. Everything else stays in the body, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The API.
    pub endpoint: Endpoint,
    /// The `model` member, never empty.
    pub model: String,
    /// The answer is to come as a stream.
    pub stream: bool,
    /// The client asked for a last chunk of token counts.
    pub include_usage: bool,
    /// Most answer tokens the client allows: `max_completion_tokens`, or `max_tokens` where that is absent;
    /// `max_output_tokens` of a response.
    pub max_tokens: Option<u32>,
    /// Fewest answer tokens (vLLM's addition).
    pub min_tokens: Option<u32>,
    /// The answer is to run to `max_tokens` whatever the model wants (vLLM's addition, for benchmarks).
    pub ignore_eos: bool,
    /// Answers per prompt, at least 1.
    pub n: u32,
    /// Characters of the prompt's text: messages or prompts, tool definitions and earlier tool calls.
    pub prompt_chars: u64,
    /// Tokens of the prompt that came as token ids.
    pub prompt_token_ids: u64,
    /// Messages of a chat, or prompts of a list.
    pub prompt_items: u32,
    /// Tools (or functions) are offered to the model.
    pub has_tools: bool,
    /// The prompt has images.
    pub has_images: bool,
    /// The prompt has audio, or the answer is to be spoken.
    pub has_audio: bool,
    /// The answer must follow a schema, a grammar or a choice.
    pub is_structured: bool,
    /// The `user` member: whom the client serves.
    pub user: Option<String>,
    /// The response that this one goes on from: only the engine that made it knows it.
    pub previous_response_id: Option<String>,
    /// Only requests with the same salt share what is cached of prompts (vLLM's addition).
    pub cache_salt: Option<String>,
}

/// A request that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not JSON.
    #[error("The request body is not valid JSON: {reason} (line {line}, column {column}, byte {byte}).")]
    InvalidJson {
        /// What the parser says.
        reason: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// From 0, in the whole body.
        byte: usize,
    },
    /// Not UTF-8.
    #[error("The request body is not UTF-8 from byte {byte} on.")]
    NotText {
        /// From 0.
        byte: usize,
    },
    /// A member has a value of the wrong type.
    #[error("{param}: {reason} (line {line}, column {column}, byte {byte}).")]
    WrongType {
        /// The member; empty for the body itself.
        param: &'static str,
        /// What was found and what is expected.
        reason: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// From 0, in the whole body.
        byte: usize,
    },
    /// A member that must be there is not.
    #[error("The member `{param}` is missing or empty: {mend}.")]
    Missing {
        /// The member.
        param: &'static str,
        /// How to mend it.
        mend: &'static str,
    },
}

impl RequestError {
    /// The member at fault, if one is.
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::InvalidJson { .. } | Self::NotText { .. } => None,
            Self::WrongType { param, .. } | Self::Missing { param, .. } => Some(param),
        }
    }
}

impl From<RequestError> for ErrorResponse {
    /// HTTP 400 in OpenAI's shape.
    fn from(error: RequestError) -> Self {
        let code = match &error {
            RequestError::InvalidJson { .. } => "invalid_json",
            RequestError::NotText { .. } => "invalid_utf8",
            RequestError::WrongType { .. } => "invalid_value",
            RequestError::Missing { .. } => "missing_required_parameter",
        };
        let response = Self::invalid_request(error.to_string()).with_code(code);
        match error.param() {
            Some(param) => response.with_param(param),
            None => response,
        }
    }
}

impl RequestHead {
    /// Reads the head of a request to `endpoint` from its body.
    ///
    /// # Errors
    /// The body is not JSON, a member that is read here has the wrong type or comes twice, or `model` or the prompt is
    /// missing. Values that only the engine can judge are left to it.
    pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Self, RequestError> {
        Self::parse_with(endpoint, body, &mut |_| {})
    }

    /// As [`Self::parse`], and shows the pieces of the prompt to `on_part` as they go by, for a caller that hashes
    /// prefixes or tokenizes. On an error the pieces before it have been shown.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_with(
        endpoint: Endpoint,
        body: &[u8],
        on_part: &mut dyn FnMut(PromptPart<'_>),
    ) -> Result<Self, RequestError> {
        let text = std::str::from_utf8(body).map_err(|error| RequestError::NotText {
            byte: error.valid_up_to(),
        })?;
        let prompt = Prompt {
            on_part,
            chars: 0,
            token_ids: 0,
            items: 0,
            has_images: false,
            has_audio: false,
        };
        let mut draft = Draft {
            endpoint,
            prompt,
            at: "body",
            seen: Members::default(),
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_any(&mut draft).and_then(|()| {
            draft.at = "body";
            json.end()
        });
        match read {
            Ok(()) => draft.finish(),
            Err(error) => Err(rejection(&error, draft.at, body)),
        }
    }

    /// The prompt's length in tokens, as near as characters tell; `chars_per_token` is about 4 for English.
    /// At least 1 for a prompt that has text.
    #[must_use]
    pub fn prompt_tokens_estimate(&self, chars_per_token: f64) -> u32 {
        let tokens = (self.prompt_chars as f64 / chars_per_token.max(0.1)).ceil() + self.prompt_token_ids as f64;
        tokens as u32
    }

    /// Whether [`crate::with_stream_usage`] is needed to learn the token counts of the answer.
    #[must_use]
    pub fn needs_stream_usage(&self) -> bool {
        let says_unasked = self.endpoint == Endpoint::Responses;
        self.stream && !self.include_usage && !says_unasked
    }
}

fn rejection(error: &serde_json::Error, at: &'static str, body: &[u8]) -> RequestError {
    let (line, column) = (error.line(), error.column());
    let before = body.split_inclusive(|&byte| byte == b'\n').take(line.saturating_sub(1));
    let byte = (before.map(<[u8]>::len).sum::<usize>() + column.saturating_sub(1)).min(body.len());
    let mut reason = error.to_string();
    // serde_json appends the place to what it says; here it has members of its own.
    reason.truncate(reason.rfind(" at line ").unwrap_or(reason.len()));
    if error.is_data() {
        RequestError::WrongType {
            param: at,
            reason,
            line,
            column,
            byte,
        }
    } else {
        RequestError::InvalidJson {
            reason,
            line,
            column,
            byte,
        }
    }
}

/// The members read so far.
#[derive(Default)]
struct Members {
    model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<Count<0>>,
    max_completion_tokens: Option<Count<0>>,
    min_tokens: Option<Count<0>>,
    ignore_eos: Option<bool>,
    n: Option<Count<1>>,
    user: Option<String>,
    previous_response_id: Option<String>,
    prompt_embeds: Option<Skipped>,
    cache_salt: Option<String>,
    has_tools: bool,
    is_structured: bool,
    /// Names of members that were read, to notice one that comes twice.
    names: u64,
}

struct Draft<'s> {
    endpoint: Endpoint,
    prompt: Prompt<'s>,
    /// The member being read, for messages.
    at: &'static str,
    seen: Members,
}

/// The members that are read, in the order of their bits in [`Members::names`].
const READ: [&str; 35] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "ignore_eos",
    "n",
    "user",
    "messages",
    "prompt",
    "tools",
    "functions",
    "prompt_embeds",
    "audio",
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "input",
    "instructions",
    "max_output_tokens",
    "previous_response_id",
    "text",
    "query",
    "queries",
    "documents",
    "items",
    "text_1",
    "text_2",
    "data_1",
    "data_2",
    "cache_salt",
];

impl<'de> Visitor<'de> for &mut Draft<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let Some(bit) = READ.iter().position(|name| **name == *key) else {
                map.next_value::<Skipped>()?;
                continue;
            };
            self.at = READ[bit];
            // Which of two an engine would take is anybody's guess.
            if self.seen.names & (1 << bit) != 0 {
                return Err(A::Error::custom("the member comes twice; send it once"));
            }
            self.seen.names |= 1 << bit;
            self.member(&mut map)?;
            self.at = "body";
        }
        Ok(())
    }
}

impl Draft<'_> {
    fn member<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let (seen, prompt) = (&mut self.seen, &mut self.prompt);
        match self.at {
            "model" => read(&mut seen.model, map),
            "stream" => read(&mut seen.stream, map),
            "stream_options" => read(&mut seen.stream_options, map),
            "max_tokens" => read(&mut seen.max_tokens, map),
            "max_completion_tokens" => read(&mut seen.max_completion_tokens, map),
            "min_tokens" => read(&mut seen.min_tokens, map),
            "ignore_eos" => read(&mut seen.ignore_eos, map),
            "n" => read(&mut seen.n, map),
            "user" => read(&mut seen.user, map),
            "cache_salt" => read(&mut seen.cache_salt, map),
            "prompt_embeds" => read(&mut seen.prompt_embeds, map),
            "messages" if self.endpoint.takes_messages() => map.next_value_seed(Messages(prompt)),
            "prompt" if self.endpoint.takes_prompt() => map.next_value_seed(Prompts(prompt)),
            "input" if self.endpoint.takes_input() => map.next_value_seed(Prompts(prompt)),
            "query" | "queries" | "documents" | "items" | "text_1" | "text_2" | "data_1" | "data_2"
                if self.endpoint.ranks() =>
            {
                map.next_value_seed(Texts(prompt))
            }
            "input" | "instructions" | "max_output_tokens" | "previous_response_id" | "text"
                if self.endpoint == Endpoint::Responses =>
            {
                self.of_response(map)
            }
            "tools" | "functions" => {
                seen.has_tools |= map.next_value_seed(Written(prompt))?;
                Ok(())
            }
            "audio" => {
                prompt.has_audio |= map.next_value::<Option<Skipped>>()?.is_some();
                Ok(())
            }
            "response_format" => {
                let format: Option<Format> = map.next_value()?;
                seen.is_structured |= format.is_some_and(|format| format.constrains);
                Ok(())
            }
            "structured_outputs" | "guided_json" | "guided_regex" | "guided_choice" | "guided_grammar" => {
                seen.is_structured |= map.next_value::<Option<Skipped>>()?.is_some();
                Ok(())
            }
            _ => map.next_value::<Skipped>().map(drop),
        }
    }

    fn of_response<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let (seen, prompt) = (&mut self.seen, &mut self.prompt);
        match self.at {
            "input" => map.next_value_seed(Items(prompt)),
            "instructions" => map.next_value_seed(Instructions(prompt)),
            "max_output_tokens" => read(&mut seen.max_completion_tokens, map),
            "previous_response_id" => read(&mut seen.previous_response_id, map),
            _ => {
                let options: Option<TextOptions> = map.next_value()?;
                let format = options.and_then(|options| options.format);
                seen.is_structured |= format.is_some_and(|format| format.constrains);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<RequestHead, RequestError> {
        let (seen, prompt) = (self.seen, self.prompt);
        let model = seen
            .model
            .filter(|model| !model.is_empty())
            .ok_or(RequestError::Missing {
                param: "model",
                mend: "name a model, or `auto`; GET /v1/models lists them",
            })?;
        match self.endpoint {
            Endpoint::Chat if prompt.items == 0 => {
                let mend = "send at least one message, such as {\"role\": \"user\", \"content\": \"Hello\"}";
                return Err(RequestError::Missing {
                    param: "messages",
                    mend,
                });
            }
            Endpoint::Completions if seen.prompt_embeds.is_none() && prompt.chars == 0 && prompt.token_ids == 0 => {
                let mend = "send a string, a list of strings, or a list of token ids";
                return Err(RequestError::Missing { param: "prompt", mend });
            }
            Endpoint::Responses if prompt.items == 0 => {
                let mend = "send a string, or a list of items such as {\"role\": \"user\", \"content\": \"Hello\"}";
                return Err(RequestError::Missing { param: "input", mend });
            }
            Endpoint::Embeddings if prompt.items == 0 => {
                let mend = "send a string, a list of strings, or a list of token ids";
                return Err(RequestError::Missing { param: "input", mend });
            }
            // What is missing there is the engine's to say.
            _ => {}
        }
        Ok(RequestHead {
            endpoint: self.endpoint,
            model,
            stream: seen.stream.unwrap_or(false) && self.endpoint.task() == Task::Generate,
            include_usage: seen
                .stream_options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            max_tokens: seen.max_completion_tokens.or(seen.max_tokens).map(|count| count.0),
            min_tokens: seen.min_tokens.map(|count| count.0),
            ignore_eos: seen.ignore_eos.unwrap_or(false),
            n: seen.n.map_or(1, |count| count.0),
            prompt_chars: prompt.chars,
            prompt_token_ids: prompt.token_ids,
            prompt_items: prompt.items,
            has_tools: seen.has_tools,
            has_images: prompt.has_images,
            has_audio: prompt.has_audio,
            is_structured: seen.is_structured,
            user: seen.user,
            previous_response_id: seen.previous_response_id.filter(|id| !id.is_empty()),
            cache_salt: seen.cache_salt.filter(|salt| !salt.is_empty()),
        })
    }
}

fn read<'de, A: MapAccess<'de>, T: Deserialize<'de>>(slot: &mut Option<T>, map: &mut A) -> Result<(), A::Error> {
    *slot = map.next_value()?;
    Ok(())
}

/// A `response_format`: anything but plain text constrains the answer. What is malformed is left to the engine.
pub(crate) struct Format {
    pub(crate) constrains: bool,
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let format = serde_json::Value::deserialize(deserializer)?;
        let kind = format.get("type").and_then(serde_json::Value::as_str);
        Ok(Self {
            constrains: kind.is_some_and(|kind| kind != "text"),
        })
    }
}

/// A whole number from `LEAST` up, of at most 32 bits; `16.0` counts as 16, as it does for vLLM.
struct Count<const LEAST: u32>(u32);

impl<'de, const LEAST: u32> Deserialize<'de> for Count<LEAST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<const LEAST: u32>;
        impl<const LEAST: u32> Visitor<'_> for Whole<LEAST> {
            type Value = Count<LEAST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {LEAST} to {}", u32::MAX)
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Count<LEAST>, E> {
                match u32::try_from(value) {
                    Ok(count) if count >= LEAST => Ok(Count(count)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(value), &self)),
                }
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Count<LEAST>, E> {
                if value.fract() == 0.0 && (f64::from(LEAST)..=f64::from(u32::MAX)).contains(&value) {
                    return Ok(Count(value as u32));
                }
                Err(E::invalid_value(serde::de::Unexpected::Float(value), &self))
            }
        }
        deserializer.deserialize_any(Whole::<LEAST>)
    }
}

#[cfg(test)]
mod tests;
