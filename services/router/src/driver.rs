//! The live driver: a real clock around the scheduler, one lock, and a mailbox for every request.
//!
//! A batch is whatever has arrived while the previous decision ran: a request that finds the lock taken is left in a short
//! queue, and whoever has the lock hands all of them in together. Nobody waits for a batch to fill, and none waits
//! without an owner: who lets go of the lock looks into the queue afterwards, and who left a request there had found the lock taken
//! after that.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use equipoise_policy::SettingsError;
use equipoise_scheduler::{Action, Dispatch, Event, Refusal, Request, Scheduler, SchedulerConfig};
use equipoise_telemetry::RouterMetrics;
use equipoise_trace::{EventLogWriter, TraceError};
use equipoise_types::{RequestId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use mailbox::Sender;

pub(crate) use mailbox::Mailbox;

mod mailbox;

/// What a waiting request is told.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Send it there.
    Dispatch(Box<Dispatch>),
    /// Show the answer that was held back.
    Deliver,
    /// It will not be served.
    Refuse(Refusal),
}

/// Requests that may be left for whoever has the lock; further ones wait for the lock themselves.
const MOST_ARRIVALS: usize = 1024;
/// The event log reaches the operating system at least this often.
const RECORD_FLUSH: Duration = Duration::from_secs(1);

/// A driver that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The scheduler's settings make no sense.
    #[error("the scheduler cannot be set up: {0}")]
    Settings(#[from] SettingsError),
    /// The event log cannot be written.
    #[error("the event log cannot be written: {0}")]
    Record(#[from] TraceError),
}

struct Core {
    scheduler: Scheduler,
    actions: Vec<Action>,
    recorder: Option<EventLogWriter<BufWriter<File>>>,
    flushed_at: Timestamp,
    last: Timestamp,
}

/// The scheduler with a clock. Shared by every connection.
pub struct Driver {
    core: Mutex<Core>,
    /// Arrived, and not handed in yet. Locked for a push or a take only, never while the scheduler is waited for.
    arrivals: Mutex<Vec<Request>>,
    /// Guards are never held across an await.
    mailboxes: DashMap<RequestId, Sender>,
    epoch: Instant,
    epoch_unix_ns: u64,
    next_request: AtomicU64,
    wakeup_changed: Notify,
    /// Other routers should hear of what is in flight now.
    ledger_changed: Notify,
    metrics: RouterMetrics,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("waiting_or_out", &self.mailboxes.len())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// A driver over an empty fleet; records to `record`, if given.
    ///
    /// # Errors
    /// For settings that make no sense and an event log that cannot be created.
    pub fn new(config: SchedulerConfig, record: Option<&Path>, metrics: RouterMetrics) -> Result<Self, DriverError> {
        let recorder = record.map(|path| EventLogWriter::create(path, &config)).transpose()?;
        let since_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            core: Mutex::new(Core {
                scheduler: Scheduler::new(config)?,
                actions: Vec::new(),
                recorder,
                flushed_at: Timestamp::ZERO,
                last: Timestamp::ZERO,
            }),
            arrivals: Mutex::new(Vec::new()),
            mailboxes: DashMap::new(),
            epoch: Instant::now(),
            epoch_unix_ns: u64::try_from(since_unix.as_nanos()).unwrap_or(u64::MAX),
            next_request: AtomicU64::new(0),
            wakeup_changed: Notify::new(),
            ledger_changed: Notify::new(),
            metrics,
        })
    }

    /// Now, on the run's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.epoch.elapsed()
    }

    /// A point of the run's clock, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ns(&self, at: Timestamp) -> u64 {
        self.epoch_unix_ns.saturating_add(at.0)
    }

    /// How long ago a Unix time was, seconds; zero if it lies ahead.
    #[must_use]
    pub fn age_s(&self, unix_ns: u64) -> f64 {
        self.unix_ns(self.now()).saturating_sub(unix_ns) as f64 / 1e9
    }

    /// A new request's id, and the mailbox its verdicts come to.
    pub(crate) fn open_mailbox(&self) -> (RequestId, Mailbox) {
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mailbox::mailbox();
        self.mailboxes.insert(id, sender);
        (id, receiver)
    }

    /// Nobody waits for verdicts on this request any more.
    pub(crate) fn close_mailbox(&self, id: RequestId) {
        self.mailboxes.remove(&id);
    }

    /// Hands a request in, with those that arrived at the same time: decided when this returns, or soon, by whoever
    /// has the scheduler.
    pub(crate) fn arrive(&self, request: Request) {
        let mut arrivals = self.arrivals.lock();
        if arrivals.len() >= MOST_ARRIVALS {
            drop(arrivals);
            return self.on_event(Event::Arrived(vec![request]));
        }
        arrivals.push(request);
        drop(arrivals);
        self.serve_arrivals();
    }

    /// Hands in what has arrived, unless somebody has the lock: they look after they have let go of it.
    fn serve_arrivals(&self) {
        while !self.arrivals.lock().is_empty() {
            let Some(mut core) = self.core.try_lock() else { return };
            self.hand_in(&mut core);
        }
    }

    /// What has arrived, as one event.
    fn hand_in(&self, core: &mut Core) {
        let arrived = std::mem::take(&mut *self.arrivals.lock());
        if !arrived.is_empty() {
            self.run(core, [Event::Arrived(arrived)], |_| {});
        }
    }

    /// Takes the lock for `act`. What arrived before is handed in first: a request that is cancelled is known by then.
    fn with_core<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let result = {
            let mut core = self.core.lock();
            self.hand_in(&mut core);
            act(&mut core)
        };
        self.serve_arrivals();
        result
    }

    /// Tells the scheduler what happened, now, and carries out what it answers.
    pub fn on_event(&self, event: Event) {
        self.on_events([event], |_| {});
    }

    /// The same for events that belong together: nobody else's come between them. `after_each` sees the scheduler
    /// after every one of them, before any action is carried out.
    pub(crate) fn on_events(&self, events: impl IntoIterator<Item = Event>, after_each: impl FnMut(&Scheduler)) {
        self.with_core(|core| self.run(core, events, after_each));
    }

    fn run(&self, core: &mut Core, events: impl IntoIterator<Item = Event>, mut after_each: impl FnMut(&Scheduler)) {
        let wakeup_before = core.scheduler.next_wakeup();
        let in_flight_before = core.scheduler.in_flight();
        core.actions.clear();
        for event in events {
            let started = Instant::now();
            let arrived = matches!(event, Event::Arrived(_));
            // Taken under the lock, so that time never runs backwards for the scheduler.
            let now = self.now().max(core.last);
            core.last = now;
            let before = core.actions.len();
            let logged = core.recorder.is_some().then(|| event.clone());
            core.scheduler.on_event(now, event, &mut core.actions);
            if arrived {
                self.metrics.observe_decision(started.elapsed());
            }
            if let Some(event) = logged {
                record(core, now, &event, before);
            }
            after_each(&core.scheduler);
        }
        if core.scheduler.fleet().peer_routers() > 0
            && (!core.actions.is_empty() || core.scheduler.in_flight() != in_flight_before)
        {
            self.ledger_changed.notify_one();
        }
        for action in core.actions.drain(..) {
            self.carry_out(action);
        }
        if core.scheduler.next_wakeup() != wakeup_before {
            self.wakeup_changed.notify_one();
        }
    }

    fn carry_out(&self, action: Action) {
        let (request, verdict) = match action {
            Action::Dispatch(dispatch) => {
                if dispatch.attempt > 1 {
                    self.metrics.retries.inc();
                }
                if dispatch.waited_s > 0.0 {
                    self.metrics.observe_queue_wait(dispatch.waited_s);
                }
                (dispatch.request, Verdict::Dispatch(Box::new(dispatch)))
            }
            Action::Refuse { request, reason } => (request, Verdict::Refuse(reason)),
            Action::Deliver { request } => (request, Verdict::Deliver),
            Action::Queue { .. } => return,
        };
        // A mailbox that is gone belongs to a client that left: its cancellation is on its way to the scheduler.
        if let Some(mailbox) = self.mailboxes.get(&request) {
            mailbox.send(verdict);
        }
    }

    /// Reads the scheduler's state.
    pub(crate) fn with_scheduler<T>(&self, read: impl FnOnce(&Scheduler) -> T) -> T {
        self.with_core(|core| read(&core.scheduler))
    }

    /// Returns when what is in flight has changed since this returned last, and other routers are there to hear of it.
    pub(crate) async fn ledger_changed(&self) {
        self.ledger_changed.notified().await;
    }

    /// Wakes the scheduler when it wants to be woken; runs until dropped.
    pub(crate) async fn keep_time(&self) {
        loop {
            let changed = self.wakeup_changed.notified();
            let (next, flush) = self.with_core(|core| {
                let flush = core.recorder.is_some().then_some(RECORD_FLUSH);
                (core.scheduler.next_wakeup(), flush)
            });
            let sleep = next.map(|at| at.since(self.now()));
            match sleep {
                Some(span) if span.is_zero() => self.on_event(Event::Timer),
                _ => {
                    let span = sleep
                        .into_iter()
                        .chain(flush)
                        .min()
                        .unwrap_or(Duration::from_secs(3600));
                    tokio::select! {
                        () = tokio::time::sleep(span) => self.flush_record(),
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Hands the event log to the operating system, if there is one.
    pub(crate) fn flush_record(&self) {
        self.with_core(|core| {
            if let Some(recorder) = &mut core.recorder
                && let Err(error) = recorder.flush()
            {
                tracing::error!("the event log is given up: {error}");
                core.recorder = None;
            }
        });
    }
}

/// Writes an event with the actions that it brought, those from `before` on.
fn record(core: &mut Core, now: Timestamp, event: &Event, before: usize) {
    let Some(recorder) = &mut core.recorder else { return };
    let mut written = recorder.write(now, event, &core.actions[before..]);
    if written.is_ok() && now.since(core.flushed_at) > RECORD_FLUSH {
        core.flushed_at = now;
        written = recorder.flush();
    }
    if let Err(error) = written {
        // A full disk must not stop traffic; half a log is still a log up to here.
        tracing::error!("the event log is given up: {error}");
        core.recorder = None;
    }
}

#[cfg(test)]
mod tests;
