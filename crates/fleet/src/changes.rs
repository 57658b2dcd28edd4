//! Which instances have changed: so that nobody need look at all of them to find out.

use equipoise_types::InstanceId;

use crate::Instance;

/// Lists of changed instances, each in them once at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Since the scheduler asked last.
    pub(crate) listed: Vec<InstanceId>,
    /// Since the models counted them last.
    pub(crate) uncounted: Vec<InstanceId>,
    /// Whether another router ever reported.
    pub(crate) peers: bool,
}

impl Changes {
    /// An instance is changed, or about to be.
    pub(crate) fn note(&mut self, instance: &mut Instance) {
        if !std::mem::replace(&mut instance.listed.0, true) {
            self.listed.push(instance.id);
        }
        if !std::mem::replace(&mut instance.listed.1, true) {
            self.uncounted.push(instance.id);
        }
    }
}
