//! The product in front of real vLLM servers.
//!
//! Only where `EQUIPOISE_REAL_VLLM` names a folder with a vLLM (`venv/bin/vllm`) and two models of any size, `tiny` and
//! `small`, that it can serve on this machine. Their answers may make no sense; what is tested is how the router, its
//! picture of the fleet, and vLLM's own counts go together.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::{CHAT, Client, complete_tokens, streamed_chat};
use crate::cluster::{FleetFile, FleetList, Up};
use crate::process::{Process, free_port};

/// vLLM needs minutes to start on a busy machine without a GPU.
const START_ATTEMPTS: usize = 600;

struct Vllm {
    process: Process,
    client: Client,
    url: String,
}

impl Vllm {
    fn start(folder: &Path, model: &str) -> Self {
        let port = free_port();
        let mut command = Command::new(folder.join("venv/bin/vllm"));
        command
            .arg("serve")
            .arg(folder.join(model))
            .args(["--served-model-name", model]);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args([
            "--dtype",
            "float32",
            "--max-model-len",
            "2048",
            "--enforce-eager",
            "--disable-uvicorn-access-log",
            "--enable-auto-tool-choice",
            "--tool-call-parser",
            "hermes",
        ]);
        command
            .env("VLLM_CPU_KVCACHE_SPACE", "1")
            .env("VLLM_CPU_OMP_THREADS_BIND", "nobind");
        command.env("HF_HUB_OFFLINE", "1").env("VLLM_NO_USAGE_STATS", "1");
        let url = format!("http://127.0.0.1:{port}");
        Self {
            process: Process::spawn(&format!("vllm {model}"), &mut command).expect("vLLM starts"),
            client: Client::new(&url),
            url,
        }
    }

    async fn ready(&self) {
        for _ in 0..START_ATTEMPTS {
            let answer = self.client.exchange(http::Method::GET, "/health", &[], "").await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        panic!("vLLM never served: {}", self.process.output());
    }

    /// Requests that it works on, by its own count.
    async fn running(&self) -> f64 {
        self.client
            .metric("vllm:num_requests_running", "")
            .await
            .expect("vLLM counts them")
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        self.process.let_go();
    }
}

fn installation() -> Option<PathBuf> {
    let folder = std::env::var_os("EQUIPOISE_REAL_VLLM").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: EQUIPOISE_REAL_VLLM names no vLLM; the product was NOT tested in front of a real engine");
    }
    folder
}

fn fleet_of(tiny: &Vllm, small: &Vllm) -> FleetFile {
    let part = |name: &str, server: &Vllm| {
        format!(
            "[[model]]\nname = \"{name}\"\n\n[[pool]]\nname = \"{name}\"\nmodel = \"{name}\"\nendpoints = [\"{}\"]\n\n",
            server.url
        )
    };
    FleetFile::new(&(part("tiny", tiny) + &part("small", small)))
}

/// Waits until the fleet list says of an instance what `so` wants.
async fn picture(control: &str, instance: &str, so: impl Fn(u32) -> bool) {
    crate::eventually(&format!("the picture of {instance} follows"), || async {
        let fleet = FleetList::ask(control).await?;
        let row = fleet.instances.into_iter().find(|row| row.name == instance)?;
        so(row.running).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_vllm_is_served_seen_and_cancelled() {
    const PARALLEL: usize = 4;
    const LONG: u32 = 1500;
    let Some(folder) = installation() else { return };
    let (tiny, small) = (Vllm::start(&folder, "tiny"), Vllm::start(&folder, "small"));
    tokio::join!(tiny.ready(), small.ready());
    let fleet = fleet_of(&tiny, &small);
    let up = Up::start(&["--fleet", fleet.path()]).await;

    for (model, instance) in [("tiny", "tiny-0"), ("small", "small-0")] {
        let answer = up.router.chat(model, 8, &[]).await;
        assert_eq!((answer.status, answer.instance()), (200, instance), "{}", answer.text());
        let mut stream = up.router.stream(CHAT, &[], &streamed_chat(model, 16)).await;
        let events = stream.rest().await.expect("ends well");
        assert!(complete_tokens(&events).is_some(), "{events:#?}");
        assert!(
            !events.iter().any(|event| event.contains("\"completion_tokens\"")),
            "{events:#?}"
        );
    }
    assert_eq!(up.router.chat("auto", 8, &[]).await.status, 200);

    // Several long streams at once: our picture is vLLM's own.
    let long = streamed_chat("small", LONG);
    let mut streams = Vec::new();
    for _ in 0..PARALLEL {
        let mut stream = up.router.stream(CHAT, &[], &long).await;
        stream.next().await.expect("flows").expect("has begun");
        streams.push(stream);
    }
    assert_eq!(small.running().await, PARALLEL as f64);
    assert_eq!(
        up.router
            .metric("equipoise_router_in_flight", "instance=\"small-0\"")
            .await,
        Some(PARALLEL as f64)
    );
    picture(&up.control, "small-0", |running| running as usize == PARALLEL).await;
    picture(&up.control, "tiny-0", |running| running == 0).await;

    // They hang up: vLLM stops working on them.
    drop(streams);
    crate::eventually("vLLM drops what nobody waits for", || async {
        (small.running().await == 0.0).then_some(())
    })
    .await;
    picture(&up.control, "small-0", |running| running == 0).await;
    assert_eq!(up.router.metric("equipoise_router_in_flight", "").await, Some(0.0));
    let generated = small.client.metric("vllm:generation_tokens_total", "").await;
    let wanted = (PARALLEL as u32 * LONG).into();
    assert!(
        generated < Some(wanted),
        "cut off, not answered to the end: {generated:?}"
    );
}

/// OpenAI's client and vLLM's own load generator, both of the same installation, see no difference to vLLM itself.
#[tokio::test(flavor = "multi_thread")]
async fn real_vllm_answers_its_clients_through_the_router() {
    let Some(folder) = installation() else { return };
    let (tiny, small) = (Vllm::start(&folder, "tiny"), Vllm::start(&folder, "small"));
    tokio::join!(tiny.ready(), small.ready());
    let fleet = fleet_of(&tiny, &small);
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let base = up.router.base().to_owned();

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/openai_client.py");
    let said = succeeds(
        Command::new(folder.join("venv/bin/python"))
            .arg(script)
            .args([&format!("{base}/v1"), "tiny"]),
    );
    assert!(said.contains("cases hold"), "{said}");
    crate::eventually("vLLM drops what nobody waits for", || async {
        (tiny.running().await == 0.0).then_some(())
    })
    .await;

    let said = succeeds(
        Command::new(folder.join("venv/bin/vllm"))
            .args(["bench", "serve", "--backend", "openai-chat", "--endpoint", CHAT])
            .args(["--base-url", &base, "--model", "tiny", "--tokenizer"])
            .arg(folder.join("tiny"))
            .args([
                "--dataset-name",
                "random",
                "--random-input-len",
                "32",
                "--random-output-len",
                "16",
            ])
            .args(["--num-prompts", "64", "--max-concurrency", "16"])
            .env("HF_HUB_OFFLINE", "1"),
    );
    let count = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().last()?.parse::<u32>().ok());
        number.unwrap_or_else(|| panic!("no `{name}` in {said}"))
    };
    assert_eq!((count("Successful requests:"), count("Failed requests:")), (64, 0));
    eprintln!("{said}");
    assert_eq!(up.router.metric("equipoise_router_in_flight", "").await, Some(0.0));
    assert_eq!(up.router.metric("equipoise_router_breaker", "").await, Some(0.0));
}

/// Runs a program to its end, and gives what it printed.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}\n{complained}");
    said
}
