//! What is simulated, in words for a report.

use equipoise_config::{
    ArrivalsConfig, AutoscalingTarget, DataPath, FaultConfig, FaultKind, ScenarioConfig, WorkloadSource,
};

use crate::FaultSpan;

/// What a workload is, in words.
pub(super) fn workload(config: &ScenarioConfig) -> String {
    let workload = &config.workload;
    let many = workload
        .requests
        .map_or_else(String::new, |requests| format!("{requests} requests, "));
    let source = match &workload.source {
        WorkloadSource::Trace(trace) => {
            let (DataPath::File(path) | DataPath::Data(path)) = &trace.path;
            let name = path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let segment = match (trace.from_s, trace.to_s) {
                (0.0, None) => String::new(),
                (from, None) => format!(", from {from} s on"),
                (from, Some(to)) => format!(", {from} to {to} s"),
            };
            let rate = trace
                .rate_per_s
                .map_or_else(String::new, |rate| format!(", at {rate} requests/s"));
            format!("the trace {name}{segment}{rate}")
        }
        WorkloadSource::Generated(generator) => {
            let how = match generator.arrivals {
                ArrivalsConfig::Poisson => "Poisson arrivals".to_owned(),
                ArrivalsConfig::Gamma { cv } => format!("Gamma arrivals with a coefficient of variation of {cv}"),
                ArrivalsConfig::Square { swing, period_s } => {
                    format!("a square wave of ± {:.0} % every {period_s} s", 100.0 * swing)
                }
                ArrivalsConfig::Diurnal { swing, period_s } => {
                    format!("a sine of ± {:.0} % every {period_s} s", 100.0 * swing)
                }
            };
            let rate = if config.sweep.rates_per_s.is_empty() {
                format!(", {} requests/s", generator.rate_per_s)
            } else {
                String::new()
            };
            let span = generator
                .duration_s
                .map_or_else(String::new, |span| format!(" for {span} s"));
            format!("{how}{rate}{span}")
        }
    };
    let prompts = workload.prompts.map_or("", |_| ", asking graded prompts of ZeroEval");
    format!("{many}{source}{prompts}")
}

/// A line each for faults, autoscaling and power caps, where there are any.
pub(super) fn conditions(config: &ScenarioConfig) -> Vec<String> {
    let mut lines = Vec::new();
    if !config.faults.is_empty() {
        let faults: Vec<String> = config.faults.iter().map(|one| fault(config, one)).collect();
        lines.push(format!("Faults: {}.", faults.join("; ")));
    }
    for pool in &config.autoscaling {
        let target = match pool.target {
            AutoscalingTarget::InFlight(target) => format!("{target} in flight each"),
            AutoscalingTarget::Queue(target) => format!("{target} waiting each"),
        };
        let start = pool.start_up_s.map_or_else(
            || "as long to start as its weights take".to_owned(),
            |seconds| format!("{seconds} s to start"),
        );
        lines.push(format!(
            "Autoscaling: {} from {} to {}, {target}; {start}, {} s to cool down.",
            pool.pool, pool.min, pool.max, pool.cool_down_s
        ));
    }
    for rack in &config.racks {
        let (name, cap, instances) = (&rack.name, rack.cap_watts, rack.instances.len());
        lines.push(format!("Power cap: rack {name}, {instances} instances, {cap} W."));
    }
    lines
}

fn fault(config: &ScenarioConfig, fault: &FaultConfig) -> String {
    let FaultSpan { from_s, until_s, what } = span(config, fault);
    match until_s {
        Some(until) => format!("{what} from {from_s} to {until} s"),
        None => format!("{what} from {from_s} s on"),
    }
}

/// When a fault holds, and what it is.
pub(super) fn span(config: &ScenarioConfig, fault: &FaultConfig) -> FaultSpan {
    let whom = |instances: &[usize]| match instances {
        [one] => config.fleet.instances[*one].spec.name.clone(),
        all if all.len() == config.fleet.instances.len() => "all instances".to_owned(),
        many => format!(
            "{} instances of {}",
            many.len(),
            config.fleet.instances[many[0]].spec.pool
        ),
    };
    let what = match &fault.kind {
        FaultKind::Crash { instances } => format!("crash of {}", whom(instances)),
        FaultKind::Slow { instances, factor } => format!("{} slower {factor} times", whom(instances)),
        FaultKind::RouterAway { router } => format!("router {router} away"),
        FaultKind::ControlPlaneAway => "control plane away".to_owned(),
        FaultKind::TelemetryLate { instances, delay_s } => format!("samples of {} {delay_s} s late", whom(instances)),
        FaultKind::TelemetryLost { instances, share } => {
            format!("{:.0} % of samples of {} lost", 100.0 * share, whom(instances))
        }
    };
    FaultSpan {
        from_s: fault.at_s,
        until_s: fault.until_s,
        what,
    }
}
