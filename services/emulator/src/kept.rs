//! Responses that can be asked for again, the last few: vLLM keeps them with `VLLM_ENABLE_RESPONSES_API_STORE=1`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MOST: usize = 1024;

/// Finished responses by id, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<VecDeque<(String, String)>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, id: String, json: String) {
        let mut kept = self.lock();
        if kept.len() >= MOST {
            kept.pop_front();
        }
        kept.push_back((id, json));
    }

    pub(crate) fn get(&self, id: &str) -> Option<String> {
        let kept = self.lock();
        let found = kept.iter().rev().find(|(kept, _)| kept == id)?;
        Some(found.1.clone())
    }
}
