//! The engines behind the instances: a client each, found by the scheduler's ids.

use std::collections::BTreeSet;
use std::sync::Arc;

use equipoise_backend::{EngineClient, EngineClientConfig, EngineTls};
use equipoise_fleet::InstanceSpec;
use equipoise_types::InstanceId;
use parking_lot::RwLock;

/// One engine as the data path needs it.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) client: EngineClient,
}

/// All engines, by instance id.
#[derive(Debug, Default)]
pub(crate) struct Engines {
    tls: Option<EngineTls>,
    engines: RwLock<Vec<Option<Arc<Engine>>>>,
}

impl Engines {
    /// None yet; those with secure endpoints will be spoken to like this.
    pub(crate) fn new(tls: Option<EngineTls>) -> Self {
        Self {
            tls,
            engines: RwLock::default(),
        }
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<Arc<Engine>> {
        self.engines.read().get(id.index()).cloned().flatten()
    }

    /// The names of the engines that are as asked for.
    pub(crate) fn names_where(&self, is_so: impl Fn(&Engine) -> bool) -> BTreeSet<String> {
        let engines = self.engines.read();
        let fitting = engines.iter().flatten().filter(|engine| is_so(engine));
        fitting.map(|engine| engine.name.clone()).collect()
    }

    /// Takes a declaration over. An instance without a usable endpoint gets no engine: requests sent there fail over.
    pub(crate) fn declare(&self, id: InstanceId, spec: &InstanceSpec) {
        let endpoint = spec.endpoint.as_deref().unwrap_or_default();
        if let Some(known) = self.get(id)
            && known.client.endpoint() == endpoint.trim_end_matches('/')
            && known.model == spec.model.name
        {
            return;
        }
        let config = EngineClientConfig {
            tls: self.tls.clone(),
            ..EngineClientConfig::default()
        };
        let engine = match EngineClient::new(endpoint, config) {
            Ok(client) => Some(Arc::new(Engine {
                name: spec.name.clone(),
                model: spec.model.name.clone(),
                client,
            })),
            Err(error) => {
                tracing::error!(instance = spec.name, "cannot be reached: {error}");
                None
            }
        };
        let mut engines = self.engines.write();
        if engines.len() <= id.index() {
            engines.resize_with(id.index() + 1, || None);
        }
        engines[id.index()] = engine;
    }
}
