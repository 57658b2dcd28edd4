//! Emulated engines for the instances of a fleet file that have no endpoint.

use std::collections::BTreeMap;

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
    emulators: BTreeMap<String, (DeclaredInstance, RunningEmulator)>,
}

/// Another fleet's engines, those that are new at work already.
pub(crate) struct Prepared {
    pub(crate) instances: Vec<v1::Instance>,
    fresh: Vec<(DeclaredInstance, RunningEmulator)>,
    /// Names of emulators that stay.
    kept: Vec<String>,
}

impl Prepared {
    /// Nobody wants them: stops those that were started for it.
    pub(crate) async fn discard(self) {
        for (_, emulator) in self.fresh {
            emulator.shutdown().await;
        }
    }
}

impl Engines {
    /// Starts an emulator, on a free port of the loopback interface, for every instance without an endpoint.
    pub(crate) async fn start(fleet: &FleetConfig) -> anyhow::Result<Self> {
        let mut engines = Self {
            instances: Vec::new(),
            emulators: BTreeMap::new(),
        };
        let prepared = engines.prepare(fleet).await?;
        engines.take(prepared);
        Ok(engines)
    }

    /// Starts what another fleet needs beside what is there; nothing changes before [`Engines::take`].
    pub(crate) async fn prepare(&self, fleet: &FleetConfig) -> anyhow::Result<Prepared> {
        let mut prepared = Prepared {
            instances: Vec::new(),
            fresh: Vec::new(),
            kept: Vec::new(),
        };
        for (index, declared) in fleet.instances.iter().enumerate() {
            if let Some(real) = instance::real(declared) {
                prepared.instances.push(real);
                continue;
            }
            let name = &declared.spec.name;
            let kept = self
                .emulators
                .get(name)
                .filter(|(held, _)| is_same_engine(held, declared));
            let addr = match kept {
                Some((_, emulator)) => {
                    prepared.kept.push(name.clone());
                    emulator.addr()
                }
                None => {
                    let config = emulator_config(fleet, index, declared)?;
                    let emulator = Emulator::start(config)
                        .await
                        .with_context(|| format!("instance {name} cannot be emulated"))?;
                    let addr = emulator.addr();
                    prepared.fresh.push((declared.clone(), emulator));
                    addr
                }
            };
            let endpoint = format!("http://{addr}");
            prepared
                .instances
                .push(instance::on_the_wire(&declared.spec, endpoint, true));
        }
        Ok(prepared)
    }

    /// Takes a prepared fleet's instances. Emulators that are in both go on; those that are in the old one only are handed
    /// back: they serve until they are shut down.
    pub(crate) fn take(&mut self, prepared: Prepared) -> Vec<RunningEmulator> {
        let mut before = std::mem::take(&mut self.emulators);
        for name in prepared.kept {
            self.emulators.extend(before.remove_entry(&name));
        }
        for (declared, emulator) in prepared.fresh {
            self.emulators.insert(declared.spec.name.clone(), (declared, emulator));
        }
        self.instances = prepared.instances;
        before.into_values().map(|(_, emulator)| emulator).collect()
    }

    /// How many are emulated.
    pub(crate) fn emulated(&self) -> usize {
        self.emulators.len()
    }

    /// Stops the emulators.
    pub(crate) async fn shutdown(self) {
        for (_, emulator) in self.emulators.into_values() {
            emulator.shutdown().await;
        }
    }
}

/// Whether one emulator can stand for both: what differs is only what the control plane is told.
fn is_same_engine(one: &DeclaredInstance, other: &DeclaredInstance) -> bool {
    let told = |declared: &DeclaredInstance| {
        let mut declared = declared.clone();
        declared.spec.labels.clear();
        declared.spec.model.quality = None;
        declared.spec.model.price = None;
        declared
    };
    told(one) == told(other)
}
