//! One scheduler, two drivers: what a live router decided, a replay decides again, byte for byte.

use std::path::Path;

use crate::client::{CHAT, streamed_chat};
use crate::cluster::Up;
use crate::load::{Asking, Load};
use crate::process::run;

const ASKING: Asking = Asking {
    model: "auto",
    max_tokens: 4,
    streams: true,
    tenants: &[],
};

const HANG_UPS: usize = 3;

/// Swaps the instance of a dispatch in the middle of the log; gives the number of its line.
fn tamper(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).expect("reads");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let half = lines.len() / 2;
    let index = (half..lines.len())
        .find(|&index| lines[index].contains("\"actions\":[{\"Dispatch\""))
        .expect("a dispatch");
    let (event, actions) = lines[index].split_once("\"actions\":").expect("actions");
    let changed = actions.replacen("\"instance\":", "\"instance\":1", 1);
    assert_ne!(actions, changed, "a dispatch names its instance: {actions}");
    lines[index] = format!("{event}\"actions\":{changed}");
    std::fs::write(log, lines.join("\n") + "\n").expect("writes");
    index + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_run_replays_identically_and_tampering_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.jsonl");
    let path = log.to_str().expect("UTF-8");
    let mut up = Up::start(&["--record", path]).await;
    let load = Load::start(&up.router, 16, &ASKING);
    load.more(500).await;
    // Some clients hang up in the middle: that is recorded as well.
    for _ in 0..HANG_UPS {
        let mut stream = up.router.stream(CHAT, &[], &streamed_chat("auto", 2000)).await;
        stream.next().await.expect("flows").expect("has begun");
    }
    let decided = load.stop_without_loss().await.len() + HANG_UPS;
    up.process.stop().await;

    let said = run(&["replay", path]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("identical"), "{}", said.stdout);
    assert!(
        said.stdout.contains(&format!(" {decided} decisions")),
        "{decided} decisions: {}",
        said.stdout
    );

    let line = tamper(&log);
    let said = run(&["replay", path]).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(
        said.stdout.contains(&format!("line {line} ")),
        "line {line}: {}",
        said.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_log_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("letter.txt");
    std::fs::write(&path, "Dear reader\n").expect("writes");
    let said = run(&["replay", path.to_str().expect("UTF-8")]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("letter.txt:1"), "{}", said.stderr);
}
