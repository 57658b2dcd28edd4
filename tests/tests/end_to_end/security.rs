//! Keys, limits, personal data, and what operators see apart from clients.

use serde_json::json;

use crate::client::{CHAT, chat};
use crate::cluster::{FleetFile, Up};
use crate::process::succeed;

/// Two instances of a small model, one of them where personal data may go.
const POOLS: &str = r#"
[[model]]
name = "gemma-2-2b"

[[model]]
name = "gemma-2-9b"

[[pool]]
name = "near"
model = "gemma-2-2b"
gpu = "H100"
count = 1
labels = { residency = "local" }

[[pool]]
name = "far"
model = "gemma-2-9b"
gpu = "H100"
count = 1
labels = { residency = "elsewhere" }
"#;

/// A new key and its hash.
async fn new_key(options: &[&str]) -> (String, String) {
    let said = succeed(&[&["key", "new"], options].concat()).await;
    let line = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("said")
            .trim()
            .to_owned()
    };
    (line("key "), line("hash "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_says_who_asks_and_what_they_may() {
    let (acme, acme_hash) = new_key(&[]).await;
    let (tiny, tiny_hash) = new_key(&["--salted"]).await;
    let fleet = FleetFile::new(&format!(
        "[tenants.acme]\nkeys = [\"{acme_hash}\"]\nmodels = [\"gemma-2-2b\"]\n\n[tenants.tiny]\nkeys = [\"{tiny_hash}\"]\n\
         requests_per_minute = 2\ntokens_per_minute = 10000\n{POOLS}"
    ));
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let bearer = format!("Bearer {acme}");
    let ours = [("authorization", bearer.as_str())];

    let unknown = [("authorization", "Bearer sk-eq-123")];
    for headers in [&[][..], &unknown[..]] {
        let message = up.router.post(CHAT, headers, chat("auto", 1).to_string()).await;
        message.error(401, "invalid_api_key");
        assert_eq!(
            up.router
                .exchange(http::Method::GET, "/v1/models", headers, "")
                .await
                .expect("an answer")
                .status,
            401
        );
    }
    assert_eq!(up.router.get("/health").await.status, 200, "health needs no key");

    // Only what the key may see; `auto` chooses among that, whatever the client says it is.
    let models = up
        .router
        .exchange(http::Method::GET, "/v1/models", &ours, "")
        .await
        .expect("an answer")
        .json();
    let names: Vec<_> = models["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(names, ["auto", "gemma-2-2b"]);
    let posing = [
        ours[0],
        ("x-equipoise-tenant", "tiny"),
        ("x-equipoise-weights", "quality=1"),
    ];
    for _ in 0..4 {
        let answer = up.router.post(CHAT, &posing, chat("auto", 1).to_string()).await;
        assert_eq!((answer.status, answer.instance()), (200, "near-0"), "{}", answer.text());
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "", "acme has no limits");
    }
    let other = up.router.post(CHAT, &ours, chat("gemma-2-9b", 1).to_string()).await;
    assert!(other.error(404, "model_not_found").contains("gemma-2-2b"));
    let decision = up
        .router
        .post(CHAT, &ours, chat("auto", 1).to_string())
        .await
        .header("x-equipoise-decision-id")
        .to_owned();
    let path = format!("/v1/decisions/{decision}");
    let hidden = up
        .router
        .exchange(http::Method::GET, &path, &ours, "")
        .await
        .expect("an answer");
    assert_eq!((hidden.status, up.router.admin().get(&path).await.status), (404, 200));

    // A limit of its own.
    let bearer = format!("Bearer {tiny}");
    let theirs = [("authorization", bearer.as_str())];
    for left in ["1", "0"] {
        let answer = up.router.post(CHAT, &theirs, chat("auto", 5).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "2");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), left);
        let tokens: u64 = answer.header("x-ratelimit-remaining-tokens").parse().expect("a number");
        assert!((9_000..10_000).contains(&tokens), "{tokens}");
    }
    let refused = up.router.post(CHAT, &theirs, chat("auto", 5).to_string()).await;
    refused.error(429, "rate_limit_exceeded");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=30).contains(&wait) && refused.header("x-ratelimit-remaining-requests") == "0");

    let said = up.process.output();
    assert!(
        !said.contains(&acme) && !said.contains(&tiny) && !said.contains("sk-eq-"),
        "keys are in no log"
    );
    assert!(
        up.router
            .metric("equipoise_router_refused_total", "reason=\"unauthorized\"")
            .await
            >= Some(4.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_stays_where_it_may() {
    let fleet = FleetFile::new(&format!(
        "[pii]\nlabels = {{ residency = \"local\" }}\n\n[[pii.custom]]\nname = \"badge\"\npattern = 'E-\\d{{6}}'\n{POOLS}"
    ));
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let ask =
        |content: &str| json!({"model": "auto", "messages": [{"role": "user", "content": content}], "max_tokens": 1});
    let far = [("x-equipoise-labels", "residency=elsewhere")];
    let plain = up.router.post(CHAT, &far, ask("hello").to_string()).await;
    assert_eq!((plain.status, plain.instance()), (200, "far-0"), "{}", plain.text());
    for text in [
        "mail ann.lee@example.org",
        "my badge is E-123456",
        "DE89 3704 0044 0532 0130 00",
        "card 4111 1111 1111 1111",
    ] {
        let bound = up.router.post(CHAT, &far, ask(text).to_string()).await;
        assert_eq!(
            (bound.status, bound.instance()),
            (200, "near-0"),
            "{text}: {}",
            bound.text()
        );
    }
    let pinned = json!({"model": "gemma-2-9b", "messages": [{"role": "user", "content": "mail ann.lee@example.org"}]});
    let nowhere = up.router.post(CHAT, &[], pinned.to_string()).await;
    nowhere.error(400, "infeasible");
    for detector in ["email", "badge", "iban", "credit-card"] {
        let label = format!("detector=\"{detector}\"");
        assert!(
            up.router.metric("equipoise_router_pii_total", &label).await >= Some(1.0),
            "{detector}"
        );
    }
    let said = up.process.output();
    assert!(
        !said.contains("ann.lee") && !said.contains("E-123456"),
        "no prompt is in a log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_have_a_listener_of_their_own() {
    let up = Up::start(&[]).await;
    up.router.get("/metrics").await.error(404, "not_found");
    let admin = up.router.admin();
    up.router.chat("auto", 1, &[]).await;
    assert!(
        admin
            .get("/metrics")
            .await
            .text()
            .contains("equipoise_router_requests_total")
    );
    for page in ["/health", "/health/live", "/health/ready", "/debug", "/debug/state"] {
        assert_eq!(admin.get(page).await.status, 200, "{page}");
    }
    assert_eq!(
        admin.get("/debug/state").await.json()["instances"]
            .as_array()
            .map(Vec::len),
        Some(6)
    );
    admin
        .post(CHAT, &[], chat("auto", 1).to_string())
        .await
        .error(405, "method_not_allowed");
    admin.get("/v1/models").await.error(404, "not_found");
    let open = Up::start(&["--public-metrics"]).await;
    open.router.chat("auto", 1, &[]).await;
    assert!(
        open.router
            .get("/metrics")
            .await
            .text()
            .contains("equipoise_router_requests_total")
    );
}
