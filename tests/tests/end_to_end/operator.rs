//! `equipoise fleet`: an operator takes instances out of work and gives it back.

use crate::cluster::{FleetFile, FleetList, Up, available, settled};
use crate::load::{Asking, Load};
use crate::process::{run, succeed};

const ASKING: Asking = Asking {
    model: "gemma-2-2b",
    max_tokens: 2,
    streams: true,
    tenants: &[],
};

/// Who answers the next requests.
async fn answerers(up: &Up) -> Vec<String> {
    let load = Load::start(&up.router, 4, &ASKING);
    load.more(24).await;
    let mut names = load.stop_without_loss().await;
    names.sort();
    names.dedup();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_instance_gets_no_new_work_until_it_is_undone() {
    let fleet = FleetFile::quick("pair", 2);
    let up = Up::start(&["--fleet", fleet.path()]).await;
    settled(&up.control, 2, "router-0").await;
    let fleet = |arguments: &'static [&'static str]| {
        let control = up.control.clone();
        async move { succeed(&[&["fleet", "--control", &control], arguments].concat()).await }
    };

    let said = fleet(&["drain", "pair-0"]).await;
    assert!(said.contains("pair-0 takes no new work"), "{said}");
    available(&up.router, 1).await;
    assert_eq!(answerers(&up).await, ["pair-1"]);
    let list = FleetList::ask(&up.control).await.expect("a list");
    assert_eq!(list.state_of("pair-0"), Some("draining"));
    assert_eq!(list.state_of("pair-1"), Some("healthy"));

    let said = fleet(&["drain", "pair-0", "--undo"]).await;
    assert!(said.contains("pair-0 takes new work again"), "{said}");
    fleet(&["drain", "pair-1"]).await;
    crate::eventually("all work goes to the other one", || async {
        (answerers(&up).await == ["pair-0"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_weight_zero_gets_none() {
    let fleet = FleetFile::quick("pair", 2);
    let up = Up::start(&["--fleet", fleet.path()]).await;
    succeed(&["fleet", "--control", &up.control, "weights", "pair-1", "0"]).await;
    available(&up.router, 1).await;
    assert_eq!(answerers(&up).await, ["pair-0"]);
    succeed(&["fleet", "--control", &up.control, "weights", "pair-1", "1"]).await;
    available(&up.router, 2).await;

    // All of them at zero: nobody is left, and the client is told so.
    for name in ["pair-0", "pair-1"] {
        succeed(&["fleet", "--control", &up.control, "weights", name, "0"]).await;
    }
    available(&up.router, 0).await;
    let answer = up.router.chat("gemma-2-2b", 1, &[]).await;
    answer.error(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_is_an_error() {
    let fleet = FleetFile::quick("pair", 1);
    let up = Up::start(&["--fleet", fleet.path()]).await;
    for action in [
        &["drain", "nobody"][..],
        &["weights", "nobody", "1"],
        &["describe", "nobody"],
    ] {
        let said = run(&[&["fleet", "--control", &up.control], action].concat()).await;
        assert_eq!(said.code, Some(1), "{action:?}: {said:?}");
        assert!(
            said.stderr.contains("no instance") && said.stderr.contains("nobody"),
            "{}",
            said.stderr
        );
    }
    let said = run(&["fleet", "--control", &up.control, "weights", "pair-0", "NaN"]).await;
    assert_ne!(said.code, Some(0), "{said:?}");
}
