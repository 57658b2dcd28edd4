//! vLLM's endpoints.

use crate::answer::Answer;
use crate::body::{AnswerBody, TokenStream};
use crate::config::{EmulatorConfig, OutputLengths};
use crate::engine_task::{AbortOnDrop, EngineHandle, Job, Progress};
use crate::exposition::{self, CONTENT_TYPE, Labels};
use crate::kept::Kept;
use crate::length::{Allowance, Finish, Length};
use crate::pooling::Question;
use crate::prefix::{block_hashes, hash_tokens};
use crate::refusal::{self, json, with_type};
use crate::tokenizer::{self, Tokens};
use bytes::Bytes;
use equipoise_openai::{Endpoint, ModelCard, ModelList, PromptPart, RequestHead, Task, asks_for_logprobs};
use equipoise_types::RequestId;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

const MAX_BODY_BYTES: usize = 64 << 20;
/// For a client to send a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The newest vLLM that this follows, marked so that nobody takes it for the real one.
const VERSION: &str = r#"{"version":"0.32.0+equipoise.emulator"}"#;
/// Answer tokens of `/v1/completions` where the client does not say, as in the OpenAI API.
const COMPLETION_TOKENS: u32 = 16;
/// Special tokens that a chat template puts around each message, and after the last.
const FRAME_OF_MESSAGE: usize = 4;
const FRAME_OF_ANSWER: usize = 3;
/// Characters of tool definitions to a token, as for the prompt.
const CHARS_PER_TOKEN: u64 = 4;

/// Responses that were made before are under here.
const RESPONSES: &str = "/v1/responses/";

/// A job that the engine has taken.
struct Accepted {
    id: RequestId,
    seen: watch::Receiver<Progress>,
    guard: AbortOnDrop,
    cached_tokens: u32,
}

type Reply = Response<AnswerBody>;

/// What all connections of one emulator share.
#[derive(Debug)]
pub(crate) struct Instance {
    engine: EngineHandle,
    model_name: String,
    model_json: String,
    max_model_len: u32,
    block_tokens: u32,
    seed: u64,
    lengths: OutputLengths,
    labels: Labels,
    kept: Kept,
    started_unix_s: u64,
    next_id: AtomicU64,
}

impl Instance {
    pub(crate) fn new(config: &EmulatorConfig, engine: EngineHandle) -> Self {
        let limits = config.step_model.limits();
        let num_gpu_blocks = config
            .step_model
            .fixed_seconds()
            .is_none()
            .then(|| config.step_model.kv_blocks());
        let labels = Labels {
            model_name: exposition::escape(&config.model_name),
            block_tokens: limits.block_tokens,
            num_gpu_blocks,
            gpu_memory_utilization: limits.gpu_memory_utilization,
            gpus: config.gpus,
        };
        Self {
            engine,
            model_name: config.model_name.clone(),
            model_json: serde_json::Value::from(config.model_name.as_str()).to_string(),
            max_model_len: config.max_model_len(),
            block_tokens: limits.block_tokens,
            seed: config.seed,
            lengths: config.output_lengths,
            labels,
            kept: Kept::default(),
            started_unix_s: unix_seconds(),
            next_id: AtomicU64::new(1),
        }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Reply {
        let allowed = match request.uri().path() {
            "/health" | "/version" | "/metrics" | "/v1/models" => "GET",
            "/ping" => "GET, POST",
            path if Endpoint::from_path(path).is_some() => "POST",
            path if path.starts_with(RESPONSES) => return self.kept_response(&request),
            _ => return refusal::not_found(),
        };
        if !allowed.split(", ").any(|method| method == request.method().as_str()) {
            return refusal::method_not_allowed(allowed);
        }
        if request.method() == Method::POST && request.uri().path() != "/ping" {
            return self.post(request).await;
        }
        match request.uri().path() {
            "/version" => json(StatusCode::OK, VERSION),
            "/v1/models" => {
                let length = Some(self.max_model_len);
                let card = ModelCard::new(&*self.model_name, "equipoise", self.started_unix_s, length);
                json(StatusCode::OK, ModelList::new(vec![card]).to_json())
            }
            "/metrics" => {
                let page = self.engine.exposition(&self.labels);
                with_type(StatusCode::OK, HeaderValue::from_static(CONTENT_TYPE), page)
            }
            _ => Response::new(AnswerBody::Whole(Some(Bytes::new()))),
        }
    }

    async fn post(&self, request: Request<Incoming>) -> Reply {
        let (parts, incoming) = request.into_parts();
        if !is_json(&parts.headers) {
            return refusal::bad_request(None, "Unsupported Media Type: Only 'application/json' is allowed");
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(incoming, MAX_BODY_BYTES).collect());
        let body = match read.await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return refusal::too_large(MAX_BODY_BYTES),
            Ok(Err(error)) => return refusal::bad_request(None, format!("The request body broke off: {error}.")),
            Err(_) => return refusal::bad_request(None, "The request body did not come within a minute."),
        };
        let result = match Endpoint::from_path(parts.uri.path()) {
            Some(Endpoint::Tokenize) => self.tokenize(&body),
            Some(Endpoint::Detokenize) => self.detokenize(&body),
            Some(endpoint) if endpoint.task() == Task::Pool => self.pool(endpoint, &body).await,
            Some(endpoint) => self.generate(endpoint, &parts.headers, &body).await,
            None => Ok(refusal::not_found()),
        };
        result.unwrap_or_else(|refusal| *refusal)
    }

    async fn generate(&self, endpoint: Endpoint, headers: &http::HeaderMap, body: &[u8]) -> Result<Reply, Box<Reply>> {
        let arrived = Instant::now();
        let (head, tokens) = self.read(endpoint, body)?;
        let allowance = self.allowance(&head, tokens.len())?;
        let prompt_tokens = tokens.len() as u32;
        let prompt_hash = hash_tokens(self.seed, &tokens);
        let length = self.lengths.sample(self.seed, prompt_hash, allowance);
        let Accepted {
            id,
            seen,
            mut guard,
            cached_tokens,
        } = self.submit(&tokens, length, arrived).await?;
        let answer = Answer {
            endpoint,
            id: self.answer_id(endpoint, headers, id),
            created: unix_seconds(),
            model_json: self.model_json.clone(),
            key: prompt_hash,
            length,
            prompt_tokens,
            cached_tokens,
            include_usage: head.include_usage,
            logprobs: endpoint == Endpoint::Chat && asks_for_logprobs(body),
        };
        if endpoint == Endpoint::Responses {
            self.kept.keep(answer.id.clone(), answer.whole_response());
        }
        if head.stream {
            let body = AnswerBody::Tokens(Box::new(TokenStream::new(answer, seen, guard)));
            let mut response = Response::new(body);
            let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return Ok(response);
        }
        let mut seen = seen;
        if seen.wait_for(|progress| progress.finished).await.is_err() {
            return Err(Box::new(refusal::engine_stopped()));
        }
        guard.finished();
        Ok(json(StatusCode::OK, answer.whole()))
    }

    /// Hands a job to the engine and waits until it has been taken.
    async fn submit(&self, tokens: &[u32], length: Length, arrived: Instant) -> Result<Accepted, Box<Reply>> {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let (progress, seen) = watch::channel(Progress::default());
        let (reply, accepted) = oneshot::channel();
        let job = Job {
            id,
            prompt_tokens: tokens.len() as u32,
            blocks: block_hashes(tokens, self.block_tokens),
            length,
            arrived,
            progress,
            reply,
        };
        let mut guard = self
            .engine
            .submit(job)
            .map_err(|error| Box::new(refusal::refused(&error)))?;
        match accepted.await {
            Ok(Ok(cached_tokens)) => Ok(Accepted {
                id,
                seen,
                guard,
                cached_tokens,
            }),
            Ok(Err(error)) => {
                guard.finished();
                Err(Box::new(refusal::refused(&error)))
            }
            Err(_) => Err(Box::new(refusal::engine_stopped())),
        }
    }

    /// One pass over the input, which takes as long as an answer of one token.
    async fn pool(&self, endpoint: Endpoint, body: &[u8]) -> Result<Reply, Box<Reply>> {
        let arrived = Instant::now();
        let (head, mut tokens) = read_prompt(endpoint, body).map_err(|error| Box::new(refusal::invalid(&error)))?;
        self.check_model(&head.model)?;
        let question = Question::read(endpoint, body)?;
        if tokens.is_empty() {
            tokens.push(tokenizer::FRAME);
        }
        let (tokens_in, context) = (tokens.len(), self.max_model_len);
        if tokens_in >= context as usize {
            let message = format!(
                "This model's maximum context length is {context} tokens. However, you requested {tokens_in} tokens in the \
                 input. Please reduce the length of the input."
            );
            return Err(Box::new(refusal::bad_request(Some("input"), message)));
        }
        let length = Length {
            tokens: 1,
            finish: Finish::Stop,
        };
        let mut work = self.submit(&tokens, length, arrived).await?;
        if work.seen.wait_for(|progress| progress.finished).await.is_err() {
            return Err(Box::new(refusal::engine_stopped()));
        }
        work.guard.finished();
        let id = format!("{:016x}", hash_tokens(self.seed, &[work.id.0 as u32]));
        let answer = question.answer(&id, &self.model_name, unix_seconds(), tokens_in as u32)?;
        Ok(json(StatusCode::OK, answer))
    }

    /// A response that was made before.
    fn kept_response(&self, request: &Request<Incoming>) -> Reply {
        let id = request.uri().path().strip_prefix(RESPONSES).unwrap_or_default();
        if request.method() != Method::GET {
            return refusal::method_not_allowed("GET");
        }
        match self.kept.get(id) {
            Some(response) => json(StatusCode::OK, response),
            None => refusal::unknown_response(id),
        }
    }

    /// The head of a request for this model, and its prompt as tokens.
    fn read(&self, endpoint: Endpoint, body: &[u8]) -> Result<(RequestHead, Tokens), Box<Reply>> {
        let (head, tokens) = read_prompt(endpoint, body).map_err(|error| Box::new(refusal::invalid(&error)))?;
        self.check_model(&head.model)?;
        if let Some(previous) = &head.previous_response_id
            && self.kept.get(previous).is_none()
        {
            return Err(Box::new(refusal::unknown_response(previous)));
        }
        if head.n > 1 {
            let message = format!(
                "n={} is not supported by the emulator: send n requests, or n=1.",
                head.n
            );
            return Err(Box::new(refusal::bad_request(Some("n"), message)));
        }
        if head.include_usage && !head.stream {
            let message = "Stream options can only be defined when `stream=True`. (parameter=stream_options)";
            return Err(Box::new(refusal::bad_request(Some("stream_options"), message)));
        }
        if endpoint == Endpoint::Completions && head.prompt_items > 1 {
            let message = format!("{} prompts in one request: the emulator takes one.", head.prompt_items);
            return Err(Box::new(refusal::bad_request(Some("prompt"), message)));
        }
        Ok((head, tokens))
    }

    fn check_model(&self, asked: &str) -> Result<(), Box<Reply>> {
        if asked == self.model_name {
            return Ok(());
        }
        Err(Box::new(refusal::unknown_model(asked, &self.model_name)))
    }

    /// How long the answer may be; the checks and texts are vLLM's. A sum of prompt and `max_tokens` beyond the context is no
    /// error: the answer just ends there.
    fn allowance(&self, head: &RequestHead, prompt_tokens: usize) -> Result<Allowance, Box<Reply>> {
        let refuse = |param, message: String| Err(Box::new(refusal::bad_request(param, message)));
        let context = self.max_model_len;
        if head.max_tokens == Some(0) {
            let message = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)";
            return refuse(Some("max_tokens"), message.to_owned());
        }
        if let Some(asked) = head.max_tokens
            && asked > context
        {
            let message = format!(
                "max_tokens={asked} cannot be greater than max_model_len={context}. Please request fewer output \
                 tokens. (parameter=max_tokens, value={asked})"
            );
            return refuse(Some("max_tokens"), message);
        }
        if prompt_tokens >= context as usize {
            let message = format!(
                "This model's maximum context length is {context} tokens. However, your prompt contains \
                 {prompt_tokens} input tokens, which exceeds this limit even without any output tokens. Please reduce \
                 the length of the input prompt. (parameter=input_tokens, value={prompt_tokens})"
            );
            return refuse(Some("input_tokens"), message);
        }
        let room = context - prompt_tokens as u32;
        let most = head.max_tokens.unwrap_or(match head.endpoint {
            Endpoint::Completions => COMPLETION_TOKENS,
            _ => room,
        });
        let fewest = head.min_tokens.unwrap_or(0);
        if fewest > most {
            let message = format!("min_tokens must be less than or equal to max_tokens={most}, got {fewest}.");
            return refuse(None, message);
        }
        let most = most.min(room);
        Ok(Allowance {
            most,
            fewest: fewest.min(most),
            ignore_eos: head.ignore_eos,
        })
    }

    /// Like vLLM's: from the client's own id where it sends a plain one.
    fn answer_id(&self, endpoint: Endpoint, headers: &http::HeaderMap, id: RequestId) -> String {
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Responses => "resp",
            _ => "cmpl",
        };
        let joint = if endpoint == Endpoint::Responses { '_' } else { '-' };
        let plain = |name: &&str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'!'..=b'~') && !b"\"\\".contains(&byte))
        };
        let own = headers
            .get("x-request-id")
            .and_then(|value| value.to_str().ok())
            .filter(plain);
        match own {
            Some(own) => format!("{prefix}{joint}{own}"),
            None => {
                let mixed = hash_tokens(self.seed ^ self.started_unix_s, &[(id.0 >> 32) as u32, id.0 as u32]);
                format!("{prefix}{joint}{mixed:016x}")
            }
        }
    }

    fn tokenize(&self, body: &[u8]) -> Result<Reply, Box<Reply>> {
        #[derive(Deserialize)]
        struct Asked {
            #[serde(default)]
            model: Option<String>,
            #[serde(default)]
            prompt: Option<String>,
        }
        let asked: Asked = parse(body)?;
        if let Some(model) = &asked.model {
            self.check_model(model)?;
        }
        let tokens = match asked.prompt {
            Some(prompt) => {
                let mut tokens = Tokens::new();
                tokenizer::encode(&prompt, &mut tokens);
                tokens
            }
            None => {
                read_prompt(Endpoint::Chat, body)
                    .map_err(|error| Box::new(refusal::invalid(&error)))?
                    .1
            }
        };
        let (count, length) = (tokens.len(), self.max_model_len);
        let tokens = serde_json::Value::from(tokens);
        let answer = format!(r#"{{"count":{count},"max_model_len":{length},"tokens":{tokens},"token_strs":null}}"#);
        Ok(json(StatusCode::OK, answer))
    }

    fn detokenize(&self, body: &[u8]) -> Result<Reply, Box<Reply>> {
        #[derive(Deserialize)]
        struct Asked {
            #[serde(default)]
            model: Option<String>,
            tokens: Tokens,
        }
        let asked: Asked = parse(body)?;
        if let Some(model) = &asked.model {
            self.check_model(model)?;
        }
        let text = serde_json::Value::from(tokenizer::decode(&asked.tokens));
        Ok(json(StatusCode::OK, format!(r#"{{"prompt":{text}}}"#)))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Box<Reply>> {
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|error| {
        Box::new(refusal::bad_request(
            None,
            format!("The request body is not valid: {error}."),
        ))
    })
}

/// The head of a request and its prompt as the engine sees it.
fn read_prompt(endpoint: Endpoint, body: &[u8]) -> Result<(RequestHead, Tokens), equipoise_openai::RequestError> {
    let mut tokens = Tokens::new();
    let mut text_chars = 0;
    let head = RequestHead::parse_with(endpoint, body, &mut |part| match part {
        PromptPart::Start if endpoint == Endpoint::Chat => {
            tokens.extend([tokenizer::FRAME; FRAME_OF_MESSAGE]);
        }
        PromptPart::Start | PromptPart::Role(_) => {}
        PromptPart::Text(text) => {
            text_chars += text.chars().count() as u64;
            tokenizer::encode(text, &mut tokens);
        }
        PromptPart::Token(id) => tokens.push(id),
    })?;
    if endpoint == Endpoint::Chat {
        tokens.extend([tokenizer::FRAME; FRAME_OF_ANSWER]);
    }
    // Templates write tool definitions first. Their text is not shown, only their size.
    let tool_tokens = head.prompt_chars.saturating_sub(text_chars) / CHARS_PER_TOKEN;
    tokens.splice(0..0, std::iter::repeat_n(tokenizer::FRAME, tool_tokens as usize));
    Ok((head, tokens))
}

fn is_json(headers: &http::HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
