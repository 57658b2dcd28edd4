//! Other instances for an agent that is at work.

use std::collections::BTreeMap;
use std::sync::Arc;

use equipoise_backend::EngineTls;
use equipoise_proto::v1::Instance;
use tokio::task::{AbortHandle, JoinSet};

use crate::agent::engine_client;
use crate::config::{AgentError, NvmlMode, check_instances};
use crate::engines::EngineWatch;
use crate::gpu_meter::GpuMeters;
use crate::gpu_thread::GpuThread;
use crate::shared::Shared;

/// What watches the instances of a node.
#[derive(Debug)]
pub(crate) struct Watches {
    nvml: NvmlMode,
    engine_tls: Option<EngineTls>,
    engines: BTreeMap<String, (Instance, AbortHandle)>,
    meters: Option<AbortHandle>,
}

impl Watches {
    pub(crate) fn new(nvml: NvmlMode, engine_tls: Option<EngineTls>) -> Self {
        Self {
            nvml,
            engine_tls,
            engines: BTreeMap::new(),
            meters: None,
        }
    }

    /// Watches these instances and no others. Who stays as it was is watched on without a gap, but for its GPUs where any
    /// instance's have changed: their meters begin anew, and the energy of the interval that they were in is nobody's.
    ///
    /// # Errors
    /// An instance cannot be watched; then nothing has changed.
    pub(crate) async fn set(
        &mut self,
        instances: &[Instance],
        tasks: &mut JoinSet<()>,
        shared: &Arc<Shared>,
    ) -> Result<(), AgentError> {
        check_instances(instances)?;
        let same_engine =
            |held: &Instance, wanted: &Instance| held.endpoint == wanted.endpoint && held.emulated == wanted.emulated;
        let mut fresh = Vec::new();
        for instance in instances {
            let held = self.engines.get(&instance.name);
            if !held.is_some_and(|(held, _)| same_engine(held, instance)) {
                let client = engine_client(instance, self.engine_tls.as_ref())?;
                fresh.push(EngineWatch::new(instance.name.clone(), client, instance.emulated));
            }
        }
        let metered = |instances: &mut dyn Iterator<Item = &Instance>| -> BTreeMap<String, Vec<String>> {
            let metered = instances.filter(|instance| !instance.gpus.is_empty() && !instance.emulated);
            metered
                .map(|instance| (instance.name.clone(), instance.gpus.clone()))
                .collect()
        };
        let before = metered(&mut self.engines.values().map(|(instance, _)| instance));
        if self.meters.is_none() && self.engines.is_empty() || before != metered(&mut instances.iter()) {
            // What may fail comes first.
            let thread = GpuThread::start(self.nvml.clone(), Arc::clone(shared)).await?;
            if let Some(meters) = self.meters.take() {
                meters.abort();
            }
            self.meters = thread.map(|thread| tasks.spawn(GpuMeters::new(thread, instances).run(Arc::clone(shared))));
        }
        let wanted = |name: &str| instances.iter().find(|instance| instance.name == name);
        self.engines.retain(|name, (held, watch)| {
            let stays = wanted(name).is_some_and(|wanted| same_engine(held, wanted));
            if !stays {
                watch.abort();
            }
            stays
        });
        for engine in fresh {
            let name = engine.instance().to_owned();
            if let Some(instance) = wanted(&name) {
                let watch = tasks.spawn(engine.run(Arc::clone(shared)));
                self.engines.insert(name, (instance.clone(), watch));
            }
        }
        for instance in instances {
            if let Some((held, _)) = self.engines.get_mut(&instance.name) {
                held.clone_from(instance);
            }
        }
        Ok(())
    }
}
