//! Configuration files: examined, and followed while everything runs.

use crate::cluster::{FleetFile, Up, available};
use crate::eventually;
use crate::load::{Asking, Load};
use crate::process::{run, succeed};

fn fleet(scheduler: &str, pools: &[(&str, usize, &str)]) -> String {
    let mut text = format!("{scheduler}\n[[model]]\nname = \"gemma-2-2b\"\n");
    for (name, count, more) in pools {
        text.push_str(&format!(
            "[[pool]]\nname = \"{name}\"\nmodel = \"gemma-2-2b\"\ngpu = \"H100\"\ncount = {count}\n{more}\n"
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_under_load_costs_no_request() {
    let file = FleetFile::new(&fleet("", &[("old", 2, "labels = { zone = \"a\" }")]));
    let write = |text: &str| std::fs::write(file.path(), text).expect("a file can be written");
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("events.jsonl");
    let record = record.to_str().expect("UTF-8");
    let mut up = Up::start(&["--fleet", file.path(), "--record", record]).await;
    let asking = Asking {
        model: "auto",
        max_tokens: 20,
        streams: false,
        tenants: &[],
    };
    let load = Load::start(&up.router, 4, &asking);
    load.more(20).await;

    // Another policy, a tenant that may go nowhere, and a pool more.
    let scheduler = "[scheduler]\npolicy = \"round-robin\"\n[tenants.acme]\nlabels = { zone = \"moon\" }\n";
    write(&fleet(
        scheduler,
        &[("old", 2, "labels = { zone = \"b\" }"), ("new", 2, "")],
    ));
    available(&up.router, 4).await;
    eventually("the tenant is bound", || async {
        let answer = up.router.chat("auto", 1, &[("x-equipoise-tenant", "acme")]).await;
        (answer.status == 400).then_some(())
    })
    .await;
    eventually("the label has changed", || async {
        let answer = up.router.chat("auto", 1, &[("x-equipoise-labels", "zone=b")]).await;
        (answer.status == 200).then_some(())
    })
    .await;
    load.more(50).await;

    // The old pool goes.
    write(&fleet("", &[("new", 3, "")]));
    available(&up.router, 3).await;
    load.more(50).await;
    for _ in 0..4 {
        let answer = up.router.chat("auto", 1, &[("x-equipoise-tenant", "acme")]).await;
        assert!(answer.instance().starts_with("new-"), "{}", answer.instance());
    }

    // A file that makes no sense changes nothing, and is counted.
    write("[scheduler]\npolicy = \"magic\"\n");
    let refused = || async {
        up.router
            .metric("equipoise_router_config_reloads_total", "refused")
            .await
    };
    eventually("the bad file is refused", || async {
        (refused().await >= Some(1.0)).then_some(())
    })
    .await;
    let state = up.router.admin().get("/debug/state").await.json();
    assert_eq!(state["policy"], "equipoise", "the old settings hold");
    load.more(20).await;
    let applied = up
        .router
        .metric("equipoise_router_config_reloads_total", "applied")
        .await;
    assert!(applied >= Some(2.0), "{applied:?}");
    load.stop_without_loss().await;
    up.process.line_with("no policy is called `magic`").await;
    up.process.stop().await;
    // The changes are in the event log: what was decided before, between and after them is decided again.
    let replayed = succeed(&["replay", record]).await;
    assert!(replayed.contains("identical"), "{replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_examined_as_a_whole() {
    let bad = FleetFile::new("[scheduler]\nqueue_limt = 1\nattempts_max = 0\n[router]\nlisten = 80\n");
    let said = run(&["config", "check", bad.path()]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for place in [
        ":2:1: `queue_limt`",
        ":3:16: `attempts_max`",
        ":5:10: `listen`",
        "3 problems",
    ] {
        assert!(said.stderr.contains(place), "{place} is not in {}", said.stderr);
    }
    let good = FleetFile::quick("pool", 3);
    let said = succeed(&["config", "check", good.path()]).await;
    assert!(
        said.starts_with("ok: ") && said.contains("3 instances (3 emulated) in 1 pools"),
        "{said}"
    );
    let schema: serde_json::Value = serde_json::from_str(&succeed(&["config", "schema"]).await).expect("JSON");
    assert!(schema["properties"]["router"].is_object() && schema["$schema"].is_string());
    let missing = run(&["config", "check", "nowhere.toml"]).await;
    assert!(
        missing.code == Some(1) && missing.stderr.contains("nowhere.toml"),
        "{missing:?}"
    );
}
