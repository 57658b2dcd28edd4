//! Clients that take their time: a head that never ends is let go, a body that never ends is told so, and meanwhile
//! everybody else is served.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use equipoise_router::{PredictorSource, RouterConfig, RunningRouter, start};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Fails a test that hangs; it measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);

async fn router() -> RunningRouter {
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut config = RouterConfig::new("router-a", any, "http://127.0.0.1:9");
    config.predictor = PredictorSource::Off;
    config.head_timeout = Duration::from_millis(300);
    config.body_timeout = Duration::from_millis(300);
    start(config).await.expect("sound")
}

/// Sends `begin` and then a byte of `drip` now and then, until the router has had enough; what it said.
async fn drip(router: &RunningRouter, begin: &str, drip: &str) -> String {
    let mut socket = TcpStream::connect(router.addr()).await.expect("connects");
    socket.write_all(begin.as_bytes()).await.expect("writes");
    let (mut from, mut to) = socket.into_split();
    let mut said = Vec::new();
    let dripping = async {
        for byte in drip.as_bytes().iter().cycle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if to.write_all(&[*byte]).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let reading = from.read_to_end(&mut said);
    let ended = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            // A reset ends it as well as a farewell.
            ended = reading => drop(ended),
            () = dripping => {}
        }
    });
    ended.await.expect("it is let go");
    String::from_utf8(said).expect("UTF-8")
}

#[tokio::test]
async fn a_head_that_never_ends_is_let_go() {
    let router = router().await;
    let slow = || drip(&router, "POST /v1/chat/completions HTTP/1.1\r\nx-slow: ", "a");
    let quick = async {
        let mut socket = TcpStream::connect(router.addr()).await.expect("connects");
        let request = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.write_all(request).await.expect("writes");
        let mut said = String::new();
        socket.read_to_string(&mut said).await.expect("reads");
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    };
    let (one, another, ()) = tokio::join!(slow(), slow(), quick);
    assert!(!one.contains(" 200 ") && !another.contains(" 200 "), "{one} {another}");
    router.shutdown().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_told_so() {
    let router = router().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
    let said = drip(&router, head, " ").await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(said.contains("\"request_timeout\""), "{said}");
    let chunked = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let said = drip(&router, chunked, "1\r\n \r\n").await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    router.shutdown().await;
}
