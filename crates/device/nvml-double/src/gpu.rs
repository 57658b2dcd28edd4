//! One GPU of the double: a counter that integrates the draw over time, and the faults that befall it.

use crate::script::{Action, Clock, Field, Script};
use std::time::Instant;

/// NVML's `nvmlReturn_t`, the values used here.
pub(crate) mod code {
    pub(crate) const SUCCESS: u32 = 0;
    pub(crate) const UNINITIALIZED: u32 = 1;
    pub(crate) const INVALID_ARGUMENT: u32 = 2;
    pub(crate) const NOT_SUPPORTED: u32 = 3;
    pub(crate) const NOT_FOUND: u32 = 6;
    pub(crate) const INSUFFICIENT_SIZE: u32 = 7;
    pub(crate) const GPU_IS_LOST: u32 = 15;
    pub(crate) const ARGUMENT_VERSION_MISMATCH: u32 = 25;
    pub(crate) const UNKNOWN: u32 = 999;
}

const FIELDS: usize = 7;

#[derive(Debug)]
pub(crate) struct Gpu {
    clock: Clock,
    started: Instant,
    /// What is still to come, the latest first.
    due: Vec<(u64, Action)>,
    readings: u64,
    start_mj: u64,
    /// Energy since the start or the last reset, microjoules (milliwatts times milliseconds).
    microjoules: u64,
    integrated_to_ms: u64,
    quantum_ms: u64,
    power_mw: u32,
    frozen: bool,
    lost: bool,
    unsupported: [bool; FIELDS],
    pub(crate) utilization: u32,
    pub(crate) temperature: u32,
    pub(crate) throttle: u64,
    pub(crate) limit_mw: u32,
}

impl Gpu {
    pub(crate) fn new(script: &Script, index: u32, started: Instant) -> Self {
        let told = script
            .actions
            .iter()
            .filter(|(gpu, ..)| gpu.is_none_or(|gpu| gpu == index));
        let mut due: Vec<_> = told.map(|&(_, after, action)| (after, action)).collect();
        due.sort_by_key(|&(after, _)| after);
        due.reverse();
        let mut gpu = Self {
            clock: script.clock,
            started,
            due,
            readings: 0,
            start_mj: 0,
            microjoules: 0,
            integrated_to_ms: 0,
            quantum_ms: 1,
            power_mw: 100_000,
            frozen: false,
            lost: false,
            unsupported: [false; FIELDS],
            utilization: 0,
            temperature: 40,
            throttle: 0,
            limit_mw: 700_000,
        };
        gpu.apply_due();
        gpu
    }

    /// Whether the GPU answers for `field` now: a code.
    pub(crate) fn answers(&self, field: Field) -> Result<(), u32> {
        self.present()?;
        if self.unsupported[field as usize] {
            Err(code::NOT_SUPPORTED)
        } else {
            Ok(())
        }
    }

    pub(crate) fn present(&self) -> Result<(), u32> {
        if self.lost { Err(code::GPU_IS_LOST) } else { Ok(()) }
    }

    pub(crate) fn power_mw(&self) -> Result<u32, u32> {
        self.answers(Field::Power).map(|()| self.power_mw)
    }

    /// Reads the counter, millijoules, and lets what is due after this reading happen.
    pub(crate) fn read_energy_mj(&mut self) -> Result<u64, u32> {
        self.present()?;
        let answer = self.answers(Field::Energy);
        self.integrate();
        let energy_mj = self.start_mj.saturating_add(self.microjoules / 1_000);
        self.readings += 1;
        self.apply_due();
        answer.map(|()| energy_mj)
    }

    fn integrate(&mut self) {
        let elapsed_ms = match self.clock {
            Clock::Real => u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            Clock::PerReading(step) => u64::try_from(step.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_mul(self.readings),
        };
        let now_ms = elapsed_ms - elapsed_ms % self.quantum_ms.max(1);
        if !self.frozen {
            let span_ms = now_ms.saturating_sub(self.integrated_to_ms);
            self.microjoules = self
                .microjoules
                .saturating_add(u64::from(self.power_mw).saturating_mul(span_ms));
        }
        self.integrated_to_ms = now_ms.max(self.integrated_to_ms);
    }

    fn apply_due(&mut self) {
        while let Some((_, action)) = self.due.pop_if(|(after, _)| *after <= self.readings) {
            match action {
                Action::Watts(milliwatts) => self.power_mw = milliwatts,
                Action::Start(mj) => self.start_mj = mj,
                Action::Quantum(ms) => self.quantum_ms = ms,
                Action::Reset => (self.start_mj, self.microjoules) = (0, 0),
                Action::Freeze => self.frozen = true,
                Action::Thaw => self.frozen = false,
                Action::Lost => self.lost = true,
                Action::Support(field, supported) => self.unsupported[field as usize] = !supported,
                Action::Utilization(percent) => self.utilization = percent,
                Action::Temperature(celsius) => self.temperature = celsius,
                Action::Throttle(bits) => self.throttle = bits,
                Action::Limit(milliwatts) => self.limit_mw = milliwatts,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(script: &str, count: usize) -> Vec<Result<u64, u32>> {
        let script = Script::parse(script).expect("good");
        let mut gpu = Gpu::new(&script, 0, Instant::now());
        (0..count).map(|_| gpu.read_energy_mj()).collect()
    }

    #[test]
    fn the_counter_integrates_the_draw() {
        let read = readings("clock 100; watts 300; start 7; after 3 watts 100", 5);
        assert_eq!(read, [Ok(7), Ok(30_007), Ok(60_007), Ok(70_007), Ok(80_007)]);
    }

    #[test]
    fn faults_come_after_their_readings() {
        assert_eq!(
            readings("clock 100; watts 10; start 50; after 2 reset", 4),
            [Ok(50), Ok(1_050), Ok(1_000), Ok(2_000)]
        );
        assert_eq!(
            readings("clock 100; watts 10; after 2 freeze; after 3 thaw", 4),
            [Ok(0), Ok(1_000), Ok(1_000), Ok(2_000)]
        );
        assert_eq!(readings("clock 100; after 1 lost", 2), [Ok(0), Err(code::GPU_IS_LOST)]);
        assert_eq!(readings("unsupported energy", 1), [Err(code::NOT_SUPPORTED)]);
        assert_eq!(
            readings("clock 60; watts 10; quantum 100", 4),
            [Ok(0), Ok(0), Ok(1_000), Ok(1_000)]
        );
    }
}
