//! `equipoise router`.

use std::net::SocketAddr;
use std::time::Duration;

use equipoise_config::{ConfigFile, RouterSection, TracingSection};
use equipoise_router::{AccessLogTarget, LiveSettings, RouterConfig};
use equipoise_telemetry::OtlpSettings;

use crate::cli::Scheduling;
use crate::{cli, doors, host, reload, scheduling, secured, signal, terminal};

const CONTROL: &str = "http://127.0.0.1:8090";
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub(crate) async fn run(options: cli::Router) -> anyhow::Result<()> {
    let file = scheduling::config(options.fleet.as_deref())?;
    let section = file.services.router.clone();
    let listen = listen(options.listen, &section);
    let name = options
        .name
        .or(section.name.clone())
        .unwrap_or_else(|| format!("{}-{}", host::name(), listen.port()));
    let control = options
        .control
        .or(section.control.clone())
        .unwrap_or(CONTROL.to_owned());
    let mut config = RouterConfig::new(name, listen, control);
    config.scheduler = scheduling::settings(file.fleet.scheduler.clone(), &options.scheduling)?;
    config.control_tls = secured::control(&config.control, &options.control_tls)?;
    config.grpc_listen = options.grpc_listen.or(section.grpc_listen.map(|listen| listen.0));
    settle(&mut config, &section, &options.scheduling);
    config.tracing = tracing(&file.services.tracing)?;
    doors::set(&mut config, &options.doors, &file.fleet)?;
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
    let live = router.settings();
    signal::asked_to_stop(reload::follow_if_any(options.fleet, async |file| match file {
        Ok(file) => change(&live, &file, &options.scheduling),
        Err(_) => live.refused(),
    }))
    .await;
    signal::drain(router.shutdown()).await;
    Ok(())
}

/// Where clients come in.
pub(crate) fn listen(asked: Option<SocketAddr>, section: &RouterSection) -> SocketAddr {
    asked.or(section.listen.map(|listen| listen.0)).unwrap_or(LISTEN)
}

/// What `[router]` says, and over it the command line.
pub(crate) fn settle(config: &mut RouterConfig, section: &RouterSection, options: &Scheduling) {
    if let Some(predictor) = &section.predictor {
        let Ok(predictor) = predictor.parse();
        config.predictor = predictor;
    }
    if let Some(predictor) = &options.predictor {
        config.predictor.clone_from(predictor);
    }
    config.record = options.record.clone().or(section.record.clone().map(Into::into));
    let access_log = options.access_log.as_ref().or(section.access_log.as_ref());
    config.access_log = access_log.map(|target| AccessLogTarget::from(target.as_str()));
    if let Some(bytes) = section.max_body_bytes {
        config.max_body_bytes = bytes as usize;
    }
    if let Some(ms) = section.publish_interval_ms {
        config.publish_interval = Duration::from_millis(ms.into());
    }
    if let Some(seconds) = section.drain_timeout_s {
        config.drain_timeout = Duration::from_secs(seconds.into());
    }
}

/// Where spans go: what `[tracing]` says, and over it OpenTelemetry's variables.
pub(crate) fn tracing(section: &TracingSection) -> anyhow::Result<Option<OtlpSettings>> {
    let mut settings = OtlpSettings::new(section.otlp_endpoint.clone().unwrap_or_default());
    if let Some(ratio) = section.sample_ratio {
        if !(0.0..=1.0).contains(&ratio) {
            anyhow::bail!("[tracing]: sample_ratio is {ratio}; it must be from 0 to 1");
        }
        settings.sample_ratio = ratio;
    }
    if let Some(name) = &section.service_name {
        settings.resource = vec![("service.name".to_owned(), name.clone())];
    }
    Ok(settings.under_variables(|name| std::env::var(name).ok())?)
}

/// Takes over how requests are placed.
pub(crate) fn change(live: &LiveSettings, file: &ConfigFile, options: &Scheduling) {
    let changed = scheduling::settings(file.fleet.scheduler.clone(), options)
        .and_then(|scheduler| live.change(&scheduler).map_err(anyhow::Error::from));
    match changed {
        Ok(true) => tracing::info!("the scheduler has other settings"),
        Ok(false) => {}
        Err(error) => tracing::error!("the scheduler's settings stay as they were: {error}"),
    }
}
