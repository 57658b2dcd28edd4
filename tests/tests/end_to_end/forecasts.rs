//! Quality forecast from each prompt: for models that the predictor knows, and said so for those that it does not.

use serde_json::{Value, json};

use crate::client::{CHAT, Client};
use crate::cluster::{FleetFile, Up};
use crate::process::run;

/// Two models of the embedded predictor, one under a name of its own; one that it has never seen, and one of which nothing
/// at all is known.
const FLEET: &str = r#"
[[model]]
name = "google/gemma-2-2b-it"
architecture = "Gemma-2-2B"
quality = 0.32

[[model]]
name = "support-bot"
architecture = "Gemma-2-27B"

[[model]]
name = "house-blend"
quality = 0.5

[[model]]
name = "stranger"

[[pool]]
name = "small"
model = "google/gemma-2-2b-it"
gpu = "H100"
count = 1

[[pool]]
name = "large"
model = "support-bot"
gpu = "H100"
count = 1

[[pool]]
name = "blend"
model = "house-blend"
service_ms = 5
count = 1

[[pool]]
name = "strange"
model = "stranger"
service_ms = 5
count = 1
"#;

const EASY: &str = "Tom has 3 apples and buys 2 more apples. How many apples does Tom have now?";
const HARD: &str = "Let $P(x)$ be a monic polynomial of degree $2023$ with integer coefficients such that $P(k) = k^{2022}$ \
    for $k = 1, 2, \\dots, 2023$. Find the sum of the digits of the remainder when $P(2024)$ is divided by $10^9 + 7$.";

/// Asks, and gives the candidates of the decision by their models.
async fn candidates(router: &Client, prompt: &str) -> Vec<(String, Value)> {
    let body = json!({
        "model": "auto",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"content": prompt, "role": "user"},
        ],
        "max_tokens": 1,
    });
    let answer = router.post(CHAT, &[], body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let decision = answer.header("x-equipoise-decision-id").to_owned();
    let explained = router.get(&format!("/v1/decisions/{decision}")).await.json();
    let candidates = explained["candidates"].as_array().expect("candidates").clone();
    candidates
        .into_iter()
        .map(|candidate| (candidate["model"].as_str().expect("a model").to_owned(), candidate))
        .collect()
}

fn of<'a>(candidates: &'a [(String, Value)], model: &str) -> &'a Value {
    let found = candidates.iter().find(|(name, _)| name == model);
    &found.unwrap_or_else(|| panic!("{model} is a candidate")).1
}

#[tokio::test(flavor = "multi_thread")]
async fn quality_depends_on_the_prompt_for_models_that_are_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.jsonl");
    let path = log.to_str().expect("UTF-8");
    let fleet = FleetFile::new(FLEET);
    let mut up = Up::start(&["--fleet", fleet.path(), "--record", path]).await;
    let (easy, hard) = (candidates(&up.router, EASY).await, candidates(&up.router, HARD).await);
    for model in ["google/gemma-2-2b-it", "support-bot"] {
        let (easy, hard) = (of(&easy, model), of(&hard, model));
        assert_eq!(easy["quality_from"], "forecast");
        let quality = |candidate: &Value| candidate["quality"].as_f64().expect("a figure");
        assert!(quality(easy) > quality(hard) + 0.1, "{model}: {easy} {hard}");
    }
    for (model, from) in [("house-blend", "declared"), ("stranger", "unknown")] {
        let (easy, hard) = (of(&easy, model), of(&hard, model));
        assert_eq!((&easy["quality_from"], &easy["quality"]), (&json!(from), &json!(0.5)));
        assert_eq!(easy["quality"], hard["quality"]);
    }
    let said = up.process.output();
    for (model, how) in [
        ("support-bot", "forecast from each prompt"),
        ("house-blend", "as declared for every prompt"),
        ("stranger", "taken as 0.5"),
    ] {
        let lines = said.lines().filter(|line| line.contains(model) && line.contains(how));
        assert_eq!(lines.count(), 1, "{model}: {how}:\n{said}");
    }
    up.process.stop().await;
    // What clients write is in no log; forecasts are, so that a replay needs no predictor.
    let recorded = std::fs::read_to_string(&log).expect("reads");
    assert!(!recorded.contains("apples") && !said.contains("apples"));
    assert!(recorded.contains("\"forecast\":"));
    let replayed = run(&["replay", path]).await;
    assert!(replayed.stdout.contains("identical"), "{replayed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predictor_can_be_left_out_and_a_bad_one_is_refused() {
    let fleet = FleetFile::new(FLEET);
    let up = Up::start(&["--fleet", fleet.path(), "--predictor", "off"]).await;
    let easy = candidates(&up.router, EASY).await;
    let small = of(&easy, "google/gemma-2-2b-it");
    assert_eq!(
        (&small["quality_from"], &small["quality"]),
        (&json!("declared"), &json!(0.32))
    );

    for (file, reason) in [(fleet.path(), "no predictor"), ("/no/such/file.eqp", "cannot be read")] {
        let said = run(&["up", "--listen", "127.0.0.1:0", "--predictor", file]).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(
            said.stderr.contains(reason) && said.stderr.contains(file),
            "{}",
            said.stderr
        );
    }
}
