//! Requests that the router decides on and somebody else sends: a gateway, or a client with connections of its own. What
//! they say of the answer goes to the ledger as if the router had relayed it.

use std::sync::Arc;
use std::time::Duration;

use equipoise_openai::{ErrorResponse, Usage};
use equipoise_policy::Request;
use equipoise_scheduler::{Dispatch, Event, Failure, Refusal};
use equipoise_telemetry::Outcome;
use equipoise_types::{DecisionId, Timestamp};
use http::StatusCode;

use crate::access::Reservation;
use crate::activity::Running;
use crate::driver::{Mailbox, Verdict};
use crate::engines::Engine;
use crate::journal::Opening;
use crate::refusal;
use crate::server::State;
use crate::ticket::Ticket;

/// Tokens reach the scheduler in batches, as those of a relayed stream do.
const TOKENS_PER_EVENT: u32 = 16;
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// A request in the scheduler's hands that has no instance. Dropped it is cancelled.
pub(crate) struct Undecided {
    ticket: Ticket,
    verdicts: Mailbox,
    tenant: Option<String>,
    prompt_tokens: u32,
    silent: bool,
}

/// A decision that somebody else carries out. Dropped without an end it is cancelled: the ledger is released, and nothing is
/// learned.
pub(crate) struct Pick {
    pub(crate) dispatch: Box<Dispatch>,
    pub(crate) engine: Arc<Engine>,
    request: Undecided,
    running: Option<Arc<Running>>,
    first_token: bool,
    unsent_tokens: u32,
    told_at: Timestamp,
}

/// A request that gets no instance.
pub(crate) struct Unpicked {
    /// The scheduler's reason, where it is its refusal.
    pub(crate) reason: Option<Refusal>,
    pub(crate) problem: Box<ErrorResponse>,
}

/// Hands a request in.
pub(crate) fn ask(
    state: &Arc<State>,
    mut request: Request,
    prompt_chars: u64,
    reservation: Option<Reservation>,
    opening: impl FnOnce() -> Opening,
) -> Undecided {
    let (id, verdicts) = state.driver.open_mailbox();
    request.id = id;
    let mut ticket = Ticket::new(Arc::clone(state), id, prompt_chars, state.journal.open(opening));
    ticket.reservation = reservation;
    let undecided = Undecided {
        ticket,
        verdicts,
        tenant: request.tenant.clone(),
        prompt_tokens: request.prompt_tokens,
        silent: !request.streams,
    };
    state.driver.arrive(request);
    undecided
}

impl Undecided {
    /// Waits for the decision: as long as the request may wait at the router.
    pub(crate) async fn decided(mut self) -> Result<Pick, Unpicked> {
        loop {
            match self.verdicts.recv().await {
                Some(Verdict::Dispatch(dispatch)) => {
                    let state = Arc::clone(&self.ticket.state);
                    let Some(engine) = state.engines.get(dispatch.instance) else {
                        // Its endpoint is unusable: said when it was declared.
                        self.failed(Failure::Unreached);
                        continue;
                    };
                    if dispatch.explored {
                        state.metrics.explored.inc();
                    }
                    self.ticket.dispatched(&dispatch, &engine);
                    let (id, tenant) = (self.ticket.id, self.tenant.clone());
                    state.begin(id, tenant, self.prompt_tokens, self.silent, &dispatch, &engine);
                    return Ok(Pick {
                        running: state.running(id),
                        told_at: state.driver.now(),
                        dispatch,
                        engine,
                        request: self,
                        first_token: false,
                        unsent_tokens: 0,
                    });
                }
                Some(Verdict::Refuse(reason)) => {
                    self.ticket.state.metrics.count_refusal(reason.code());
                    let failed = matches!(reason, Refusal::Exhausted { .. });
                    let problem = Box::new(refusal::response(&reason));
                    self.ticket.said(&problem);
                    self.ticket
                        .refused(if failed { Outcome::Failed } else { Outcome::Refused });
                    return Err(Unpicked {
                        problem,
                        reason: Some(reason),
                    });
                }
                // Nothing is held back that the router does not see, and the driver keeps the mailbox until the ticket ends.
                Some(Verdict::Deliver) | None => {
                    return Err(Unpicked {
                        reason: None,
                        problem: Box::new(ErrorResponse::internal("the router lost track of the request")),
                    });
                }
            }
        }
    }

    fn failed(&self, failure: Failure) {
        let request = self.ticket.id;
        self.ticket.state.driver.on_event(Event::Failed { request, failure });
    }
}

impl Pick {
    pub(crate) fn decision(&self) -> DecisionId {
        self.dispatch.decision
    }

    /// Its name for people and for reports.
    pub(crate) fn decision_name(&self) -> String {
        self.request.ticket.state.decision_name(self.dispatch.decision)
    }

    /// The first token came; said twice it counts once.
    pub(crate) fn first_token(&mut self) {
        if !std::mem::replace(&mut self.first_token, true) {
            if let Some(running) = &self.running {
                running.produced(1);
            }
            self.request.ticket.first_token();
        }
    }

    /// So many tokens came; the first among them, if it has not been said before.
    pub(crate) fn produced(&mut self, tokens: u32) {
        let mut more = tokens;
        if tokens > 0 && !self.first_token {
            self.first_token();
            more -= 1;
        }
        if more == 0 {
            return;
        }
        if let Some(running) = &self.running {
            running.produced(more);
        }
        self.unsent_tokens = self.unsent_tokens.saturating_add(more);
        let now = self.request.ticket.state.driver.now();
        if self.unsent_tokens >= TOKENS_PER_EVENT || now.since(self.told_at) >= EVENT_INTERVAL {
            self.told_at = now;
            self.tell();
        }
    }

    /// The engine answered with this status.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.request.ticket.answered(status);
    }

    /// So much of the answer passed.
    pub(crate) fn passed(&mut self, bytes: usize) {
        self.request.ticket.passed(bytes);
    }

    fn tell(&mut self) {
        let count = std::mem::take(&mut self.unsent_tokens);
        if count > 0 {
            let request = self.request.ticket.id;
            self.request
                .ticket
                .state
                .driver
                .on_event(Event::Tokens { request, count });
        }
    }

    /// Answered in full.
    pub(crate) fn finish(mut self, usage: Option<Usage>) {
        self.tell();
        self.request.ticket.finish(usage);
    }

    /// Failed for good; the instance is at fault.
    pub(crate) fn fail(mut self) {
        self.tell();
        self.request.ticket.fail();
    }

    /// The engine found fault with the request, or had no room for it: nobody's failure, and nothing to learn from.
    pub(crate) fn turned_down(mut self) {
        let request = self.request.ticket.id;
        self.request
            .ticket
            .end(Outcome::Refused, Some(Event::Cancelled { request }), None);
    }

    /// Failed before anybody saw anything of an answer: may go elsewhere.
    pub(crate) fn elsewhere(self, failure: Failure) -> Undecided {
        let request = self.request;
        // Its work there ends here; the next try is accounted on its own.
        request.ticket.state.close(request.ticket.id, None, true);
        request.failed(failure);
        request
    }
}
