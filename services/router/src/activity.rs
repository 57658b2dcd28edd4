//! What ran where and when, in slices, for the energy ledger: every published report says what each request did since
//! the one before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Waker};

use dashmap::DashMap;
use equipoise_estimate::Estimate;
use equipoise_proto::v1;
use equipoise_scheduler::TokenUsage;
use equipoise_types::{RequestId, Timestamp};
use parking_lot::Mutex;

/// Finished slices kept while the control plane is away; older ones are dropped, and their energy stays unattributed.
const KEPT_SLICES: usize = 20_000;

/// One dispatched request as its handler sees it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) decision: String,
    pub(crate) instance: String,
    pub(crate) tenant: String,
    pub(crate) prompt_tokens: u32,
    /// Its answer comes in one piece: progress is taken from the prediction until then.
    pub(crate) silent: bool,
    pub(crate) dispatched_at: Timestamp,
    pub(crate) estimate: Estimate,
    output_tokens: AtomicU32,
    answered: AtomicBool,
    /// The router stops and its patience is over.
    cut: AtomicBool,
    /// Of the stream to the client, while it waits for the engine.
    waker: Mutex<Option<Waker>>,
    told: Mutex<Told>,
}

/// What earlier slices said.
#[derive(Debug)]
struct Told {
    until: Timestamp,
    prefill_tokens: u32,
    decode_tokens: u32,
    ended: bool,
}

/// How a request's last slice ends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// Tokens as the engine counted them, if it did.
    pub(crate) usage: Option<TokenUsage>,
    /// There was no usable answer.
    pub(crate) wasted: bool,
}

impl Running {
    pub(crate) fn new(
        decision: String,
        instance: String,
        tenant: String,
        prompt_tokens: u32,
        silent: bool,
        dispatched_at: Timestamp,
        estimate: Estimate,
    ) -> Self {
        let told = Told {
            until: dispatched_at,
            prefill_tokens: 0,
            decode_tokens: 0,
            ended: false,
        };
        Self {
            decision,
            instance,
            tenant,
            prompt_tokens,
            silent,
            dispatched_at,
            estimate,
            output_tokens: AtomicU32::new(0),
            answered: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            waker: Mutex::new(None),
            told: Mutex::new(told),
        }
    }

    /// More answer tokens came.
    pub(crate) fn produced(&self, tokens: u32) {
        self.output_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether its stream is to end here; else whoever polls it is woken when it is.
    pub(crate) fn is_cut(&self, context: &Context<'_>) -> bool {
        // First the waker: who cuts looks for it last.
        let mut waker = self.waker.lock();
        match &mut *waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        drop(waker);
        self.cut.load(Ordering::Acquire)
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Whether the prompt is computed, and how many answer tokens there are, by `now`.
    fn progress(&self, now: Timestamp) -> (bool, u32) {
        if !self.silent {
            return (
                self.answered.load(Ordering::Relaxed),
                self.output_tokens.load(Ordering::Relaxed),
            );
        }
        let decoding_s = now.secs_since(self.dispatched_at) - self.estimate.ttft_s;
        let tokens = (decoding_s / self.estimate.tpot_s.max(1e-4)).clamp(0.0, self.estimate.output_tokens);
        (decoding_s > 0.0, tokens as u32)
    }

    fn slice(
        &self,
        now: Timestamp,
        unix_ns: impl Fn(Timestamp) -> u64,
        ending: Option<Ending>,
    ) -> Option<v1::Activity> {
        let mut told = self.told.lock();
        if told.ended || (now <= told.until && ending.is_none()) {
            return None;
        }
        let (prefilled, decoded) = self.progress(now);
        let mut prompt_tokens = if prefilled { self.prompt_tokens } else { 0 };
        let mut output_tokens = decoded;
        if let Some(ending) = ending {
            // What the engine counted is the truth; what failed before its answer may have computed its prompt.
            prompt_tokens = ending.usage.map_or(self.prompt_tokens, |usage| usage.prompt_tokens);
            let seen = self.output_tokens.load(Ordering::Relaxed);
            output_tokens = ending.usage.map_or(seen, |usage| usage.output_tokens);
        }
        let slice = v1::Activity {
            decision: self.decision.clone(),
            instance: self.instance.clone(),
            tenant: self.tenant.clone(),
            start_unix_ns: unix_ns(told.until),
            end_unix_ns: unix_ns(now.max(told.until)),
            prefill_tokens: prompt_tokens.saturating_sub(told.prefill_tokens),
            decode_tokens: output_tokens.saturating_sub(told.decode_tokens),
            context_tokens: prompt_tokens.saturating_add(output_tokens),
            finished: ending.is_some(),
            wasted: ending.is_some_and(|ending| ending.wasted),
        };
        *told = Told {
            until: now.max(told.until),
            prefill_tokens: prompt_tokens.max(told.prefill_tokens),
            decode_tokens: output_tokens.max(told.decode_tokens),
            ended: ending.is_some(),
        };
        Some(slice)
    }
}

/// All running requests of this router, and the last slices of those that ended.
#[derive(Debug, Default)]
pub(crate) struct ActivityLog {
    running: DashMap<RequestId, Arc<Running>>,
    ended: Mutex<VecDeque<v1::Activity>>,
}

impl ActivityLog {
    /// Ends every stream with a word to its client.
    pub(crate) fn cut_all(&self) {
        for running in &self.running {
            running.cut();
        }
    }

    pub(crate) fn begin(&self, id: RequestId, running: Arc<Running>) {
        self.running.insert(id, running);
    }

    pub(crate) fn running(&self, id: RequestId) -> Option<Arc<Running>> {
        self.running.get(&id).map(|running| Arc::clone(&running))
    }

    pub(crate) fn end(&self, id: RequestId, now: Timestamp, unix_ns: impl Fn(Timestamp) -> u64, ending: Ending) {
        let Some((_, running)) = self.running.remove(&id) else {
            return;
        };
        if let Some(slice) = running.slice(now, unix_ns, Some(ending)) {
            let mut ended = self.ended.lock();
            if ended.len() >= KEPT_SLICES {
                ended.pop_front();
            }
            ended.push_back(slice);
        }
    }

    /// Everything since the last call.
    pub(crate) fn take(&self, now: Timestamp, unix_ns: impl Fn(Timestamp) -> u64) -> Vec<v1::Activity> {
        let mut slices: Vec<v1::Activity> = self.ended.lock().drain(..).collect();
        slices.extend(
            self.running
                .iter()
                .filter_map(|running| running.slice(now, &unix_ns, None)),
        );
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::Joules;

    fn running(silent: bool) -> Arc<Running> {
        let estimate = Estimate {
            quality: 0.5,
            quality_sd: 0.1,
            output_tokens: 100.0,
            queue_s: 0.0,
            ttft_s: 1.0,
            tpot_s: 0.1,
            e2e_s: 11.0,
            energy: Joules(1.0),
            idle_energy: Joules(0.0),
            others_s: 0.0,
            cost_usd: 0.0,
            bounds: Default::default(),
        };
        Arc::new(Running::new(
            "d1".into(),
            "a".into(),
            "t".into(),
            50,
            silent,
            Timestamp::ZERO,
            estimate,
        ))
    }

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_secs_f64(seconds)
    }

    #[test]
    fn slices_join_and_add_up() {
        let log = ActivityLog::default();
        let request = running(false);
        log.begin(RequestId(1), Arc::clone(&request));
        let mut slices = log.take(at(0.2), |time| time.0);
        request.produced(1);
        request.produced(4);
        slices.extend(log.take(at(0.4), |time| time.0));
        request.produced(2);
        log.end(
            RequestId(1),
            at(0.5),
            |time| time.0,
            Ending {
                usage: Some(TokenUsage {
                    prompt_tokens: 60,
                    output_tokens: 8,
                }),
                wasted: false,
            },
        );
        slices.extend(log.take(at(0.6), |time| time.0));
        assert!(log.take(at(0.8), |time| time.0).is_empty());
        assert_eq!(slices.iter().map(|slice| slice.prefill_tokens).sum::<u32>(), 60);
        assert_eq!(
            slices.iter().map(|slice| slice.decode_tokens).collect::<Vec<_>>(),
            [0, 5, 3]
        );
        assert!(
            slices
                .windows(2)
                .all(|pair| pair[0].end_unix_ns == pair[1].start_unix_ns)
        );
        assert!(slices.last().is_some_and(|last| last.finished && !last.wasted));
    }

    #[test]
    fn a_silent_request_is_taken_to_follow_its_prediction() {
        let log = ActivityLog::default();
        log.begin(RequestId(1), running(true));
        let decode = |slices: Vec<v1::Activity>| slices.iter().map(|slice| slice.decode_tokens).sum::<u32>();
        assert_eq!(decode(log.take(at(0.9), |time| time.0)), 0);
        assert_eq!(decode(log.take(at(2.05), |time| time.0)), 10);
        log.end(
            RequestId(1),
            at(3.0),
            |time| time.0,
            Ending {
                usage: Some(TokenUsage {
                    prompt_tokens: 60,
                    output_tokens: 25,
                }),
                wasted: false,
            },
        );
        assert_eq!(decode(log.take(at(3.1), |time| time.0)), 15);
    }
}
