//! Mistakes on the command line and in files: an exit code, the place, and the way out, never a panic.

use std::net::TcpListener;

use crate::cluster::FleetFile;
use crate::process::run;

/// Runs a command that must fail, and checks that it says all of `words`.
async fn refuse(arguments: &[&str], words: &[&str]) {
    let said = run(arguments).await;
    assert!(
        said.code.is_some_and(|code| code != 0),
        "`{}` fails: {said:?}",
        arguments.join(" ")
    );
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    for word in words {
        assert!(said.stderr.contains(word), "`{word}` is not in: {}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_file_that_cannot_be_used_names_the_place() {
    refuse(&["up", "--fleet", "nowhere.toml"], &["nowhere.toml", "No such file"]).await;
    let file = FleetFile::new("[[model]]\nname = \"m\"\ncolour = \"red\"\n");
    let place = format!("{}:3", file.path());
    for command in ["up", "agent", "simulate", "router"] {
        refuse(&[command, "--fleet", file.path()], &[&place, "colour"]).await;
    }
    let file = FleetFile::new("[[pool]]\nname = \"p\"\nmodel = \"nobody\"\ncount = 1\n");
    refuse(
        &["up", "--fleet", file.path()],
        &[&format!("{}:3", file.path()), "nobody"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_policy_is_answered_with_those_there_are() {
    for command in ["up", "router", "simulate"] {
        refuse(
            &[command, "--policy", "clairvoyant"],
            &["clairvoyant", "round-robin", "equipoise"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let taken = taken.local_addr().expect("has an address").to_string();
    let any = "127.0.0.1:0";
    for [listen, control, page] in [[taken.as_str(), any, any], [any, &taken, any], [any, any, &taken]] {
        let options = [
            "up",
            "--listen",
            listen,
            "--control-listen",
            control,
            "--page-listen",
            page,
        ];
        refuse(&options, &[&taken]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_trace_line_is_named_or_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace.jsonl");
    let line = |second: u32| {
        format!(
            "{{\"timestamp\": {}, \"input_length\": 100, \"output_length\": 5, \"hash_ids\": [1]}}\n",
            second * 1000
        )
    };
    std::fs::write(&path, format!("{}{}not a request\n{}", line(1), line(2), line(3))).expect("writes");
    let path = path.to_str().expect("UTF-8");
    refuse(&["simulate", "--trace", path], &[&format!("{path}:3")]).await;
    let said = run(&["simulate", "--trace", path, "--skip-malformed"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains('1'), "what was skipped is said: {}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_not_there_is_named() {
    let nobody = format!("http://127.0.0.1:{}", crate::process::free_port());
    refuse(&["fleet", "list", "--control", &nobody], &[&nobody, "--control"]).await;
    refuse(&["report", "energy", "--control", &nobody], &[&nobody, "--control"]).await;
}
