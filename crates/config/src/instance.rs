//! A validated fleet.

use equipoise_engine::{DeclaredEngine, EngineLimits, MeasuredError, ServingError, ShapeError, StepModel, gpu, model};
use equipoise_fleet::InstanceSpec;
use equipoise_scheduler::SchedulerConfig;

use crate::{EngineTlsSettings, PiiSettings, TlsSettings};

/// A whole fleet file, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetConfig {
    /// How requests are placed.
    pub scheduler: SchedulerConfig,
    /// What a router does with personal data.
    pub pii: Option<PiiSettings>,
    /// A router's certificates.
    pub tls: Option<TlsSettings>,
    /// Those of its gRPC listener.
    pub grpc_tls: Option<TlsSettings>,
    /// How engines are spoken to over TLS.
    pub engine_tls: Option<EngineTlsSettings>,
    /// Every instance, pool by pool in the order of the file; at least one.
    pub instances: Vec<DeclaredInstance>,
}

/// One instance of a fleet file.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredInstance {
    /// What the scheduler is told. Its name is `<pool>-<index>`, from 0.
    pub spec: InstanceSpec,
    /// Set for an opaque emulated box: every request takes this many seconds, whatever its size. The scheduler is not told.
    pub service_s: Option<f64>,
}

/// Why an instance cannot be emulated or simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum UnknownPhysics {
    /// The model's architecture is not known.
    #[error(
        "instance {instance}: the architecture of model `{model}` is not known; set `architecture` in its [[model]] table"
    )]
    Architecture {
        /// Which instance.
        instance: String,
        /// Its model.
        model: String,
    },
    /// The GPU is not known.
    #[error("instance {instance}: its GPU is not known; set `gpu` in its [[pool]] table, or `service_ms`")]
    Gpu {
        /// Which instance.
        instance: String,
    },
    /// The model does not run on these GPUs.
    #[error("instance {instance}: {source}")]
    Shape {
        /// Which instance.
        instance: String,
        /// Why.
        source: ShapeError,
    },
    /// It cannot be served as declared.
    #[error("instance {instance}: {source}")]
    Serving {
        /// Which instance.
        instance: String,
        /// Why.
        source: ServingError,
    },
    /// Its tier was not measured.
    #[error("instance {instance}: {source}; or leave `measured` out for the modelled tier")]
    Measured {
        /// Which instance.
        instance: String,
        /// What is missing.
        source: MeasuredError,
    },
}

impl DeclaredInstance {
    /// The engine's limits: as declared, the rest as vLLM's defaults.
    #[must_use]
    pub fn limits(&self) -> EngineLimits {
        self.spec.limits.engine_limits()
    }

    /// How this instance behaves when it is emulated or simulated.
    ///
    /// # Errors
    /// When model or GPU are unknown, or the model does not fit. Never for instances of a pool with `count`.
    pub fn step_model(&self) -> Result<StepModel, UnknownPhysics> {
        if let Some(service_s) = self.service_s {
            return Ok(StepModel::fixed(service_s, self.limits()));
        }
        let instance = self.spec.name.clone();
        let architecture = self.spec.model.architecture.as_deref();
        let Some(model) = architecture.filter(|name| model(name).is_some()) else {
            return Err(UnknownPhysics::Architecture {
                instance,
                model: self.spec.model.name.clone(),
            });
        };
        let Some(gpu) = self.spec.gpu.as_deref().filter(|name| gpu(name).is_some()) else {
            return Err(UnknownPhysics::Gpu { instance });
        };
        let declared = DeclaredEngine {
            model,
            gpu,
            tensor_parallel: self.spec.tensor_parallel,
            limits: self.limits(),
            measured: self.spec.measured.as_deref(),
            serving: self.spec.serving.as_ref(),
        };
        declared.step_model().map_err(|error| match error {
            source if source.key().is_some() => UnknownPhysics::Serving { instance, source },
            ServingError::Shape(source) => UnknownPhysics::Shape { instance, source },
            ServingError::Measured(source) => UnknownPhysics::Measured { instance, source },
            source => UnknownPhysics::Serving { instance, source },
        })
    }
}
