//! What an agent must be told, and what is wrong with it if it cannot start.

use equipoise_backend::EngineTls;
use equipoise_proto::v1::Instance;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::ClientTlsConfig;

/// The longest name of a node, characters: that of a DNS name. The control plane has the same rule.
const LIMIT_NAME: usize = 253;

/// Where GPU telemetry comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NvmlMode {
    /// NVML where there is one; a node without runs without.
    #[default]
    Auto,
    /// No GPU telemetry.
    Off,
    /// The library at this path; the agent does not start if it cannot be loaded.
    Path(PathBuf),
}

/// What an agent must be told.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The control plane, for example `http://control.equipoise:8090`.
    pub control: String,
    /// This node's name, unique in the cluster: 1 to 253 characters of `[a-z0-9.-_/]`.
    pub node: String,
    /// The instances of this node. Their `node` is set by the agent.
    pub instances: Vec<Instance>,
    /// How often to sample until the control plane says otherwise.
    pub telemetry_interval: Duration,
    /// GPU telemetry.
    pub nvml: NvmlMode,
    /// How engines are spoken to over TLS; absent: with the system's authorities.
    pub engine_tls: Option<EngineTls>,
    /// How the control plane is, where its address begins with `https://`.
    pub control_tls: Option<ClientTlsConfig>,
    /// Wanted life of the lease without renewal.
    pub lease_ttl: Duration,
    /// Where the agent's own `/metrics` and `/health` are served, if at all; port 0 takes any free port.
    pub metrics_addr: Option<SocketAddr>,
}

impl AgentConfig {
    /// The usual: a sample every 200 ms, a lease of 5 s, NVML where there is one, no
    /// port for metrics.
    #[must_use]
    pub fn new(control: impl Into<String>, node: impl Into<String>, instances: Vec<Instance>) -> Self {
        Self {
            control: control.into(),
            node: node.into(),
            instances,
            telemetry_interval: Duration::from_millis(200),
            nvml: NvmlMode::Auto,
            engine_tls: None,
            control_tls: None,
            lease_ttl: Duration::from_secs(5),
            metrics_addr: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), AgentError> {
        if self.node.is_empty() {
            return Err(AgentError::NoNode);
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | '/');
        if self.node.len() > LIMIT_NAME || !self.node.chars().all(allowed) {
            return Err(AgentError::NodeName {
                node: self.node.clone(),
            });
        }
        check_instances(&self.instances)
    }
}

/// Names once each, and GPUs.
pub(crate) fn check_instances(instances: &[Instance]) -> Result<(), AgentError> {
    let mut names = BTreeSet::new();
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for instance in instances {
        if instance.name.is_empty() || !names.insert(instance.name.as_str()) {
            return Err(AgentError::InstanceName {
                name: instance.name.clone(),
            });
        }
        for gpu in &instance.gpus {
            if let Some(first) = owners.insert(gpu, &instance.name) {
                return Err(AgentError::SharedGpu {
                    gpu: gpu.clone(),
                    first: first.to_owned(),
                    second: instance.name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The node has no name.
    #[error("the node has no name: set `node` to one that is unique in the cluster")]
    NoNode,
    /// The control plane would refuse the node's name.
    #[error("node name `{node}` is unusable: give it 1 to {LIMIT_NAME} characters of [a-z0-9.-_/]")]
    NodeName {
        /// The name.
        node: String,
    },
    /// The address for metrics cannot be listened on.
    #[error(
        "cannot listen on {address} for the agent's metrics ({source}): stop what uses that port, or choose another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// An instance has no name, or two have the same.
    #[error("instance name `{name}` is empty or used twice: names must be unique in the cluster")]
    InstanceName {
        /// The name.
        name: String,
    },
    /// Two instances claim one GPU: its energy could not be told apart.
    #[error(
        "GPU {gpu} is claimed by `{first}` and by `{second}`: the energy of a shared board cannot be told apart, list it once"
    )]
    SharedGpu {
        /// The GPU.
        gpu: String,
        /// One claimant.
        first: String,
        /// The other.
        second: String,
    },
    /// The control plane's address is no URI.
    #[error("control plane address `{control}` is unusable: {reason}; write it like http://host:8090")]
    Control {
        /// The address.
        control: String,
        /// What is wrong.
        reason: String,
    },
    /// An instance's endpoint is unusable.
    #[error("instance `{instance}`: {source}")]
    Endpoint {
        /// The instance.
        instance: String,
        /// What is wrong.
        source: equipoise_backend::BackendError,
    },
    /// The NVML library that was asked for cannot be used.
    #[error("GPU telemetry was asked for and is not to be had: {0}")]
    Nvml(#[from] equipoise_device::DeviceError),
    /// The thread that reads GPUs could not be started, or the driver did not answer.
    #[error("the GPU driver did not answer: {0}")]
    GpuThread(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, gpus: &[&str]) -> Instance {
        Instance {
            name: name.to_owned(),
            gpus: gpus.iter().map(|&gpu| gpu.to_owned()).collect(),
            ..Instance::default()
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let check = |instances| AgentConfig::new("http://c:1", "n", instances).check();
        assert!(check(vec![instance("a", &["0"]), instance("b", &["1", "2"])]).is_ok());
        assert!(matches!(
            check(vec![instance("a", &[]), instance("a", &[])]),
            Err(AgentError::InstanceName { .. })
        ));
        let shared = check(vec![instance("a", &["0"]), instance("b", &["0"])]).expect_err("shared");
        assert!(shared.to_string().contains("`a` and by `b`"), "{shared}");
        assert!(matches!(
            AgentConfig::new("http://c:1", "", vec![]).check(),
            Err(AgentError::NoNode)
        ));
        for node in ["Host.example", "a b", &"n".repeat(254)] {
            let error = AgentConfig::new("http://c:1", node, vec![]).check().expect_err(node);
            assert!(error.to_string().contains("[a-z0-9.-_/]"), "{error}");
        }
    }
}
