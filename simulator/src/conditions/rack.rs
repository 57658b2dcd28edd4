//! A power cap over several instances: allotted by what each wants, anew every interval, kept at every moment.
//!
//! Each member's idle draw is set aside; what is left of the cap is shared max-min fairly by what the members' steps wanted
//! to draw in the last interval, with a floor so that one who wakes can begin. A member's limit is the lesser of its last two
//! allotments: a step that began under the one before may still run when the next begins, so the sum of what is drawn stays
//! below the cap as long as a step is shorter than an interval.

use equipoise_config::RackConfig;
use equipoise_trace::{TraceError, WorkloadRecord};

use super::Change;
use crate::RequestSink;
use crate::driver::Driver;
use crate::feed::Sink;
use crate::happening::Happening;

/// Of what is left beside the idle draw, this share is kept as floors, in equal parts.
const FLOOR_SHARE: f64 = 0.1;

/// A rack with its last allotment.
#[derive(Clone, Debug)]
pub(super) struct CappedRack {
    config: RackConfig,
    last: Option<Vec<f64>>,
}

impl CappedRack {
    pub(super) fn new(config: RackConfig) -> Self {
        Self { config, last: None }
    }
}

/// What each member may draw, watts: the sum is the cap. `idle` and `wanted` are watts by member.
fn allotment(cap_watts: f64, idle: &[f64], wanted: &[f64]) -> Vec<f64> {
    let members = idle.len() as f64;
    let left = (cap_watts - idle.iter().sum::<f64>()).max(0.0);
    let floor = FLOOR_SHARE * left / members;
    let mut shares: Vec<f64> = vec![floor; idle.len()];
    let needs: Vec<f64> = idle
        .iter()
        .zip(wanted)
        .map(|(idle, wanted)| (wanted - idle - floor).max(0.0))
        .collect();
    // Those who want least first: each gets its need or an equal part of what is left.
    let mut order: Vec<usize> = (0..idle.len()).collect();
    order.sort_by(|a, b| needs[*a].total_cmp(&needs[*b]));
    let mut rest = left - floor * members;
    for (taken, member) in order.iter().enumerate() {
        let part = rest / (members - taken as f64);
        let given = needs[*member].min(part);
        shares[*member] += given;
        rest -= given;
    }
    // What nobody wanted is there for whoever will.
    let more = rest.max(0.0) / members;
    idle.iter()
        .zip(shares)
        .map(|(idle, share)| idle + share + more)
        .collect()
}

impl<W, S, R> Driver<'_, W, S, R>
where
    W: Iterator<Item = Result<WorkloadRecord, TraceError>>,
    S: Sink,
    R: RequestSink,
{
    pub(super) fn allot(&mut self, rack: usize) {
        for instance in self.conditions.racks[rack].config.instances.clone() {
            self.advance(instance);
        }
        let CappedRack { config, last } = &mut self.conditions.racks[rack];
        let (mut idle, mut wanted) = (Vec::new(), Vec::new());
        for instance in &config.instances {
            let instance = &mut self.instances[*instance];
            idle.push(instance.most_resting_watts());
            wanted.push(instance.pace.take_wanted_watts());
        }
        let allotted = allotment(config.cap_watts, &idle, &wanted);
        let last = last.replace(allotted.clone()).unwrap_or_else(|| allotted.clone());
        for ((instance, before), now) in config.instances.iter().zip(&last).zip(&allotted) {
            self.instances[*instance].pace.limit(before.min(*now));
        }
        let interval_s = config.interval_s;
        let at = self.next_beat(interval_s, wanted.iter().sum::<f64>() > 0.0);
        self.plan(at, Happening::Change(Change::Allot { rack }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::RandomStream;

    #[test]
    fn the_sum_is_the_cap_and_nobody_is_starved() {
        let mut random = RandomStream::new(5);
        for _ in 0..1000 {
            let members = 1 + random.below(8);
            let idle: Vec<f64> = (0..members).map(|_| 100.0 * random.uniform()).collect();
            let wanted: Vec<f64> = idle.iter().map(|idle| idle + 400.0 * random.uniform()).collect();
            let cap = 1.05 * idle.iter().sum::<f64>() + 1000.0 * random.uniform() + 1.0;
            let allotted = allotment(cap, &idle, &wanted);
            assert!((allotted.iter().sum::<f64>() - cap).abs() < 1e-6, "{allotted:?}");
            assert!(
                allotted.iter().zip(&idle).all(|(given, idle)| given > idle),
                "{allotted:?} {idle:?}"
            );
        }
    }

    #[test]
    fn who_wants_little_gets_it_and_the_rest_goes_to_others() {
        let allotted = allotment(1000.0, &[100.0, 100.0, 100.0], &[150.0, 900.0, 900.0]);
        assert!(allotted[0] >= 150.0 && allotted[1] > 400.0, "{allotted:?}");
        assert!((allotted[1] - allotted[2]).abs() < 1e-9);
        // As much as all want: everybody gets it.
        let plenty = allotment(2000.0, &[100.0, 100.0], &[300.0, 600.0]);
        assert!(plenty[0] >= 300.0 && plenty[1] >= 600.0, "{plenty:?}");
    }
}
