//! Requests that make no sense: each gets OpenAI's error object that says what is wrong, and the next one is served.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{CHAT, Client, chat};
use crate::cluster::Up;
use crate::{PATIENCE, eventually};

struct Case {
    what: &'static str,
    method: Method,
    path: &'static str,
    header: Option<(&'static str, &'static str)>,
    body: String,
    status: u16,
    code: &'static str,
    /// What the message must say, so that the client can mend it.
    says: &'static [&'static str],
}

/// A sound request; each case spoils one thing.
fn sound(what: &'static str) -> Case {
    Case {
        what,
        method: Method::POST,
        path: CHAT,
        header: None,
        body: chat("auto", 1).to_string(),
        status: 400,
        code: "invalid_request",
        says: &[],
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            body: "{\"model\": \"auto\",\n  oops".to_owned(),
            code: "invalid_json",
            says: &["line 2", "column 3", "byte 20"],
            ..sound("not JSON")
        },
        Case {
            body: String::new(),
            code: "invalid_json",
            ..sound("no body")
        },
        Case {
            body: json!({"messages": [{"role": "user", "content": "?"}]}).to_string(),
            code: "missing_required_parameter",
            says: &["`model`", "`auto`"],
            ..sound("no model")
        },
        Case {
            body: chat("gpt-17", 1).to_string(),
            status: 404,
            code: "model_not_found",
            says: &[
                "`gpt-17`",
                "auto",
                "gemma-2-27b",
                "gemma-2-2b",
                "gemma-2-9b",
                "llama-3.1-8b",
            ],
            ..sound("unknown model")
        },
        Case {
            body: "x".repeat((32 << 20) + 1),
            status: 413,
            code: "request_too_large",
            says: &["33554432 bytes"],
            ..sound("body too large")
        },
        Case {
            method: Method::GET,
            body: String::new(),
            status: 405,
            code: "method_not_allowed",
            says: &["GET", "POST"],
            ..sound("wrong method")
        },
        Case {
            method: Method::DELETE,
            path: "/v1/models",
            status: 405,
            code: "method_not_allowed",
            says: &["DELETE", "GET"],
            ..sound("wrong method on a page")
        },
        Case {
            path: "/v1/nothing",
            status: 404,
            code: "not_found",
            says: &["/v1/nothing"],
            ..sound("unknown path")
        },
        Case {
            header: Some(("x-equipoise-quality-min", "high")),
            code: "invalid_header",
            says: &["x-equipoise-quality-min", "`high`", "from 0 to 1"],
            ..sound("bad header")
        },
        Case {
            header: Some(("x-equipoise-qualty-min", "0.5")),
            code: "invalid_header",
            says: &["x-equipoise-qualty-min", "x-equipoise-quality-min"],
            ..sound("misspelt header")
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_with_what_is_wrong() {
    let up = Up::start(&[]).await;
    for case in cases() {
        let headers: Vec<(&str, &str)> = case.header.into_iter().collect();
        let answer = up.router.exchange(case.method, case.path, &headers, case.body).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", case.what));
        let message = answer.error(case.status, case.code);
        for word in case.says {
            assert!(message.contains(word), "{}: `{word}` is not in: {message}", case.what);
        }
    }
    serves(&up.router).await;
    let output = up.process.output();
    assert!(!output.contains("panicked"), "{output}");
}

/// A client that dies in the middle of its body, and one that says nothing of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_request_costs_nothing() {
    let up = Up::start(&[]).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: here\r\ncontent-length: 500\r\n\r\n");
    for sent in [format!("{head}{{\"model\": \"au"), "good evening\r\n\r\n".to_owned()] {
        let mut socket = TcpStream::connect(up.router.address()).await.expect("connects");
        socket.write_all(sent.as_bytes()).await.expect("writes");
        socket.shutdown().await.expect("half closes");
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await;
        read.expect("the router lets the connection go").expect("in good order");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(answer.contains("broke off"), sent.starts_with("POST"), "{answer}");
    }
    serves(&up.router).await;
}

async fn serves(router: &Client) {
    assert_eq!(router.chat("auto", 1, &[]).await.status, 200, "it still serves");
    eventually("nothing is left in flight", || async {
        (router.metric("equipoise_router_in_flight", "").await == Some(0.0)).then_some(())
    })
    .await;
}
