//! One task per engine: looks at its health and metrics every interval, so that a slow engine delays no other.

use crate::counter::ModelledCounter;
use crate::health::Health;
use crate::shared::Shared;
use equipoise_backend::{BackendError, EngineClient, EngineMetrics};
use equipoise_proto::v1::EngineSample;
use equipoise_types::{MilliJoules, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An engine that failed its last probe is asked so much more often: a failure is told from a mishap sooner, and one that
/// is back gets work within an interval.
const HASTE: u32 = 4;
/// Time that one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the agent knows of one engine.
#[derive(Debug)]
pub(crate) struct EngineWatch {
    instance: String,
    client: EngineClient,
    health: Health,
    /// Set once it has shown metrics: from then on an engine without them is unknown, not idle.
    shows_metrics: bool,
    /// The emulator's own energy counter.
    modelled: Option<ModelledCounter>,
}

impl EngineWatch {
    pub(crate) fn new(instance: String, client: EngineClient, emulated: bool) -> Self {
        let modelled = emulated.then(|| ModelledCounter::new(instance.clone()));
        Self {
            instance,
            client,
            health: Health::default(),
            shows_metrics: false,
            modelled,
        }
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Looks until sampling ends; at an engine that meters itself once more then, so that its last interval is not lost.
    pub(crate) async fn run(mut self, shared: Arc<Shared>) {
        while shared.tick(self.haste()).await {
            let doubted = !self.health.beyond_doubt();
            let changed = self.look(&shared).await;
            if changed || (doubted && self.health.beyond_doubt()) {
                shared.news.notify_one();
            }
        }
        if self.modelled.is_some() {
            self.look(&shared).await;
        }
    }

    /// Looks an interval.
    fn haste(&self) -> u32 {
        if self.health.beyond_doubt() { 1 } else { HASTE }
    }

    /// Probes it and scrapes its metrics; true if its health is another than before.
    async fn look(&mut self, shared: &Shared) -> bool {
        // The answer is as old as the question at most.
        let at = shared.clock.now();
        let started = Instant::now();
        let (health, metrics) = tokio::join!(
            self.client.probe_health(PROBE_TIMEOUT),
            self.client.scrape(PROBE_TIMEOUT)
        );
        shared.metrics.observe_probe(started.elapsed());
        let changed = self.health.observe(health.is_ok());
        if changed {
            let healthy = self.health.healthy();
            shared.metrics.set_engine_healthy(&self.instance, healthy);
            match &health {
                Err(error) if !healthy => tracing::warn!(instance = self.instance, %error, "engine is unhealthy"),
                _ => tracing::info!(instance = self.instance, healthy, "engine health"),
            }
        }
        let sample = self.sample(at, health.is_ok(), &metrics);
        shared.observe_engine(&self.instance, at, metrics.as_ref().ok().and_then(look_for_idle));
        let energy = match (&mut self.modelled, &metrics) {
            (
                Some(counter),
                Ok(EngineMetrics {
                    emulator_energy_mj: Some(energy),
                    emulator_idle_mj,
                    ..
                }),
            ) => counter.observe(at, MilliJoules(*energy), MilliJoules(emulator_idle_mj.unwrap_or(0))),
            _ => None,
        };
        if let Some(energy) = energy {
            shared.put_energy(energy);
        }
        if let Some(sample) = sample {
            shared.outbox.lock().put_engine(sample);
        }
        changed
    }

    /// What to tell the control plane: nothing where nothing new is known, so that the age of the last sample shows.
    fn sample(
        &mut self,
        at: Timestamp,
        answered: bool,
        metrics: &Result<EngineMetrics, BackendError>,
    ) -> Option<EngineSample> {
        let silent = EngineSample {
            instance: self.instance.clone(),
            unix_ns: at.0,
            ..EngineSample::default()
        };
        if !self.health.healthy() {
            return Some(silent);
        }
        if !answered {
            return None;
        }
        match metrics {
            Ok(EngineMetrics {
                running: Some(running),
                waiting,
                ..
            }) => {
                self.shows_metrics = true;
                let metrics = metrics.as_ref().ok()?;
                Some(EngineSample {
                    healthy: true,
                    running: *running,
                    waiting: waiting.unwrap_or(0),
                    kv_usage: metrics.kv_usage.unwrap_or(0.0),
                    prompt_tokens_total: metrics.prompt_tokens_total.unwrap_or(0),
                    generation_tokens_total: metrics.generation_tokens_total.unwrap_or(0),
                    preemptions_total: metrics.preemptions_total.unwrap_or(0),
                    prefix_queries_total: metrics.prefix_queries_total.unwrap_or(0),
                    prefix_hits_total: metrics.prefix_hits_total.unwrap_or(0),
                    ..silent
                })
            }
            // An engine under other names, or without metrics: health is all that it tells.
            _ if !self.shows_metrics => Some(EngineSample {
                healthy: true,
                ..silent
            }),
            _ => None,
        }
    }
}

/// Whether the engine has no request, and its token counters' sum; `None` where it does not tell.
fn look_for_idle(metrics: &EngineMetrics) -> Option<(bool, u64)> {
    let requests = metrics.running?.saturating_add(metrics.waiting?);
    let tokens = metrics
        .prompt_tokens_total
        .unwrap_or(0)
        .saturating_add(metrics.generation_tokens_total.unwrap_or(0));
    Some((requests == 0, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_backend::EngineClientConfig;

    fn status(status: u16) -> Result<EngineMetrics, BackendError> {
        Err(BackendError::Status {
            endpoint: String::new(),
            path: String::new(),
            status,
        })
    }

    #[test]
    fn an_engine_that_stops_to_show_metrics_is_unknown_not_idle() {
        let client = EngineClient::new("http://127.0.0.1:1", EngineClientConfig::default()).expect("usable");
        let mut watch = EngineWatch::new("a".to_owned(), client, false);
        let mut look = |answered, metrics| {
            watch.health.observe(answered);
            watch.sample(Timestamp(1), answered, &metrics)
        };
        assert!(
            !look(false, status(503)).expect("unhealthy is told").healthy,
            "before its first answer"
        );
        assert!(look(true, status(404)).expect("health only").healthy);
        let busy = EngineMetrics {
            running: Some(3),
            kv_usage: Some(0.5),
            ..EngineMetrics::default()
        };
        let sample = look(true, Ok(busy)).expect("told");
        assert_eq!((sample.running, sample.kv_usage, sample.unix_ns), (3, 0.5, 1));
        assert_eq!(look(true, status(500)), None);
        assert_eq!(
            look(false, Ok(busy)),
            None,
            "one failure is forgiven but not told as health"
        );
        let gone = look(false, status(500)).expect("unhealthy is told");
        assert_eq!((gone.healthy, gone.running), (false, 0));
    }
}
