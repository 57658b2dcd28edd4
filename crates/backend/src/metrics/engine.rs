//! What the fleet needs of an engine's metrics, under vLLM's names (0.32; older names where they differ).

use super::text::samples;

/// An engine's gauges and counters, summed over its data-parallel ranks (`engine="0"`, `"1"`, ...).
///
/// A field is `None` where the engine does not expose it: unknown, not zero. An engine with other names than vLLM's
/// gives nothing but `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineMetrics {
    /// Requests in the running batch (`vllm:num_requests_running`).
    pub running: Option<u32>,
    /// Requests waiting in the engine (`vllm:num_requests_waiting`).
    pub waiting: Option<u32>,
    /// Share of KV blocks in use, [0, 1], mean over the ranks, which have equally many blocks
    /// (`vllm:kv_cache_usage_perc`, in older versions `vllm:gpu_cache_usage_perc`).
    pub kv_usage: Option<f64>,
    /// Prompt tokens since the engine's start (`vllm:prompt_tokens_total`).
    pub prompt_tokens_total: Option<u64>,
    /// Answer tokens since the engine's start (`vllm:generation_tokens_total`).
    pub generation_tokens_total: Option<u64>,
    /// Preemptions since the engine's start (`vllm:num_preemptions_total`).
    pub preemptions_total: Option<u64>,
    /// Tokens looked up in the prefix cache (`vllm:prefix_cache_queries_total`).
    pub prefix_queries_total: Option<u64>,
    /// Tokens found in the prefix cache (`vllm:prefix_cache_hits_total`).
    pub prefix_hits_total: Option<u64>,
    /// Tokens of a KV block (`vllm:cache_config_info`, label `block_size`).
    pub block_tokens: Option<u32>,
    /// KV blocks on the GPUs of all ranks (`vllm:cache_config_info`, label `num_gpu_blocks`).
    pub num_gpu_blocks: Option<u32>,
    /// Modelled energy since the start, millijoules; Equipoise's emulator only.
    pub emulator_energy_mj: Option<u64>,
    /// How much of it the idle draw accounts for, millijoules; Equipoise's emulator only.
    pub emulator_idle_mj: Option<u64>,
    /// Modelled draw now, watts; Equipoise's emulator only.
    pub emulator_power_watts: Option<f64>,
}

impl EngineMetrics {
    /// Reads the text of `/metrics`; lines that are not in the format or not known are passed over.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut read = Self::default();
        let (mut usage, mut older_usage) = (Mean::default(), Mean::default());
        for sample in samples(text).flatten() {
            let value = sample.value;
            match sample.name {
                "vllm:num_requests_running" => add_gauge(&mut read.running, value),
                "vllm:num_requests_waiting" => add_gauge(&mut read.waiting, value),
                "vllm:kv_cache_usage_perc" => usage.add(value),
                "vllm:gpu_cache_usage_perc" => older_usage.add(value),
                "vllm:prompt_tokens_total" => add_counter(&mut read.prompt_tokens_total, value),
                "vllm:generation_tokens_total" => {
                    add_counter(&mut read.generation_tokens_total, value);
                }
                "vllm:num_preemptions_total" => add_counter(&mut read.preemptions_total, value),
                "vllm:prefix_cache_queries_total" => {
                    add_counter(&mut read.prefix_queries_total, value);
                }
                "vllm:prefix_cache_hits_total" => add_counter(&mut read.prefix_hits_total, value),
                "vllm:cache_config_info" => {
                    let number = |label| sample.label(label).and_then(|text| text.parse::<u32>().ok());
                    read.block_tokens = number("block_size").or(read.block_tokens);
                    if let Some(blocks) = number("num_gpu_blocks") {
                        read.num_gpu_blocks = Some(read.num_gpu_blocks.unwrap_or(0).saturating_add(blocks));
                    }
                }
                "equipoise_emulator_energy_millijoules_total" => {
                    add_counter(&mut read.emulator_energy_mj, value);
                }
                "equipoise_emulator_idle_millijoules_total" => {
                    add_counter(&mut read.emulator_idle_mj, value);
                }
                "equipoise_emulator_power_watts" if value.is_finite() => {
                    read.emulator_power_watts = Some(read.emulator_power_watts.unwrap_or(0.0) + value);
                }
                _ => {}
            }
        }
        read.kv_usage = usage.value().or_else(|| older_usage.value());
        read
    }
}

fn add_counter(sum: &mut Option<u64>, value: f64) {
    if value.is_finite() {
        // The cast saturates: what is negative reads as zero.
        *sum = Some(sum.unwrap_or(0).saturating_add(value.round() as u64));
    }
}

fn add_gauge(sum: &mut Option<u32>, value: f64) {
    if value.is_finite() {
        *sum = Some(sum.unwrap_or(0).saturating_add(value.round() as u32));
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.sum += value.clamp(0.0, 1.0);
            self.count += 1;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO_RANKS: &str = include_str!("two-ranks.prom");

    #[test]
    fn ranks_are_summed_and_usage_is_their_mean() {
        assert_eq!(
            EngineMetrics::from_text(TWO_RANKS),
            EngineMetrics {
                running: Some(7),
                waiting: Some(3),
                kv_usage: Some(0.375),
                prompt_tokens_total: Some(1_300),
                generation_tokens_total: Some(12_400_000_160),
                preemptions_total: Some(1),
                prefix_queries_total: Some(1_300),
                prefix_hits_total: Some(256),
                block_tokens: Some(16),
                num_gpu_blocks: Some(4096),
                ..EngineMetrics::default()
            }
        );
    }

    #[test]
    fn the_emulators_own_names_and_older_names_are_known() {
        let text = "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.25\n\
                    equipoise_emulator_energy_millijoules_total 12345\n\
                    equipoise_emulator_idle_millijoules_total 345\n\
                    equipoise_emulator_power_watts 210.5\n";
        let read = EngineMetrics::from_text(text);
        assert_eq!(read.kv_usage, Some(0.25));
        assert_eq!(
            (read.emulator_energy_mj, read.emulator_idle_mj),
            (Some(12_345), Some(345))
        );
        assert_eq!(read.emulator_power_watts, Some(210.5));
        assert_eq!(read.running, None);
    }

    #[test]
    fn another_engine_is_unknown_not_idle() {
        let read = EngineMetrics::from_text("sglang:num_running_reqs 4\nvllm:num_requests_running NaN\n<html>");
        assert_eq!(read, EngineMetrics::default());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(lines in proptest::collection::vec((0..4_usize, any::<f64>(), "\\PC{0,12}"), 0..12)) {
            const NAMES: [&str; 4] = ["vllm:num_requests_running", "vllm:prompt_tokens_total", "vllm:kv_cache_usage_perc", "vllm:cache_config_info"];
            let text: String = lines.iter().map(|(name, value, label)| format!("{}{{block_size=\"{label}\"}} {value}\n", NAMES[*name])).collect();
            let read = EngineMetrics::from_text(&text);
            prop_assert!(read.kv_usage.is_none_or(|usage| (0.0..=1.0).contains(&usage)));
        }
    }
}
