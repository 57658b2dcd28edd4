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

/// Requests for what is not there, or not that way.
fn misplaced() -> Vec<Case> {
    vec![
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
            method: Method::DELETE,
            path: "/v1/models/gemma-2-2b",
            status: 405,
            code: "method_not_allowed",
            says: &["DELETE", "GET"],
            ..sound("wrong method below a page")
        },
    ]
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
            header: Some(("content-type", "multipart/form-data; boundary=x")),
            status: 415,
            code: "unsupported_media_type",
            says: &["application/json"],
            ..sound("another kind of body")
        },
        Case {
            header: Some(("content-encoding", "gzip")),
            status: 415,
            code: "unsupported_media_type",
            ..sound("a compressed body")
        },
        Case {
            body: format!(
                r#"{{"model":"auto","messages":[{{"role":"user","content":"x"}}],"x":{}1{}}}"#,
                "[".repeat(100_000),
                "]".repeat(100_000)
            ),
            code: "invalid_json",
            says: &["recursion limit", "byte "],
            ..sound("deep nesting")
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
    for case in cases().into_iter().chain(misplaced()) {
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

/// What two readers could understand in two ways, what never ends, and what is too much.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_framing_is_refused() {
    let up = Up::start(&[]).await;
    let post = |headers: &str, body: &str| {
        format!("POST {CHAT} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{headers}\r\n{body}")
    };
    let many: String = (0..150).map(|index| format!("x-{index}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(100 << 10));
    let cases = [
        (
            "two lengths",
            post("content-length: 2\r\ncontent-length: 3\r\n", "{}"),
            "400",
        ),
        (
            "a length twice",
            post("content-length: 2\r\ncontent-length: 2\r\n", "{}"),
            "400",
        ),
        ("a length that is none", post("content-length: -1\r\n", ""), "400"),
        (
            "a chunk without end",
            post("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\n"),
            "400",
        ),
        (
            "a chunk that is none",
            post("transfer-encoding: chunked\r\n", "zz\r\n{}"),
            "400",
        ),
        (
            "a header of ours twice",
            post(
                "x-equipoise-explain: 1\r\nx-equipoise-explain: 1\r\ncontent-length: 2\r\n",
                "{}",
            ),
            "400",
        ),
        (
            "not UTF-8 for a header",
            post("x-equipoise-labels: zone=\u{e9}\r\ncontent-length: 2\r\n", "{}"),
            "400",
        ),
        ("too many headers", post(&many, ""), "431"),
        ("a header too long", post(&long, ""), "431"),
        ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
    ];
    for (what, sent, status) in cases {
        let mut socket = TcpStream::connect(up.router.address()).await.expect("connects");
        // It may be refused before it is written.
        drop(socket.write_all(sent.as_bytes()).await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        drop(read.expect("the router lets the connection go"));
        let answer = String::from_utf8_lossy(&answer);
        let first = answer.lines().next().unwrap_or_default();
        assert_eq!(first.split(' ').nth(1), Some(status), "{what}: {answer}");
    }
    serves(&up.router).await;
    assert!(!up.process.output().contains("panicked"));
}

async fn serves(router: &Client) {
    assert_eq!(router.chat("auto", 1, &[]).await.status, 200, "it still serves");
    eventually("nothing is left in flight", || async {
        (router.metric("equipoise_router_in_flight", "").await == Some(0.0)).then_some(())
    })
    .await;
}
