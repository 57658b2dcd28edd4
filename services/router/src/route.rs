//! `equipoise.v1.RouteService`: decisions for those who send by themselves.

mod open;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use equipoise_openai::{ErrorResponse, Usage};
use equipoise_proto::v1;
use equipoise_proto::v1::report::What;
use equipoise_proto::v1::route_service_server::RouteService;
use equipoise_scheduler::Failure;
use tonic::{Request, Response, Status};

use crate::journal::Door;
use crate::pick::{self, Pick, Undecided, Unpicked};
use crate::server::State;
pub(crate) use open::OpenPicks;

const REPORT_WITHIN: Duration = Duration::from_secs(60);
const REPORT_WITHIN_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

/// The service.
pub(crate) struct Route {
    state: Arc<State>,
    open: Arc<OpenPicks>,
}

impl Route {
    pub(crate) fn new(state: Arc<State>, open: Arc<OpenPicks>) -> Self {
        Self { state, open }
    }

    /// Waits for the decision and keeps it until it is reported to have ended.
    async fn decide(
        &self,
        undecided: Undecided,
        report_within: Duration,
    ) -> Result<Response<v1::PickResponse>, Status> {
        let pick = undecided.decided().await.map_err(|unpicked| refused(&unpicked))?;
        let response = described(&pick, report_within);
        self.open.insert(pick, report_within);
        Ok(Response::new(response))
    }

    fn unknown(&self, decision: &str) -> Status {
        Status::not_found(format!(
            "The pick `{decision}` is not open: it has ended, it expired, or it is another router's. This one is `{}`.",
            self.state.name
        ))
    }

    fn report(&self, report: &v1::Report) -> bool {
        let Some(decision) = self.state.decision_number(&report.decision_id) else {
            return false;
        };
        let open = &self.open;
        match &report.what {
            Some(What::FirstToken(_)) => open.update(decision, Pick::first_token),
            Some(What::Tokens(tokens)) => open.update(decision, |pick| pick.produced(tokens.count)),
            Some(What::Finished(counts)) => open.take(decision).map(|pick| pick.finish(usage(*counts))).is_some(),
            Some(What::Failed(_)) => open.take(decision).map(Pick::fail).is_some(),
            Some(What::Cancelled(_)) => open.take(decision).map(drop).is_some(),
            // A newer client's word for something. That it is alive is all that it says here.
            None => open.update(decision, |_| {}),
        }
    }
}

/// Half a count is none.
fn usage(counts: v1::Finished) -> Option<Usage> {
    Some(Usage {
        prompt_tokens: counts.prompt_tokens?,
        completion_tokens: counts.output_tokens?,
        cached_tokens: None,
    })
}

fn described(pick: &Pick, report_within: Duration) -> v1::PickResponse {
    let estimate = &pick.dispatch.estimate;
    v1::PickResponse {
        decision_id: pick.decision_name(),
        instance: pick.engine.name.clone(),
        endpoint: pick.engine.client.endpoint().to_owned(),
        model: pick.engine.model.clone(),
        attempt: pick.dispatch.attempt,
        waited_ms: pick.dispatch.waited_s * 1e3,
        estimate: Some(v1::Estimate {
            quality: estimate.quality,
            output_tokens: estimate.output_tokens,
            queue_s: estimate.queue_s,
            ttft_s: estimate.ttft_s,
            tpot_s: estimate.tpot_s,
            e2e_s: estimate.e2e_s,
            joules: estimate.energy.0,
            cost_usd: estimate.cost_usd,
        }),
        score: pick.dispatch.score,
        report_within_ms: u32::try_from(report_within.as_millis()).unwrap_or(u32::MAX),
    }
}

fn refused(unpicked: &Unpicked) -> Status {
    status(&unpicked.problem)
}

/// An HTTP refusal in gRPC's words.
fn status(problem: &ErrorResponse) -> Status {
    let message = problem.body.message.clone();
    let mut status = match problem.status {
        404 => Status::not_found(message),
        400 if is_infeasible(problem) => Status::failed_precondition(message),
        401 => Status::unauthenticated(message),
        403 => Status::permission_denied(message),
        400..=428 => Status::invalid_argument(message),
        429 => Status::resource_exhausted(message),
        500 => Status::internal(message),
        _ => Status::unavailable(message),
    };
    if let Some(seconds) = problem.retry_after_s {
        status.metadata_mut().insert("retry-after-s", seconds.into());
    }
    status
}

fn is_infeasible(problem: &ErrorResponse) -> bool {
    matches!(&problem.body.code, Some(equipoise_openai::ErrorCode::Name(name)) if name == "infeasible")
}

fn report_within(asked_ms: u32) -> Result<Duration, Status> {
    match asked_ms {
        0 => Ok(REPORT_WITHIN),
        ms if REPORT_WITHIN_MS.contains(&ms) => Ok(Duration::from_millis(ms.into())),
        ms => Err(Status::invalid_argument(format!(
            "`report_within_ms` is {ms}; it must be from {} to {}, or 0",
            REPORT_WITHIN_MS.start(),
            REPORT_WITHIN_MS.end()
        ))),
    }
}

#[tonic::async_trait]
impl RouteService for Route {
    async fn pick(&self, request: Request<v1::PickRequest>) -> Result<Response<v1::PickResponse>, Status> {
        let key = request.metadata().get("authorization").cloned();
        let asked = request.into_inner();
        let within = report_within(asked.report_within_ms)?;
        // Before anything is taken from a tenant's limits.
        self.open.has_room()?;
        let key = key.and_then(|key| http::HeaderValue::from_bytes(key.as_encoded_bytes()).ok());
        let wanted = wanted::request(&self.state, key, asked).map_err(|problem| {
            // Whoever calls has no headers of a client to show.
            let headers = Some(http::HeaderMap::new());
            self.state
                .journal
                .rejected(&self.state, Door::Route, headers, "", &problem);
            status(&problem)
        })?;
        let undecided = pick::ask(
            &self.state,
            wanted.request,
            wanted.prompt_chars,
            wanted.reservation,
            || wanted.opening,
        );
        self.decide(undecided, within).await
    }

    async fn report(&self, request: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        let reports = request.into_inner().reports;
        let known = reports.into_iter().map(|report| Route::report(self, &report)).collect();
        Ok(Response::new(v1::ReportResponse { known }))
    }

    async fn pick_again(&self, request: Request<v1::PickAgainRequest>) -> Result<Response<v1::PickResponse>, Status> {
        let asked = request.into_inner();
        let failure = match asked.failure() {
            v1::PickFailure::Unreached => Failure::Unreached,
            v1::PickFailure::Errored => Failure::Errored,
            v1::PickFailure::Overloaded => Failure::Overloaded,
            v1::PickFailure::Unspecified => {
                return Err(Status::invalid_argument(
                    "`failure` says nothing; say how the pick failed",
                ));
            }
        };
        let open = self
            .state
            .decision_number(&asked.decision_id)
            .and_then(|decision| self.open.take_with_deadline(decision));
        let (pick, within) = open.ok_or_else(|| self.unknown(&asked.decision_id))?;
        self.decide(pick.elsewhere(failure), within).await
    }
}
