//! What a GPU says about itself at one moment, and who can be asked for it.

use crate::DeviceError;
use equipoise_types::{MilliJoules, Timestamp};

/// Bits of [`GpuReading::throttle_reasons`] (NVML clocks-event reasons).
pub mod throttle {
    /// Nothing to do.
    pub const IDLE: u64 = 0x01;
    /// Software power cap.
    pub const POWER_CAP: u64 = 0x04;
    /// Hardware slowdown.
    pub const HARDWARE_SLOWDOWN: u64 = 0x08;
    /// Software thermal slowdown.
    pub const SOFTWARE_THERMAL: u64 = 0x20;
    /// Hardware thermal slowdown.
    pub const HARDWARE_THERMAL: u64 = 0x40;
    /// External power brake.
    pub const POWER_BRAKE: u64 = 0x80;
}

/// Which GPU it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuIdentity {
    /// NVML index on the node.
    pub index: u32,
    /// NVML UUID; empty if the GPU has not answered yet.
    pub uuid: String,
    /// Name as the driver gives it.
    pub name: String,
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In use.
    pub used_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// What a GPU said. A field that this GPU or driver does not support is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuReading {
    /// Which GPU it is.
    pub gpu: GpuIdentity,
    /// When its energy counter was read.
    pub at: Timestamp,
    /// Board draw, milliwatts: mean over a second on most boards, instantaneous on A100 and older.
    pub power_mw: Option<u32>,
    /// Energy since the driver was loaded. It starts anew when the driver does.
    pub energy: Option<MilliJoules>,
    /// Share of time with a kernel running, percent.
    pub utilization_percent: Option<u32>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Core temperature, degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Why clocks are low: see [`throttle`].
    pub throttle_reasons: Option<u64>,
    /// Enforced power limit, milliwatts.
    pub power_limit_mw: Option<u32>,
}

/// Something that can read the GPUs of a node. Calls block.
pub trait GpuSource: Send {
    /// The GPUs, by index.
    fn gpus(&self) -> &[GpuIdentity];

    /// Reads every GPU once, in the order of [`Self::gpus`]. `clock` is asked for the moment of each energy reading.
    ///
    /// One GPU's failure is its own entry; the others are read all the same.
    fn sample(&mut self, clock: &dyn Fn() -> Timestamp) -> Vec<Result<GpuReading, DeviceError>>;
}

/// The position in `gpus` of the one meant by `wanted`: an NVML UUID or an index.
///
/// # Errors
/// [`DeviceError::NotFound`] with what is there; MIG slices too are not found, for energy exists per board only.
pub fn find_gpu(gpus: &[GpuIdentity], wanted: &str) -> Result<usize, DeviceError> {
    let index = wanted.parse::<u32>().ok();
    gpus.iter()
        .position(|gpu| (!wanted.is_empty() && gpu.uuid == wanted) || Some(gpu.index) == index)
        .ok_or_else(|| {
            let present: Vec<String> = gpus.iter().map(|gpu| format!("{} ({})", gpu.index, gpu.uuid)).collect();
            DeviceError::NotFound {
                wanted: wanted.to_owned(),
                present: present.join(", "),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_found_by_uuid_or_index() {
        let gpu = |index, uuid: &str| GpuIdentity {
            index,
            uuid: uuid.to_owned(),
            name: String::new(),
        };
        let gpus = [gpu(0, "GPU-a"), gpu(1, ""), gpu(3, "GPU-b")];
        assert_eq!(find_gpu(&gpus, "GPU-b"), Ok(2));
        assert_eq!(find_gpu(&gpus, "3"), Ok(2));
        for absent in ["2", "GPU-c", "", "-1"] {
            let error = find_gpu(&gpus, absent).expect_err(absent);
            assert!(error.to_string().contains("0 (GPU-a)"), "{error}");
        }
    }
}
