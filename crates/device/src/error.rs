//! What can go wrong when GPUs are asked.

use std::fmt;

/// A failure to meter GPUs: of the whole node, or of one GPU while the others go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No driver answered: the node has no NVIDIA GPU, or the library is not visible.
    #[error(
        "no NVIDIA driver: tried {}; on a GPU node install the driver, in a container set NVIDIA_DRIVER_CAPABILITIES=utility",
        Tried(tried)
    )]
    NoDriver {
        /// The library names or paths tried, each with what it said.
        tried: Vec<(String, String)>,
    },
    /// The GPU fell off the bus or needs a reset; it will not answer again until someone acts.
    #[error("GPU {index} ({uuid}) is lost: check the kernel log for an Xid, then reset the GPU or reboot the node")]
    Lost {
        /// NVML index.
        index: u32,
        /// NVML UUID; empty if it was never read.
        uuid: String,
    },
    /// A question to one GPU failed, for other reasons than that it is lost or does not know the answer.
    #[error("GPU {index} ({uuid}) did not answer for its {what}: {reason}")]
    Query {
        /// NVML index.
        index: u32,
        /// NVML UUID; empty if it was never read.
        uuid: String,
        /// What was asked.
        what: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// There is no such GPU on the node.
    #[error("no GPU `{wanted}` on this node: use an index or a UUID out of: {present}")]
    NotFound {
        /// The UUID or index asked for.
        wanted: String,
        /// What is there.
        present: String,
    },
}

struct Tried<'a>(&'a [(String, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (library, reason)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{library} ({reason})")?;
        }
        Ok(())
    }
}
