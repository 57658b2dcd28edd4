//! Clients that ask all the time, and remember what became of every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::client::{CHAT, Client, chat, complete_tokens};
use crate::eventually;

/// What the clients ask for.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) model: &'static str,
    pub(crate) max_tokens: u32,
    /// Every second request is streamed.
    pub(crate) streams: bool,
    /// Each client asks under one of these names in turn; empty for none.
    pub(crate) tenants: &'static [&'static str],
}

/// What became of a request: who answered it in full, or how it was lost.
pub(crate) type Fate = Result<String, String>;

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<Fate>>>,
}

impl Load {
    /// So many clients, each with one request at a time.
    pub(crate) fn start(router: &Client, clients: usize, asking: &Asking) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let ended = Arc::<AtomicUsize>::default();
        let work = |number: usize| {
            let (router, asking) = (router.clone(), asking.clone());
            let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut fates = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let streamed = asking.streams && (fates.len() + number).is_multiple_of(2);
                    fates.push(ask(&router, &asking, number, streamed).await);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                fates
            })
        };
        let clients = (0..clients).map(work).collect();
        Self { stop, ended, clients }
    }

    /// Waits until so many more requests have ended.
    pub(crate) async fn more(&self, requests: usize) {
        let goal = self.ended.load(Ordering::Relaxed) + requests;
        eventually(&format!("{requests} more requests end"), || {
            std::future::ready((self.ended.load(Ordering::Relaxed) >= goal).then_some(()))
        })
        .await;
    }

    /// Lets every client end its request, and tells what became of all.
    pub(crate) async fn stop(self) -> Vec<Fate> {
        self.stop.store(true, Ordering::Relaxed);
        let mut fates = Vec::new();
        for client in self.clients {
            fates.extend(client.await.expect("a client ends well"));
        }
        fates
    }

    /// [`Load::stop`], and no request was lost; tells who answered.
    pub(crate) async fn stop_without_loss(self) -> Vec<String> {
        let fates = self.stop().await;
        let all = fates.len();
        let lost: Vec<&String> = fates.iter().filter_map(|fate| fate.as_ref().err()).collect();
        assert!(lost.is_empty(), "{} of {all} requests were lost: {lost:#?}", lost.len());
        fates.into_iter().flatten().collect()
    }
}

async fn ask(router: &Client, asking: &Asking, client: usize, streamed: bool) -> Fate {
    let mut body = chat(asking.model, asking.max_tokens);
    let tenant = asking.tenants.get(client % asking.tenants.len().max(1));
    let headers: Vec<(&str, &str)> = tenant.iter().map(|tenant| ("x-equipoise-tenant", **tenant)).collect();
    if streamed {
        body["stream"] = true.into();
        let mut stream = router.try_stream(CHAT, &headers, &body).await?;
        let instance = stream.header("x-equipoise-instance").to_owned();
        let events = stream.rest().await?;
        let complete = stream.status == 200 && complete_tokens(&events).is_some();
        return if complete {
            Ok(instance)
        } else {
            Err(format!("{}: {events:?}", stream.status))
        };
    }
    let answer = router.exchange(Method::POST, CHAT, &headers, body.to_string()).await?;
    let complete = answer.status == 200 && {
        let answer = serde_json::from_str::<Value>(&answer.text()).unwrap_or_default();
        answer["choices"][0]["finish_reason"].is_string() && answer["usage"]["completion_tokens"].as_u64() > Some(0)
    };
    if complete {
        Ok(answer.instance().to_owned())
    } else {
        Err(format!("{}: {}", answer.status, answer.text()))
    }
}
