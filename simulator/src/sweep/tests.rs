use std::sync::Mutex;

use super::*;
use crate::scenario::tests::scenario;

const SWEEP: &str = "policies = [\"random\", \"equipoise\"]\nseeds = [1, 2]\n[workload]\narrivals = \"gamma\"\nrate_per_s = 4\n\
                     requests = 120\n[sweep]\nrates_per_s = [3, 6]\npresets = [\"green\"]\n";

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("equipoise-sweep-{}-{name}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    folder
}

/// The joined table and the page.
fn merged(folders: &[PathBuf]) -> (Vec<u8>, String) {
    let merged = MergedSweep::read(folders).expect("parts");
    let path = folders[0].join("all.parquet");
    merged.write(&path).expect("written");
    (fs::read(&path).expect("read"), merged.report().html())
}

#[test]
fn one_core_all_cores_and_shards_give_the_same_bytes() {
    let scenario = scenario(SWEEP);
    let [one, all, first, second] = ["one", "all", "first", "second"].map(folder);
    let quiet = |_: &ScenarioCell, _: Option<CellDone>| {};
    run_sweep(&scenario, &one, Shard::WHOLE, 1, quiet).expect("runs");
    run_sweep(&scenario, &all, Shard::WHOLE, 4, quiet).expect("runs");
    run_sweep(&scenario, &first, Shard { index: 0, count: 2 }, 2, quiet).expect("runs");
    run_sweep(&scenario, &second, Shard { index: 1, count: 2 }, 2, quiet).expect("runs");
    let expected = merged(std::slice::from_ref(&one));
    assert!(merged(std::slice::from_ref(&all)) == expected, "all cores");
    assert!(merged(&[first.clone(), second.clone()]) == expected, "two shards");
    assert!(
        merged(&[second.clone(), first.clone(), one.clone()]) == expected,
        "the same twice"
    );
    for folder in [one, all, first, second] {
        fs::remove_dir_all(folder).expect("removed");
    }
}

#[test]
fn what_is_done_is_not_done_again() {
    let folder = folder("resumed");
    let heard = Mutex::new(Vec::new());
    let tell = |cell: &ScenarioCell, done: Option<CellDone>| {
        heard.lock().expect("whole").push((cell.index, done.is_some()));
    };
    let whole = scenario(SWEEP);
    run_sweep(&whole, &folder, Shard { index: 0, count: 3 }, 1, tell).expect("runs");
    assert_eq!(heard.lock().expect("whole").len(), 4);
    heard.lock().expect("whole").clear();
    run_sweep(&whole, &folder, Shard::WHOLE, 1, tell).expect("runs");
    let again: Vec<usize> = heard
        .lock()
        .expect("whole")
        .iter()
        .filter(|(_, new)| !new)
        .map(|(index, _)| *index)
        .collect();
    assert_eq!(again, [0, 3, 6, 9]);
    heard.lock().expect("whole").clear();
    // The grid grows at its front: what was done is found at its new place.
    let grown = scenario(&SWEEP.replace("[3, 6]", "[2, 3, 6]"));
    run_sweep(&grown, &folder, Shard::WHOLE, 2, tell).expect("runs");
    assert_eq!(heard.lock().expect("whole").iter().filter(|(_, new)| *new).count(), 6);
    let report = MergedSweep::read(std::slice::from_ref(&folder))
        .expect("parts")
        .report();
    assert_eq!(report.runs.len(), 18);
    assert_eq!(report.runs[0].rate_per_s, Some(2.0));
    // Of the smaller grid there is less.
    let parts = MergedSweep::read(std::slice::from_ref(&folder))
        .expect("parts")
        .of(&whole);
    assert_eq!(parts.runs(), 12);
    fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn what_cannot_be_joined_says_why() {
    let folder = folder("broken");
    fs::create_dir_all(&folder).expect("a folder");
    let read = || {
        MergedSweep::read(std::slice::from_ref(&folder))
            .expect_err("wrong")
            .to_string()
    };
    assert!(read().contains("no parts of a sweep"));
    fs::write(folder.join("cell-1.parquet"), "half").expect("written");
    assert!(read().contains("remove it, and the sweep makes it again"));
    fs::remove_dir_all(&folder).expect("removed");
    assert!(read().contains("cannot read"));
    for (text, good) in [
        ("0/1", true),
        ("3/4", true),
        ("4/4", false),
        ("-1/2", false),
        ("x", false),
        ("/", false),
    ] {
        assert_eq!(text.parse::<Shard>().is_ok(), good, "{text}");
    }
}
