//! Emulated engines for the instances of a fleet file that have no endpoint.

use anyhow::Context as _;
use equipoise_config::{DeclaredInstance, FleetConfig};
use equipoise_emulator::{Emulator, EmulatorConfig, OutputLengths, RunningEmulator};
use equipoise_proto::v1;

use crate::instance;

/// How an instance of a fleet file is emulated, on a free port of the loopback interface; `index`: its place in the file.
pub(crate) fn emulator_config(
    fleet: &FleetConfig,
    index: usize,
    declared: &DeclaredInstance,
) -> anyhow::Result<EmulatorConfig> {
    let spec = &declared.spec;
    let mut config = EmulatorConfig::new(spec.model.name.clone(), declared.step_model()?);
    config.seed = fleet.scheduler.seed.wrapping_add(index as u64);
    config.gpus = spec.gpu_count();
    if let Some(mean_tokens) = spec.model.mean_output_tokens {
        config.output_lengths = OutputLengths {
            mean_tokens,
            ..OutputLengths::default()
        };
    }
    Ok(config)
}

/// A fleet whose every instance has an endpoint, and the emulators behind those that are emulated.
pub(crate) struct Engines {
    pub(crate) instances: Vec<v1::Instance>,
    emulators: Vec<RunningEmulator>,
}

impl Engines {
    /// Starts an emulator, on a free port of the loopback interface, for every instance without an endpoint.
    pub(crate) async fn start(fleet: &FleetConfig) -> anyhow::Result<Self> {
        let mut engines = Self {
            instances: Vec::new(),
            emulators: Vec::new(),
        };
        for (index, declared) in fleet.instances.iter().enumerate() {
            if let Some(real) = instance::real(declared) {
                engines.instances.push(real);
                continue;
            }
            let spec = &declared.spec;
            let config = emulator_config(fleet, index, declared)?;
            let emulator = Emulator::start(config)
                .await
                .with_context(|| format!("instance {} cannot be emulated", spec.name))?;
            let endpoint = format!("http://{}", emulator.addr());
            engines.instances.push(instance::on_the_wire(spec, endpoint, true));
            engines.emulators.push(emulator);
        }
        Ok(engines)
    }

    /// How many are emulated.
    pub(crate) fn emulated(&self) -> usize {
        self.emulators.len()
    }

    /// Stops the emulators.
    pub(crate) async fn shutdown(self) {
        for emulator in self.emulators {
            emulator.shutdown().await;
        }
    }
}
