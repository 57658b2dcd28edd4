//! The one task that owns the engine and lets its steps take their time.

use crate::length::{Finish, Length};
use crate::metrics::{Metrics, RequestTimes};
use crate::prefix::PrefixCache;
use equipoise_engine::{Engine, EngineEvent, EngineRequest, Step, StepModel, SubmitError};
use equipoise_types::RequestId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Requests on their way to the engine; it empties the channel at least once a step.
const INBOX: usize = 1024;

/// How late a step may begin and still count from when it should have: timers wake up to a millisecond late, and that must
/// not add up. After a longer pause of the whole process the engine carries on from now.
const MAX_LAG: Duration = Duration::from_millis(200);

/// A request for the engine.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: RequestId,
    pub(crate) prompt_tokens: u32,
    /// Hashes of the prompt's whole blocks.
    pub(crate) blocks: Vec<u64>,
    pub(crate) length: Length,
    pub(crate) arrived: Instant,
    pub(crate) progress: watch::Sender<Progress>,
    /// Prompt tokens found in the prefix cache, or why the request is refused.
    pub(crate) reply: oneshot::Sender<Result<u32, Refused>>,
}

/// How far an answer is. A reader that is slow sees several tokens at once, as with vLLM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) tokens: u32,
    pub(crate) finished: bool,
}

/// Why the engine did not take a request.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the engine's queue is full ({limit} requests wait); try again later")]
    Full { limit: u32 },
    #[error("the engine is shutting down")]
    Stopped,
    #[error(transparent)]
    Engine(#[from] SubmitError),
}

/// Requests whose clients are gone. Its length is bounded by the number of requests in flight.
#[derive(Debug, Default)]
struct Aborts {
    ids: Mutex<Vec<RequestId>>,
    wake: Notify,
}

/// The way to the engine task; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle {
    jobs: mpsc::Sender<Job>,
    aborts: Arc<Aborts>,
    metrics: Arc<Mutex<Metrics>>,
    epoch: Instant,
}

/// Takes the request out of the engine when dropped, unless it has finished.
#[derive(Debug)]
pub(crate) struct AbortOnDrop {
    id: RequestId,
    aborts: Arc<Aborts>,
    finished: bool,
}

impl AbortOnDrop {
    pub(crate) fn finished(&mut self) {
        self.finished = true;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if !self.finished {
            lock(&self.aborts.ids).push(self.id);
            self.aborts.wake.notify_one();
        }
    }
}

/// A panic elsewhere cannot leave these plain numbers half-written in a way that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EngineHandle {
    /// Offers a request; what is returned aborts it when dropped.
    pub(crate) fn submit(&self, job: Job) -> Result<AbortOnDrop, Refused> {
        let guard = AbortOnDrop {
            id: job.id,
            aborts: Arc::clone(&self.aborts),
            finished: false,
        };
        match self.jobs.try_send(job) {
            Ok(()) => Ok(guard),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refused::Full { limit: INBOX as u32 }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Stopped),
        }
    }

    /// The metrics page.
    pub(crate) fn exposition(&self, labels: &crate::exposition::Labels) -> String {
        let now_s = self.epoch.elapsed().as_secs_f64();
        crate::exposition::render(&lock(&self.metrics), labels, now_s)
    }
}

/// A request in the engine.
#[derive(Debug)]
struct Live {
    progress: watch::Sender<Progress>,
    blocks: Vec<u64>,
    finish: Finish,
    times: RequestTimes,
}

#[derive(Debug)]
pub(crate) struct EngineTask {
    engine: Engine,
    /// `None` for an opaque box, which has no cache to speak of.
    cache: Option<PrefixCache>,
    live: HashMap<RequestId, Live>,
    jobs: mpsc::Receiver<Job>,
    aborts: Arc<Aborts>,
    metrics: Arc<Mutex<Metrics>>,
    epoch: Instant,
    max_waiting: u32,
    events: Vec<EngineEvent>,
}

impl EngineTask {
    /// The task, to be spawned as [`Self::run`], and the way to it.
    pub(crate) fn new(model: StepModel, max_model_len: u32, max_waiting: u32) -> (Self, EngineHandle) {
        let (sender, jobs) = mpsc::channel(INBOX);
        let epoch = Instant::now();
        let aborts = Arc::new(Aborts::default());
        let metrics = Arc::new(Mutex::new(Metrics::new(model.idle_watts(), max_model_len)));
        let handle = EngineHandle {
            jobs: sender,
            aborts: Arc::clone(&aborts),
            metrics: Arc::clone(&metrics),
            epoch,
        };
        let cache = model
            .fixed_seconds()
            .is_none()
            .then(|| PrefixCache::new(model.kv_blocks()));
        let engine = Engine::new(model);
        let live = HashMap::new();
        (
            Self {
                engine,
                cache,
                live,
                jobs,
                aborts,
                metrics,
                epoch,
                max_waiting,
                events: Vec::new(),
            },
            handle,
        )
    }

    /// Runs until every handle is gone.
    pub(crate) async fn run(mut self) {
        let mut last_deadline: Option<Instant> = None;
        loop {
            self.take_in();
            let Some(step) = self.engine.begin_step() else {
                last_deadline = None;
                tokio::select! {
                    job = self.jobs.recv() => match job {
                        Some(job) => self.admit(job),
                        None => return,
                    },
                    () = self.aborts.wake.notified() => {}
                }
                continue;
            };
            let now = Instant::now();
            let start = last_deadline
                .filter(|last| now.duration_since(*last) < MAX_LAG)
                .unwrap_or(now);
            let deadline = start + Duration::from_secs_f64(step.cost.seconds);
            self.begin(&step, start);
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(deadline) => break,
                    job = self.jobs.recv() => match job {
                        Some(job) => self.admit(job),
                        None => return,
                    },
                    () = self.aborts.wake.notified() => self.take_in(),
                }
            }
            self.end(deadline);
            last_deadline = Some(deadline);
        }
    }

    /// Takes in all that has arrived. A client submits before it can go away, so aborts are read first and applied last.
    fn take_in(&mut self) {
        let gone = std::mem::take(&mut *lock(&self.aborts.ids));
        while let Ok(job) = self.jobs.try_recv() {
            self.admit(job);
        }
        for id in gone {
            self.abort(id);
        }
    }

    fn admit(&mut self, job: Job) {
        if self.engine.stats().waiting >= self.max_waiting {
            lock(&self.metrics).rejected += 1;
            // The client may be gone already; then nobody needs the answer.
            drop(job.reply.send(Err(Refused::Full {
                limit: self.max_waiting,
            })));
            return;
        }
        let cached_tokens = self.cached_tokens(&job);
        let request = EngineRequest {
            id: job.id,
            prompt_tokens: job.prompt_tokens,
            output_tokens: job.length.tokens,
            cached_tokens,
        };
        if let Err(refused) = self.engine.submit(request) {
            drop(job.reply.send(Err(refused.into())));
            return;
        }
        let times = RequestTimes::new(self.seconds(job.arrived), job.prompt_tokens);
        let live = Live {
            progress: job.progress,
            blocks: job.blocks,
            finish: job.length.finish,
            times,
        };
        self.live.insert(job.id, live);
        {
            let mut metrics = lock(&self.metrics);
            metrics.prefix_queries += u64::from(job.prompt_tokens);
            metrics.prefix_hits += u64::from(cached_tokens);
            metrics.engine = self.engine.stats();
        }
        if job.reply.send(Ok(cached_tokens)).is_err() {
            self.abort(job.id);
        }
    }

    /// Tokens of the cached whole blocks; the block with the last prompt token is always computed, as in vLLM.
    fn cached_tokens(&self, job: &Job) -> u32 {
        let block_tokens = self.engine.model().limits().block_tokens.max(1);
        let hits = self.cache.as_ref().map_or(0, |cache| cache.hits(&job.blocks));
        hits.min(job.prompt_tokens.saturating_sub(1) / block_tokens) * block_tokens
    }

    fn abort(&mut self, id: RequestId) {
        self.engine.abort(id);
        let mut metrics = lock(&self.metrics);
        if self.live.remove(&id).is_some() {
            metrics.aborted += 1;
        }
        metrics.engine = self.engine.stats();
    }

    fn begin(&mut self, step: &Step, start: Instant) {
        let start_s = self.seconds(start);
        let mut metrics = lock(&self.metrics);
        for part in self.engine.step_parts() {
            if let Some(live) = self.live.get_mut(&part.id) {
                live.times.scheduled_s.get_or_insert(start_s);
            }
        }
        metrics.meter.begin_step(start_s, step);
        metrics.engine = self.engine.stats();
    }

    fn end(&mut self, deadline: Instant) {
        let now_s = self.seconds(deadline);
        self.events.clear();
        self.engine.end_step(&mut self.events);
        let mut metrics = lock(&self.metrics);
        metrics.meter.end_step();
        metrics.engine = self.engine.stats();
        for event in &self.events {
            match *event {
                EngineEvent::FirstToken { id } | EngineEvent::Token { id } => {
                    let Some(live) = self.live.get_mut(&id) else { continue };
                    if live.times.token(now_s, &mut metrics)
                        && let Some(cache) = &mut self.cache
                    {
                        cache.insert(&live.blocks);
                    }
                    live.progress.send_modify(|progress| progress.tokens += 1);
                }
                EngineEvent::Finished { id } => {
                    let Some(live) = self.live.remove(&id) else { continue };
                    live.times.finished(now_s, live.finish, &mut metrics);
                    live.progress.send_modify(|progress| progress.finished = true);
                }
                EngineEvent::Preempted { .. } => {}
            }
        }
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.epoch).as_secs_f64()
    }
}
