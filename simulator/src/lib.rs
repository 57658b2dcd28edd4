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

mod agenda;
mod cascade;
mod conditions;
mod distribution;
mod driver;
mod feed;
mod happening;
mod instance;
mod meter;
mod mismatch;
mod options;
mod outcome;
mod pace;
mod parallel;
mod prefix;
mod prompts;
mod quantiles;
mod replay;
mod report;
mod request;
mod result;
mod routers;
mod scenario;
mod sink;
mod slo;
mod sweep;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;

pub use conditions::ConditionOptions;
pub use distribution::Distribution;
pub use mismatch::{Mismatch, STALL};
pub use options::{SimulationError, SimulationOptions};
pub use outcome::{
    Distributions, EnergyByCause, FacilityFigures, FaultSpan, RunFigures, RunOutcome, SloFigures, Spread,
};
pub use parallel::{cores, parallel_map};
pub use prompts::{Answer, AnsweredPrompt, PromptError, PromptSet, Questions};
pub use replay::{Difference, ReplayReport, replay};
pub use report::{Report, render_report};
pub use result::{EnergyTotals, InstanceResult, ModelShare, Percentiles, PolicyResult, to_json};
pub use routers::RouterOptions;
pub use scenario::{Scenario, ScenarioCell, ScenarioError};
pub use sink::{RequestEnding, RequestRecord, RequestSink};
pub use slo::{SloGoal, SloResult};
pub use sweep::{CellDone, MergedSweep, Shard, SweepError, run_sweep};
pub use table::render_table;
pub use timeline::Timeline;

use std::io::Write;

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
    driver::check_order(records)?;
    let mut drivers = Vec::with_capacity(policies.len());
    for policy in policies {
        let config = scheduler_config(fleet, policy, options);
        drivers.push(Driver::<_, _, ()>::new(fleet, config, of_slice(records), options, NoSink)?.keeping_places());
    }
    let run = |driver: Driver<'_, _, _, _>| driver.run().map(|(result, _)| result);
    parallel_map(drivers, cores(), run).into_iter().collect()
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
    // A log has every event in order of time, progress of answers too.
    let options = SimulationOptions {
        step_by_step: true,
        ..options.clone()
    };
    driver::check_order(records)?;
    let driver = Driver::<_, _, ()>::new(fleet, config, of_slice(records), &options, sink)?;
    let (result, sink) = driver.keeping_places().run()?;
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
    let policy = options.policies.first().unwrap_or(&fleet.scheduler.policy);
    let config = scheduler_config(fleet, policy, options);
    let driver = Driver::new(fleet, config, workload.into_iter(), options, NoSink)?;
    Ok(driver.telling(sink).run()?.0)
}

fn of_slice(records: &[WorkloadRecord]) -> impl Iterator<Item = Result<WorkloadRecord, TraceError>> + '_ {
    records.iter().cloned().map(Ok)
}

fn scheduler_config(fleet: &FleetConfig, policy: &str, options: &SimulationOptions) -> SchedulerConfig {
    SchedulerConfig {
        policy: policy.to_owned(),
        seed: options.seed,
        ..fleet.scheduler.clone()
    }
}
