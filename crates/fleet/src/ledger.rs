//! The in-flight ledger: the truth about what this router sent.
//!
//! A request is booked before it is sent, corrected at its first token and with every token, and released exactly
//! once. Sums per instance are kept exactly: what a request added is what its release takes away.

use std::collections::BTreeSet;
use std::time::Duration;

use equipoise_estimate::{InstanceLoad, Prediction};
use equipoise_types::{IdHash, InstanceId, RequestId, Timestamp};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// One request that is out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Booking {
    /// Where it went.
    pub instance: InstanceId,
    /// When.
    pub dispatched_at: Timestamp,
    /// Prompt tokens that the instance must compute.
    pub prompt_tokens: u32,
    /// Its answer comes in one piece: no first token will be seen.
    pub silent: bool,
    /// What was predicted.
    pub prediction: Prediction,
    /// When the first token came, if it did.
    pub first_token_at: Option<Timestamp>,
    /// Answer tokens seen.
    pub output_tokens: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    booking: Booking,
    // What this entry holds of its instance's sums.
    prefill_tokens: u64,
    decode_tokens: u64,
    kv_tokens: u64,
    answer_due: Timestamp,
    prefill_due: Timestamp,
    prefilling: bool,
}

#[derive(Clone, Debug, Default)]
struct Account {
    load: InstanceLoad,
    /// Requests without an answer, by when one was predicted.
    unanswered: BTreeSet<(Timestamp, RequestId)>,
    /// The first of these times: every decision asks for it.
    first_due: Option<Timestamp>,
    /// Silent requests that are still counted as prefilling, by when that was predicted to end.
    silent_prefills: BTreeSet<(Timestamp, RequestId)>,
}

impl Account {
    /// An answer has begun, or its request has ended.
    fn answered(&mut self, due: Timestamp, request: RequestId) {
        if self.unanswered.remove(&(due, request)) && self.first_due == Some(due) {
            self.first_due = self.unanswered.first().map(|(due, _)| *due);
        }
    }
}

/// All bookings of one router.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: IndexMap<RequestId, Entry, IdHash>,
    accounts: Vec<Account>,
    /// Whether any request ever was silent.
    silent: bool,
    /// Nobody asks how overdue answers are.
    timeless: bool,
}

/// A released booking.
pub type Released = Booking;

fn due(now: Timestamp, seconds: f64) -> Timestamp {
    now + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

impl Ledger {
    /// The same, for who never asks how overdue answers are.
    #[must_use]
    pub(crate) fn without_times(mut self) -> Self {
        self.timeless = true;
        self
    }

    fn account(&mut self, instance: InstanceId) -> &mut Account {
        if self.accounts.len() <= instance.index() {
            self.accounts.resize_with(instance.index() + 1, Account::default);
        }
        &mut self.accounts[instance.index()]
    }

    /// Books a request before it is sent. A request that is out already keeps its booking, and `false` comes back.
    pub fn book(
        &mut self,
        now: Timestamp,
        request: RequestId,
        instance: InstanceId,
        prompt_tokens: u32,
        silent: bool,
        prediction: Prediction,
    ) -> bool {
        if self.entries.contains_key(&request) {
            return false;
        }
        let estimate = prediction.estimate;
        let entry = Entry {
            booking: Booking {
                instance,
                dispatched_at: now,
                prompt_tokens,
                silent,
                prediction,
                first_token_at: None,
                output_tokens: 0,
            },
            prefill_tokens: u64::from(prompt_tokens),
            decode_tokens: estimate.output_tokens.ceil() as u64,
            kv_tokens: 0,
            answer_due: due(now, if silent { estimate.e2e_s } else { estimate.ttft_s }),
            prefill_due: due(now, estimate.ttft_s),
            prefilling: true,
        };
        let timeless = self.timeless;
        let account = self.account(instance);
        account.load.in_flight += 1;
        account.load.prefilling += 1;
        account.load.pending_prefill_tokens += entry.prefill_tokens;
        account.load.pending_decode_tokens += entry.decode_tokens;
        if !timeless {
            account.unanswered.insert((entry.answer_due, request));
            let first = account
                .first_due
                .map_or(entry.answer_due, |first| first.min(entry.answer_due));
            account.first_due = Some(first);
        }
        if silent {
            account.silent_prefills.insert((entry.prefill_due, request));
        }
        self.silent |= silent;
        self.entries.insert(request, entry);
        true
    }

    /// The first answer token came. Answers the booking, once: `None` where it had come before or nothing is booked.
    pub fn first_token(&mut self, now: Timestamp, request: RequestId) -> Option<Booking> {
        let entry = self.entries.get_mut(&request)?;
        if entry.booking.first_token_at.is_some() {
            return None;
        }
        entry.booking.first_token_at = Some(now);
        entry.booking.output_tokens = entry.booking.output_tokens.max(1);
        let account = &mut self.accounts[entry.booking.instance.index()];
        account.answered(entry.answer_due, request);
        end_prefill(entry, account, request);
        produce(entry, account, 1);
        Some(entry.booking)
    }

    /// `count` more answer tokens came.
    pub fn tokens(&mut self, request: RequestId, count: u32) {
        let Some(entry) = self.entries.get_mut(&request) else {
            return;
        };
        entry.booking.output_tokens = entry.booking.output_tokens.saturating_add(count);
        let account = &mut self.accounts[entry.booking.instance.index()];
        produce(entry, account, u64::from(count));
    }

    /// Ends a booking; the second call for the same request answers `None` and changes nothing.
    pub fn release(&mut self, request: RequestId) -> Option<Released> {
        let mut entry = self.entries.swap_remove(&request)?;
        let account = &mut self.accounts[entry.booking.instance.index()];
        account.answered(entry.answer_due, request);
        end_prefill(&mut entry, account, request);
        account.load.in_flight -= 1;
        account.load.pending_decode_tokens -= entry.decode_tokens;
        account.load.kv_tokens -= entry.kv_tokens;
        Some(entry.booking)
    }

    /// Silent requests say nothing when their prefill is done: they are taken to decode once it was predicted to be.
    pub fn advance(&mut self, now: Timestamp) {
        if !self.silent {
            return;
        }
        for account in &mut self.accounts {
            while let Some(&(at, request)) = account.silent_prefills.first() {
                if at > now {
                    break;
                }
                account.silent_prefills.pop_first();
                if let Some(entry) = self.entries.get_mut(&request) {
                    end_prefill(entry, account, request);
                }
            }
        }
    }

    /// What this router has in flight on an instance, with how overdue the most overdue request is.
    #[must_use]
    pub fn load(&self, now: Timestamp, instance: InstanceId) -> InstanceLoad {
        self.accounts
            .get(instance.index())
            .map_or_else(InstanceLoad::default, |account| InstanceLoad {
                overdue_s: account.first_due.map_or(0.0, |due| now.secs_since(due)),
                ..account.load
            })
    }

    /// The booking of a request, if it is out.
    #[must_use]
    pub fn booking(&self, request: RequestId) -> Option<&Booking> {
        self.entries.get(&request).map(|entry| &entry.booking)
    }

    /// Requests that are out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where nothing is out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn end_prefill(entry: &mut Entry, account: &mut Account, request: RequestId) {
    if !entry.prefilling {
        return;
    }
    entry.prefilling = false;
    account.silent_prefills.remove(&(entry.prefill_due, request));
    account.load.prefilling -= 1;
    account.load.pending_prefill_tokens -= entry.prefill_tokens;
    // The prompt moves from work to be done into the cache.
    account.load.kv_tokens += entry.prefill_tokens;
    entry.kv_tokens += entry.prefill_tokens;
    entry.prefill_tokens = 0;
}

fn produce(entry: &mut Entry, account: &mut Account, tokens: u64) {
    let expected = tokens.min(entry.decode_tokens);
    entry.decode_tokens -= expected;
    account.load.pending_decode_tokens -= expected;
    entry.kv_tokens += tokens;
    account.load.kv_tokens += tokens;
}

#[cfg(test)]
mod tests;
