//! A request in the scheduler's hands, and its one end.

use std::sync::Arc;

use equipoise_openai::Usage;
use equipoise_scheduler::{Event, Failure, TokenUsage};
use equipoise_telemetry::Outcome;
use equipoise_types::{RequestId, Timestamp};

use crate::server::State;

/// A request in the scheduler's hands. Dropped without an ending it is cancelled: the client has gone.
pub(crate) struct Ticket {
    pub(crate) state: Arc<State>,
    pub(crate) id: RequestId,
    pub(crate) model: String,
    pub(crate) arrived_at: Timestamp,
    prompt_chars: u64,
    ended: bool,
}

impl Ticket {
    /// For a request that arrives now. The model's name is the label of a request that no instance got: never what the
    /// client wrote, which may be anything.
    pub(crate) fn new(state: Arc<State>, id: RequestId, prompt_chars: u64) -> Self {
        let arrived_at = state.driver.now();
        Self {
            state,
            id,
            model: "none".to_owned(),
            arrived_at,
            prompt_chars,
            ended: false,
        }
    }

    /// The first answer token came.
    pub(crate) fn first_token(&mut self) {
        let driver = &self.state.driver;
        driver.on_event(Event::FirstToken { request: self.id });
        let elapsed = driver.now().since(self.arrived_at);
        self.state.metrics.observe_ttft(elapsed);
    }

    pub(crate) fn end(&mut self, outcome: Outcome, event: Option<Event>, usage: Option<TokenUsage>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.state.close(self.id, usage, outcome != Outcome::Answered);
        self.state.driver.close_mailbox(self.id);
        self.state.metrics.count_request(&self.model, outcome);
        if let Some(event) = event {
            self.state.driver.on_event(event);
        }
    }

    /// Answered in full.
    pub(crate) fn finish(&mut self, usage: Option<Usage>) {
        self.state
            .observe_answer(self.arrived_at, &self.model, self.prompt_chars, usage);
        let usage = usage.map(|usage| TokenUsage {
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
        });
        self.end(
            Outcome::Answered,
            Some(Event::Finished {
                request: self.id,
                usage,
            }),
            usage,
        );
    }

    /// Answered by the tokenizer: the GPU had no part in it, and how long it took says nothing of the instance.
    pub(crate) fn finish_without_work(&mut self) {
        let event = Event::Cancelled { request: self.id };
        self.end(Outcome::Answered, Some(event), Some(TokenUsage::default()));
    }

    /// Failed for good; the instance is at fault.
    pub(crate) fn fail(&mut self) {
        let event = Event::Failed {
            request: self.id,
            failure: Failure::Final,
        };
        self.end(Outcome::Failed, Some(event), None);
    }

    /// The scheduler has let go of it already.
    pub(crate) fn refused(&mut self, outcome: Outcome) {
        self.end(outcome, None, None);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled, Some(Event::Cancelled { request: self.id }), None);
    }
}
