//! Replay: a recorded event log, fed to a fresh scheduler, must give the same answers byte for byte.

use std::collections::VecDeque;
use std::fmt;
use std::io::BufRead;

use equipoise_scheduler::{Action, Event, Scheduler};
use equipoise_trace::EventLogReader;
use equipoise_types::Timestamp;

use crate::SimulationError;
use crate::feed::{Feed, NoSink};

/// Events shown before the first difference.
const CONTEXT: usize = 3;

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplayReport {
    /// The policy that was replayed.
    pub policy: String,
    /// Events read.
    pub events: u64,
    /// Actions that the fresh scheduler answered.
    pub actions: u64,
    /// Of these, decisions.
    pub dispatches: u64,
    /// Events that were answered otherwise than recorded.
    pub differing: u64,
    /// The first of them.
    pub first: Option<Difference>,
    /// The last line, if its writer died in the middle of it; it was left out.
    pub truncated_at: Option<u64>,
}

/// One event that was answered otherwise than recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its line in the log.
    pub line: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The event, as JSON.
    pub event: String,
    /// What was recorded, as JSON.
    pub recorded: String,
    /// What was answered now, as JSON.
    pub replayed: String,
    /// The events right before it, oldest first, as JSON.
    pub before: Vec<String>,
}

impl ReplayReport {
    /// True where every answer was the recorded one.
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.differing == 0
    }
}

impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            events,
            actions,
            dispatches,
            differing,
            ..
        } = self;
        write!(
            f,
            "{events} events, {actions} actions, {dispatches} decisions by `{policy}`: "
        )?;
        match &self.first {
            None => writeln!(f, "identical")?,
            Some(first) => {
                writeln!(f, "{differing} events answered differently; the first:")?;
                for event in &first.before {
                    writeln!(f, "  before    {event}")?;
                }
                writeln!(f, "  line {} at {:.6} s", first.line, first.at.as_secs_f64())?;
                writeln!(f, "  event     {}", first.event)?;
                writeln!(f, "  recorded  {}", first.recorded)?;
                writeln!(f, "  replayed  {}", first.replayed)?;
            }
        }
        if let Some(line) = self.truncated_at {
            writeln!(f, "line {line}, the last, was cut off in the middle and left out")?;
        }
        Ok(())
    }
}

/// Feeds every event of the log to a fresh scheduler, set up as its header says, and compares the answers.
///
/// # Errors
/// When the log cannot be read, or its scheduler cannot be set up. A difference is no error.
pub fn replay<R: BufRead>(log: &mut EventLogReader<R>) -> Result<ReplayReport, SimulationError> {
    let config = log.header().scheduler.clone();
    let mut report = ReplayReport {
        policy: config.policy.clone(),
        ..ReplayReport::default()
    };
    let mut feed = Feed {
        scheduler: Scheduler::new(config)?,
        sink: NoSink,
    };
    let mut actions = Vec::new();
    let mut before: VecDeque<Event> = VecDeque::with_capacity(CONTEXT + 1);
    while let Some(logged) = log.next() {
        let logged = logged?;
        let kept = report.first.is_none().then(|| logged.event.clone());
        actions.clear();
        feed.give(logged.at, logged.event, &mut actions);
        report.events += 1;
        report.actions += actions.len() as u64;
        report.dispatches += actions
            .iter()
            .filter(|action| matches!(action, Action::Dispatch(_)))
            .count() as u64;
        let replayed = json(&actions);
        let differs = replayed != logged.actions.get();
        report.differing += u64::from(differs);
        let Some(event) = kept else { continue };
        if differs {
            report.first = Some(Difference {
                line: log.line(),
                at: logged.at,
                event: json(&event),
                recorded: logged.actions.get().to_owned(),
                replayed,
                before: before.drain(..).map(|event| json(&event)).collect(),
            });
        } else {
            before.push_back(event);
            if before.len() > CONTEXT {
                before.pop_front();
            }
        }
    }
    report.truncated_at = log.truncated_at();
    Ok(report)
}

/// These types always serialise.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
