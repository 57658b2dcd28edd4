//! Independent runs on several cores.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// As many threads as there are cores.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// `work` of every job, in the order of the jobs, each job on one of at most `threads` threads.
pub fn parallel_map<Job: Send, Done: Send>(
    jobs: Vec<Job>,
    threads: usize,
    work: impl Fn(Job) -> Done + Sync,
) -> Vec<Done> {
    let workers = threads.clamp(1, jobs.len().max(1));
    let waiting = Mutex::new(jobs.into_iter().enumerate());
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        let mut done = Vec::new();
        while let Some((index, job)) = take() {
            done.push((index, work(job)));
        }
        done
    };
    let mut all: Vec<(usize, Done)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.flatten().collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, done)| done).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for threads in [0, 1, 3, 1000] {
            let squares = parallel_map((0..100_u64).collect(), threads, |x| x * x);
            assert!(squares.iter().enumerate().all(|(x, square)| (x * x) as u64 == *square));
        }
        assert!(parallel_map(Vec::<u8>::new(), cores(), |x| x).is_empty());
    }
}
