//! What is planned, in the order in which it happens.
//!
//! Three queues, for most of what happens needs no heap: an instance has one wake-up that counts, and what travels between
//! router and instances takes a hop, so that it arrives in the order in which it was sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use equipoise_types::Timestamp;

use crate::happening::{Happening, Planned};

/// Among so many of the last in line a place is looked for; beyond, the heap takes it.
const NEAR: usize = 16;

/// Everything that will happen; see [`Happening`] for what is not among it.
#[derive(Debug)]
pub(crate) struct Agenda {
    wakes: Wakes,
    /// In order.
    line: VecDeque<Planned>,
    rest: BinaryHeap<Reverse<Planned>>,
    sequence: u64,
}

/// What happens next.
#[derive(Debug)]
pub(crate) enum Next {
    /// An instance has to be looked at: its step ends, or the run of steps that it is in.
    Wake(u32),
    Other(Happening),
}

impl Agenda {
    pub(crate) fn new(instances: usize) -> Self {
        Self {
            wakes: Wakes::new(instances),
            line: VecDeque::new(),
            rest: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Wakes an instance at that time and no other.
    pub(crate) fn wake(&mut self, instance: usize, at: Timestamp) {
        self.wakes.set(instance, at);
    }

    pub(crate) fn plan(&mut self, at: Timestamp, happening: Happening) {
        let planned = Planned::new(at, self.sequence, happening);
        self.sequence += 1;
        let later = self.line.iter().rev().take(NEAR + 1);
        match later.take_while(|other| **other > planned).count() {
            0 => self.line.push_back(planned),
            behind if behind <= NEAR => self.line.insert(self.line.len() - behind, planned),
            _ => self.rest.push(Reverse(planned)),
        }
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Timestamp {
        let line = self.line.front().map_or(Timestamp::MAX, |planned| planned.at);
        let rest = self.rest.peek().map_or(Timestamp::MAX, |planned| planned.0.at);
        self.wakes.first().min(line).min(rest)
    }

    /// Takes the next thing out. Of what happens at the same time, wake-ups come first, in order of the instances.
    pub(crate) fn pop(&mut self) -> Option<Next> {
        let line = self.line.front();
        let rest = self.rest.peek().map(|planned| &planned.0);
        let from_line = match (line, rest) {
            (Some(line), Some(rest)) => line < rest,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let other = if from_line { line } else { rest };
        let wake_at = self.wakes.first();
        if wake_at != Timestamp::MAX && other.is_none_or(|other| wake_at <= other.at) {
            return self.wakes.pop().map(Next::Wake);
        }
        let planned = if from_line {
            self.line.pop_front()
        } else {
            self.rest.pop().map(|planned| planned.0)
        };
        planned.map(|planned| Next::Other(planned.happening))
    }
}

/// One time for each instance, and the first of them: a tournament, in which the winner of every match is the earlier one,
/// or the first of two that are as early.
#[derive(Debug)]
struct Wakes {
    /// The root at 1, the children of `n` at `2n` and `2n + 1`; instances are the leaves.
    times: Vec<Timestamp>,
    leaves: usize,
}

impl Wakes {
    fn new(instances: usize) -> Self {
        let leaves = instances.next_power_of_two().max(2);
        Self {
            times: vec![Timestamp::MAX; 2 * leaves],
            leaves,
        }
    }

    fn set(&mut self, instance: usize, at: Timestamp) {
        let mut node = self.leaves + instance;
        self.times[node] = at;
        while node > 1 {
            let first = self.times[node].min(self.times[node ^ 1]);
            node /= 2;
            if self.times[node] == first {
                break;
            }
            self.times[node] = first;
        }
    }

    fn first(&self) -> Timestamp {
        self.times[1]
    }

    /// The instance that is woken first; its time is forgotten.
    fn pop(&mut self) -> Option<u32> {
        let first = self.first();
        if first == Timestamp::MAX {
            return None;
        }
        let mut node = 1;
        while node < self.leaves {
            node = 2 * node + usize::from(self.times[2 * node] != first);
        }
        let instance = node - self.leaves;
        self.set(instance, Timestamp::MAX);
        u32::try_from(instance).ok()
    }
}

#[cfg(test)]
mod tests {
    use equipoise_types::{RandomStream, RequestId};

    use super::*;
    use crate::happening::ReportKind;

    #[test]
    fn everything_comes_in_order() {
        let mut random = RandomStream::new(7);
        let mut agenda = Agenda::new(5);
        let mut wakes = [Timestamp::MAX; 5];
        let mut planned: Vec<(Timestamp, u64)> = Vec::new();
        let (mut now, mut count) = (Timestamp::ZERO, 0);
        for _ in 0..5000 {
            if random.below(3) > 0 {
                let delay = if random.below(4) == 0 { random.below(200) } else { 10 };
                let at = Timestamp(now.0 + delay as u64);
                if random.below(2) == 0 {
                    let instance = random.below(5);
                    wakes[instance] = at;
                    agenda.wake(instance, at);
                } else {
                    let (request, kind) = (RequestId(count), ReportKind::Refused);
                    agenda.plan(
                        at,
                        Happening::Report {
                            instance: 0,
                            request,
                            kind,
                        },
                    );
                    planned.push((at, count));
                    count += 1;
                }
                continue;
            }
            let first = wakes.iter().copied().min().filter(|at| *at < Timestamp::MAX);
            let other = planned.iter().copied().min();
            let expected = match (first, other) {
                (Some(wake), Some((at, _))) => wake.min(at),
                (Some(wake), None) => wake,
                (None, Some((at, _))) => at,
                (None, None) => continue,
            };
            assert_eq!(agenda.next_at(), expected);
            now = expected;
            match agenda.pop().expect("something") {
                Next::Wake(instance) => {
                    let index = wakes.iter().position(|at| Some(*at) == first).expect("one");
                    assert_eq!((instance as usize, first), (index, Some(expected)));
                    wakes[index] = Timestamp::MAX;
                }
                Next::Other(Happening::Report { request, .. }) => {
                    assert_eq!(other, Some((expected, request.0)));
                    assert!(first.is_none_or(|wake| wake > expected), "wake-ups come first");
                    planned.retain(|(_, id)| *id != request.0);
                }
                Next::Other(other) => panic!("nobody planned {other:?}"),
            }
        }
        assert!(count > 1000);
    }
}
