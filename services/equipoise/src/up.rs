//! `equipoise up`: everything in one process.

use std::time::Duration;

use equipoise_agent::{Agent, AgentConfig};
use equipoise_control_plane::{ControlPlane, ControlPlaneConfig};
use equipoise_router::RouterConfig;

use crate::agent::nvml_of;
use crate::control_plane::stop;
use crate::emulation::Engines;
use crate::{agent, cli, doors, reload, router, scheduling, secured, signal, terminal};

/// How long the first picture of the fleet is waited for before the banner; requests are taken in any case.
const FIRST_PICTURE: Duration = Duration::from_secs(5);

pub(crate) async fn run(options: cli::Up) -> anyhow::Result<()> {
    let file = scheduling::file(options.fleet.as_deref())?;
    let fleet = &file.fleet;
    let scheduler = scheduling::settings(fleet.scheduler.clone(), &options.scheduling)?;
    let store = equipoise_store::open(&options.store).await?;
    let plane_config = ControlPlaneConfig {
        grpc_addr: options.control_listen,
        page_addr: Some(options.page_listen),
        telemetry_interval: Duration::from_millis(200),
        ..ControlPlaneConfig::default()
    };
    let plane = ControlPlane::start(plane_config, store.clone()).await?;
    let control = format!("http://{}", plane.grpc_addr());
    // The router before the engines: a taken port is found out before anything else is started.
    let section = &file.services.router;
    let listen = router::listen(options.listen, section);
    let mut router_config = RouterConfig::new("router-0", listen, &control);
    router_config.scheduler = scheduler;
    router_config.grpc_listen = options.grpc_listen.or(section.grpc_listen.map(|listen| listen.0));
    router::settle(&mut router_config, section, &options.scheduling);
    router_config.tracing = router::tracing(&file.services.tracing)?;
    doors::set(&mut router_config, &options.doors, fleet)?;
    let scheme = doors::scheme(&router_config);
    let policy = router_config.scheduler.policy.clone();
    let router = equipoise_router::start(router_config).await?;
    let mut engines = Engines::start(fleet).await?;
    let mut agent_config = AgentConfig::new(&control, "node-0", engines.instances.clone());
    agent_config.nvml = nvml_of(options.nvml.as_ref(), &file.services);
    agent_config.engine_tls = secured::engines(fleet.engine_tls.as_ref())?;
    let mut agent = Agent::start(agent_config).await?;

    let expected = engines.instances.len();
    let settled = async {
        while router.available_instances() < expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(FIRST_PICTURE, settled).await.is_err() {
        terminal::complain(&format!(
            "warning: only {} of {expected} instances answer so far",
            router.available_instances()
        ));
    }
    let page = plane
        .page_addr()
        .map_or_else(|| "none".to_owned(), |page| format!("http://{page}/"));
    let admin = router
        .admin_addr()
        .map_or_else(|| "none".to_owned(), |admin| format!("http://{admin}/"));
    let api = format!("{scheme}://{}/v1", router.addr());
    terminal::say(&banner(&api, &admin, &page, &control, &policy, &engines));
    let live = router.settings();
    signal::asked_to_stop(Box::pin(reload::follow_if_any(
        options.fleet,
        async |file| match file {
            Ok(file) => {
                router::change(&live, &file, &options.scheduling);
                agent::change(&mut agent, &mut engines, &file.fleet).await;
            }
            Err(_) => live.refused(),
        },
    )))
    .await;
    signal::drain(async {
        router.shutdown().await;
        agent.shutdown().await;
        engines.shutdown().await;
        stop(plane, store).await;
    })
    .await;
    Ok(())
}

fn banner(api: &str, admin: &str, page: &str, control: &str, policy: &str, engines: &Engines) -> String {
    let instances = engines.instances.len();
    let kind = match engines.emulated() {
        0 => "real".to_owned(),
        emulated if emulated == instances => "emulated: no GPU is used, answers are made-up words".to_owned(),
        emulated => format!("{emulated} emulated"),
    };
    format!(
        "\
Equipoise is up.

  OpenAI API     {api}      policy {policy}
  router admin   {admin}
  fleet page     {page}
  control plane  {control}
  fleet          {instances} instances ({kind})

Try:  curl {api}/chat/completions -H 'content-type: application/json' \\
        -d '{{\"model\": \"auto\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}' -i
Stop: Ctrl-C (running answers finish first)"
    )
}
