//! The study of dominance: every arm in every scenario under every seed, and what it says.

use equipoise_simulator::{cores, parallel_map};
use serde::Serialize;

use crate::arm::{Arm, Family};
use crate::decomposition::Parts;
use crate::outcome::Outcome;
use crate::scenario;
use crate::scenario::Scenario;
use crate::setting::Setting;
use crate::verdict::{Cell, Standing, best};

/// Everything that came out.
#[derive(Clone, Debug)]
pub struct Study {
    /// Requests per second of the full fleet.
    pub capacity_per_s: f64,
    /// Seeds, from 1.
    pub seeds: u64,
    /// Prompts that requests ask.
    pub prompts: usize,
    /// The arms.
    pub arms: Vec<Arm>,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// By scenario, then by arm.
    pub cells: Vec<Vec<Cell>>,
    /// Decompositions of savings.
    pub parts: Vec<Decomposition>,
}

/// A saving in its parts.
#[derive(Clone, Debug, Serialize)]
pub struct Decomposition {
    /// Where.
    pub scenario: String,
    /// Of which arm of ours...
    pub of: String,
    /// ...over which.
    pub over: String,
    /// Whether requests share system prompts.
    pub shared_prompts: bool,
    /// The parts.
    pub parts: Parts,
}

/// How a baseline stands against ours in a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The baseline.
    pub baseline: String,
    /// Best standing of a preset, and which.
    pub presets: (Standing, String),
    /// Best standing of a preset or of other weights, and which.
    pub all: (Standing, String),
}

/// Runs every arm in every scenario; `tell` hears of each scenario that is done.
///
/// # Errors
/// The first run that fails.
pub fn run(
    setting: &Setting,
    arms: &[Arm],
    scenarios: &[Scenario],
    seeds: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<Vec<Vec<Cell>>> {
    let mut all = Vec::with_capacity(scenarios.len());
    for scenario in scenarios {
        let jobs: Vec<(usize, u64)> = (0..arms.len())
            .flat_map(|arm| (1..=seeds).map(move |seed| (arm, seed)))
            .collect();
        let runs = parallel_map(jobs, cores(), |(arm, seed)| {
            setting.run(&arms[arm], &scenario.arrivals, seed)
        });
        let runs = runs.into_iter().collect::<anyhow::Result<Vec<Outcome>>>()?;
        let cells = runs.chunks(seeds as usize).enumerate().map(|(arm, runs)| Cell {
            arm,
            runs: runs.to_vec(),
        });
        all.push(cells.collect());
        tell(&scenario.name);
    }
    Ok(all)
}

impl Study {
    /// The cells of one scenario whose arms are of certain families.
    pub fn of(&self, scenario: usize, families: &'static [Family]) -> impl Iterator<Item = &Cell> {
        let is_one = move |cell: &&Cell| families.contains(&self.arms[cell.arm].family);
        self.cells[scenario].iter().filter(is_one)
    }

    /// The cell of an arm by its name.
    #[must_use]
    pub fn cell(&self, scenario: usize, name: &str) -> Option<&Cell> {
        self.cells[scenario]
            .iter()
            .find(|cell| self.arms[cell.arm].name == name)
    }

    /// The name of a cell's arm.
    #[must_use]
    pub fn name(&self, cell: &Cell) -> &str {
        &self.arms[cell.arm].name
    }

    /// How every baseline stands in a scenario.
    #[must_use]
    pub fn verdicts(&self, scenario: usize) -> Vec<Verdict> {
        let named = |found: Option<(&Cell, Standing)>| {
            found.map_or((Standing::Behind, String::new()), |(cell, standing)| {
                (standing, self.name(cell).to_owned())
            })
        };
        let baselines = self.of(scenario, BASELINES);
        let verdict = |baseline: &Cell| Verdict {
            baseline: self.name(baseline).to_owned(),
            presets: named(best(self.of(scenario, &[Family::Preset]), baseline)),
            all: named(best(self.of(scenario, OURS), baseline)),
        };
        baselines.map(verdict).collect()
    }
}

/// Families that are ours.
pub const OURS: &[Family] = &[Family::Preset, Family::Sweep];
/// Families that ours are held against.
pub const BASELINES: &[Family] = &[Family::RouteBalance, Family::Decoupled, Family::Balancer];

/// The scenarios of the study: Poisson at each load, and the arrivals of a trace at two.
///
/// # Errors
/// A trace that is absent or malformed.
pub fn scenarios(
    loads: &[f64],
    capacity_per_s: f64,
    seconds: f64,
    least: usize,
    azure: Option<&std::path::Path>,
    azure_requests: usize,
) -> anyhow::Result<Vec<Scenario>> {
    let mut all: Vec<Scenario> = loads
        .iter()
        .map(|&load| scenario::poisson(load, capacity_per_s, seconds, least))
        .collect();
    if let Some(path) = azure {
        for load in [0.4, 0.7] {
            all.push(scenario::trace("Azure", path, load, capacity_per_s, azure_requests)?);
        }
    }
    Ok(all)
}
