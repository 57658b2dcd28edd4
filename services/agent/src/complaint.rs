//! When to say again what has been said.

use std::time::Duration;
use tokio::time::Instant;

/// How often a refusal that somebody must mend is repeated.
const REPEAT: Duration = Duration::from_secs(30);

/// The last thing that was complained of.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    said: Option<(String, Instant)>,
}

impl Complaint {
    /// Whether `reason` is new.
    pub(crate) fn is_new(&mut self, reason: &str, now: Instant) -> bool {
        let new = self.said.as_ref().is_none_or(|(said, _)| said != reason);
        if new {
            self.said = Some((reason.to_owned(), now));
        }
        new
    }

    /// Whether `reason` is new, or was last said half a minute ago.
    pub(crate) fn is_due(&mut self, reason: &str, now: Instant) -> bool {
        let due = self
            .said
            .as_ref()
            .is_none_or(|(said, at)| said != reason || now.duration_since(*at) >= REPEAT);
        if due {
            self.said = Some((reason.to_owned(), now));
        }
        due
    }

    /// All is well: whatever comes next is new.
    pub(crate) fn settle(&mut self) {
        self.said = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_at_each_change_and_every_half_minute() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        let mut said = |reason: &str, seconds: u64| complaint.is_due(reason, start + Duration::from_secs(seconds));
        assert!(said("a", 0));
        assert!(!said("a", 1) && !said("a", 29));
        assert!(said("a", 30) && !said("a", 59) && said("a", 60));
        assert!(said("b", 61) && said("a", 62) && !said("a", 63));
    }

    #[test]
    fn an_absence_is_said_once() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        assert!(complaint.is_new("away", start));
        assert!(!complaint.is_new("away", start + 10 * REPEAT));
        complaint.settle();
        assert!(complaint.is_new("away", start));
    }
}
