//! `equipoise router`.

use equipoise_config::FleetFile;
use equipoise_router::RouterConfig;
use equipoise_scheduler::SchedulerConfig;

use crate::{cli, doors, host, scheduling, signal, terminal};

pub(crate) async fn run(options: cli::Router) -> anyhow::Result<()> {
    let (scheduler, pii, tls) = match &options.fleet {
        Some(path) => {
            let file = FleetFile::load(path)?;
            (file.scheduler, file.pii, file.tls)
        }
        None => (SchedulerConfig::default(), None, None),
    };
    let name = options
        .name
        .unwrap_or_else(|| format!("{}-{}", host::name(), options.listen.port()));
    let mut config = RouterConfig::new(name, options.listen, options.control);
    config.scheduler = scheduling::settings(scheduler, &options.scheduling)?;
    config.grpc_listen = options.grpc_listen;
    config.predictor = options.scheduling.predictor;
    config.record = options.scheduling.record;
    doors::set(&mut config, &options.doors, pii, tls)?;
    let scheme = doors::scheme(&config);
    let (policy, control) = (config.scheduler.policy.clone(), config.control.clone());
    let router = equipoise_router::start(config).await?;
    terminal::complain(&format!(
        "router: {scheme}://{}/v1, policy {policy}, control plane {control}",
        router.addr()
    ));
    doors::announce(&router);
    if let Some(grpc) = router.grpc_addr() {
        terminal::complain(&format!("router: gRPC on {grpc}"));
    }
    signal::then(router.shutdown()).await;
    Ok(())
}
