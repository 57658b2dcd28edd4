//! The script: which GPUs there are, what they draw, and what goes wrong when.
//!
//! Directives stand on lines of their own or between semicolons; `#` begins a comment.
//!
//! ```text
//! gpus 2                      # how many (first directive; default 1)
//! clock 100                   # every reading of a GPU's energy advances its time by 100 ms; `clock real`: wall time (default)
//! init 9                      # nvmlInit fails with this code
//! watts 300                   # for every GPU ...
//! gpu 1 watts 150             # ... or for one
//! gpu 0 after 5 reset         # once five energy readings of GPU 0 were answered: the counter starts again at zero
//! ```
//!
//! What can follow: `watts W`, `start MJ` (the counter's first value), `quantum MS` (the counter moves in steps of this much
//! time), `reset`, `freeze`, `thaw`, `lost`, `unsupported FIELD` and `supported FIELD` (energy, power, utilization, memory,
//! temperature, throttle, limit), `utilization PERCENT`, `temperature C`, `throttle BITS`, `limit W`.

use std::time::Duration;

/// What a GPU can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The energy counter.
    Energy,
    /// The draw.
    Power,
    /// Utilization rates.
    Utilization,
    /// Memory in use and in all.
    Memory,
    /// The core's temperature.
    Temperature,
    /// Why clocks are low.
    Throttle,
    /// The enforced power limit.
    Limit,
}

/// Something that a GPU is told at the start or after some readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Draw this much, milliwatts.
    Watts(u32),
    /// Set the counter, millijoules.
    Start(u64),
    /// Let the counter move in steps of this much time only, milliseconds.
    Quantum(u64),
    /// Start the counter again at zero.
    Reset,
    /// Let the counter stand still.
    Freeze,
    /// Let it go on.
    Thaw,
    /// Fall off the bus.
    Lost,
    /// Answer `NOT_SUPPORTED` for the field, or answer again.
    Support(Field, bool),
    /// Report this utilization, percent.
    Utilization(u32),
    /// Report this temperature, degrees Celsius.
    Temperature(u32),
    /// Report these throttle reasons.
    Throttle(u64),
    /// Report this power limit, milliwatts.
    Limit(u32),
}

/// How time passes for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As on the wall.
    Real,
    /// By this much with every energy reading of the GPU.
    PerReading(Duration),
}

/// A script, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// How many GPUs.
    pub gpus: u32,
    /// How time passes.
    pub clock: Clock,
    /// What `nvmlInit` returns.
    pub init: u32,
    /// Which GPU (all if `None`) is told what after how many readings.
    pub actions: Vec<(Option<u32>, u64, Action)>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// A sentence that quotes the directive that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self {
            gpus: 1,
            clock: Clock::Real,
            init: 0,
            actions: Vec::new(),
        };
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
        for directive in lines.flat_map(|line| line.split(';')) {
            let words: Vec<&str> = directive.split_whitespace().collect();
            script
                .read(&words)
                .ok_or_else(|| format!("`{}` is not understood", directive.trim()))?;
        }
        Ok(script)
    }

    fn read(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            [] => {}
            ["gpus", count] => self.gpus = count.parse().ok()?,
            ["clock", "real"] => self.clock = Clock::Real,
            ["clock", ms] => {
                self.clock = Clock::PerReading(Duration::from_millis(ms.parse().ok()?));
            }
            ["init", code] => self.init = code.parse().ok()?,
            ["gpu", gpu, "after", readings, ref rest @ ..] => {
                let gpu: u32 = gpu.parse().ok()?;
                self.actions.push((Some(gpu), readings.parse().ok()?, action(rest)?));
            }
            ["gpu", gpu, ref rest @ ..] => {
                self.actions.push((Some(gpu.parse().ok()?), 0, action(rest)?));
            }
            ["after", readings, ref rest @ ..] => {
                self.actions.push((None, readings.parse().ok()?, action(rest)?));
            }
            ref rest => self.actions.push((None, 0, action(rest)?)),
        }
        Some(())
    }
}

fn action(words: &[&str]) -> Option<Action> {
    Some(match *words {
        ["watts", watts] => Action::Watts(milliwatts(watts)?),
        ["start", mj] => Action::Start(mj.parse().ok()?),
        ["quantum", ms] => Action::Quantum(ms.parse().ok()?),
        ["reset"] => Action::Reset,
        ["freeze"] => Action::Freeze,
        ["thaw"] => Action::Thaw,
        ["lost"] => Action::Lost,
        ["unsupported", name] => Action::Support(field(name)?, false),
        ["supported", name] => Action::Support(field(name)?, true),
        ["utilization", percent] => Action::Utilization(percent.parse().ok()?),
        ["temperature", celsius] => Action::Temperature(celsius.parse().ok()?),
        ["throttle", bits] => Action::Throttle(bits.parse().ok()?),
        ["limit", watts] => Action::Limit(milliwatts(watts)?),
        _ => return None,
    })
}

fn milliwatts(watts: &str) -> Option<u32> {
    let watts: f64 = watts.parse().ok()?;
    (watts.is_finite() && watts >= 0.0).then(|| (watts * 1e3).round() as u32)
}

fn field(name: &str) -> Option<Field> {
    Some(match name {
        "energy" => Field::Energy,
        "power" => Field::Power,
        "utilization" => Field::Utilization,
        "memory" => Field::Memory,
        "temperature" => Field::Temperature,
        "throttle" => Field::Throttle,
        "limit" => Field::Limit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_read() {
        let script = Script::parse(
            "gpus 2; clock 100 # comment; init 9\nwatts 12.5\ngpu 1 after 5 reset\nafter 3 unsupported energy\n",
        );
        let script = script.expect("good");
        assert_eq!(
            (script.gpus, script.init, script.clock),
            (2, 0, Clock::PerReading(Duration::from_millis(100)))
        );
        let expected = [
            (None, 0, Action::Watts(12_500)),
            (Some(1), 5, Action::Reset),
            (None, 3, Action::Support(Field::Energy, false)),
        ];
        assert_eq!(script.actions, expected);
    }

    #[test]
    fn a_wrong_directive_is_quoted() {
        for wrong in [
            "gpus many",
            "gpu 0",
            "watts -3",
            "explode",
            "gpu 0 after lost",
            "unsupported colour",
        ] {
            let error = Script::parse(&format!("gpus 1\n{wrong}")).expect_err(wrong);
            assert!(error.contains(wrong), "{error}");
        }
    }
}
