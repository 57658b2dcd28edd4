//! `equipoise router`.

use equipoise_config::FleetFile;
use equipoise_router::RouterConfig;
use equipoise_scheduler::SchedulerConfig;

use crate::{cli, host, scheduling, signal, terminal};

pub(crate) async fn run(options: cli::Router) -> anyhow::Result<()> {
    let scheduler = match &options.fleet {
        Some(path) => FleetFile::load(path)?.scheduler,
        None => SchedulerConfig::default(),
    };
    let name = options
        .name
        .unwrap_or_else(|| format!("{}-{}", host::name(), options.listen.port()));
    let mut config = RouterConfig::new(name, options.listen, options.control);
    config.scheduler = scheduling::settings(scheduler, &options.scheduling)?;
    config.grpc_listen = options.grpc_listen;
    config.predictor = options.scheduling.predictor;
    config.record = options.scheduling.record;
    let (policy, control) = (config.scheduler.policy.clone(), config.control.clone());
    let router = equipoise_router::start(config).await?;
    terminal::complain(&format!(
        "router: http://{}/v1, policy {policy}, control plane {control}",
        router.addr()
    ));
    if let Some(grpc) = router.grpc_addr() {
        terminal::complain(&format!("router: gRPC on {grpc}"));
    }
    signal::then(router.shutdown()).await;
    Ok(())
}
