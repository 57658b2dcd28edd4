use super::*;
use proptest::prelude::*;

fn chat(body: &str) -> Result<RequestHead, RequestError> {
    RequestHead::parse(Endpoint::Chat, body.as_bytes())
}

fn completion(body: &str) -> Result<RequestHead, RequestError> {
    RequestHead::parse(Endpoint::Completions, body.as_bytes())
}

#[test]
fn a_full_chat_request() {
    let head = chat(
        r#"{"model":"auto","messages":[{"role":"system","content":"Be brief."},
        {"role":"user","content":[{"type":"text","text":"What is é?"},{"type":"image_url","image_url":{"url":"data:x"}}]},
        {"role":"assistant","content":null}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":10,
        "max_completion_tokens":20,"temperature":0.5,"n":2,"user":"u","tools":[],"min_tokens":1,"ignore_eos":true}"#,
    )
    .expect("valid");
    assert_eq!(
        head,
        RequestHead {
            endpoint: Endpoint::Chat,
            model: "auto".to_owned(),
            stream: true,
            include_usage: true,
            max_tokens: Some(20),
            min_tokens: Some(1),
            ignore_eos: true,
            n: 2,
            prompt_chars: 19,
            prompt_token_ids: 0,
            prompt_items: 3,
            has_tools: false,
            has_audio: false,
            is_structured: false,
            has_images: true,
            user: Some("u".to_owned()),
            previous_response_id: None,
        }
    );
    assert_eq!(head.prompt_tokens_estimate(4.0), 5);
    assert!(!head.needs_stream_usage());
}

#[test]
fn tools_count_as_prompt() {
    let plain = chat(r#"{"model":"m","messages":[{"content":"hi"}]}"#).expect("valid");
    let tools = chat(
        r#"{"model":"m","messages":[{"content":"hi"}],"tools":[{"type":"function","function":{"name":"weather"}}]}"#,
    )
    .expect("valid");
    assert!(tools.has_tools && !plain.has_tools);
    assert!(tools.prompt_chars > plain.prompt_chars + 30, "{}", tools.prompt_chars);
}

#[test]
fn prompts_of_every_form() {
    let sizes = |prompt: &str| {
        let head = completion(&format!(r#"{{"model":"m","prompt":{prompt}}}"#)).expect("valid");
        (head.prompt_chars, head.prompt_token_ids, head.prompt_items)
    };
    assert_eq!(sizes(r#""hello""#), (5, 0, 1));
    assert_eq!(sizes(r#"["ab","c"]"#), (3, 0, 2));
    assert_eq!(sizes("[1,2,3]"), (0, 3, 1));
    assert_eq!(sizes("[[1,2],[3]]"), (0, 3, 2));
}

#[test]
fn the_pieces_are_shown_in_order() {
    let mut seen = Vec::new();
    let body = br#"{"messages":[{"role":"user","content":"a\nb"},{"content":[{"text":"c"}]}],"model":"m"}"#;
    RequestHead::parse_with(Endpoint::Chat, body, &mut |part| {
        seen.push(format!("{part:?}"));
    })
    .expect("valid");
    assert_eq!(
        seen,
        ["Start", r#"Role("user")"#, r#"Text("a\nb")"#, "Start", r#"Text("c")"#]
    );
}

#[test]
fn errors_name_the_member_and_the_mend() {
    let text = |result: Result<RequestHead, RequestError>| result.expect_err("invalid").to_string();
    assert_eq!(
        text(chat("{\"model\":\"m\",\n \"messages\"")),
        "The request body is not valid JSON: EOF while parsing an object (line 2, column 11, byte 24)."
    );
    assert_eq!(
        text(chat(r#"{"model":"m","messages":[{"content":"x"}],"max_tokens":"x"}"#)),
        "max_tokens: invalid type: string \"x\", expected a whole number from 0 to 4294967295 (line 1, column 58, byte 57)."
    );
    assert!(text(chat(r#"{"model":"m","messages":[3]}"#)).starts_with("messages: invalid type: integer `3`"));
    assert!(text(chat(r#"{"messages":[{}]}"#)).starts_with("The member `model` is missing or empty: name a model"));
    assert!(text(chat(r#"{"model":"m","messages":[]}"#)).contains("at least one message"));
    assert!(text(completion(r#"{"model":"m","prompt":""}"#)).contains("`prompt`"));
    assert!(text(completion(r#"{"model":"m","prompt":{"a":1}}"#)).starts_with("prompt: invalid type: map"));
    assert!(text(chat(r#"{"model":"a","model":"b"}"#)).starts_with("model: the member comes twice"));
    assert!(text(chat("[]")).starts_with("body: invalid type: sequence, expected a JSON object"));
    assert!(text(chat(r#"{"model":"m","messages":[{}]} x"#)).contains("not valid JSON: trailing characters"));
    for n in ["0", "0.0", "-1"] {
        let error = text(chat(&format!(r#"{{"model":"m","n":{n},"messages":[{{}}]}}"#)));
        assert!(error.starts_with("n: invalid"), "{error}");
        assert!(
            error.contains("expected a whole number from 1 to 4294967295"),
            "{error}"
        );
    }
    for options in ["5", "[true]", "\"yes\""] {
        let error = text(chat(&format!(
            r#"{{"model":"m","stream_options":{options},"messages":[{{}}]}}"#
        )));
        assert!(error.starts_with("stream_options: invalid type"), "{error}");
        assert!(
            error.contains("expected an object such as {\"include_usage\": true}, or null"),
            "{error}"
        );
    }
    let twice = r#"{"model":"m","stream_options":{"include_usage":true,"include_usage":false},"messages":[{}]}"#;
    assert!(text(chat(twice)).contains("`include_usage` comes twice"));
}

#[test]
fn errors_become_openai_s() {
    let error = ErrorResponse::from(chat(r#"{"model":"m","messages":[],"n":-1}"#).expect_err("invalid"));
    assert_eq!(error.status, 400);
    assert_eq!(error.body.param.as_deref(), Some("n"));
    assert_eq!(error.body.kind, "invalid_request_error");
}

#[test]
fn nulls_read_as_absent_and_unknown_members_are_free() {
    let head = chat(
        r#"{"model":"m","messages":[{"content":"x","extra":[1]}],"stream":null,"stream_options":null,"max_tokens":null,
        "user":null,"tools":null,"n":null,"x":{"model":3}}"#,
    )
    .expect("valid");
    assert!(!head.stream && head.max_tokens.is_none() && head.n == 1 && !head.has_tools);
    assert_eq!(
        chat(r#"{"model":"m","messages":[{}],"max_tokens":16.0}"#)
            .expect("valid")
            .max_tokens,
        Some(16)
    );
}

proptest! {
    #[test]
    fn never_panics(body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        "\\{(\"(model|messages|prompt|n|tools)\":[\\[\\]\\{\\}\",:a1.]{0,8},?){0,4}\\}".prop_map(String::into_bytes),
    ]) {
        let _ = (RequestHead::parse(Endpoint::Chat, &body).is_ok(), RequestHead::parse(Endpoint::Completions, &body).is_ok());
    }

    #[test]
    fn characters_are_counted_as_unicode(texts in proptest::collection::vec(any::<String>(), 1..6)) {
        let messages: Vec<_> = texts.iter().map(|text| serde_json::json!({"role": "user", "content": text})).collect();
        let body = serde_json::json!({"model": "m", "messages": messages}).to_string();
        let head = chat(&body).expect("valid");
        prop_assert_eq!(head.prompt_chars, texts.iter().map(|text| text.chars().count() as u64).sum::<u64>());
        prop_assert_eq!(head.prompt_items as usize, texts.len());
    }
}

#[test]
fn what_the_engine_must_be_able_to_do_is_read() {
    let head = |members: &str| {
        let body = format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "x"}}]{members}}}"#);
        RequestHead::parse(Endpoint::Chat, body.as_bytes()).expect("a request")
    };
    for plain in [
        "",
        r#", "response_format": {"type": "text"}"#,
        r#", "response_format": null, "guided_json": null"#,
    ] {
        assert!(!head(plain).is_structured, "{plain}");
    }
    for structured in [
        r#", "response_format": {"type": "json_object"}"#,
        r#", "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}"#,
        r#", "guided_choice": ["a", "b"]"#,
        r#", "structured_outputs": {"regex": "a+"}"#,
    ] {
        assert!(head(structured).is_structured, "{structured}");
    }
    assert!(head(r#", "audio": {"voice": "alloy"}"#).has_audio);
    let spoken =
        br#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}"#;
    assert!(RequestHead::parse(Endpoint::Chat, spoken).expect("a request").has_audio);
    assert!(!head("").has_audio);
}

fn head_of(endpoint: Endpoint, body: &str) -> Result<RequestHead, RequestError> {
    RequestHead::parse(endpoint, body.as_bytes())
}

#[test]
fn responses_are_read_in_both_forms() {
    let text = head_of(
        Endpoint::Responses,
        r#"{"model":"m","input":"hello","instructions":"Be brief.","max_output_tokens":9,"stream":true,
        "previous_response_id":"resp_1","text":{"format":{"type":"json_schema","name":"a","schema":{}}}}"#,
    )
    .expect("valid");
    assert_eq!(
        (text.prompt_chars, text.prompt_items, text.max_tokens),
        (14, 2, Some(9))
    );
    assert_eq!(text.previous_response_id.as_deref(), Some("resp_1"));
    assert!(text.stream && text.is_structured && !text.needs_stream_usage());
    let items = head_of(
        Endpoint::Responses,
        r#"{"model":"m","text":{"format":{"type":"text"}},"input":[{"role":"user","content":[{"type":"input_text","text":"abc"},
        {"type":"input_image","image_url":"data:x"}]},{"type":"function_call","name":"f","arguments":"{}","call_id":"c"},
        {"type":"function_call_output","call_id":"c","output":"sunny"}],"tools":[{"type":"function","name":"f"}]}"#,
    )
    .expect("valid");
    assert!(items.has_images && items.has_tools && !items.is_structured);
    assert!(items.prompt_chars >= 3 + 2 + 5, "{}", items.prompt_chars);
    let error = head_of(Endpoint::Responses, r#"{"model":"m"}"#).expect_err("nothing asked");
    assert_eq!(error.param(), Some("input"));
    assert!(head_of(Endpoint::Responses, r#"{"model":"m","input":7}"#).is_err());
}

#[test]
fn inputs_of_the_other_tasks() {
    let sizes = |endpoint, members: &str| {
        let head = head_of(endpoint, &format!(r#"{{"model":"m",{members}}}"#)).expect("valid");
        assert!(!head.stream);
        (head.prompt_chars, head.prompt_token_ids, head.prompt_items)
    };
    assert_eq!(
        sizes(Endpoint::Embeddings, r#""input":["ab","c"],"stream":true"#),
        (3, 0, 2)
    );
    assert_eq!(sizes(Endpoint::Embeddings, r#""input":[[1,2],[3]]"#), (0, 3, 2));
    assert_eq!(
        sizes(Endpoint::Pooling, r#""messages":[{"role":"user","content":"abc"}]"#),
        (3, 0, 1)
    );
    assert_eq!(sizes(Endpoint::Classify, r#""input":"abcd""#), (4, 0, 1));
    assert_eq!(sizes(Endpoint::Tokenize, r#""prompt":"abc""#), (3, 0, 1));
    assert_eq!(
        sizes(
            Endpoint::RerankV2,
            r#""query":"ab","documents":["c",{"text":"de"}],"top_n":1"#
        ),
        (5, 0, 3)
    );
    assert_eq!(
        sizes(Endpoint::ScoreV1, r#""text_1":"ab","text_2":["c","de"]"#),
        (5, 0, 3)
    );
    assert_eq!(
        sizes(
            Endpoint::Score,
            r#""queries":"q","documents":{"content":[{"type":"text","text":"abc"}]}"#
        ),
        (4, 0, 2)
    );
    assert_eq!(sizes(Endpoint::Pooling, r#""data":{"anything":1}"#), (0, 0, 0));
    assert!(head_of(Endpoint::Embeddings, r#"{"model":"m"}"#).is_err());
    assert!(
        head_of(Endpoint::Tokenize, r#"{"prompt":"x"}"#).is_err(),
        "the router needs a model"
    );
}

#[test]
fn what_is_not_read_is_checked_all_the_same() {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"m","messages":[{{"content":"x"}}],"extra":{open}1{close}}}"#)
    };
    assert!(chat(&deep(100)).is_ok());
    let error = chat(&deep(100_000)).expect_err("too deep").to_string();
    assert!(error.contains("recursion limit"), "{error}");
    let mut body = br#"{"model":"m","messages":[{"content":"x"}],"extra":"caf"#.to_vec();
    let byte = body.len();
    body.extend(b"\xe9\"}");
    let error = RequestHead::parse(Endpoint::Chat, &body).expect_err("Latin-1");
    assert_eq!(error, RequestError::NotText { byte });
}
