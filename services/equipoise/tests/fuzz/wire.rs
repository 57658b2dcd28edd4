//! HTTP/1.1 by hand: a proper client would not send what is sent here.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::nonsense::Request;

/// It fails a test that hangs, it measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, taken apart.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// One connection.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn to(addr: SocketAddr) -> Self {
        for _ in 0..100 {
            if let Ok(socket) = TcpStream::connect(addr).await {
                return Self(socket);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the router takes no connection");
    }

    /// Sends a request that is well framed; gives the answer, and the connection where it may be used again. One that was
    /// closed meanwhile is replaced.
    pub(crate) async fn exchange(mut self, addr: SocketAddr, request: &Request) -> (Answer, Option<Self>) {
        for _ in 0..3 {
            let answered = tokio::time::timeout(PATIENCE, self.try_exchange(request)).await;
            match answered.expect("the router answers") {
                Some(answer) => {
                    let closes = answer.head.to_ascii_lowercase().contains("connection: close");
                    return (answer, (!closes).then_some(self));
                }
                None => self = Self::to(addr).await,
            }
        }
        let sent = String::from_utf8_lossy(&request.bytes);
        panic!("closed without an answer, three times: {sent:.2000}");
    }

    async fn try_exchange(&mut self, request: &Request) -> Option<Answer> {
        // It may be answered, and closed, before all of it is written.
        drop(self.0.write_all(&request.bytes).await);
        self.read_answer(request.is_head).await
    }

    /// Sends what is not well framed, and hangs up; an answer where there was one.
    pub(crate) async fn last(mut self, request: &Request) -> Option<Answer> {
        drop(self.0.write_all(&request.bytes).await);
        drop(self.0.shutdown().await);
        let answered = tokio::time::timeout(PATIENCE, self.read_answer(request.is_head)).await;
        answered.expect("the router lets go")
    }

    /// A page of JSON.
    pub(crate) async fn get(mut self, path: &str) -> serde_json::Value {
        let request = Request {
            bytes: format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").into_bytes(),
            well_framed: true,
            is_head: false,
        };
        let answer = self.try_exchange(&request).await.expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    async fn read_answer(&mut self, is_head: bool) -> Option<Answer> {
        let mut read = Vec::new();
        let end = loop {
            if let Some(end) = find(&read, b"\r\n\r\n") {
                // An interim answer is none.
                if read.starts_with(b"HTTP/1.1 1") {
                    read.drain(..end + 4);
                    continue;
                }
                break end;
            }
            if self.more(&mut read).await == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&read[..end + 2]).into_owned();
        let mut rest = read.split_off(end + 4);
        let status = head.split(' ').nth(1)?.parse().expect("a status");
        let lower = head.to_ascii_lowercase();
        let body = if is_head || status == 204 || status == 304 {
            Vec::new()
        } else if let Some(length) = lower.lines().find_map(|line| line.strip_prefix("content-length: ")) {
            let length: usize = length.trim().parse().expect("a length");
            while rest.len() < length && self.more(&mut rest).await > 0 {}
            rest
        } else if lower.contains("transfer-encoding: chunked") {
            while !rest.ends_with(b"0\r\n\r\n") && self.more(&mut rest).await > 0 {}
            unchunked(&rest)
        } else {
            while self.more(&mut rest).await > 0 {}
            rest
        };
        Some(Answer { status, head, body })
    }

    async fn more(&mut self, into: &mut Vec<u8>) -> usize {
        self.0.read_buf(into).await.unwrap_or(0)
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line]).ok();
        let size = size
            .and_then(|size| usize::from_str_radix(size.trim(), 16).ok())
            .unwrap_or(0);
        let from = line + 2;
        if size == 0 || bytes.len() < from + size {
            break;
        }
        body.extend_from_slice(&bytes[from..from + size]);
        bytes = &bytes[(from + size + 2).min(bytes.len())..];
    }
    body
}
