use proptest::prelude::*;

use super::lines::QUANTUM_TOKENS;
use super::*;

/// A request of a tenant, by number.
fn newcomer(id: u64, tenant: u64, tokens: u64) -> Newcomer {
    let mut request = crate::scheduler::tests::request(id);
    request.tenant = Some(format!("t{tenant}"));
    Newcomer {
        pending: Pending {
            request,
            arrived_at: Timestamp(id),
            tried: Vec::new(),
            last_failure: None,
            suspect: None,
            gated: None,
            escalated: false,
            owes_retry: false,
        },
        tokens,
        plain: true,
        expires_at: Timestamp::MAX,
    }
}

fn urgent(mut newcomer: Newcomer, priority: i32, deadline_s: Option<f64>) -> Newcomer {
    newcomer.pending.request.wishes.priority = priority;
    newcomer.pending.request.wishes.deadline = deadline_s.map(Timestamp::from_secs_f64);
    newcomer
}

/// Lets one wait if there is room.
fn push(queue: &mut Queue, newcomer: Newcomer, limit: usize) -> Result<(u32, Option<Crowded>), Crowded> {
    let crowded_out = queue.make_room(&newcomer.pending.request, newcomer.tokens, limit)?;
    Ok((queue.push(newcomer), crowded_out))
}

/// Serves the one whose turn it is.
fn serve(queue: &mut Queue) -> Option<(u64, String)> {
    let id = queue.next(&Walk::default(), 1, true)?.request.id;
    let request = queue.take(id).expect("it waits").request;
    Some((id.0, request.tenant.unwrap_or_default()))
}

fn served(queue: &mut Queue) -> Vec<u64> {
    std::iter::from_fn(|| serve(queue)).map(|(id, _)| id).collect()
}

#[test]
fn priority_then_the_round_then_the_deadline() {
    let mut queue = Queue::default();
    let all = [
        newcomer(0, 0, 100),
        urgent(newcomer(1, 1, 100), 0, Some(9.0)),
        urgent(newcomer(2, 2, 100), 0, Some(5.0)),
        urgent(newcomer(3, 0, 100), 1, None),
        urgent(newcomer(4, 0, 100), 0, Some(7.0)),
        urgent(newcomer(5, 3, 2 * QUANTUM_TOKENS), 0, Some(1.0)),
    ];
    for newcomer in all {
        push(&mut queue, newcomer, 100).expect("there is room");
    }
    assert_eq!(
        served(&mut queue),
        [3, 2, 4, 1, 0, 5],
        "the last is more than one round's worth"
    );
}

#[test]
fn a_deadline_buys_no_more_than_the_tenant_may_have() {
    let mut queue = Queue::default();
    for id in 0..40 {
        push(&mut queue, urgent(newcomer(id, 0, QUANTUM_TOKENS), 0, Some(1.0)), 100).expect("room");
    }
    push(&mut queue, newcomer(40, 1, QUANTUM_TOKENS), 100).expect("room");
    let order = served(&mut queue);
    assert_eq!(order.iter().position(|id| *id == 40), Some(1));
}

#[test]
fn who_fills_the_queue_makes_room_for_others() {
    let mut queue = Queue::default();
    for id in 0..4 {
        push(&mut queue, newcomer(id, 0, 100), 4).expect("there is room");
    }
    let refused = push(&mut queue, newcomer(4, 0, 100), 4).expect_err("full, and of the same tenant");
    assert_eq!((refused.request.0, refused.waiting), (4, 4));
    let (_, crowded_out) = push(&mut queue, newcomer(5, 1, 100), 4).expect("another tenant finds a place");
    assert_eq!(crowded_out.expect("one makes room").request.0, 3);
    push(&mut queue, newcomer(6, 1, 100), 4).expect("still less than the other");
    push(&mut queue, newcomer(7, 1, 100), 4).expect_err("now both have the same");
    let (ahead, crowded_out) =
        push(&mut queue, urgent(newcomer(8, 1, 100), 3, None), 4).expect("priority finds a place");
    assert_eq!(ahead, 0);
    assert!(crowded_out.is_some());
    push(&mut queue, urgent(newcomer(9, 2, 1), -1, None), 4).expect_err("lower than all");
    assert_eq!(queue.len(), 4);
    assert_eq!(queue.waiting_for(&Target::Auto), 4);
}

#[test]
fn each_group_has_a_bound_of_its_own() {
    let mut queue = Queue::default();
    let of = |model: &str, id| {
        let mut newcomer = newcomer(id, 0, 100);
        newcomer.pending.request.target = Target::Model(model.to_owned());
        newcomer
    };
    push(&mut queue, of("a", 0), 1).expect("room");
    push(&mut queue, of("a", 1), 1).expect_err("full");
    push(&mut queue, of("b", 2), 1).expect("another model's");
    assert_eq!(queue.oldest_arrival(), Some(Timestamp(0)));
    let mut walk = Walk::default();
    queue.missed(&mut walk, RequestId(0));
    let next = queue.next(&walk, 1, true).expect("the other model's");
    assert_eq!(next.request.id, RequestId(2));
    assert!(queue.remove(RequestId(0)).is_some() && queue.remove(RequestId(2)).is_some());
    assert!(queue.is_empty() && queue.oldest_arrival().is_none() && queue.next_expiry().is_none());
}

#[test]
fn those_with_hard_wishes_are_all_looked_at_a_few_at_a_time() {
    let mut queue = Queue::default();
    for id in 0..5 {
        let mut newcomer = newcomer(id, 0, 10);
        newcomer.plain = false;
        push(&mut queue, newcomer, 100).expect("room");
    }
    let mut walk_once = || {
        let (mut walk, mut seen) = (Walk::default(), Vec::new());
        while let Some(pending) = queue.next(&walk, 2, true) {
            let id = pending.request.id;
            seen.push(id.0);
            queue.missed(&mut walk, id);
        }
        queue.walked(&walk, 2);
        seen
    };
    assert_eq!(walk_once(), [0, 1]);
    assert_eq!(walk_once(), [2, 3]);
    assert_eq!(walk_once(), [4]);
    assert_eq!(walk_once(), [0, 1]);
}

#[test]
fn who_may_not_be_sent_again_yet_holds_nobody_up() {
    let mut queue = Queue::default();
    let mut lost = newcomer(0, 0, 10);
    lost.pending.owes_retry = true;
    push(&mut queue, lost, 10).expect("room");
    push(&mut queue, newcomer(1, 0, 10), 10).expect("room");
    assert_eq!(
        queue.next(&Walk::default(), 1, false).expect("the other").request.id.0,
        1
    );
    assert_eq!(queue.next(&Walk::default(), 1, true).expect("it").request.id.0, 0);
}

/// What a tenant does over time: asks for so many tokens, or leaves with its oldest request.
#[derive(Clone, Debug)]
enum Step {
    Arrive(u64, u64),
    Serve,
    Leave(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u64, 1..3 * QUANTUM_TOKENS).prop_map(|(tenant, tokens)| Step::Arrive(tenant, tokens)),
        3 => Just(Step::Serve),
        1 => any::<u64>().prop_map(Step::Leave),
    ]
}

proptest! {
    /// While all of them have a backlog, what two tenants were served differs by a quantum and their largest request at most.
    #[test]
    fn shares_are_equal_to_a_quantum(costs in proptest::collection::vec((0..3_u64, 1..2 * QUANTUM_TOKENS), 20..200)) {
        let mut queue = Queue::default();
        let mut largest = 0;
        for (id, (tenant, tokens)) in costs.iter().enumerate() {
            largest = largest.max(*tokens);
            push(&mut queue, newcomer(id as u64, *tenant, *tokens), usize::MAX).expect("no bound");
        }
        let mut left = [0, 1, 2].map(|tenant| costs.iter().filter(|(of, _)| *of == tenant).count());
        let mut had = [0_u64; 3];
        while left.iter().all(|left| *left > 0) {
            let (id, _) = serve(&mut queue).expect("somebody waits");
            let (tenant, tokens) = costs[id as usize];
            left[tenant as usize] -= 1;
            had[tenant as usize] += tokens;
            let apart = had.iter().max().expect("three") - had.iter().min().expect("three");
            prop_assert!(apart <= QUANTUM_TOKENS + largest, "{had:?}");
        }
    }

    /// However much a busy tenant goes on asking for, a small request of another is served within a round.
    #[test]
    fn nobody_starves(tokens in 1..=QUANTUM_TOKENS, flood in 1..4 * QUANTUM_TOKENS, before in 0..50_u64) {
        let mut queue = Queue::default();
        let mut ids = 0..;
        let mut next_id = || ids.next().unwrap_or(u64::MAX);
        for _ in 0..=before {
            push(&mut queue, newcomer(next_id(), 0, flood), usize::MAX).expect("no bound");
        }
        let mine = next_id();
        push(&mut queue, newcomer(mine, 1, tokens), usize::MAX).expect("no bound");
        let mut spent = 0;
        loop {
            push(&mut queue, urgent(newcomer(next_id(), 0, flood), 0, Some(1.0)), usize::MAX).expect("no bound");
            let (id, _) = serve(&mut queue).expect("somebody waits");
            if id == mine {
                break;
            }
            spent += flood;
            prop_assert!(spent <= QUANTUM_TOKENS + flood, "{spent} tokens before it");
        }
    }

    /// A tenant's requests keep their order, and every account agrees, whatever comes and goes.
    #[test]
    fn order_is_kept_and_nothing_is_lost(steps in proptest::collection::vec(any_step(), 1..200)) {
        let mut queue = Queue::default();
        let mut waiting: Vec<(u64, String)> = Vec::new();
        for (id, step) in steps.iter().enumerate() {
            let id = id as u64;
            match step {
                Step::Arrive(tenant, tokens) => {
                    push(&mut queue, newcomer(id, *tenant, *tokens), usize::MAX).expect("no bound");
                    waiting.push((id, format!("t{tenant}")));
                }
                Step::Serve => match serve(&mut queue) {
                    Some((id, tenant)) => {
                        let first = waiting.iter().position(|(_, of)| *of == tenant).expect("it waits");
                        prop_assert_eq!(waiting.remove(first).0, id);
                    }
                    None => prop_assert!(waiting.is_empty()),
                },
                Step::Leave(which) if !waiting.is_empty() => {
                    let (id, _) = waiting.remove((which % waiting.len() as u64) as usize);
                    prop_assert!(queue.remove(RequestId(id)).is_some());
                }
                Step::Leave(_) => {}
            }
            prop_assert_eq!(queue.len(), waiting.len());
            prop_assert_eq!(queue.waiting_for(&Target::Auto), waiting.len());
            prop_assert_eq!(queue.oldest_arrival(), waiting.iter().map(|(id, _)| Timestamp(*id)).min());
        }
        waiting.sort_unstable();
        let mut rest = served(&mut queue);
        rest.sort_unstable();
        prop_assert_eq!(rest, waiting.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    }
}
