//! Requests that are wrong in many ways, and some that are right.

use equipoise_types::RandomStream;

/// One request as bytes.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// HTTP itself is as it should be: the connection can be used again.
    pub(crate) well_framed: bool,
    /// There will be no body in the answer.
    pub(crate) is_head: bool,
}

/// Makes them up.
pub(crate) struct Nonsense<'r>(pub(crate) &'r mut RandomStream);

const PATHS: [&str; 24] = [
    "/v1/chat/completions",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/score",
    "/v1/score",
    "/pooling",
    "/classify",
    "/v1/models",
    "/v1/models/m",
    "/v1/responses/resp_1",
    "/v1/responses/resp_1/cancel",
    "/v1/decisions/router-1-2",
    "/v1/feedback",
    "/health",
    "/metrics",
    "/v1/../../etc/passwd",
    "/%00%ff?a=b#c",
];

const BODIES: [&str; 12] = [
    r#"{"model":"auto","messages":[{"role":"user","content":"hello"}],"max_tokens":2}"#,
    r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"data:x"}}]}],"stream":true,"max_tokens":3}"#,
    r#"{"model":"m","prompt":["a"],"max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"model":"auto","input":"hello","instructions":"brief","max_output_tokens":2,"stream":true}"#,
    r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"x"}]}],"previous_response_id":"resp_1"}"#,
    r#"{"model":"m","input":["a","b"],"dimensions":4}"#,
    r#"{"model":"m","prompt":"hello"}"#,
    r#"{"model":"m","tokens":[104,105]}"#,
    r#"{"model":"m","query":"a","documents":["b",{"text":"c"}],"top_n":1}"#,
    r#"{"model":"m","text_1":"a","text_2":["b","c"]}"#,
    r#"{"decision_id":"router-1-2","score":0.5}"#,
    r#"{"model":"m","messages":[{"role":"user","content":"mail ann@example.org, card 4111 1111 1111 1111"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"response_format":{"type":"json_object"},"n":1,"max_tokens":1}"#,
];

const HEADERS: [&str; 24] = [
    "x-equipoise-weights: quality=1,latency=2",
    "x-equipoise-weights: quality",
    "x-equipoise-quality-min: 0.1",
    "x-equipoise-quality-min: NaN",
    "x-equipoise-ttft-slo-ms: 1e9",
    "x-equipoise-labels: residency=local",
    "x-equipoise-labels: residency=mars",
    "x-equipoise-labels: =,=,=",
    "x-equipoise-priority: 999999999999999999999",
    "x-equipoise-deadline-ms: -1",
    "x-equipoise-tenant: acme",
    "x-equipoise-tenant: -",
    "x-equipoise-unknown: 1",
    "x-equipoise-explain: 1",
    "x-request-id: \u{e9}",
    "content-type: application/json; charset=utf-8",
    "content-type: multipart/form-data; boundary=x",
    "content-encoding: gzip",
    "authorization: Bearer sk-eq-0",
    "accept: */*",
    "expect: 100-continue-not",
    "te: trailers",
    "traceparent: 00-zz",
    "cookie: a=b; c",
];

impl Nonsense<'_> {
    fn chance(&mut self, share: f64) -> bool {
        self.0.uniform() < share
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.0.below(all.len())]
    }

    /// A request, often spoilt.
    pub(crate) fn request(&mut self) -> Request {
        let method = if self.chance(0.85) {
            "POST"
        } else {
            self.of(&["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
        };
        let path = self.of(&PATHS);
        let body = self.body();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: here\r\n");
        for _ in 0..self.0.below(4) {
            let header = self.of(&HEADERS);
            head.push_str(header);
            head.push_str("\r\n");
        }
        let is_head = method == "HEAD";
        if self.chance(0.03) {
            return Request {
                bytes: self.broken(&head, &body),
                well_framed: false,
                is_head,
            };
        }
        let bytes = if self.chance(0.2) {
            self.chunked(head, &body)
        } else {
            [
                head.as_bytes(),
                format!("content-length: {}\r\n\r\n", body.len()).as_bytes(),
                &body,
            ]
            .concat()
        };
        Request {
            bytes,
            well_framed: true,
            is_head,
        }
    }

    fn body(&mut self) -> Vec<u8> {
        let mut body = self.of(&BODIES).as_bytes().to_vec();
        if self.chance(0.3) {
            return body;
        }
        match self.0.below(10) {
            0 => body.truncate(self.0.below(body.len())),
            1 | 2 => {
                for _ in 0..=self.0.below(4) {
                    let at = self.0.below(body.len());
                    body[at] = self.0.next_u64() as u8;
                }
            }
            3 => {
                let at = self.0.below(body.len());
                let (from, to) = (self.0.below(body.len()), self.0.below(body.len()));
                let piece = body[from.min(to)..from.max(to)].to_vec();
                body.splice(at..at, piece);
            }
            4 => {
                let depth = 1 << self.0.below(14);
                let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
                body =
                    format!(r#"{{"model":"m","messages":[{{"content":"x"}}],"max_tokens":1,"x":{deep}}}"#).into_bytes();
            }
            5 => {
                let value = self.of(&[
                    "null",
                    "true",
                    "-1",
                    "1e999",
                    "\"x\"",
                    "[]",
                    "{}",
                    "18446744073709551616",
                    "0.5",
                ]);
                let member = self.of(&[
                    "model",
                    "messages",
                    "max_tokens",
                    "stream",
                    "n",
                    "input",
                    "tools",
                    "stream_options",
                ]);
                let name = format!("\"{member}\":");
                let extra = format!("{name}{value},");
                body.splice(1..1, extra.into_bytes());
            }
            6 => body = vec![b' '; self.0.below(70 << 10)],
            7 => body = (0..self.0.below(300)).map(|_| self.0.next_u64() as u8).collect(),
            8 => {
                let text: String = (0..self.0.below(2_000)).map(|_| self.letter()).collect();
                let text = serde_json::Value::from(text);
                body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{text}}}],"max_tokens":1}}"#)
                    .into_bytes();
            }
            _ => body.clear(),
        }
        body
    }

    /// What detectors of personal data and parsers stumble over.
    fn letter(&mut self) -> char {
        const ODD: [char; 20] = [
            '0',
            '1',
            '4',
            '9',
            '@',
            '.',
            '-',
            '+',
            '(',
            ')',
            ' ',
            ':',
            'D',
            'E',
            's',
            'k',
            '\u{0}',
            '\u{e9}',
            '\u{1f600}',
            '"',
        ];
        ODD[self.0.below(ODD.len())]
    }

    fn chunked(&mut self, head: String, body: &[u8]) -> Vec<u8> {
        let mut bytes = head.into_bytes();
        bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
        let mut left = body;
        while !left.is_empty() {
            let (now, later) = left.split_at(1 + self.0.below(left.len()));
            bytes.extend(format!("{:x}\r\n", now.len()).bytes());
            bytes.extend(now);
            bytes.extend(b"\r\n");
            left = later;
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    /// HTTP that is none, or that two readers could understand in two ways.
    fn broken(&mut self, head: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let tail = match self.0.below(10) {
            0 => format!("content-length: {length}\r\ncontent-length: {}\r\n\r\n", length + 1),
            1 => format!("content-length: {length}\r\ncontent-length: {length}\r\n\r\n"),
            2 => format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n"),
            3 => "content-length: -5\r\n\r\n".to_owned(),
            4 => "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_owned(),
            5 => "transfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            6 => "transfer-encoding: gzip, chunked, gzip\r\n\r\n".to_owned(),
            7 => format!("{}\r\n", "x-filler: y\r\n".repeat(200)),
            8 => format!("x-long: {}\r\n\r\n", "y".repeat(100 << 10)),
            _ => format!("no header\u{0}\r\ncontent-length: {length}\r\n\r\n"),
        };
        [head.as_bytes(), tail.as_bytes(), body].concat()
    }
}
