//! What the router tells of requests: ids, the access log, and spans at a collector.

use std::sync::{Arc, Mutex, PoisonError};

use equipoise_proto::Message as _;
use equipoise_proto::otlp::any_value::Value as Any;
use equipoise_proto::otlp::{ExportTraceServiceRequest, KeyValue, Span};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{CHAT, streamed_chat};
use crate::cluster::{FleetFile, Up};
use crate::eventually;

/// Takes exports, keeps their bodies.
#[derive(Clone, Default)]
struct Collector {
    exports: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    /// Starts it, and gives its URL.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Self::default();
        let clone = collector.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(clone.clone().serve(socket));
            }
        });
        (collector, url)
    }

    async fn serve(self, socket: TcpStream) -> Option<()> {
        let mut socket = BufReader::new(socket);
        loop {
            let (mut length, mut head) = (0, String::new());
            loop {
                let mut line = String::new();
                socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                head.push_str(&line);
            }
            assert!(
                head.starts_with("POST /v1/traces ") && head.contains("application/x-protobuf"),
                "{head}"
            );
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.ok()?;
            self.exports.lock().unwrap_or_else(PoisonError::into_inner).push(body);
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .ok()?;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner).concat()
    }

    fn spans(&self) -> Vec<Span> {
        let exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests = exports
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.as_slice()).expect("spans"));
        let scopes = requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|of| of.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        Any::DoubleValue(number) => number.to_string(),
        Any::BoolValue(flag) => flag.to_string(),
    })
}

/// Waits until the log has so many lines.
async fn lines(path: &std::path::Path, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines"), || async {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

/// A line of the access log about an answered request of the test below.
fn says_all_of_an_answer(line: &Value, trace: &str, decision: &str) {
    for (field, value) in [
        ("request_id", "request-of-mine"),
        ("trace_id", trace),
        ("door", "proxy"),
        ("path", CHAT),
        ("outcome", "answered"),
        ("tenant", "acme"),
        ("requested_model", "auto"),
        ("model", "gemma-2-2b"),
        ("decision", decision),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(
        (&line["status"], &line["output_tokens"]),
        (&200.into(), &5.into()),
        "{line}"
    );
    assert!(
        line["time"]
            .as_str()
            .is_some_and(|time| time.len() == 24 && time.ends_with('Z')),
        "{line}"
    );
    for field in ["ttft_ms", "e2e_ms", "joules", "bytes_in", "bytes_out", "prompt_tokens"] {
        assert!(
            line[field].as_f64().is_some_and(|value| value > 0.0),
            "{field} in {line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_of_in_the_log_and_in_its_trace_but_not_its_text() {
    let (collector, url) = Collector::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.jsonl");
    let file = FleetFile::new(&format!(
        "[router]\naccess_log = \"{}\"\n[tracing]\notlp_endpoint = \"{url}\"\nsample_ratio = 0.0\n\
         [[model]]\nname = \"gemma-2-2b\"\n[[pool]]\nname = \"pool\"\nmodel = \"gemma-2-2b\"\ngpu = \"H100\"\ncount = 2\n",
        log.display()
    ));
    let mut up = Up::start(&["--fleet", file.path()]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("x-request-id", "request-of-mine"),
        ("x-equipoise-tenant", "acme"),
    ];
    let mut stream = up.router.stream(CHAT, &headers, &streamed_chat("auto", 5)).await;
    assert_eq!(stream.header("x-request-id"), "request-of-mine");
    stream.rest().await.expect("an answer");
    let decision = stream.header("x-equipoise-decision-id").to_owned();

    let nameless = up.router.chat("gemma-2-2b", 3, &[("x-request-id", "two words")]).await;
    let named = nameless.header("x-request-id").to_owned();
    assert!(!named.is_empty() && named != "two words", "an unusable id is replaced");
    up.router.chat("nobody", 3, &[]).await.error(404, "model_not_found");
    up.router.post(CHAT, &[], "{").await.error(400, "invalid_json");

    let lines = lines(&log, 4).await;
    says_all_of_an_answer(&lines[0], trace, &decision);
    assert_eq!(
        (&lines[1]["request_id"], &lines[1]["trace_id"]),
        (&named.into(), &Value::Null)
    );
    assert_eq!(
        (&lines[2]["status"], &lines[2]["code"]),
        (&404.into(), &"model_not_found".into())
    );
    assert_eq!(
        (&lines[3]["status"], &lines[3]["code"]),
        (&400.into(), &"invalid_json".into())
    );
    assert_eq!(lines[3]["outcome"], "refused");

    let spans = eventually("two spans", || async {
        let spans = collector.spans();
        (spans.len() >= 2).then_some(spans)
    })
    .await;
    // The others' traces began here, and none of those is recorded.
    assert_eq!(spans.len(), 2, "{spans:?}");
    let request = spans.iter().find(|span| span.name == "chat auto").expect("the request");
    assert_eq!(
        request.trace_id,
        u128::from_str_radix(trace, 16).expect("hex").to_be_bytes()
    );
    assert_eq!(request.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert!(request.end_time_unix_nano > request.start_time_unix_nano && request.status.is_none());
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "auto"),
        ("gen_ai.response.model", "gemma-2-2b"),
        ("gen_ai.usage.output_tokens", "5"),
        ("server.address", "127.0.0.1"),
        ("http.response.status_code", "200"),
        ("equipoise.request_id", "request-of-mine"),
    ] {
        assert_eq!(attribute(&request.attributes, key).as_deref(), Some(value), "{key}");
    }
    let inside = spans.iter().find(|span| span.name == "decision").expect("the decision");
    assert_eq!(
        (&inside.trace_id, &inside.parent_span_id),
        (&request.trace_id, &request.span_id)
    );
    assert_eq!(inside.events.len(), 2, "a candidate each");
    let chosen = |event: &&equipoise_proto::otlp::span::Event| {
        attribute(&event.attributes, "equipoise.chosen").as_deref() == Some("true")
    };
    let chosen: Vec<_> = inside.events.iter().filter(chosen).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!(
        attribute(&chosen[0].attributes, "equipoise.instance"),
        attribute(&request.attributes, "equipoise.instance")
    );
    assert!(attribute(&chosen[0].attributes, "equipoise.score").is_some());
    let exported = up.router.metric("equipoise_router_spans_total", "exported").await;
    assert_eq!(exported, Some(2.0));

    let said = "What does a balance weigh?";
    let (told, sent) = (std::fs::read_to_string(&log).expect("a log"), collector.bytes());
    assert!(!told.contains(said) && !sent.windows(said.len()).any(|window| window == said.as_bytes()));
    up.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_no_request() {
    let gone = format!("http://127.0.0.1:{}", crate::process::free_port());
    let file = FleetFile::new(&format!(
        "[tracing]\notlp_endpoint = \"{gone}\"\n\
         [[model]]\nname = \"gemma-2-2b\"\n[[pool]]\nname = \"pool\"\nmodel = \"gemma-2-2b\"\ngpu = \"H100\"\ncount = 1\n"
    ));
    let mut up = Up::start(&["--fleet", file.path()]).await;
    for _ in 0..3 {
        assert_eq!(up.router.chat("auto", 1, &[]).await.status, 200);
    }
    eventually("six spans are lost", || async {
        let failed = up.router.metric("equipoise_router_spans_total", "failed").await;
        (failed == Some(6.0)).then_some(())
    })
    .await;
    up.process.line_with("spans are lost").await;
    up.process.stop().await;
}
