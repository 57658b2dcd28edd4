//! What an instance's GPUs draw when its engine is idle.
//!
//! The draw of a board that holds a model but runs nothing is above the bare board's and differs from board to board,
//! so it is learned: the least power that the sensors showed while the engine said at both ends of the interval that it
//! had no request and had made no token in between. The catalogue bounds it: below by the bare board's idle draw, above
//! by half the board's limit, which no idle board comes near. Before anything was learned it is the lower bound, or
//! nothing if the GPU is not in the catalogue: energy is then not called idle on a guess.

use equipoise_engine::GpuSpec;
use equipoise_types::{MilliJoules, Timestamp, Watts};

/// When an engine was last seen idle without a break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdleWindow {
    span: Option<(Timestamp, Timestamp)>,
    tokens: Option<u64>,
}

impl IdleWindow {
    /// Takes in a look at the engine: whether it had no request, and its token counters' sum. `None`: it did not tell.
    pub(crate) fn observe(&mut self, at: Timestamp, look: Option<(bool, u64)>) {
        let unbroken = look.is_some_and(|(_, tokens)| self.tokens == Some(tokens));
        self.span = match (look, self.span) {
            (Some((true, _)), Some((since, _))) if unbroken => Some((since, at)),
            (Some((true, _)), _) => Some((at, at)),
            (Some((false, _)) | None, _) => None,
        };
        self.tokens = look.map(|(_, tokens)| tokens);
    }

    fn covers(&self, start: Timestamp, end: Timestamp) -> bool {
        self.span.is_some_and(|(since, until)| since <= start && end <= until)
    }

    /// True if the engine was idle when last looked at, which was before `end`: the next look will tell.
    fn may_yet_cover(&self, end: Timestamp) -> bool {
        self.span.is_some_and(|(_, until)| until < end)
    }
}

/// The idle draw of one instance's GPUs together.
#[derive(Debug)]
pub(crate) struct IdleDraw {
    bounds: Option<(f64, f64)>,
    learned: Option<f64>,
    /// The latest interval, until the engine's next look says whether it was idle.
    candidate: Option<(Timestamp, Timestamp, Watts)>,
}

impl IdleDraw {
    /// The idle draw of `count` GPUs of a type, `None` if it is unknown.
    pub(crate) fn new(spec: Option<&GpuSpec>, count: usize) -> Self {
        let count = count as f64;
        let bounds = spec.map(|spec| (spec.idle_watts * count, 0.5 * spec.tdp_watts * count));
        Self {
            bounds,
            learned: None,
            candidate: None,
        }
    }

    /// Takes in the GPUs' power at the end of an interval, and what is known of the engine by now.
    pub(crate) fn observe(&mut self, start: Timestamp, end: Timestamp, power: Option<Watts>, engine: &IdleWindow) {
        if let Some((from, to, power)) = self.candidate {
            if engine.covers(from, to) {
                self.learned = Some(self.learned.map_or(power.0, |least| least.min(power.0)));
            }
            if !engine.may_yet_cover(to) {
                self.candidate = None;
            }
        }
        if let Some(power) = power.filter(|_| self.candidate.is_none()) {
            self.candidate = Some((start, end, power));
        }
    }

    /// The idle draw, if anything is known of it.
    pub(crate) fn watts(&self) -> Option<Watts> {
        match (self.learned, self.bounds) {
            (Some(learned), Some((low, high))) => Some(Watts(learned.clamp(low, high.max(low)))),
            (Some(learned), None) => Some(Watts(learned)),
            (None, Some((low, _))) => Some(Watts(low)),
            (None, None) => None,
        }
    }

    /// How much of `measured` the idle draw accounts for.
    pub(crate) fn share(&self, start: Timestamp, end: Timestamp, measured: MilliJoules) -> MilliJoules {
        let idle = self
            .watts()
            .map(|watts| (watts * end.secs_since(start)).to_millijoules());
        idle.unwrap_or_default().min(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    #[test]
    fn an_engine_is_idle_between_looks_without_requests_or_new_tokens() {
        let mut window = IdleWindow::default();
        window.observe(at(0), Some((true, 5)));
        window.observe(at(200), Some((true, 5)));
        assert!(window.covers(at(0), at(200)) && !window.covers(at(0), at(201)));
        // A whole request between two looks shows in the tokens only.
        window.observe(at(400), Some((true, 9)));
        assert!(!window.covers(at(200), at(400)) && window.covers(at(400), at(400)));
        window.observe(at(600), Some((false, 9)));
        assert!(!window.covers(at(400), at(400)));
        window.observe(at(800), None);
        window.observe(at(1000), Some((true, 9)));
        assert!(!window.covers(at(900), at(1000)), "unknown is not idle");
    }

    #[test]
    fn the_least_idle_power_is_learned_and_busy_power_is_not() {
        let mut idle = IdleDraw::new(None, 1);
        let mut engine = IdleWindow::default();
        assert_eq!(
            idle.share(at(0), at(1000), MilliJoules(500)),
            MilliJoules(0),
            "nothing known, nothing called idle"
        );
        engine.observe(at(0), Some((true, 0)));
        for (end, power, running) in [
            (200, 120.0, 0),
            (400, 110.0, 0),
            (600, 115.0, 0),
            (800, 60.0, 1),
            (1000, 50.0, 1),
        ] {
            idle.observe(at(end - 199), at(end), Some(Watts(power)), &engine);
            engine.observe(at(end + 1), Some((running == 0, 0)));
        }
        idle.observe(at(1001), at(1200), Some(Watts(40.0)), &engine);
        assert_eq!(idle.watts(), Some(Watts(110.0)));
        assert_eq!(idle.share(at(0), at(1000), MilliJoules(500_000)), MilliJoules(110_000));
        assert_eq!(
            idle.share(at(0), at(1000), MilliJoules(500)),
            MilliJoules(500),
            "at most what was measured"
        );
    }

    #[test]
    fn the_catalogue_bounds_it() {
        let spec = equipoise_engine::gpu("A100-80G").expect("known");
        let mut idle = IdleDraw::new(Some(spec), 2);
        assert_eq!(idle.watts(), Some(Watts(2.0 * spec.idle_watts)));
        idle.learned = Some(3.0);
        assert_eq!(idle.watts(), Some(Watts(2.0 * spec.idle_watts)));
        idle.learned = Some(5e3);
        assert_eq!(idle.watts(), Some(Watts(spec.tdp_watts)));
    }
}
