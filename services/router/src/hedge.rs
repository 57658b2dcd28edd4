//! Hedging: while nothing of a stream has come, and it is late among the last streams of its model, a second instance is
//! asked as well. The first byte wins; the other is hung up on, and what it did is booked, charged and accounted as wasted.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use equipoise_scheduler::{Dispatch, Event, Failure, HedgeSettings};
use equipoise_types::RequestId;
use parking_lot::{Mutex, RwLock};

use crate::cascade;
use crate::driver::{Mailbox, Verdict};
use crate::proxy::{self, Asked, Sent};
use crate::server::State;
use crate::ticket::Ticket;

/// Waits for a first byte that are remembered for each model; of fewer than these no quantile is taken.
const KEPT: usize = 256;
const LEAST: usize = 32;

/// When a stream is late.
#[derive(Debug, Default)]
pub(crate) struct Hedging {
    settings: RwLock<Option<HedgeSettings>>,
    /// Seconds from a dispatch to its first byte, by model. Kept while hedging is on.
    waits_s: Mutex<BTreeMap<String, VecDeque<f64>>>,
}

impl Hedging {
    pub(crate) fn new(settings: Option<HedgeSettings>) -> Self {
        Self {
            settings: RwLock::new(settings),
            waits_s: Mutex::default(),
        }
    }

    /// Other settings hold from now on.
    pub(crate) fn set(&self, settings: Option<HedgeSettings>) {
        *self.settings.write() = settings;
    }

    fn is_on(&self) -> bool {
        self.settings.read().is_some()
    }

    fn observe(&self, model: &str, waited: Duration) {
        let mut models = self.waits_s.lock();
        let waits = match models.get_mut(model) {
            Some(waits) => waits,
            None => models.entry(model.to_owned()).or_default(),
        };
        if waits.len() >= KEPT {
            waits.pop_front();
        }
        waits.push_back(waited.as_secs_f64());
    }

    /// After how long a stream of a model is late; `None` while too little is known of it.
    fn delay(&self, model: &str) -> Option<Duration> {
        let settings = (*self.settings.read())?;
        let mut waits: Vec<f64> = {
            let models = self.waits_s.lock();
            let waits = models.get(model).filter(|waits| waits.len() >= LEAST)?;
            waits.iter().copied().collect()
        };
        let rank = ((waits.len() as f64 * settings.quantile) as usize).min(waits.len() - 1);
        let (_, quantile, _) = waits.select_nth_unstable_by(rank, f64::total_cmp);
        Duration::try_from_secs_f64(quantile.max(settings.least_delay_ms / 1e3)).ok()
    }
}

/// The second way, which is now the request's only one.
pub(crate) struct Way {
    pub(crate) ticket: Ticket,
    pub(crate) verdicts: Mailbox,
    pub(crate) dispatch: Box<Dispatch>,
}

/// Sends a request to its instance, and where that is late to a second one. With a way, that one has taken the request
/// over: the ticket that was given stands for the other one, and is to be dropped.
pub(crate) async fn send(
    state: &Arc<State>,
    asked: &Asked,
    dispatch: &Dispatch,
    ticket: &mut Ticket,
) -> (Sent, Option<Box<Way>>) {
    if !asked.head.stream || !state.hedging.is_on() || cascade::is_gated(asked, dispatch) {
        return (proxy::send(state, asked, dispatch, ticket).await, None);
    }
    Box::pin(send_hedged(state, asked, dispatch, ticket)).await
}

async fn send_hedged(
    state: &Arc<State>,
    asked: &Asked,
    dispatch: &Dispatch,
    ticket: &mut Ticket,
) -> (Sent, Option<Box<Way>>) {
    let started = Instant::now();
    let model = state.engines.get(dispatch.instance).map(|engine| engine.model.clone());
    let model = model.unwrap_or_default();
    let id = ticket.id;
    let (sent, way) = {
        let mut first = Box::pin(proxy::send(state, asked, dispatch, ticket));
        let early = match state.hedging.delay(&model) {
            Some(delay) => tokio::time::timeout(delay, &mut first).await.ok(),
            None => Some((&mut first).await),
        };
        match early {
            Some(sent) => (sent, None),
            None => match ask_twin(state, asked, id).await {
                Some(mut way) => {
                    state.metrics.hedges.inc();
                    let twin = way.ticket.id;
                    let second = Box::pin(proxy::send(state, asked, &way.dispatch, &mut way.ticket));
                    match race(state, (id, first.as_mut()), (twin, second)).await {
                        Winner::First(sent) => (sent, None),
                        Winner::Second(sent) => (sent, Some(way)),
                    }
                }
                None => (first.await, None),
            },
        }
    };
    if matches!(sent, Sent::Answered(_)) {
        state.hedging.observe(&model, started.elapsed());
    }
    let way = way.map(|mut way| {
        state.metrics.hedges_won.inc();
        ticket.hand_over(&mut way.ticket);
        if let Some(engine) = state.engines.get(way.dispatch.instance) {
            way.ticket.dispatched(&way.dispatch, &engine);
        }
        way
    });
    (sent, way)
}

/// Asks the scheduler, which answers at once: somebody else, or nobody.
async fn ask_twin(state: &Arc<State>, asked: &Asked, id: RequestId) -> Option<Box<Way>> {
    let (twin, mut verdicts) = state.driver.open_mailbox();
    let ticket = Ticket::twin(Arc::clone(state), twin, asked.head.prompt_chars);
    state.driver.on_event(Event::Hedged { request: id, twin });
    match verdicts.recv().await {
        Some(Verdict::Dispatch(dispatch)) => Some(Box::new(Way {
            ticket,
            verdicts,
            dispatch,
        })),
        _ => None,
    }
}

/// Whose answer it is, and what came of it.
enum Winner {
    First(Sent),
    Second(Sent),
}

/// Who answers first. Who fails while the other is still out has only lost: the other goes on alone, retries and all.
async fn race(
    state: &State,
    (id, mut first): (RequestId, Pin<&mut impl Future<Output = Sent>>),
    (twin, mut second): (RequestId, Pin<Box<impl Future<Output = Sent>>>),
) -> Winner {
    tokio::select! {
        biased;
        sent = &mut first => match sent {
            Sent::Elsewhere(failure) => {
                give_up(state, id, failure);
                Winner::Second(second.await)
            }
            sent => Winner::First(sent),
        },
        sent = &mut second => match sent {
            Sent::Answered(_) => Winner::Second(sent),
            Sent::Elsewhere(failure) => {
                give_up(state, twin, failure);
                Winner::First(first.await)
            }
            Sent::Failed(_) => Winner::First(first.await),
        },
    }
}

/// Its work is over; the instance is blamed where it is at fault, and nobody tries again in its place.
fn give_up(state: &State, request: RequestId, failure: Failure) {
    state.close(request, None, true);
    state.driver.on_event(match failure {
        Failure::Unreached | Failure::Final => Event::Failed {
            request,
            failure: Failure::Final,
        },
        Failure::Errored | Failure::Overloaded => Event::Cancelled { request },
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_late_at_a_quantile_of_those_before_it() {
        let hedging = Hedging::new(Some(HedgeSettings {
            quantile: 0.9,
            least_delay_ms: 50.0,
        }));
        for number in 0..LEAST as u64 {
            assert_eq!(hedging.delay("m"), None, "too little is known");
            hedging.observe("m", Duration::from_millis(10 * number));
        }
        assert_eq!(hedging.delay("m"), Some(Duration::from_millis(280)));
        assert_eq!(hedging.delay("other"), None);
        for _ in 0..KEPT {
            hedging.observe("m", Duration::from_millis(10));
        }
        assert_eq!(hedging.delay("m"), Some(Duration::from_millis(50)), "the floor");
        hedging.set(None);
        assert_eq!(hedging.delay("m"), None);
    }
}
