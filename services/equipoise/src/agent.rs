//! `equipoise agent`.

use std::path::PathBuf;
use std::time::Duration;

use equipoise_agent::{Agent, AgentConfig, NvmlMode, RunningAgent};
use equipoise_config::{FleetConfig, Services};

use crate::emulation::Engines;
use crate::{cli, host, reload, scheduling, secured, signal, terminal};

const CONTROL: &str = "http://127.0.0.1:8090";
/// How long an emulator that is no longer in the fleet is left to requests that were on their way.
const FAREWELL: Duration = Duration::from_secs(2);

/// `auto`, `off`, or a path.
pub(crate) fn nvml_mode(text: &str) -> NvmlMode {
    match text {
        "auto" => NvmlMode::Auto,
        "off" => NvmlMode::Off,
        path => NvmlMode::Path(PathBuf::from(path)),
    }
}

/// What flags say, or the file's section, or nothing.
pub(crate) fn nvml_of(flag: Option<&String>, services: &Services) -> NvmlMode {
    nvml_mode(flag.or(services.agent.nvml.as_ref()).map_or("auto", String::as_str))
}

pub(crate) async fn run(options: cli::Agent) -> anyhow::Result<()> {
    let file = scheduling::file(options.fleet.as_deref())?;
    let section = &file.services.agent;
    let mut engines = Engines::start(&file.fleet).await?;
    let control = options
        .control
        .or(section.control.clone())
        .unwrap_or(CONTROL.to_owned());
    let node = options.node.or(section.node.clone()).unwrap_or_else(host::name);
    let mut config = AgentConfig::new(control, node, engines.instances.clone());
    config.control_tls = secured::control(&config.control, &options.control_tls)?;
    config.engine_tls = secured::engines(file.fleet.engine_tls.as_ref())?;
    config.metrics_addr = options.metrics_listen.or(section.metrics_listen.map(|listen| listen.0));
    config.nvml = nvml_of(options.nvml.as_ref(), &file.services);
    let (node, control) = (config.node.clone(), config.control.clone());
    let mut agent = Agent::start(config).await?;
    terminal::complain(&format!(
        "agent: node {node}, {} instances ({} emulated), control plane {control}",
        engines.instances.len(),
        engines.emulated(),
    ));
    signal::asked_to_stop(Box::pin(reload::follow_if_any(options.fleet, async |file| {
        if let Ok(file) = file {
            change(&mut agent, &mut engines, &file.fleet).await;
        }
    })))
    .await;
    signal::drain(async {
        agent.shutdown().await;
        engines.shutdown().await;
    })
    .await;
    Ok(())
}

/// Serves another fleet's instances: those that are new are there before those that are gone are not.
pub(crate) async fn change(agent: &mut RunningAgent, engines: &mut Engines, fleet: &FleetConfig) {
    if fleet.instances.is_empty() {
        tracing::error!("the file declares no instance any more; the old ones stay");
        return;
    }
    let prepared = match Box::pin(engines.prepare(fleet)).await {
        Ok(prepared) => prepared,
        Err(error) => return tracing::error!("the instances stay as they were: {error:#}"),
    };
    if let Err(error) = agent.replace_instances(prepared.instances.clone()).await {
        tracing::error!("the instances stay as they were: {error}");
        return Box::pin(prepared.discard()).await;
    }
    for emulator in engines.take(prepared) {
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            emulator.shutdown().await;
        });
    }
}
