//! A request in the scheduler's hands, and its one end.

use std::sync::Arc;

use equipoise_openai::{ErrorResponse, Usage};
use equipoise_scheduler::{Dispatch, Event, Failure, TokenUsage};
use equipoise_telemetry::Outcome;
use equipoise_types::{RequestId, Timestamp};
use http::StatusCode;

use crate::access::Reservation;
use crate::engines::Engine;
use crate::journal::{Closing, Record};
use crate::server::State;

/// A request in the scheduler's hands. Dropped without an ending it is cancelled: the client has gone.
pub(crate) struct Ticket {
    pub(crate) state: Arc<State>,
    pub(crate) id: RequestId,
    pub(crate) model: String,
    pub(crate) arrived_at: Timestamp,
    /// What it holds of its tenant's limits.
    pub(crate) reservation: Option<Reservation>,
    prompt_chars: u64,
    /// What is told of it in the end, if anything.
    record: Option<Box<Record>>,
    /// Of two that were sent for one request, not the one that is told of.
    is_twin: bool,
    ended: bool,
}

impl Ticket {
    /// For a request that arrives now. The model's name is the label of a request that no instance got: never what the
    /// client wrote, which may be anything.
    pub(crate) fn new(state: Arc<State>, id: RequestId, prompt_chars: u64, record: Option<Box<Record>>) -> Self {
        let arrived_at = state.driver.now();
        Self {
            state,
            id,
            model: "none".to_owned(),
            arrived_at,
            reservation: None,
            prompt_chars,
            record,
            is_twin: false,
            ended: false,
        }
    }

    /// For a request that is out already, and goes out a second time: what is counted of a request is counted of the other.
    pub(crate) fn twin(state: Arc<State>, id: RequestId, prompt_chars: u64) -> Self {
        let mut ticket = Self::new(state, id, prompt_chars, None);
        ticket.is_twin = true;
        ticket
    }

    /// Makes the twin the one that is told of, and this one the twin.
    pub(crate) fn hand_over(&mut self, twin: &mut Self) {
        twin.arrived_at = self.arrived_at;
        twin.reservation = self.reservation.take();
        twin.record = self.record.take();
        (self.is_twin, twin.is_twin) = (true, false);
    }

    /// The first answer token came.
    pub(crate) fn first_token(&mut self) {
        let driver = &self.state.driver;
        driver.on_event(Event::FirstToken { request: self.id });
        let elapsed = driver.now().since(self.arrived_at);
        self.state.metrics.observe_ttft(elapsed);
        if let Some(record) = &mut self.record {
            record.ttft_s = Some(elapsed.as_secs_f64());
        }
    }

    /// It goes to an instance.
    pub(crate) fn dispatched(&mut self, dispatch: &Dispatch, engine: &Engine) {
        self.model.clone_from(&engine.model);
        if let Some(record) = &mut self.record {
            record.dispatched(&self.state, dispatch, engine);
        }
    }

    /// The router answers by itself.
    pub(crate) fn said(&mut self, problem: &ErrorResponse) {
        if let Some(record) = &mut self.record {
            record.said(problem);
        }
    }

    /// The engine answers with this status.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if let Some(record) = &mut self.record {
            record.answered(status);
        }
    }

    /// So much of the engine's answer came.
    pub(crate) fn passed(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.bytes_out += bytes as u64;
        }
    }

    pub(crate) fn end(&mut self, outcome: Outcome, event: Option<Event>, usage: Option<TokenUsage>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.settle(outcome, usage);
        self.state.close(self.id, usage, outcome != Outcome::Answered);
        self.state.driver.close_mailbox(self.id);
        if !self.is_twin {
            self.state.metrics.count_request(&self.model, outcome);
        }
        if let Some(record) = self.record.take() {
            let closing = Closing {
                arrived_at: self.arrived_at,
                outcome,
                usage,
            };
            self.state.journal.close(&self.state, record, &closing);
        }
        if let Some(event) = event {
            self.state.driver.on_event(event);
        }
    }

    /// What was answered counts as the engine counted it, what never ran not at all, and the rest as it was estimated.
    fn settle(&mut self, outcome: Outcome, usage: Option<TokenUsage>) {
        let spent = match (outcome, usage) {
            (_, Some(usage)) => u64::from(usage.prompt_tokens) + u64::from(usage.output_tokens),
            (Outcome::Refused | Outcome::Failed, None) => 0,
            (Outcome::Answered | Outcome::Cancelled, None) => return,
        };
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(self.state.driver.now(), spent);
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
