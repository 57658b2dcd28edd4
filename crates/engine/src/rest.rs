//! What an instance draws while nothing runs, and how it comes back.
//!
//! Idle draw has three levels, and none depends on how much memory is in use: the bare board, the board with a CUDA context, and
//! the board at work (arXiv 2605.23918, 14 H100 over 18 days). So sleep that keeps the process saves no power by itself; it frees
//! memory for another model. Only an engine that is stopped leaves the bare board.

use equipoise_types::{Joules, Watts};
use serde::{Deserialize, Serialize};

/// Seconds of vLLM's own work when it wakes, beside moving bytes: memory maps, caches to be allocated (vLLM's sleep mode wakes small
/// models in well under a second).
const WAKE_OVERHEAD_SECONDS: f64 = 0.3;
/// Host to GPU, bytes per second and GPU: PCIe 4.0 x16 as copied from pinned memory.
const HOST_BYTES_PER_SECOND: f64 = 25e9;
/// Weights from a local NVMe disk, bytes per second and node.
const DISK_BYTES_PER_SECOND: f64 = 5e9;
/// Seconds from the start of a process to the load of weights and from there to the first answer: imports, CUDA context,
/// compilation from a warm cache, graph capture.
const START_OVERHEAD_SECONDS: f64 = 40.0;
/// Share of the way from a loaded board's idle draw to its limit that loading weights draws: copies, no tensor core at work.
const LOADING_SHARE: f64 = 0.1;

/// How deep an idle engine sleeps, by vLLM's levels and one below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SleepLevel {
    /// vLLM's level 1: weights lie in the host's memory.
    Offload,
    /// vLLM's level 2: weights are read from the disk again.
    Discard,
    /// The process is stopped: the board has no context any more.
    Off,
}

/// When an instance goes to sleep, and how deep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// How deep.
    pub level: SleepLevel,
    /// After so long without work, seconds.
    pub after_s: f64,
    /// What waking takes, seconds; left out: by the model's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_s: Option<f64>,
}

impl Sleep {
    /// What is wrong with it, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let day_s = 86_400.0;
        let wake_s = self.wake_s.unwrap_or(0.0);
        if (0.0..=day_s).contains(&self.after_s) && (0.0..=day_s).contains(&wake_s) {
            return None;
        }
        Some(format!(
            "after_s is {} and wake_s {wake_s}: both must lie between 0 and {day_s}, a day",
            self.after_s
        ))
    }
}

/// Draw and return of an instance at rest, over all its GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rest {
    /// Bare boards, no process.
    pub bare: Watts,
    /// Engine loaded, no step running; also of an engine that sleeps and keeps its process.
    pub loaded: Watts,
    /// While weights are loaded.
    pub loading: Watts,
    /// From sleep with the weights in the host's memory to ready, seconds.
    pub wake_offloaded_s: f64,
    /// From sleep without weights to ready, seconds.
    pub wake_discarded_s: f64,
    /// From nothing to ready, seconds.
    pub start_s: f64,
}

impl Rest {
    /// Of so many GPUs with these draws per GPU, serving weights of so many bytes in all.
    pub(crate) fn of(gpus: f64, bare_watts: f64, loaded_watts: f64, tdp_watts: f64, weight_bytes: f64) -> Self {
        let load_s = weight_bytes / DISK_BYTES_PER_SECOND;
        Self {
            bare: Watts(gpus * bare_watts),
            loaded: Watts(gpus * loaded_watts),
            loading: Watts(gpus * (loaded_watts + LOADING_SHARE * (tdp_watts - loaded_watts))),
            wake_offloaded_s: WAKE_OVERHEAD_SECONDS + weight_bytes / (gpus * HOST_BYTES_PER_SECOND),
            wake_discarded_s: WAKE_OVERHEAD_SECONDS + load_s,
            start_s: START_OVERHEAD_SECONDS + load_s,
        }
    }

    /// Draw while asleep.
    #[must_use]
    pub fn asleep(&self, level: SleepLevel) -> Watts {
        match level {
            SleepLevel::Offload | SleepLevel::Discard => self.loaded,
            SleepLevel::Off => self.bare,
        }
    }

    /// From sleep to ready, seconds.
    #[must_use]
    pub fn wake_seconds(&self, sleep: Sleep) -> f64 {
        sleep.wake_s.unwrap_or(match sleep.level {
            SleepLevel::Offload => self.wake_offloaded_s,
            SleepLevel::Discard => self.wake_discarded_s,
            SleepLevel::Off => self.start_s,
        })
    }

    /// What waking draws above a loaded engine that idles.
    #[must_use]
    pub fn wake_energy(&self, sleep: Sleep) -> Joules {
        Joules((self.loading.0 - self.loaded.0).max(0.0) * self.wake_seconds(sleep))
    }

    /// How long an engine must be stopped until that has saved more than starting it again draws, seconds. A start draws
    /// `loading` for its whole time, and nothing is saved meanwhile.
    #[must_use]
    pub fn unload_break_even_s(&self) -> f64 {
        let saved = self.loaded.0 - self.bare.0;
        self.start_s * (self.loading.0 - self.bare.0) / saved.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Deployment, EngineLimits, EngineShape, StepModel, gpu, model};

    fn rest(gpu_name: &str, model_name: &str, tensor_parallel: u32) -> Rest {
        let shape = EngineShape {
            gpu: gpu(gpu_name).expect("known"),
            model: model(model_name).expect("known"),
            tensor_parallel,
            limits: EngineLimits::default(),
            deployment: Deployment::default(),
        };
        StepModel::new(&shape).expect("fits").rest()
    }

    #[test]
    fn unloading_pays_after_one_to_five_minutes() {
        // The published range for H100 (arXiv 2605.23918).
        for (model, gpus) in [
            ("Llama-3.1-8B", 1),
            ("Qwen2.5-14B", 1),
            ("Qwen3-32B", 2),
            ("Llama-3.1-70B", 4),
        ] {
            let minutes = rest("H100", model, gpus).unload_break_even_s() / 60.0;
            assert!((1.0..=5.0).contains(&minutes), "{model}: {minutes}");
        }
    }

    #[test]
    fn deeper_sleep_takes_longer_to_wake_and_draws_no_more() {
        let rest = rest("H100", "Llama-3.1-8B", 1);
        let sleep = |level| Sleep {
            level,
            after_s: 60.0,
            wake_s: None,
        };
        let levels = [SleepLevel::Offload, SleepLevel::Discard, SleepLevel::Off];
        let wakes = levels.map(|level| rest.wake_seconds(sleep(level)));
        assert!(wakes.is_sorted() && wakes[0] < 1.5 && wakes[2] > 30.0, "{wakes:?}");
        let draws = levels.map(|level| rest.asleep(level).0);
        assert_eq!(draws[0], draws[1]);
        // 26 to 50 W of context on an HBM board.
        assert!((26.0..=50.0).contains(&(draws[1] - draws[2])), "{draws:?}");
        let given = Sleep {
            wake_s: Some(7.0),
            ..sleep(SleepLevel::Discard)
        };
        assert_eq!(rest.wake_seconds(given), 7.0);
    }
}
