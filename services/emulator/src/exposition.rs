//! The metrics page in Prometheus' text format, by vLLM 0.32's names, help texts and labels.

use crate::histogram::Histogram;
use crate::metrics::Metrics;
use std::fmt::Write as _;

/// What vLLM answers with.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=1.0.0; charset=utf-8";

/// What stays the same from scrape to scrape.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    /// The model's name, escaped for a label value.
    pub(crate) model_name: String,
    pub(crate) block_tokens: u32,
    /// `None`: no KV limit.
    pub(crate) num_gpu_blocks: Option<u32>,
    pub(crate) gpu_memory_utilization: f64,
    pub(crate) gpus: u32,
}

/// A name in a label value.
pub(crate) fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page at `now_s` seconds since the start.
pub(crate) fn render(metrics: &Metrics, labels: &Labels, now_s: f64) -> String {
    let mut page = Page {
        text: String::with_capacity(16 << 10),
        model_name: &labels.model_name,
    };
    gauges(&mut page, metrics);
    counters(&mut page, metrics);
    histograms(&mut page, metrics);
    cache_config(&mut page, labels);
    emulator(&mut page, metrics, labels, now_s);
    page.text
}

fn gauges(page: &mut Page<'_>, metrics: &Metrics) {
    let engine = &metrics.engine;
    let (running, waiting) = (f64::from(engine.running), f64::from(engine.waiting));
    page.family(
        "vllm:num_requests_running",
        "gauge",
        "Number of requests in model execution batches.",
    );
    page.sample("vllm:num_requests_running", "", running);
    page.family(
        "vllm:num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
    );
    page.sample("vllm:num_requests_waiting", "", waiting);
    page.family(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Number of waiting requests by reason.",
    );
    page.labelled("vllm:num_requests_waiting_by_reason", "", "reason", "capacity", waiting);
    page.labelled("vllm:num_requests_waiting_by_reason", "", "reason", "deferred", 0.0);
    page.family(
        "vllm:kv_cache_usage_perc",
        "gauge",
        "KV-cache usage. 1 means 100 percent usage.",
    );
    page.sample("vllm:kv_cache_usage_perc", "", engine.kv_usage);
}

fn counters(page: &mut Page<'_>, metrics: &Metrics) {
    let engine = &metrics.engine;
    let queries = "Prefix cache queries, in terms of number of queried tokens.";
    let plain = [
        ("vllm:prefix_cache_queries_total", queries, metrics.prefix_queries),
        (
            "vllm:prefix_cache_hits_total",
            "Prefix cache hits, in terms of number of cached tokens.",
            metrics.prefix_hits,
        ),
        (
            "vllm:num_preemptions_total",
            "Cumulative number of preemption from the engine.",
            engine.preemptions_total,
        ),
        (
            "vllm:prompt_tokens_total",
            "Number of prefill tokens processed.",
            engine.prompt_tokens_total,
        ),
        (
            "vllm:generation_tokens_total",
            "Number of generation tokens processed.",
            engine.generation_tokens_total,
        ),
    ];
    for (name, help, value) in plain {
        page.family(name, "counter", help);
        page.sample(name, "", value as f64);
    }
    let success = "vllm:request_success_total";
    page.family(success, "counter", "Count of successfully processed requests.");
    for (reason, count) in [
        ("stop", metrics.stopped),
        ("length", metrics.cut),
        ("abort", metrics.aborted),
        ("error", 0),
        ("repetition", 0),
    ] {
        page.line(success, &format!(",finished_reason=\"{reason}\""), "", count as f64);
    }
    let rejections = "vllm:admission_rejections_total";
    page.family(
        rejections,
        "counter",
        "Number of admission attempts rejected by a queue limit, by reason.",
    );
    page.labelled(rejections, "", "reason", "max_num_queued_reqs", metrics.rejected as f64);
}

fn histograms(page: &mut Page<'_>, metrics: &Metrics) {
    let all = [
        (
            "request_prompt_tokens",
            "Number of prefill tokens processed.",
            &metrics.prompt_tokens,
        ),
        (
            "request_generation_tokens",
            "Number of generation tokens processed.",
            &metrics.generation_tokens,
        ),
        (
            "time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            &metrics.first_token_s,
        ),
        (
            "inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            &metrics.inter_token_s,
        ),
        (
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            &metrics.per_output_token_s,
        ),
        (
            "e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            &metrics.end_to_end_s,
        ),
        (
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            &metrics.queue_s,
        ),
        (
            "request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            &metrics.inference_s,
        ),
        (
            "request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            &metrics.prefill_s,
        ),
        (
            "request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            &metrics.decode_s,
        ),
    ];
    for (name, help, histogram) in all {
        page.histogram(&format!("vllm:{name}"), help, histogram);
    }
}

fn cache_config(page: &mut Page<'_>, labels: &Labels) {
    let name = "vllm:cache_config_info";
    let blocks = labels
        .num_gpu_blocks
        .map_or_else(|| "None".to_owned(), |blocks| blocks.to_string());
    page.family(name, "gauge", "Information of the LLMEngine CacheConfig");
    let block_size = labels.block_tokens;
    let utilization = labels.gpu_memory_utilization;
    let _ = writeln!(
        page.text,
        "{name}{{block_size=\"{block_size}\",cache_dtype=\"auto\",enable_prefix_caching=\"True\",engine=\"0\",\
         gpu_memory_utilization=\"{utilization}\",num_gpu_blocks=\"{blocks}\"}} 1.0"
    );
}

fn emulator(page: &mut Page<'_>, metrics: &Metrics, labels: &Labels, now_s: f64) {
    let reading = metrics.meter.read(now_s);
    let energy = "Modelled energy of all GPUs of the instance since the start, millijoules.";
    let idle = "The idle draw over the same time, busy or not, millijoules.";
    for (name, help, amount) in [
        ("equipoise_emulator_energy_millijoules_total", energy, reading.energy),
        ("equipoise_emulator_idle_millijoules_total", idle, reading.idle),
    ] {
        page.family(name, "counter", help);
        let _ = writeln!(
            page.text,
            "{name}{{engine=\"0\",model_name=\"{}\"}} {}",
            page.model_name, amount.0
        );
    }
    page.family(
        "equipoise_emulator_power_watts",
        "gauge",
        "Modelled draw now, all GPUs of the instance, watts.",
    );
    page.sample("equipoise_emulator_power_watts", "", reading.power.0);
    page.family("equipoise_emulator_gpus", "gauge", "GPUs that the instance stands for.");
    page.sample("equipoise_emulator_gpus", "", f64::from(labels.gpus));
}

struct Page<'a> {
    text: String,
    model_name: &'a str,
}

/// Writing to a `String` cannot fail, so the results of `write!` are dropped.
impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A line whose labels come in vLLM's order, which is alphabetical: `early` before the model's name, `late` after it.
    fn line(&mut self, name: &str, early: &str, late: &str, value: f64) {
        let model_name = self.model_name;
        // Debug writes 1.0 where Display writes 1; Python writes 1.0.
        let _ = writeln!(
            self.text,
            "{name}{{engine=\"0\"{early},model_name=\"{model_name}\"{late}}} {value:?}"
        );
    }

    fn sample(&mut self, name: &str, suffix: &str, value: f64) {
        self.line(&format!("{name}{suffix}"), "", "", value);
    }

    fn labelled(&mut self, name: &str, suffix: &str, label: &str, label_value: &str, value: f64) {
        self.line(
            &format!("{name}{suffix}"),
            "",
            &format!(",{label}=\"{label_value}\""),
            value,
        );
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        let bounds = histogram
            .bounds
            .iter()
            .map(|bound| format!("{bound:?}"))
            .chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(histogram.cumulative()) {
            self.line(&bucket, &format!(",le=\"{bound}\""), "", count as f64);
            total = count;
        }
        self.sample(name, "_count", total as f64);
        self.sample(name, "_sum", histogram.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::Watts;

    fn page() -> String {
        let mut metrics = Metrics::new(Watts(50.0), 2048);
        metrics.engine.running = 3;
        metrics.first_token_s.observe(0.3);
        let labels = Labels {
            model_name: escape("a\"b"),
            block_tokens: 16,
            num_gpu_blocks: Some(100),
            gpu_memory_utilization: 0.9,
            gpus: 2,
        };
        render(&metrics, &labels, 2.0)
    }

    #[test]
    fn lines_look_like_vllm_s() {
        let page = page();
        for line in [
            "# TYPE vllm:num_requests_running gauge",
            r#"vllm:num_requests_running{engine="0",model_name="a\"b"} 3.0"#,
            r#"vllm:request_success_total{engine="0",finished_reason="abort",model_name="a\"b"} 0.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="0.25",model_name="a\"b"} 0.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="a\"b"} 1.0"#,
            r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="a\"b"} 1.0"#,
            r#"vllm:time_to_first_token_seconds_count{engine="0",model_name="a\"b"} 1.0"#,
            r#"vllm:request_prompt_tokens_bucket{engine="0",le="2000.0",model_name="a\"b"} 0.0"#,
            r#"vllm:num_requests_waiting_by_reason{engine="0",model_name="a\"b",reason="capacity"} 0.0"#,
            r#"equipoise_emulator_energy_millijoules_total{engine="0",model_name="a\"b"} 100000"#,
            r#"equipoise_emulator_power_watts{engine="0",model_name="a\"b"} 50.0"#,
        ] {
            assert!(page.lines().any(|seen| seen == line), "{line} is missing in\n{page}");
        }
        assert!(!page.contains("le=\"5000.0\""), "buckets end at the context");
    }

    #[test]
    fn every_family_has_help_and_type_once() {
        let page = page();
        let mut types: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
        assert_eq!(page.lines().filter(|line| line.starts_with("# HELP ")).count(), count);
    }
}
