//! `equipoise agent`.

use std::path::PathBuf;

use equipoise_agent::{Agent, AgentConfig, NvmlMode};

use crate::emulation::Engines;
use crate::{cli, host, scheduling, signal, terminal};

/// `auto`, `off`, or a path.
pub(crate) fn nvml_mode(text: &str) -> NvmlMode {
    match text {
        "auto" => NvmlMode::Auto,
        "off" => NvmlMode::Off,
        path => NvmlMode::Path(PathBuf::from(path)),
    }
}

pub(crate) async fn run(options: cli::Agent) -> anyhow::Result<()> {
    let fleet = scheduling::fleet(options.fleet.as_deref())?;
    let engines = Engines::start(&fleet).await?;
    let mut config = AgentConfig::new(
        options.control,
        options.node.unwrap_or_else(host::name),
        engines.instances.clone(),
    );
    config.metrics_addr = options.metrics_listen;
    config.nvml = nvml_mode(&options.nvml);
    let (node, control) = (config.node.clone(), config.control.clone());
    let agent = Agent::start(config).await?;
    terminal::complain(&format!(
        "agent: node {node}, {} instances ({} emulated), control plane {control}",
        engines.instances.len(),
        engines.emulated(),
    ));
    signal::then(async {
        agent.shutdown().await;
        engines.shutdown().await;
    })
    .await;
    Ok(())
}
