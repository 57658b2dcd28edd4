//! An engine that answers at once: what is left to measure is the router.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A chat completion of about 450 bytes, the size the peers were measured with.
pub const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"The scales come to rest when what lies on the one side weighs as much as what lies on the other, and not before; this is what the name of the project says."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":50,"completion_tokens":36,"total_tokens":86},"system_fingerprint":"instant"}"#;

/// Listens on a free port of the loopback interface until dropped. It shows health but no metrics.
#[derive(Debug)]
pub struct InstantEngine {
    addr: SocketAddr,
    server: JoinHandle<()>,
}

impl InstantEngine {
    /// Starts one on the current runtime.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let server = tokio::spawn(accept(listener));
        Ok(Self { addr, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for InstantEngine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn accept(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        // Without it the measurement would be slower, not wrong.
        drop(socket.set_nodelay(true));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer));
        tokio::spawn(async move {
            // A client that goes away is no matter.
            drop(connection.await);
        });
    }
}

async fn answer(request: http::Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    // The body is read as an engine reads it; a broken one is answered all the same.
    drop(request.into_body().collect().await);
    let mut response = Response::new(Full::default());
    match path.as_str() {
        "/health" => {}
        "/v1/chat/completions" => {
            *response.body_mut() = Full::from(ANSWER);
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chat_body, http_client, post};

    #[tokio::test]
    async fn it_answers_like_an_engine() {
        let engine = InstantEngine::start().await.expect("a port");
        let uri = format!("http://{}/v1/chat/completions", engine.addr())
            .parse()
            .expect("a URI");
        let response = http_client()
            .request(post(uri, chat_body("bench", 0, 200, None, false)))
            .await
            .expect("answers");
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        let usage = equipoise_openai::Usage::from_body(&body).expect("counts");
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (50, 36));
        assert!((430..470).contains(&body.len()), "{}", body.len());
    }
}
