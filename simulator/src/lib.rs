//! Trace-driven simulation of a whole fleet, with the router's own decision code, in virtual time.
//!
//! [`simulate`] runs a workload against a fleet once per policy. The scheduler is the one that runs live; only its driver
//! differs: here a heap of happenings stands for the clock and the network, and one engine model per instance for vLLM.
//! [`replay()`] feeds a recorded event log to a fresh scheduler and compares what it answers, byte for byte.
//!
//! What is assumed: a request's answer has the length that the trace says, whichever model gives it (the scheduler is
//! never told); an answer is as good as its model's declared quality. Unless requests carry graded prompts: see
//! [`PromptSet`]. State: each run owns all of its own; the same
//! inputs give the same bytes. Does not belong here: tokio, services, command lines, policies.

mod cascade;
mod driver;
mod feed;
mod happening;
mod instance;
mod mismatch;
mod options;
mod prefix;
mod prompts;
mod replay;
mod request;
mod result;
mod routers;
mod sink;
mod slo;
mod table;
#[cfg(test)]
mod tests;

pub use mismatch::{Mismatch, STALL};
pub use options::{SimulationError, SimulationOptions};
pub use prompts::{Answer, AnsweredPrompt, PromptError, PromptSet, Questions};
pub use replay::{Difference, ReplayReport, replay};
pub use result::{EnergyTotals, InstanceResult, ModelShare, Percentiles, PolicyResult, to_json};
pub use routers::RouterOptions;
pub use sink::{RequestEnding, RequestRecord, RequestSink};
pub use slo::{SloGoal, SloResult};
pub use table::render_table;

use std::io::Write;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use equipoise_config::FleetConfig;
use equipoise_scheduler::SchedulerConfig;
use equipoise_trace::{EventLogWriter, TraceError, WorkloadRecord};

use driver::Driver;
use feed::{LogSink, NoSink};

/// Runs the workload once under each policy, on as many threads as there are cores. Results come in the order of
/// `options.policies`; where that is empty, there is one, of the fleet's own policy.
///
/// # Errors
/// When the fleet cannot be simulated, there is no request, or a policy is unknown; no run starts then.
pub fn simulate(
    fleet: &FleetConfig,
    records: &[WorkloadRecord],
    options: &SimulationOptions,
) -> Result<Vec<PolicyResult>, SimulationError> {
    let own = [fleet.scheduler.policy.clone()];
    let policies = if options.policies.is_empty() {
        &own[..]
    } else {
        &options.policies
    };
    let mut drivers = Vec::with_capacity(policies.len());
    for policy in policies {
        drivers.push(Driver::new(
            fleet,
            scheduler_config(fleet, policy, options),
            records,
            options,
            NoSink,
        )?);
    }
    let workers = thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(drivers.len());
    let waiting = Mutex::new(drivers.into_iter().enumerate());
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut done = Vec::new();
        while let Some((index, driver)) = take() {
            done.push((index, driver.run().0));
        }
        done
    };
    let mut results: Vec<(usize, PolicyResult)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    });
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Runs the workload once, under the fleet's own policy or the first of `options.policies`, and writes every event with
/// what the scheduler answered to `output`, in the format that a live router records and [`replay()`] reads.
///
/// # Errors
/// As [`simulate`], and when `output` fails.
pub fn simulate_recorded(
    fleet: &FleetConfig,
    records: &[WorkloadRecord],
    options: &SimulationOptions,
    output: impl Write,
    origin: &str,
) -> Result<PolicyResult, SimulationError> {
    let policy = options.policies.first().unwrap_or(&fleet.scheduler.policy);
    let config = scheduler_config(fleet, policy, options);
    let sink = LogSink::new(EventLogWriter::new(output, origin, &config)?);
    let (result, sink) = Driver::new(fleet, config, records, options, sink)?.run();
    sink.finish()?;
    Ok(result)
}

/// Runs a workload that is read while it runs, under the fleet's own policy or the first of `options.policies`, on this
/// thread, and tells `sink` of every request as it ends. The requests must come in order of arrival.
///
/// # Errors
/// As [`simulate`], and with the first error of the workload.
pub fn simulate_stream(
    fleet: &FleetConfig,
    workload: impl IntoIterator<Item = Result<WorkloadRecord, TraceError>>,
    options: &SimulationOptions,
    sink: &mut impl RequestSink,
) -> Result<PolicyResult, SimulationError> {
    let records = workload.into_iter().collect::<Result<Vec<_>, _>>()?;
    let policy = options.policies.first().unwrap_or(&fleet.scheduler.policy);
    let mut driver = Driver::new(
        fleet,
        scheduler_config(fleet, policy, options),
        &records,
        options,
        NoSink,
    )?;
    driver.run_to_end();
    driver.tell(sink);
    Ok(driver.run().0)
}

fn scheduler_config(fleet: &FleetConfig, policy: &str, options: &SimulationOptions) -> SchedulerConfig {
    SchedulerConfig {
        policy: policy.to_owned(),
        seed: options.seed,
        ..fleet.scheduler.clone()
    }
}
