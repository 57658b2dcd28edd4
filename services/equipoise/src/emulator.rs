//! `equipoise emulator`.

use anyhow::Context as _;
use equipoise_config::{DeclaredInstance, FleetFile};
use equipoise_emulator::Emulator;

use crate::{cli, emulation, signal, terminal};

pub(crate) async fn run(options: cli::Emulator) -> anyhow::Result<()> {
    let fleet = FleetFile::load(&options.fleet)?;
    let named = |instance: &(usize, &DeclaredInstance)| instance.1.spec.name == options.instance;
    let (index, declared) = fleet.instances.iter().enumerate().find(named).with_context(|| {
        let names: Vec<&str> = fleet.instances.iter().map(|one| one.spec.name.as_str()).collect();
        format!(
            "the fleet has no instance `{}`; it has {}",
            options.instance,
            names.join(", ")
        )
    })?;
    let mut config = emulation::emulator_config(&fleet, index, declared)?;
    config.addr = options.listen;
    let emulator = Emulator::start(config).await?;
    terminal::complain(&format!("emulator: {} on http://{}", options.instance, emulator.addr()));
    signal::then(emulator.shutdown()).await;
    Ok(())
}
