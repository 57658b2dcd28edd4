//! Answers in the form of the Responses API, whole and as events, as vLLM 0.32 writes them.

use super::Answer;
use crate::length::Finish;
use crate::tokenizer::word;
use std::fmt::Write as _;

/// Events before the first token: created, in progress, item added, part added.
const OPENING_EVENTS: u32 = 4;

impl Answer {
    fn text(&self) -> String {
        (0..self.length.tokens).map(|index| word(self.key, index)).collect()
    }

    fn message_id(&self) -> String {
        format!("msg_{:016x}", self.key)
    }

    /// The finished item of the output.
    fn message(&self) -> String {
        format!(
            "{{\"id\":\"{}\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"completed\",\"content\":[{{\"type\":\
             \"output_text\",\"text\":\"{}\",\"annotations\":[],\"logprobs\":null}}]}}",
            self.message_id(),
            self.text()
        )
    }

    /// The response object. Without an answer yet it has no output and no usage.
    fn response(&self, finished: bool) -> String {
        let cut = finished && self.length.finish == Finish::Length;
        let (status, details) = match (finished, cut) {
            (false, _) => ("in_progress", "null"),
            (true, true) => ("incomplete", "{\"reason\":\"max_output_tokens\"}"),
            (true, false) => ("completed", "null"),
        };
        let (output, usage) = if finished {
            (self.message(), self.response_usage())
        } else {
            (String::new(), "null".to_owned())
        };
        let (id, created, model) = (&self.id, self.created, &self.model_json);
        format!(
            "{{\"id\":\"{id}\",\"object\":\"response\",\"created_at\":{created},\"model\":{model},\"status\":\"{status}\",\
             \"incomplete_details\":{details},\"instructions\":null,\"metadata\":null,\"output\":[{output}],\"parallel_tool_calls\":\
             true,\"temperature\":1.0,\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":1.0,\"background\":false,\
             \"max_output_tokens\":null,\"previous_response_id\":null,\"service_tier\":\"auto\",\"truncation\":\"disabled\",\
             \"usage\":{usage},\"user\":null}}"
        )
    }

    fn response_usage(&self) -> String {
        let (input, cached, output) = (self.prompt_tokens, self.cached_tokens, self.length.tokens);
        let total = u64::from(input) + u64::from(output);
        format!(
            "{{\"input_tokens\":{input},\"input_tokens_details\":{{\"cached_tokens\":{cached}}},\"output_tokens\":{output},\
             \"output_tokens_details\":{{\"reasoning_tokens\":0}},\"total_tokens\":{total}}}"
        )
    }

    /// The whole object.
    pub(crate) fn whole_response(&self) -> String {
        self.response(true)
    }

    /// Appends the events of tokens `from..to`, after the opening ones where they are the first.
    pub(super) fn write_response_tokens(&self, from: u32, to: u32, out: &mut String) {
        let item = self.message_id();
        if from == 0 && to > 0 {
            let response = self.response(false);
            event(out, 0, "response.created", &format!("\"response\":{response}"));
            event(out, 1, "response.in_progress", &format!("\"response\":{response}"));
            let message = format!(
                "{{\"id\":\"{item}\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"in_progress\",\"content\":[]}}"
            );
            event(
                out,
                2,
                "response.output_item.added",
                &format!("\"output_index\":0,\"item\":{message}"),
            );
            let part = "{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}";
            let place = format!("\"item_id\":\"{item}\",\"output_index\":0,\"content_index\":0,\"part\":{part}");
            event(out, 3, "response.content_part.added", &place);
        }
        for index in from..to {
            let delta = word(self.key, index);
            let place = format!(
                "\"item_id\":\"{item}\",\"output_index\":0,\"content_index\":0,\"delta\":\"{delta}\",\"logprobs\":[]"
            );
            event(out, OPENING_EVENTS + index, "response.output_text.delta", &place);
        }
    }

    /// Appends what ends the stream; no `[DONE]` follows.
    pub(super) fn write_response_end(&self, out: &mut String) {
        let (item, text) = (self.message_id(), self.text());
        let place = format!("\"item_id\":\"{item}\",\"output_index\":0,\"content_index\":0");
        let next = OPENING_EVENTS + self.length.tokens;
        let said = format!("{place},\"text\":\"{text}\",\"logprobs\":[]");
        event(out, next, "response.output_text.done", &said);
        let part = format!("{{\"type\":\"output_text\",\"text\":\"{text}\",\"annotations\":[],\"logprobs\":null}}");
        event(
            out,
            next + 1,
            "response.content_part.done",
            &format!("{place},\"part\":{part}"),
        );
        let message = format!("\"output_index\":0,\"item\":{}", self.message());
        event(out, next + 2, "response.output_item.done", &message);
        let name = match self.length.finish {
            Finish::Length => "response.incomplete",
            Finish::Stop => "response.completed",
        };
        event(out, next + 3, name, &format!("\"response\":{}", self.response(true)));
    }
}

fn event(out: &mut String, number: u32, name: &str, members: &str) {
    // Writing to a `String` cannot fail.
    let _ = write!(
        out,
        "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{number},{members}}}\n\n"
    );
}
