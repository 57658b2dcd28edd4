//! Envoy's external processing: the router as the endpoint picker of a gateway
//! (<https://github.com/kubernetes-sigs/gateway-api-inference-extension/tree/main/docs/proposals/004-endpoint-picker-protocol>).
//!
//! One stream is one HTTP request: its headers and body come, where it goes is answered, and then its response passes by, from
//! which the ledger learns. What may come in which order is [`session`]'s business; here is the stream.

mod address;
mod answer;
mod head;
mod session;
mod subset;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use equipoise_proto::ext_proc::external_processor_server::ExternalProcessor;
use equipoise_proto::ext_proc::{ProcessingRequest, ProcessingResponse};
use equipoise_telemetry::ExtProcOutcome;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::pick::Undecided;
use crate::server::State;
use session::{Session, Step};

/// Answers on their way. A gateway that takes none of them is waited for so long.
const ANSWERS: usize = 16;
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages that may come while a request waits at the router: its trailers at most, by the protocol.
const MOST_EARLY: usize = 8;

/// The service.
pub(crate) struct ExtProc(pub(crate) Arc<State>);

#[tonic::async_trait]
impl ExternalProcessor for ExtProc {
    type ProcessStream = ReceiverStream<Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            state.gateway.ext_proc_streams.inc();
            let mut conversation = Conversation {
                session: Session::new(Arc::clone(&state)),
                inbound: request.into_inner(),
                early: Vec::new(),
                answers,
            };
            // An end without a status is a clean one: the gateway goes on without us.
            if let Err(status) = conversation.hold().await {
                state.gateway.count_ext_proc(ExtProcOutcome::Malformed);
                drop(timeout(SEND_TIMEOUT, conversation.answers.send(Err(status))).await);
            }
            state.gateway.ext_proc_streams.dec();
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Conversation {
    session: Session,
    inbound: Streaming<ProcessingRequest>,
    /// Came while a decision was waited for.
    early: Vec<ProcessingRequest>,
    answers: mpsc::Sender<Result<ProcessingResponse, Status>>,
}

/// The other side has gone.
struct Gone;

impl Conversation {
    /// Until either side ends it. An error is the gateway's breach of the protocol.
    async fn hold(&mut self) -> Result<(), Status> {
        let body_due = Instant::now() + self.session.body_timeout();
        loop {
            let message = match self.next(body_due).await {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.session.ended();
                    return Ok(());
                }
                Err(Gone) => return Ok(()),
            };
            let step = match self.session.take(message)? {
                Step::Decide(undecided) => match self.decide(*undecided).await? {
                    Some(step) => step,
                    None => return Ok(()),
                },
                step => step,
            };
            let (answers, last) = match step {
                Step::Answer(answers) => (answers, false),
                Step::End(answer) => (vec![*answer], true),
                Step::Decide(_) => return Err(Status::internal("a decision that asks for another")),
            };
            for answer in answers {
                if self.say(answer).await.is_err() || last {
                    return Ok(());
                }
            }
        }
    }

    /// The next message, in the order of their coming.
    async fn next(&mut self, body_due: Instant) -> Result<Option<ProcessingRequest>, Gone> {
        if !self.early.is_empty() {
            return Ok(Some(self.early.remove(0)));
        }
        if !self.session.awaits_body() {
            return received(self.inbound.message().await);
        }
        match tokio::time::timeout_at(body_due, self.inbound.message()).await {
            Ok(message) => received(message),
            Err(_) => {
                // Whoever hangs up on us then hears why.
                drop(self.say(self.session.too_slow()).await);
                Err(Gone)
            }
        }
    }

    async fn say(&self, answer: ProcessingResponse) -> Result<(), Gone> {
        let sent = timeout(SEND_TIMEOUT, self.answers.send(Ok(answer))).await;
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Waits for a decision; `None` where the gateway has gone meanwhile, which cancels the request.
    async fn decide(&mut self, undecided: Undecided) -> Result<Option<Step>, Status> {
        let decided = undecided.decided();
        tokio::pin!(decided);
        let picked = loop {
            tokio::select! {
                picked = &mut decided => break picked,
                () = self.answers.closed() => return Ok(None),
                message = self.inbound.message(), if self.early.len() < MOST_EARLY => match received(message) {
                    Ok(Some(message)) => self.early.push(message),
                    Ok(None) | Err(Gone) => return Ok(None),
                },
            }
        };
        Ok(Some(match picked {
            Ok(pick) => {
                let address = address::of(pick.engine.client.endpoint()).await;
                self.session.picked(pick, address)
            }
            Err(unpicked) => self.session.unpicked(&unpicked),
        }))
    }
}

/// A reset is an end like any other.
fn received(message: Result<Option<ProcessingRequest>, Status>) -> Result<Option<ProcessingRequest>, Gone> {
    message.map_err(|status| {
        tracing::debug!(%status, "a gateway's stream broke off");
        Gone
    })
}
