//! An engine that is as well as the test wants it.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What it answers: status and text by path; 404 elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Script {
    answers: Mutex<Vec<(&'static str, StatusCode, String)>>,
}

impl Script {
    pub(crate) fn set(&self, path: &'static str, status: StatusCode, text: impl Into<String>) {
        let mut answers = self.answers.lock().expect("whole");
        answers.retain(|(known, ..)| *known != path);
        answers.push((path, status, text.into()));
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let answers = self.answers.lock().expect("whole");
        let known = answers.iter().find(|(known, ..)| *known == path);
        let (status, text) = known.map_or((StatusCode::NOT_FOUND, ""), |(_, status, text)| {
            (*status, text.as_str())
        });
        let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
        *response.status_mut() = status;
        response
    }
}

/// Starts an engine that is healthy; it ends with the test.
pub(crate) async fn start() -> (String, Arc<Script>) {
    let script = Arc::new(Script::default());
    script.set("/health", StatusCode::OK, "");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let told = Arc::clone(&script);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&told);
            let service = service_fn(move |request: Request<Incoming>| {
                let response = script.answer(request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (endpoint, script)
}
