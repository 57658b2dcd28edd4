//! The agent against a control plane and engines played by the test, and GPUs played by the NVML double.
#![expect(clippy::expect_used, reason = "a stage that cannot be set up fails the test")]

mod control;
mod energy;
mod engine;
mod sessions;

use equipoise_agent::{AgentConfig, NvmlMode};
use equipoise_proto::v1::Instance;
use std::time::Duration;

/// Waits until something is so. The bound is generous: it fails a test that hangs, it measures nothing.
#[expect(clippy::panic, reason = "a test that waits in vain has failed")]
async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to this: {what}");
}

fn instance(name: &str, endpoint: &str, gpus: &[&str]) -> Instance {
    Instance {
        name: name.to_owned(),
        pool: "pool".to_owned(),
        endpoint: endpoint.to_owned(),
        gpus: gpus.iter().map(|&gpu| gpu.to_owned()).collect(),
        ..Instance::default()
    }
}

/// Samples every hour unless the control plane says otherwise.
fn config(control: &str, instances: Vec<Instance>) -> AgentConfig {
    AgentConfig {
        telemetry_interval: Duration::from_secs(3600),
        nvml: NvmlMode::Off,
        ..AgentConfig::new(control, "node-1", instances)
    }
}
