//! The client against servers of raw sockets: what goes out, what comes back, what each failure is called.

#![expect(clippy::expect_used, reason = "a test server that cannot start fails the test")]

use bytes::Bytes;
use equipoise_backend::{BackendError, EngineClient, EngineClientConfig, Retry, empty_body, full_body};
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;

const LONG: Duration = Duration::from_secs(20);

fn client(endpoint: &str) -> EngineClient {
    EngineClient::new(endpoint, EngineClientConfig::default()).expect("usable endpoint")
}

/// Reads one request up to its blank line, plus `Content-Length` bytes; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.ok()?;
        if count == 0 {
            return None;
        }
        read.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let chunked = head.contains("transfer-encoding: chunked");
            if (!chunked && body.len() >= length.unwrap_or(0)) || (chunked && body.ends_with("0\r\n\r\n")) {
                return Some(text);
            }
        }
    }
}

/// A server that answers the n-th request of the n-th connection with what `answer` says and then keeps or closes it.
async fn scripted<F>(answer: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(usize, &str) -> (String, bool) + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, answer) = (Arc::clone(&connections), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let connection = count.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    let (response, keep) = answer(connection, &request);
                    if stream.write_all(response.as_bytes()).await.is_err() || !keep {
                        return;
                    }
                }
            });
        }
    });
    (endpoint, connections)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn the_host_is_set_and_headers_of_one_connection_are_removed() {
    let (endpoint, _) = scripted(|_, request| (ok(request), true)).await;
    let client = client(&format!("{endpoint}/base"));
    let request = Request::post("/v1/completions?stream=1")
        .header("host", "gateway.example")
        .header("connection", "close, x-mine")
        .header("x-mine", "1")
        .header("authorization", "Bearer key")
        .body(full_body("{}"))
        .expect("a request");
    let response = client.send(request).await.expect("answered");
    let seen = String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes()
            .to_vec(),
    )
    .expect("text");
    let host = endpoint.strip_prefix("http://").expect("a scheme");
    assert!(
        seen.starts_with("POST /base/v1/completions?stream=1 HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.contains(&format!("host: {host}\r\n")), "{seen}");
    assert!(
        seen.contains("authorization: Bearer key\r\n") && seen.ends_with("\r\n\r\n{}"),
        "{seen}"
    );
    assert!(
        !seen.contains("x-mine") && !seen.contains("gateway.example") && !seen.contains("close"),
        "{seen}"
    );
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let (endpoint, connections) = scripted(|_, _| (ok("x"), true)).await;
    let client = client(&endpoint);
    for _ in 0..5 {
        client.get("/health", LONG).await.expect("answered");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_idles_for_long_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = EngineClientConfig {
        pool_idle_timeout: Duration::from_millis(20),
        ..EngineClientConfig::default()
    };
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let client = EngineClient::new(&endpoint, config).expect("usable");
    let (mut stream, answer) = tokio::join!(
        async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await.expect("a request");
            stream.write_all(ok("x").as_bytes()).await.expect("written");
            stream
        },
        client.get("/health", LONG)
    );
    answer.expect("answered");
    let mut rest = [0; 1];
    let end = tokio::time::timeout(LONG, stream.read(&mut rest))
        .await
        .expect("closed");
    assert!(matches!(end, Ok(0)), "{end:?}");
}

#[tokio::test]
async fn a_stale_pooled_connection_is_replaced_without_a_word() {
    // Every connection serves one request, promises to stay, and is closed at once.
    let (endpoint, connections) = scripted(|_, _| (ok("x"), false)).await;
    let client = client(&endpoint);
    for round in 0..20 {
        client
            .probe_health(LONG)
            .await
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        // Let the close arrive, as it has when a connection idled in the pool.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn refused_is_a_connect_error_and_free_to_retry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let error = client(&endpoint)
        .send(Request::new(empty_body()))
        .await
        .expect_err("nobody listens");
    assert!(matches!(error, BackendError::Connect { .. }), "{error:?}");
    assert!(error.before_response() && error.retry() == Retry::Free);
    assert!(error.to_string().contains("refused"), "the cause is told: {error}");
}

#[tokio::test]
async fn closed_before_the_head_is_told_from_closed_after_it() {
    let (endpoint, _) = scripted(|_, request| {
        if request.contains("/before") {
            (String::new(), false)
        } else if request.contains("/garbage") {
            ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), false)
        } else {
            ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart".to_owned(), false)
        }
    })
    .await;
    let client = client(&endpoint);
    let before = client.get("/before", LONG).await.expect_err("closed");
    assert!(matches!(before, BackendError::Closed { .. }), "{before:?}");
    assert!(before.before_response() && before.retry() == Retry::MayRepeatWork);
    let garbage = client.get("/garbage", LONG).await.expect_err("not HTTP");
    assert!(matches!(garbage, BackendError::Protocol { .. }), "{garbage:?}");
    let after = client.get("/after", LONG).await.expect_err("broke off");
    assert!(matches!(after, BackendError::Body { .. }), "{after:?}");
    assert!(!after.before_response() && after.retry() == Retry::Useless);

    let request = Request::get("/after").body(empty_body()).expect("a request");
    let mut response = client.send(request).await.expect("the head comes");
    let mut frames = Vec::new();
    let error = loop {
        match response.frame().await.expect("an error before the end") {
            Ok(frame) => frames.push(frame),
            Err(error) => break client.body_error("/after", error),
        }
    };
    assert!(!frames.is_empty() && !error.before_response(), "{error}");
}

#[tokio::test]
async fn a_silent_engine_times_out_and_a_talkative_one_is_cut_short() {
    let (endpoint, _) = scripted(|_, request| {
        if request.contains("/silent") {
            ("HTTP/1.1 200 OK\r\n".to_owned(), true)
        } else {
            (ok(&"x".repeat(2048)), true)
        }
    })
    .await;
    let config = EngineClientConfig {
        probe_limit: 1024,
        response_head_timeout: Duration::from_millis(50),
        ..EngineClientConfig::default()
    };
    let client = EngineClient::new(&endpoint, config).expect("usable");
    let silent = client
        .get("/silent", Duration::from_millis(50))
        .await
        .expect_err("silent");
    assert!(matches!(silent, BackendError::Timeout { .. }), "{silent:?}");
    let request = Request::get("/silent").body(empty_body()).expect("a request");
    let silent = client.send(request).await.expect_err("silent");
    assert!(
        matches!(silent, BackendError::Timeout { .. }) && silent.before_response(),
        "{silent:?}"
    );
    let large = client.get("/large", LONG).await.expect_err("too large");
    assert!(matches!(large, BackendError::TooLarge { limit: 1024, .. }), "{large:?}");
}

#[tokio::test]
async fn bodies_stream_both_ways_and_a_broken_one_is_the_clients_fault() {
    let (endpoint, _) = scripted(|_, request| (ok(request.split("\r\n\r\n").nth(1).unwrap_or("")), true)).await;
    let client = client(&endpoint);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, equipoise_backend::BoxError>>(1);
    let body = StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync();
    let feed = tokio::spawn(async move {
        for part in ["one", "two"] {
            sender.send(Ok(Frame::data(Bytes::from(part)))).await.expect("wanted");
        }
    });
    let response = client
        .send(Request::post("/").body(body).expect("a request"))
        .await
        .expect("answered");
    feed.await.expect("fed");
    let echoed = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(echoed, Bytes::from("3\r\none\r\n3\r\ntwo\r\n0"));

    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(Err("the client went away".into())).await.expect("room");
    let body = StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync();
    let error = client
        .send(Request::post("/").body(body).expect("a request"))
        .await
        .expect_err("broken");
    assert!(matches!(error, BackendError::RequestBody { .. }), "{error:?}");
    assert!(
        error.to_string().contains("went away") && error.retry() == Retry::Useless,
        "{error}"
    );
}

#[tokio::test]
async fn dropping_the_response_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = client(&format!("http://{}", listener.local_addr().expect("bound")));
    let (mut stream, response) = tokio::join!(
        async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            read_request(&mut stream).await.expect("a request");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
                .await
                .expect("written");
            stream
        },
        client.send(Request::new(empty_body()))
    );
    drop(response.expect("the head"));
    let mut rest = [0; 1];
    let end = tokio::time::timeout(LONG, stream.read(&mut rest))
        .await
        .expect("the engine sees the client go");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn health_models_and_metrics_are_probed() {
    let (endpoint, _) = scripted(|_, request| {
        let path = request.split(' ').nth(1).unwrap_or("");
        let answer = match path {
            "/health" => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/v1/models" => {
                ok(r#"{"object":"list","data":[{"id":"demo","object":"model","max_model_len":2048},{"id":"lora"}]}"#)
            }
            "/metrics" => ok("vllm:num_requests_running{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"1\"} 3\n"),
            "/broken/health" => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
            _ => ok("<html>"),
        };
        (answer, true)
    })
    .await;
    let well = client(&endpoint);
    well.probe_health(LONG)
        .await
        .expect("the list of models stands in for a missing /health");
    let models = well.list_models(LONG).await.expect("a list");
    assert_eq!(models[0].max_model_len, Some(2048));
    assert_eq!((models[1].id.as_str(), models[1].max_model_len), ("lora", None));
    assert_eq!(well.scrape(LONG).await.expect("metrics").running, Some(5));

    let ill = client(&format!("{endpoint}/broken"));
    let error = ill.probe_health(LONG).await.expect_err("503");
    assert!(matches!(error, BackendError::Status { status: 503, .. }), "{error:?}");
    let error = ill.list_models(LONG).await.expect_err("a page");
    assert!(matches!(error, BackendError::Malformed { .. }), "{error:?}");
}
