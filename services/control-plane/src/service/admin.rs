//! Operators.

use super::Services;
use equipoise_proto::v1::admin_service_server::AdminService;
use equipoise_proto::v1::{
    Config, DescribeInstanceRequest, GetConfigRequest, InstanceState, ListInstancesRequest, ListInstancesResponse,
    SetDrainingRequest, SetWeightRequest,
};
use std::time::Instant;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl AdminService for Services {
    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let pool = request.into_inner().pool;
        let routing = self.0.routing.lock();
        let mut instances = routing.fleet.states();
        if !pool.is_empty() {
            instances.retain(|state| state.instance.as_ref().is_some_and(|instance| instance.pool == pool));
        }
        Ok(Response::new(ListInstancesResponse {
            instances,
            routers: routing.routers(Instant::now()),
        }))
    }

    async fn describe_instance(
        &self,
        request: Request<DescribeInstanceRequest>,
    ) -> Result<Response<InstanceState>, Status> {
        self.0.known(&request.into_inner().name).map(Response::new)
    }

    async fn set_draining(&self, request: Request<SetDrainingRequest>) -> Result<Response<InstanceState>, Status> {
        let SetDrainingRequest { name, draining } = request.into_inner();
        let state = self.0.set_wish(&name, |wish| wish.draining = draining).await?;
        tracing::info!(instance = name, draining, "an operator's wish");
        Ok(Response::new(state))
    }

    async fn set_weight(&self, request: Request<SetWeightRequest>) -> Result<Response<InstanceState>, Status> {
        let SetWeightRequest { name, weight } = request.into_inner();
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Status::invalid_argument(format!(
                "weight is {weight}: give a finite number, at least 0"
            )));
        }
        let state = self.0.set_wish(&name, |wish| wish.weight = Some(weight)).await?;
        tracing::info!(instance = name, weight, "an operator's wish");
        Ok(Response::new(state))
    }

    async fn get_config(&self, _request: Request<GetConfigRequest>) -> Result<Response<Config>, Status> {
        let interval = self.0.config.telemetry_interval.as_millis();
        Ok(Response::new(Config {
            store: self.0.store.kind().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            telemetry_interval_ms: u32::try_from(interval).unwrap_or(u32::MAX),
        }))
    }
}
