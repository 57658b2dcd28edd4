//! Feedback on answers: over HTTP and gRPC, to the scheduler, and into the metrics.

use std::sync::Arc;

use equipoise_openai::ErrorResponse;
use equipoise_proto::v1;
use equipoise_proto::v1::feedback_service_server::FeedbackService;
use equipoise_proto::v1::give_feedback_request::Outcome;
use equipoise_scheduler::{Event, FeedbackError};
use equipoise_telemetry::FeedbackOutcome;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use crate::relay::{ClientResponse, content, error};
use crate::server::State;

/// Where clients send it.
pub(crate) const FEEDBACK: &str = "/v1/feedback";
/// A body has two members; more than this is something else.
const MAX_BODY_BYTES: usize = 64 << 10;
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    decision_id: String,
    score: Option<f64>,
    passed: Option<bool>,
}

/// Feedback that was taken.
struct Taken {
    model: String,
    predicted: f64,
}

/// Feedback that was not, for either kind of client.
struct Refused {
    outcome: FeedbackOutcome,
    message: String,
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused {
        outcome: FeedbackOutcome::Invalid,
        message: message.into(),
    }
}

/// Gives a score to the scheduler.
fn give(state: &State, decision: &str, score: f64) -> Result<Taken, Refused> {
    let unknown = || Refused {
        outcome: FeedbackOutcome::Unknown,
        message: state.unknown_decision(decision),
    };
    let out_of_range = || invalid(format!("`score` is {score}; it must be from 0 to 1."));
    if !(0.0..=1.0).contains(&score) {
        return Err(out_of_range());
    }
    let number = state.decision_number(decision).ok_or_else(unknown)?;
    let feedback = Event::Feedback {
        decision: number,
        score,
    };
    let (mut answer, mut regret) = (None, 0.0);
    state.driver.on_events([feedback], |scheduler| {
        regret = scheduler.cumulative_regret();
        answer = scheduler.last_feedback().map(|answer| {
            answer.map(|judgement| {
                let model = scheduler.fleet().model(judgement.model);
                (judgement, model.map_or_else(String::new, |model| model.name.clone()))
            })
        });
    });
    match answer {
        Some(Ok((judgement, model))) => {
            state
                .metrics
                .observe_feedback(&model, judgement.predicted, judgement.score, regret);
            Ok(Taken {
                model,
                predicted: judgement.predicted,
            })
        }
        Some(Err(FeedbackError::Duplicate)) => Err(Refused {
            outcome: FeedbackOutcome::Duplicate,
            message: format!("The decision `{decision}` has feedback already; the first counts."),
        }),
        Some(Err(FeedbackError::OutOfRange)) => Err(out_of_range()),
        Some(Err(FeedbackError::Unknown)) | None => Err(unknown()),
    }
}

/// The same, counted.
fn take(state: &State, decision: &str, score: Result<f64, Refused>) -> Result<Taken, Refused> {
    let taken = score.and_then(|score| give(state, decision, score));
    let outcome = taken
        .as_ref()
        .map_or_else(|refused| refused.outcome, |_| FeedbackOutcome::Taken);
    state.metrics.count_feedback(outcome);
    taken
}

fn score_of(score: Option<f64>, passed: Option<bool>) -> Result<f64, Refused> {
    match (score, passed) {
        (Some(score), None) => Ok(score),
        (None, Some(passed)) => Ok(f64::from(u8::from(passed))),
        (Some(_), Some(_)) => Err(invalid(
            "`score` and `passed` are two ways to say the same; send one of them.",
        )),
        (None, None) => Err(invalid("Send `score`, from 0 to 1, or `passed`, true or false.")),
    }
}

/// `POST /v1/feedback`.
pub(crate) async fn post(state: &State, body: Incoming) -> ClientResponse {
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let body: Result<Body, Refused> = match body {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).map_err(|problem| {
            invalid(format!(
                "The body is no feedback: {problem}. Send {{\"decision_id\": \"...\", \"score\": 0.5}}."
            ))
        }),
        Ok(Err(problem)) => Err(invalid(format!("The body cannot be read: {problem}."))),
        Err(_) => Err(invalid("The body did not arrive within 10 s.")),
    };
    let answer = match body {
        Ok(body) => {
            let taken = take(state, &body.decision_id, score_of(body.score, body.passed));
            taken.map(|taken| (body.decision_id, taken))
        }
        Err(refused) => {
            state.metrics.count_feedback(refused.outcome);
            Err(refused)
        }
    };
    match answer {
        Ok((decision, taken)) => {
            let said = json!({
                "decision_id": decision,
                "model": taken.model,
                "predicted_quality": taken.predicted,
            });
            content("application/json", said.to_string())
        }
        Err(Refused { outcome, message }) => {
            let (status, code) = match outcome {
                FeedbackOutcome::Duplicate => (409, "duplicate_feedback"),
                FeedbackOutcome::Unknown => (404, "unknown_decision"),
                FeedbackOutcome::Invalid | FeedbackOutcome::Taken => (400, "invalid_feedback"),
            };
            let mut problem = ErrorResponse::invalid_request(message).with_code(code);
            problem.status = status;
            error(&problem)
        }
    }
}

/// The gRPC side.
pub(crate) struct Feedback(pub(crate) Arc<State>);

#[tonic::async_trait]
impl FeedbackService for Feedback {
    async fn give(
        &self,
        request: tonic::Request<v1::GiveFeedbackRequest>,
    ) -> Result<tonic::Response<v1::GiveFeedbackResponse>, tonic::Status> {
        let v1::GiveFeedbackRequest { decision_id, outcome } = request.into_inner();
        let score = match outcome {
            Some(Outcome::Score(score)) => score_of(Some(score), None),
            Some(Outcome::Passed(passed)) => score_of(None, Some(passed)),
            None => score_of(None, None),
        };
        match take(&self.0, &decision_id, score) {
            Ok(taken) => Ok(tonic::Response::new(v1::GiveFeedbackResponse {
                model: taken.model,
                predicted_quality: taken.predicted,
            })),
            Err(Refused { outcome, message }) => Err(match outcome {
                FeedbackOutcome::Duplicate => tonic::Status::already_exists(message),
                FeedbackOutcome::Unknown => tonic::Status::not_found(message),
                FeedbackOutcome::Invalid | FeedbackOutcome::Taken => tonic::Status::invalid_argument(message),
            }),
        }
    }
}
