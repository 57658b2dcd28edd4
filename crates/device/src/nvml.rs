//! GPUs through NVIDIA's management library, loaded at run time so that a node without it runs the same binary.

use crate::{DeviceError, GpuIdentity, GpuReading, GpuSource, Memory};
use equipoise_types::{MilliJoules, Timestamp};
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;

/// The library's names: with the version first, for containers often have only that.
const LIBRARY_NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// The GPUs of this node through NVML.
#[derive(Debug)]
pub struct Nvml {
    library: nvml_wrapper::Nvml,
    gpus: Vec<GpuIdentity>,
}

impl Nvml {
    /// Loads the library from `path`, or under its usual names, and finds the GPUs.
    ///
    /// A GPU that is lost already is kept without UUID and name, and asked again with every sample. The set of GPUs does
    /// not change while the library is loaded.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`] with everything that was tried.
    pub fn open(path: Option<&Path>) -> Result<Self, DeviceError> {
        let names: Vec<&OsStr> = match path {
            Some(path) => vec![path.as_os_str()],
            None => LIBRARY_NAMES.iter().map(OsStr::new).collect(),
        };
        let mut tried = Vec::new();
        for name in names {
            let opened = nvml_wrapper::Nvml::builder().lib_path(name).init();
            match opened.and_then(|library| library.device_count().map(|count| (library, count))) {
                Ok((library, count)) => {
                    let mut nvml = Self {
                        library,
                        gpus: Vec::new(),
                    };
                    nvml.gpus = (0..count).map(|index| nvml.identify(index)).collect();
                    return Ok(nvml);
                }
                Err(error) => tried.push((name.to_string_lossy().into_owned(), reason(&error))),
            }
        }
        Err(DeviceError::NoDriver { tried })
    }

    /// The driver's version, where it tells.
    #[must_use]
    pub fn driver_version(&self) -> Option<String> {
        self.library.sys_driver_version().ok()
    }

    fn identify(&self, index: u32) -> GpuIdentity {
        let mut gpu = GpuIdentity {
            index,
            ..GpuIdentity::default()
        };
        match self.library.device_by_index(index) {
            Ok(device) => {
                gpu.uuid = device.uuid().unwrap_or_default();
                gpu.name = device.name().unwrap_or_default();
            }
            Err(error) => tracing::warn!(index, error = reason(&error), "a GPU does not answer"),
        }
        gpu
    }

    fn read(&self, gpu: &GpuIdentity, clock: &dyn Fn() -> Timestamp) -> Result<GpuReading, DeviceError> {
        let ask = Question { gpu };
        // The UUID names the board whatever happens to the numbering.
        let device = match gpu.uuid.as_str() {
            "" => self.library.device_by_index(gpu.index),
            uuid => self.library.device_by_uuid(uuid),
        };
        let device: Device<'_> = device.map_err(|error| ask.failure("handle", &error))?;
        // The counter first and its time next to it: energy over time is what the reading is for.
        let energy = ask
            .optional("energy", device.total_energy_consumption())?
            .map(MilliJoules);
        let at = clock();
        Ok(GpuReading {
            gpu: gpu.clone(),
            at,
            energy,
            power_mw: ask.optional("power", device.power_usage())?,
            utilization_percent: ask
                .optional("utilization", device.utilization_rates())?
                .map(|rates| rates.gpu),
            memory: ask.optional("memory", device.memory_info())?.map(|memory| Memory {
                used_bytes: memory.used,
                total_bytes: memory.total,
            }),
            temperature_c: ask.optional("temperature", device.temperature(TemperatureSensor::Gpu))?,
            throttle_reasons: ask
                .optional("clocks event reasons", device.current_throttle_reasons())?
                .map(|reasons| reasons.bits()),
            power_limit_mw: ask.optional("power limit", device.enforced_power_limit())?,
        })
    }
}

impl GpuSource for Nvml {
    fn gpus(&self) -> &[GpuIdentity] {
        &self.gpus
    }

    fn sample(&mut self, clock: &dyn Fn() -> Timestamp) -> Vec<Result<GpuReading, DeviceError>> {
        for position in 0..self.gpus.len() {
            if self.gpus[position].uuid.is_empty() {
                self.gpus[position] = self.identify(self.gpus[position].index);
            }
        }
        self.gpus.iter().map(|gpu| self.read(gpu, clock)).collect()
    }
}

/// Sorts a GPU's answers into known, not supported, and failed.
struct Question<'a> {
    gpu: &'a GpuIdentity,
}

impl Question<'_> {
    fn optional<T>(&self, what: &'static str, answer: Result<T, NvmlError>) -> Result<Option<T>, DeviceError> {
        match answer {
            Ok(value) => Ok(Some(value)),
            // An old library lacks the symbol, an old or virtual board the sensor, a container the right.
            Err(
                NvmlError::NotSupported
                | NvmlError::FunctionNotFound
                | NvmlError::FailedToLoadSymbol(_)
                | NvmlError::NoPermission
                | NvmlError::NoData,
            ) => Ok(None),
            Err(error) => Err(self.failure(what, &error)),
        }
    }

    fn failure(&self, what: &'static str, error: &NvmlError) -> DeviceError {
        let GpuIdentity { index, uuid, .. } = self.gpu.clone();
        match error {
            NvmlError::GpuLost | NvmlError::ResetRequired => DeviceError::Lost { index, uuid },
            other => DeviceError::Query {
                index,
                uuid,
                what,
                reason: reason(other),
            },
        }
    }
}

/// The error and its causes on one line.
fn reason(error: &NvmlError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
