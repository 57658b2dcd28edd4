//! One HTTP request as a gateway tells of it: what may come, what is answered, what is booked. No I/O.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use equipoise_openai::{Endpoint, ErrorResponse, with_model};
use equipoise_proto::ext_proc::processing_request::Request as Message;
use equipoise_proto::ext_proc::processing_response::Response as Answer;
use equipoise_proto::ext_proc::{
    BodySendMode, CommonResponse, HttpBody, HttpHeaders, Metadata, ProcessingRequest, ProcessingResponse,
};
use equipoise_scheduler::{Failure, Refusal};
use equipoise_telemetry::ExtProcOutcome;
use http::StatusCode;
use tonic::Status;

use super::head::Head;
use super::watched::Watched;
use super::{address, answer, subset};
use crate::journal::Door;
use crate::pick::{self, Pick, Undecided, Unpicked};
use crate::proxy::{understand, verdict_on};
use crate::server::State;

/// What comes of a message.
pub(super) enum Step {
    /// These go back, in order.
    Answer(Vec<ProcessingResponse>),
    /// This is the last word: the gateway answers its client.
    End(Box<ProcessingResponse>),
    /// Where the request goes is to be waited for.
    Decide(Box<Undecided>),
}

/// How far the request is.
enum Phase {
    /// Nothing has come.
    New,
    /// Its body comes.
    Receiving(Head, BytesMut),
    /// It is being decided: its body, the model that it names, and whether trailers have ended it.
    Deciding { body: Bytes, model: String, trailers: bool },
    /// It is at the engine.
    Sent(Pick, SocketAddr),
    /// The answer passes.
    Answering(Box<Watched>),
    /// Nothing of it is in the ledger, not any more or not ever: the rest passes unread.
    Passing,
}

pub(super) struct Session {
    state: Arc<State>,
    phase: Phase,
    request_mode: BodySendMode,
    response_mode: BodySendMode,
    /// Only to watch: nothing is answered, and so nothing decided.
    silent: bool,
    allowed: Option<BTreeSet<String>>,
}

fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("{what}: that is not how external processing goes"))
}

fn pass(response: fn(equipoise_proto::ext_proc::HeadersResponse) -> Answer) -> Step {
    Step::Answer(vec![answer::of(response(answer::headers(CommonResponse::default())))])
}

impl Session {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            phase: Phase::New,
            // A gateway that does not say it is one of the inference extension's: it must stream both ways.
            request_mode: BodySendMode::FullDuplexStreamed,
            response_mode: BodySendMode::FullDuplexStreamed,
            silent: false,
            allowed: None,
        }
    }

    /// The request's body is being waited for.
    pub(super) fn awaits_body(&self) -> bool {
        matches!(self.phase, Phase::New | Phase::Receiving(..))
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// For one that cannot come now; the stream is to end with it. What was booked is released with the session.
    pub(super) fn take(&mut self, message: ProcessingRequest) -> Result<Step, Status> {
        if let (Phase::New, Some(config)) = (&self.phase, &message.protocol_config) {
            self.request_mode = config.request_body_mode();
            self.response_mode = config.response_body_mode();
        }
        self.silent |= message.observability_mode;
        if let Some(allowed) = message.metadata_context.as_ref().and_then(subset::allowed) {
            self.allowed = Some(allowed);
        }
        let step = match message.request {
            Some(Message::RequestHeaders(headers)) => self.request_headers(headers),
            Some(Message::RequestBody(body)) => self.request_body(&body),
            Some(Message::RequestTrailers(_)) => self.request_trailers(),
            Some(Message::ResponseHeaders(headers)) => {
                self.response_headers(headers, message.metadata_context.as_ref())
            }
            Some(Message::ResponseBody(body)) => self.response_body(&body),
            Some(Message::ResponseTrailers(_)) => self.response_trailers(),
            None => Err(Status::unimplemented("a message of no kind that is known here")),
        }?;
        Ok(match step {
            Step::Answer(_) if self.silent => Step::Answer(Vec::new()),
            step => step,
        })
    }

    fn request_headers(&mut self, message: HttpHeaders) -> Result<Step, Status> {
        if !matches!(self.phase, Phase::New) {
            return Err(malformed("request headers came twice, or after something else"));
        }
        if self.silent {
            self.phase = Phase::Passing;
            return Ok(Step::Answer(Vec::new()));
        }
        let bodyless = message.end_of_stream;
        let head = Head::read(message);
        if bodyless {
            return Ok(self.without_body(&head));
        }
        if Endpoint::from_path(&head.path).is_none() {
            return Ok(self.refuse(&ErrorResponse::not_found(&head.path)));
        }
        self.phase = Phase::Receiving(head, BytesMut::new());
        match self.request_mode {
            // Nothing is said before the whole body has come, as the headers are what the answer changes.
            BodySendMode::FullDuplexStreamed => Ok(Step::Answer(Vec::new())),
            BodySendMode::Buffered | BodySendMode::BufferedPartial => Ok(pass(Answer::RequestHeaders)),
            mode @ (BodySendMode::None | BodySendMode::Streamed | BodySendMode::Grpc) => {
                let message = format!(
                    "The gateway sends no request bodies that its endpoint picker could read: request_body_mode is {}; it must be \
                     FULL_DUPLEX_STREAMED or BUFFERED.",
                    mode.as_str_name()
                );
                Ok(self.refuse(&ErrorResponse::internal(message)))
            }
        }
    }

    /// A request that asks no model for anything (a list of models, say) goes to whoever has least to do; nothing is booked.
    fn without_body(&mut self, head: &Head) -> Step {
        let only = match self.offered() {
            Ok(only) => only,
            Err(step) => return step,
        };
        let now = self.state.driver.now();
        let least_busy = self.state.driver.with_scheduler(|scheduler| {
            let fleet = scheduler.fleet();
            let offered = |name: &str| only.is_empty() || only.contains(name);
            let free = fleet
                .iter()
                .filter(|instance| instance.is_available(now) && offered(&instance.spec.name));
            free.min_by_key(|instance| fleet.ledger().load(now, instance.id).in_flight)
                .map(|instance| instance.id)
        });
        let engine = least_busy.and_then(|id| self.state.engines.get(id));
        let Some(address) = engine.and_then(|engine| address::literal(engine.client.endpoint())) else {
            let problem = format!("No instance is ready for {}.", head.path);
            return self.refuse(&ErrorResponse::unavailable(problem).with_retry_after(1));
        };
        self.phase = Phase::Passing;
        self.state.gateway.count_ext_proc(ExtProcOutcome::Bodyless);
        let answer = Answer::RequestHeaders(answer::headers(answer::destination(address)));
        Step::Answer(vec![with_metadata(answer, address)])
    }

    fn request_body(&mut self, message: &HttpBody) -> Result<Step, Status> {
        let buffered = self.request_mode == BodySendMode::Buffered;
        match &mut self.phase {
            Phase::Receiving(_, content) => {
                let limit = self.state.max_body_bytes;
                if content.len() + message.body.len() > limit {
                    return Ok(self.refuse(&ErrorResponse::too_large(limit as u64)));
                }
                content.extend_from_slice(&message.body);
                if message.end_of_stream || buffered {
                    return self.decide(false);
                }
                if self.request_mode == BodySendMode::BufferedPartial {
                    let limit = message.body.len() as u64;
                    return Ok(self.refuse(&ErrorResponse::too_large(limit)));
                }
                Ok(Step::Answer(Vec::new()))
            }
            Phase::Passing => {
                let answer = self.passed(self.request_mode, message);
                Ok(Step::Answer(vec![answer::of(Answer::RequestBody(answer))]))
            }
            Phase::New => Err(malformed("a request body came before its headers")),
            _ => Err(malformed("more of a request body came after its end")),
        }
    }

    fn request_trailers(&mut self) -> Result<Step, Status> {
        match self.phase {
            Phase::Receiving(..) => self.decide(true),
            Phase::New => Err(malformed("request trailers came before the headers")),
            _ => Ok(Step::Answer(vec![answer::request_trailers()])),
        }
    }

    /// The body is complete.
    fn decide(&mut self, trailers: bool) -> Result<Step, Status> {
        let Phase::Receiving(head, content) = std::mem::replace(&mut self.phase, Phase::Passing) else {
            return Err(Status::internal("a decision without a request"));
        };
        let Some(endpoint) = Endpoint::from_path(&head.path) else {
            return Ok(self.refuse(&ErrorResponse::not_found(&head.path)));
        };
        let only = match self.offered() {
            Ok(only) => only,
            Err(step) => return Ok(step),
        };
        let body = content.freeze();
        // Envoy sends an id with every request, unless it is told not to.
        let mut headers = head.headers;
        self.state.journal.name(&mut headers, &self.state.process);
        let kept = self.state.journal.kept(&headers);
        let understood = self.state.access().caller(&headers);
        let understood =
            understood.and_then(|caller| understand(&self.state, &caller, endpoint, headers, body.clone()));
        let (mut asked, mut request) = match understood {
            Ok(understood) => understood,
            Err(problem) => {
                let door = Door::ExtProc;
                self.state
                    .journal
                    .rejected(&self.state, door, kept, endpoint.path(), &problem);
                return Ok(self.refuse(&problem));
            }
        };
        // What lives on one instance already has its own.
        if request.wishes.only.is_empty() {
            request.wishes.only = only;
        } else if !only.is_empty() {
            request.wishes.only.retain(|name| only.contains(name));
            if request.wishes.only.is_empty() {
                if let Some(reservation) = asked.reservation.take() {
                    reservation.settle(self.state.driver.now(), 0);
                }
                let problem =
                    "The instance that this request belongs to is not among the endpoints that the gateway offers.";
                return Ok(self.refuse(&ErrorResponse::unavailable(problem)));
            }
        }
        let undecided = pick::ask(
            &self.state,
            request,
            asked.head.prompt_chars,
            asked.reservation.take(),
            || asked.opening(Door::ExtProc),
        );
        self.phase = Phase::Deciding {
            body,
            model: asked.head.model,
            trailers,
        };
        Ok(Step::Decide(Box::new(undecided)))
    }

    /// The instances that the gateway lets us pick from, by name; empty for all. A step where it leaves none.
    fn offered(&mut self) -> Result<BTreeSet<String>, Step> {
        let Some(allowed) = &self.allowed else {
            return Ok(BTreeSet::new());
        };
        let names = self.state.engines.names_where(|engine| {
            let address = address::literal(engine.client.endpoint());
            address.is_some_and(|address| allowed.contains(&address.to_string()))
        });
        if names.is_empty() {
            let problem = "None of the endpoints that the gateway offers is an instance that is known here.";
            return Err(self.refuse(&ErrorResponse::unavailable(problem).with_retry_after(1)));
        }
        Ok(names)
    }

    /// The decision fell.
    pub(super) fn picked(&mut self, pick: Pick, address: Option<SocketAddr>) -> Step {
        let Phase::Deciding { body, model, trailers } = std::mem::replace(&mut self.phase, Phase::Passing) else {
            return self.refuse(&ErrorResponse::internal("a decision that nobody waits for"));
        };
        let Some(address) = address else {
            let problem = format!("The engine {} has no address.", pick.engine.client.endpoint());
            return self.refuse(&ErrorResponse::unavailable(problem).with_retry_after(1));
        };
        let renamed = (model != pick.engine.model)
            .then(|| with_model(&body, &pick.engine.model).ok())
            .flatten();
        self.state.gateway.count_ext_proc(ExtProcOutcome::Picked);
        self.phase = Phase::Sent(pick, address);
        let mut destination = answer::destination(address);
        if let (Some(mutation), true) = (&mut destination.header_mutation, self.state.access().asks_for_keys()) {
            // It opened this door, and is no engine's business.
            mutation.remove_headers.push("authorization".to_owned());
        }
        if self.request_mode == BodySendMode::FullDuplexStreamed {
            let first = Answer::RequestHeaders(answer::headers(destination));
            let mut answers = vec![with_metadata(first, address)];
            let parts = answer::parts(renamed.as_ref().unwrap_or(&body), trailers);
            answers.extend(parts.map(|part| answer::of(Answer::RequestBody(part))));
            if trailers {
                answers.push(answer::request_trailers());
            }
            return Step::Answer(answers);
        }
        if let Some(renamed) = renamed {
            // Envoy refuses a replaced body that does not fit its announced length.
            let length = answer::mutation(&[("content-length", &renamed.len().to_string())]);
            if let Some(mutation) = &mut destination.header_mutation {
                mutation.set_headers.extend(length.set_headers);
            }
            destination.body_mutation = Some(answer::replaced_body(&renamed));
        }
        let first = Answer::RequestBody(answer::body(destination));
        Step::Answer(vec![with_metadata(first, address)])
    }

    /// Nobody is to serve it.
    pub(super) fn unpicked(&mut self, unpicked: &Unpicked) -> Step {
        // Of the endpoints that were offered none is eligible: by the protocol that is 503, whatever the reason.
        if self.allowed.is_some() && matches!(unpicked.reason, Some(Refusal::Infeasible { .. })) {
            let mut problem = (*unpicked.problem).clone();
            problem.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
            return self.refuse(&problem);
        }
        self.refuse(&unpicked.problem)
    }

    /// How long a request's body may take.
    pub(super) fn body_timeout(&self) -> std::time::Duration {
        self.state.body_timeout
    }

    pub(super) fn too_slow(&self) -> ProcessingResponse {
        self.state.gateway.count_ext_proc(ExtProcOutcome::Refused);
        let mut problem = ErrorResponse::timeout("The request body did not arrive in time.");
        problem.status = StatusCode::REQUEST_TIMEOUT.as_u16();
        answer::immediate(&problem)
    }

    fn refuse(&mut self, problem: &ErrorResponse) -> Step {
        self.phase = Phase::Passing;
        self.state.gateway.count_ext_proc(ExtProcOutcome::Refused);
        Step::End(Box::new(answer::immediate(problem)))
    }

    fn response_headers(&mut self, message: HttpHeaders, metadata: Option<&Metadata>) -> Result<Step, Status> {
        let (mut pick, address) = match std::mem::replace(&mut self.phase, Phase::Passing) {
            Phase::Sent(pick, address) => (pick, address),
            Phase::Answering(_) => return Err(malformed("response headers came twice")),
            // The gateway answers by itself, before the request was complete or without asking.
            _ => return Ok(pass(Answer::ResponseHeaders)),
        };
        let ends = message.end_of_stream;
        let head = Head::read(message);
        let decision = pick.decision_name();
        let headers = answer::mutation(&[
            ("x-equipoise-instance", &pick.engine.name),
            ("x-equipoise-model", &pick.engine.model),
            ("x-equipoise-decision-id", &decision),
        ]);
        let elsewhere = metadata
            .and_then(subset::served)
            .is_some_and(|served| served != address.to_string());
        if elsewhere {
            tracing::debug!(decision, "the gateway has sent a request elsewhere than it was told");
            drop(pick);
            return Ok(pass(Answer::ResponseHeaders));
        }
        let status = head.status.unwrap_or(StatusCode::BAD_GATEWAY);
        pick.answered(status);
        match verdict_on(status) {
            None if status.is_success() => {
                let watched = Watched::new(pick, &head);
                if ends {
                    watched.complete();
                } else {
                    self.phase = Phase::Answering(Box::new(watched));
                }
            }
            None | Some(Failure::Overloaded) => pick.turned_down(),
            Some(_) => pick.fail(),
        }
        let answer = answer::headers(CommonResponse {
            header_mutation: Some(headers),
            ..CommonResponse::default()
        });
        Ok(Step::Answer(vec![answer::of(Answer::ResponseHeaders(answer))]))
    }

    fn response_body(&mut self, message: &HttpBody) -> Result<Step, Status> {
        match &mut self.phase {
            Phase::Answering(watched) => watched.take(&message.body),
            Phase::Passing => {}
            _ => return Err(malformed("a response body came before its headers")),
        }
        if message.end_of_stream {
            self.complete();
        }
        let answer = self.passed(self.response_mode, message);
        Ok(Step::Answer(vec![answer::of(Answer::ResponseBody(answer))]))
    }

    fn response_trailers(&mut self) -> Result<Step, Status> {
        match self.phase {
            Phase::Answering(_) | Phase::Passing => {}
            _ => return Err(malformed("response trailers came before the headers")),
        }
        self.complete();
        Ok(Step::Answer(vec![answer::response_trailers()]))
    }

    fn complete(&mut self) {
        if let Phase::Answering(watched) = std::mem::replace(&mut self.phase, Phase::Passing) {
            watched.complete();
        }
    }

    /// A part of a body that goes on as it came.
    fn passed(&self, mode: BodySendMode, message: &HttpBody) -> equipoise_proto::ext_proc::BodyResponse {
        if mode == BodySendMode::FullDuplexStreamed {
            answer::part(&message.body, message.end_of_stream)
        } else {
            answer::body(CommonResponse::default())
        }
    }

    /// The gateway has ended the stream. A pick whose answer has not begun is dropped, which cancels it.
    pub(super) fn ended(&mut self) {
        if let Phase::Answering(watched) = std::mem::replace(&mut self.phase, Phase::Passing) {
            watched.cut_off();
        }
    }
}

fn with_metadata(answer: Answer, address: SocketAddr) -> ProcessingResponse {
    ProcessingResponse {
        dynamic_metadata: Some(answer::metadata(address)),
        ..answer::of(answer)
    }
}
