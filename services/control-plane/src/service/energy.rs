//! Energy reports.

use super::Services;
use crate::accounting;
use crate::plane::status_of;
use equipoise_energy::Grouping;
use equipoise_proto::v1::energy_service_server::EnergyService;
use equipoise_proto::v1::{EnergyGrouping, EnergyReport, EnergyReportRequest};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl EnergyService for Services {
    async fn report(&self, request: Request<EnergyReportRequest>) -> Result<Response<EnergyReport>, Status> {
        let request = request.into_inner();
        let by = match request.by() {
            EnergyGrouping::Pool | EnergyGrouping::Unspecified => Grouping::Pool,
            EnergyGrouping::Model => Grouping::Model,
            EnergyGrouping::Gpu => Grouping::Gpu,
            EnergyGrouping::Tenant => Grouping::Tenant,
        };
        let (start, end) = (request.start_unix_ns, request.end_unix_ns);
        if end != 0 && end < start {
            return Err(Status::invalid_argument(format!(
                "end_unix_ns {end} lies before start_unix_ns {start}"
            )));
        }
        let report = accounting::report(&self.0, by, start, end).await;
        report.map(Response::new).map_err(|error| status_of(&error))
    }
}
