//! Refusals in HTTP: OpenAI's error object with the right status.

use equipoise_openai::ErrorResponse;
use equipoise_scheduler::Refusal;

/// What a refused client is told.
pub(crate) fn response(refusal: &Refusal) -> ErrorResponse {
    let text = refusal.to_string();
    match refusal {
        Refusal::UnknownModel { model, served } => {
            ErrorResponse::model_not_found(model, served.split(", ").chain(["auto"]))
        }
        Refusal::Infeasible { .. } => ErrorResponse::invalid_request(text).with_code("infeasible"),
        Refusal::Unavailable { .. } | Refusal::Overloaded { .. } => {
            ErrorResponse::unavailable(text).with_retry_after(1)
        }
        Refusal::BudgetExhausted { retry_after_s, .. }
        | Refusal::QueueFull { retry_after_s, .. }
        | Refusal::QueueTimeout { retry_after_s, .. }
        | Refusal::SloMissed { retry_after_s, .. } => ErrorResponse::too_many_requests(text)
            .with_code(refusal.code())
            .with_retry_after(*retry_after_s),
        Refusal::Exhausted { .. } | Refusal::Errored { .. } => ErrorResponse::upstream_failed(text).with_retry_after(1),
    }
}
