use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What has come so far, without waiting.
fn drain(watch: &mut Watch) -> Vec<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let mut events = Vec::new();
        while let Ok(Ok(event)) = tokio::time::timeout(Duration::ZERO, watch.next()).await {
            events.push(event);
        }
        events
    })
}

#[test]
fn a_watcher_that_does_not_listen_is_cut_off_and_told_so() {
    let mut state = State::open(None, Instant::now()).expect("opens");
    let mut watch = state.watch("", 0).expect("watches");
    for _ in 0..WATCH_QUEUE + 1 {
        state.put("a", bytes("x"), Precondition::None, None).expect("puts");
    }
    assert!(state.watchers.is_empty());
    assert_eq!(drain(&mut watch).len(), WATCH_QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let error = runtime.block_on(watch.next()).expect_err("lost").to_string();
    assert!(error.contains("list again"), "{error}");
}

#[test]
fn a_watch_from_a_forgotten_revision_is_refused() {
    let mut state = State::open(None, Instant::now()).expect("opens");
    for _ in 0..HISTORY + 10 {
        state.put("a", bytes("x"), Precondition::None, None).expect("puts");
    }
    let error = state.watch("", 9).expect_err("forgotten").to_string();
    assert!(error.contains("list again"), "{error}");
    let mut watch = state.watch("", 10).expect("still kept");
    assert_eq!(drain(&mut watch).len(), HISTORY);
}

#[derive(Clone, Debug)]
enum Act {
    Put {
        key: u8,
        value: u8,
        condition: Condition,
        lease: Option<u8>,
    },
    Delete {
        key: u8,
        condition: Condition,
    },
    Grant {
        seconds: u8,
    },
    KeepAlive {
        lease: u8,
    },
    Revoke {
        lease: u8,
    },
    Wait {
        milliseconds: u16,
    },
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Anything,
    Absent,
    /// The model's version of the key, plus this much.
    Version(u8),
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        3 => Just(Condition::Anything),
        1 => Just(Condition::Absent),
        2 => (0..2_u8).prop_map(Condition::Version),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..6_u8, any::<u8>(), condition(), proptest::option::of(1..5_u8))
            .prop_map(|(key, value, condition, lease)| Act::Put { key, value, condition, lease }),
        3 => (0..6_u8, condition()).prop_map(|(key, condition)| Act::Delete { key, condition }),
        2 => (1..5_u8).prop_map(|seconds| Act::Grant { seconds }),
        2 => (1..5_u8).prop_map(|lease| Act::KeepAlive { lease }),
        1 => (1..5_u8).prop_map(|lease| Act::Revoke { lease }),
        2 => (0..3000_u16).prop_map(|milliseconds| Act::Wait { milliseconds }),
        1 => Just(Act::Restart),
    ]
}

/// The contract as plain maps.
#[derive(Default)]
struct Model {
    revision: u64,
    keys: BTreeMap<String, (u8, u64, Option<u64>)>,
    leases: BTreeMap<u64, (Duration, Instant)>,
}

impl Model {
    fn precondition(&self, key: &str, condition: Condition) -> (Precondition, bool) {
        let found = self.keys.get(key).map(|row| row.1);
        match condition {
            Condition::Anything => (Precondition::None, true),
            Condition::Absent => (Precondition::DoesNotExist, found.is_none()),
            Condition::Version(off) => {
                let version = found.unwrap_or(0) + u64::from(off);
                (Precondition::MatchesVersion(version), found == Some(version))
            }
        }
    }

    fn end_lease(&mut self, lease: u64) {
        self.leases.remove(&lease);
        let before = self.keys.len();
        self.keys.retain(|_, row| row.2 != Some(lease));
        self.revision += u64::from(self.keys.len() < before);
    }
}

fn step(state: &mut State, model: &mut Model, action: &Act, now: &mut Instant) {
    match *action {
        Act::Put {
            key,
            value,
            condition,
            lease,
        } => {
            let key = format!("k/{key}");
            let (precondition, holds) = model.precondition(&key, condition);
            let lease = lease.map(u64::from);
            let outcome = state.put(&key, Bytes::from(vec![value]), precondition, lease.map(LeaseId));
            if lease.is_some_and(|lease| !model.leases.contains_key(&lease)) {
                assert!(matches!(outcome, Err(StoreError::LeaseGone { .. })), "{outcome:?}");
            } else if holds {
                model.revision += 1;
                assert_eq!(outcome.expect("holds"), model.revision);
                model.keys.insert(key, (value, model.revision, lease));
            } else {
                assert!(
                    matches!(outcome, Err(StoreError::PreconditionFailed { .. })),
                    "{outcome:?}"
                );
            }
        }
        Act::Delete { key, condition } => {
            let key = format!("k/{key}");
            let (precondition, holds) = model.precondition(&key, condition);
            let outcome = state.delete(&key, precondition);
            if holds {
                let existed = model.keys.remove(&key).is_some();
                model.revision += u64::from(existed);
                assert_eq!(outcome.expect("holds"), existed);
            } else {
                assert!(
                    matches!(outcome, Err(StoreError::PreconditionFailed { .. })),
                    "{outcome:?}"
                );
            }
        }
        Act::Grant { seconds } => {
            let lease = state.grant(Duration::from_secs(seconds.into()), *now).expect("grants");
            model.leases.insert(lease.id.0, (lease.ttl, *now + lease.ttl));
        }
        Act::KeepAlive { lease } => {
            let outcome = state.keep_alive(LeaseId(lease.into()), *now);
            assert_eq!(outcome.is_ok(), model.leases.contains_key(&lease.into()));
            if let Some((ttl, deadline)) = model.leases.get_mut(&lease.into()) {
                *deadline = *now + *ttl;
            }
        }
        Act::Revoke { lease } => {
            state.revoke(LeaseId(lease.into())).expect("revokes");
            model.end_lease(lease.into());
        }
        Act::Wait { milliseconds } => {
            *now += Duration::from_millis(milliseconds.into());
            state.expire(*now).expect("expires");
            let ended: Vec<_> = model
                .leases
                .iter()
                .filter(|(_, held)| held.1 <= *now)
                .map(|(&lease, _)| lease)
                .collect();
            ended.into_iter().for_each(|lease| model.end_lease(lease));
        }
        Act::Restart => {}
    }
}

/// What a watcher knows after applying events in order.
fn apply(seen: &mut BTreeMap<String, (Bytes, u64)>, events: Vec<Event>) {
    for event in events {
        match event {
            Event::Put(entry) => {
                seen.insert(entry.key, (entry.versioned.value, entry.versioned.version));
            }
            Event::Delete { key, .. } => {
                seen.remove(&key);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random actions, restarts included, agree with plain maps; a watcher that applies events agrees with both.
    #[test]
    fn agrees_with_a_model(actions in proptest::collection::vec(act(), 1..60)) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("store.redb");
        let mut now = Instant::now();
        let mut state = State::open(Some(&file), now).expect("opens");
        let mut watch = state.watch("k/", 0).expect("watches");
        let mut seen = BTreeMap::new();
        let mut model = Model::default();
        for action in &actions {
            if matches!(action, Act::Restart) {
                apply(&mut seen, drain(&mut watch));
                drop(state);
                state = State::open(Some(&file), now).expect("opens again");
                watch = state.watch("k/", model.revision).expect("watches again");
                for (ttl, deadline) in model.leases.values_mut() {
                    *deadline = now + *ttl;
                }
            }
            step(&mut state, &mut model, action, &mut now);
            let listing = state.list("k/").expect("lists");
            prop_assert_eq!(listing.revision, model.revision);
            let listed: Vec<_> = listing.entries.iter().map(|entry| {
                let versioned = &entry.versioned;
                (entry.key.clone(), (versioned.value[0], versioned.version, versioned.lease.map(|lease| lease.0)))
            }).collect();
            prop_assert_eq!(listed, model.keys.clone().into_iter().collect::<Vec<_>>());
        }
        apply(&mut seen, drain(&mut watch));
        let known: Vec<_> = seen.iter().map(|(key, (value, version))| (key.clone(), value[0], *version)).collect();
        let truth: Vec<_> = model.keys.iter().map(|(key, row)| (key.clone(), row.0, row.1)).collect();
        prop_assert_eq!(known, truth);
    }
}
