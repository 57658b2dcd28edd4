//! Settings that change while the router runs.

use std::sync::Arc;

use equipoise_policy::SettingsError;
use equipoise_scheduler::{Event, Scheduler, SchedulerConfig};
use equipoise_telemetry::ReloadOutcome;

use crate::server::State;

/// Changes a running router's settings. Clones change the same router.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    state: Arc<State>,
}

impl LiveSettings {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Takes over how requests are placed: policy, weights, limits, tenants. What is in flight or waits stays as it is; the seed
    /// and how prompts are cut into blocks stay those of the start. Says whether anything is different.
    ///
    /// # Errors
    /// For settings that make no sense; the old ones hold. It is counted.
    pub fn change(&self, scheduler: &SchedulerConfig) -> Result<bool, SettingsError> {
        if let Err(error) = Scheduler::new(scheduler.clone()) {
            self.refused();
            return Err(error);
        }
        let held = |scheduler: &Scheduler| (scheduler.config().seed, scheduler.config().prefix);
        let (seed, prefix) = self.state.driver.with_scheduler(held);
        let config = SchedulerConfig {
            seed,
            prefix,
            ..scheduler.clone()
        };
        let differences = |scheduler: &Scheduler| {
            let held = scheduler.config();
            (*held != config, held.tenants != config.tenants)
        };
        let (differs, other_tenants) = self.state.driver.with_scheduler(differences);
        if differs {
            // Limits begin anew with their tenants, and not because a weight has changed.
            if other_tenants {
                self.state.set_access(&config.tenants);
            }
            self.state.hedging.set(config.hedge);
            let config = Box::new(config);
            self.state.driver.on_event(Event::Configured { config });
        }
        self.state.observing.count_reload(ReloadOutcome::Applied);
        Ok(differs)
    }

    /// Counts settings that could not even be read.
    pub fn refused(&self) {
        self.state.observing.count_reload(ReloadOutcome::Refused);
    }
}
