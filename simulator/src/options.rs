//! What a simulation can be told, and why it may not start.

use std::sync::Arc;

use equipoise_config::UnknownPhysics;
use equipoise_policy::SettingsError;
use equipoise_predict::Forecast;
use equipoise_scheduler::Target;
use equipoise_trace::TraceError;

use crate::routers::RouterOptions;
use crate::{Answer, ConditionOptions, Mismatch, Questions, SloGoal};

/// Latest arrival, years. The clock counts nanoseconds in 64 bits, 584 years.
pub(crate) const LONGEST_YEARS: f64 = 250.0;
/// Each router is told of every instance: more than this take too long.
const MOST_ROUTERS: u32 = 256;

/// How to run a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationOptions {
    /// Policies to compare, by name; empty: the fleet's own.
    pub policies: Vec<String>,
    /// Seed of the scheduler's random draws; takes the place of the fleet's.
    pub seed: u64,
    /// What every request asks for...
    pub target: Target,
    /// ...but for those that have an entry here, by request.
    pub targets: Vec<Target>,
    /// Way from the router to an instance, and the same back, seconds.
    pub hop_s: f64,
    /// Time between two telemetry samples of an instance, seconds.
    pub telemetry_interval_s: f64,
    /// Whether engines keep the prompts they have computed; matters for workloads that know their prefix blocks.
    pub prefix_cache: bool,
    /// What requests ask, with what every model truly makes of it; `None`: the workload's lengths and the models' declared
    /// qualities are the truth.
    pub questions: Option<Arc<Questions>>,
    /// How far engines are from what the scheduler believes.
    pub mismatch: Mismatch,
    /// An SLO that every request carries.
    pub slo: Option<SloGoal>,
    /// The share of answers about which somebody says how good they were, [0, 1].
    pub feedback_share: f64,
    /// Routers that share the work, and what they know of one another.
    pub routers: RouterOptions,
    /// Faults, autoscaling, power caps.
    pub conditions: ConditionOptions,
    /// Takes every engine step on its own, through the queue of events. Slow, and the same results bit for bit: for tests.
    pub step_by_step: bool,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            seed: 1,
            target: Target::Auto,
            targets: Vec::new(),
            hop_s: 1e-3,
            telemetry_interval_s: 0.2,
            prefix_cache: true,
            questions: None,
            mismatch: Mismatch::default(),
            slo: None,
            feedback_share: 0.0,
            routers: RouterOptions::default(),
            conditions: ConditionOptions::default(),
            step_by_step: false,
        }
    }
}

/// Why a simulation does not start, or its log was not written.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// There is nothing to simulate.
    #[error("the workload has no request: nothing to simulate")]
    NoRequests,
    /// There is nobody to serve.
    #[error("the fleet has no instance: declare at least one [[pool]]")]
    NoInstances,
    /// Two instances share a name.
    #[error("two instances are called `{name}`: names must be unique")]
    DuplicateInstance {
        /// The name.
        name: String,
    },
    /// The requests are not in order of arrival.
    #[error("request {index} of the workload arrives before the one ahead of it: sort the workload by arrival")]
    NotSorted {
        /// Its index, from 0.
        index: u64,
    },
    /// A request arrives beyond what a run's clock can count.
    #[error("request {index} of the workload arrives after {years:.0} years: a run takes {LONGEST_YEARS} at most")]
    TooLate {
        /// Its index, from 0.
        index: u64,
        /// When it arrives.
        years: f64,
    },
    /// A time makes no sense.
    #[error("{option} is {seconds} s: it must be {allowed}")]
    Time {
        /// Which option.
        option: &'static str,
        /// As given.
        seconds: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A certainty, or no promise at all.
    #[error("the SLO's confidence is {0}: it must be between 0 and 1, neither of them")]
    Confidence(f64),
    /// More than all, or less than nobody.
    #[error("the share of answers with feedback is {0}: it must be from 0 to 1")]
    FeedbackShare(f64),
    /// Nobody to route, or too many.
    #[error("{count} routers cannot be simulated: ask for 1 to {MOST_ROUTERS}")]
    Routers {
        /// As asked for.
        count: u32,
    },
    /// An instance whose behaviour is not known.
    #[error(transparent)]
    Physics(#[from] UnknownPhysics),
    /// The policy is unknown or its settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The event log cannot be written.
    #[error(transparent)]
    Log(#[from] TraceError),
    /// The workload cannot be read to its end.
    #[error(transparent)]
    Workload(TraceError),
}

impl SimulationOptions {
    /// What a request asks for.
    pub(crate) fn target_of(&self, request: usize) -> Target {
        self.targets.get(request).unwrap_or(&self.target).clone()
    }

    /// What the scheduler is told of a request's prompt.
    pub(crate) fn forecast(&self, request: usize) -> Option<Forecast> {
        self.questions.as_ref()?.of(request)?.forecast.clone()
    }

    /// What `model` truly makes of a request, where requests carry prompts.
    pub(crate) fn truth(&self, request: usize, model: &str) -> Option<Answer> {
        self.questions.as_ref()?.answer(request, model)
    }

    /// Checks the figures.
    pub(crate) fn check(&self) -> Result<(), SimulationError> {
        let bounded = |seconds: f64, least: f64| seconds >= least && seconds <= 3600.0;
        if !bounded(self.hop_s, 0.0) {
            let allowed = "between 0 and 3600";
            return Err(SimulationError::Time {
                option: "hop_s",
                seconds: self.hop_s,
                allowed,
            });
        }
        if !bounded(self.telemetry_interval_s, 1e-3) {
            let (option, seconds) = ("telemetry_interval_s", self.telemetry_interval_s);
            return Err(SimulationError::Time {
                option,
                seconds,
                allowed: "between 0.001 and 3600",
            });
        }
        if !(0.0..=1.0).contains(&self.feedback_share) {
            return Err(SimulationError::FeedbackShare(self.feedback_share));
        }
        self.slo.as_ref().map_or(Ok(()), SloGoal::check)?;
        self.check_routers(bounded)
    }

    fn check_routers(&self, bounded: impl Fn(f64, f64) -> bool) -> Result<(), SimulationError> {
        let RouterOptions {
            count,
            state_interval_s,
            state_age_s,
        } = self.routers;
        if !(1..=MOST_ROUTERS).contains(&count) {
            return Err(SimulationError::Routers { count });
        }
        let spans = [
            ("state_interval_s", state_interval_s, 1e-3),
            ("state_age_s", state_age_s, 0.0),
        ];
        for (option, seconds, least) in spans {
            if !bounded(seconds, least) {
                let allowed = if least > 0.0 {
                    "between 0.001 and 3600"
                } else {
                    "between 0 and 3600"
                };
                return Err(SimulationError::Time {
                    option,
                    seconds,
                    allowed,
                });
            }
        }
        Ok(())
    }

    /// Time between two samples of all instances, seconds.
    pub(crate) fn sampling_interval_s(&self) -> f64 {
        if self.routers.count > 1 {
            self.routers.state_interval_s
        } else {
            self.telemetry_interval_s
        }
    }
}
