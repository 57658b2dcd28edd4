use super::*;
use equipoise_policy::{Prefix, Request, Target, Wishes};
use equipoise_scheduler::Refusal;
use equipoise_types::RequestId;

fn sample() -> Vec<(Timestamp, Event, Vec<Action>)> {
    let request = Request {
        id: RequestId(1),
        target: Target::Model("small".to_owned()),
        tenant: Some("a\"b\n".to_owned()),
        prompt_tokens: 10,
        max_output_tokens: None,
        streams: true,
        forecast: None,
        prefix: Prefix::default(),
        wishes: Wishes {
            quality_min: Some(0.1 + 0.2),
            ..Wishes::default()
        },
    };
    let reason = Refusal::UnknownModel {
        model: "small".to_owned(),
        served: "große".to_owned(),
    };
    vec![
        (
            Timestamp(5),
            Event::Arrived(vec![request]),
            vec![Action::Refuse {
                request: RequestId(1),
                reason,
            }],
        ),
        (Timestamp(u64::MAX), Event::Timer, Vec::new()),
    ]
}

fn written() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = EventLogWriter::new(&mut bytes, "log", &SchedulerConfig::default()).expect("a vector takes all");
    for (at, event, actions) in sample() {
        writer.write(at, &event, &actions).expect("a vector takes all");
    }
    writer.flush().expect("a vector takes all");
    bytes
}

#[test]
fn what_is_written_reads_back_byte_for_byte() {
    let bytes = written();
    let mut reader = EventLogReader::new(bytes.as_slice(), "log").expect("a log");
    assert_eq!(reader.header().scheduler, SchedulerConfig::default());
    for (at, event, actions) in sample() {
        let logged = reader.next().expect("there").expect("well formed");
        assert_eq!((logged.at, &logged.event), (at, &event));
        assert_eq!(
            logged.actions.get(),
            serde_json::to_string(&actions).expect("serialises")
        );
    }
    assert!(reader.next().is_none());
    assert_eq!((reader.truncated_at(), reader.line()), (None, 3));
}

#[test]
fn a_line_cut_off_by_a_kill_is_left_out_wherever_it_was_cut() {
    let bytes = written();
    let header = bytes.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    let second = header
        + bytes[header..]
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("an event")
        + 1;
    for cut in header + 1..second - 1 {
        let mut reader = EventLogReader::new(&bytes[..cut], "log").expect("the header is whole");
        assert!(reader.next().is_none(), "cut at {cut}");
        assert_eq!(reader.truncated_at(), Some(2), "cut at {cut}");
        assert!(reader.next().is_none());
    }
}

#[test]
fn a_bad_line_in_the_middle_is_an_error_with_its_number() {
    let mut bytes = written();
    bytes.extend_from_slice(b"{\"at\":3,\"event\":\"Nonsense\",\"actions\":[]}\n");
    let mut reader = EventLogReader::new(bytes.as_slice(), "log").expect("a log");
    let error = reader
        .by_ref()
        .last()
        .expect("there")
        .expect_err("unknown event")
        .to_string();
    assert!(
        error.starts_with("log:4: expected `{\"at\":ns") && error.contains("Nonsense"),
        "{error}"
    );
    assert!(reader.next().is_none());
}

#[test]
fn what_is_no_log_is_refused() {
    let error = |text: &str| {
        EventLogReader::new(text.as_bytes(), "log")
            .expect_err("no log")
            .to_string()
    };
    assert!(error("").contains("an empty file"));
    assert!(error("TIMESTAMP,x\n").contains("found `TIMESTAMP,x`"));
    assert!(error("{\"equipoise_event_log\":2,\"scheduler\":{\"new\":1}}\n").contains("version 2: read it with"));
    let unknown = error("{\"equipoise_event_log\":1,\"scheduler\":{\"new\":1}}\n");
    assert!(unknown.contains("unknown field `new`"), "{unknown}");
}

#[test]
fn a_file_works_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.jsonl");
    let mut writer = EventLogWriter::create(&path, &SchedulerConfig::default()).expect("creates");
    for (at, event, actions) in sample() {
        writer.write(at, &event, &actions).expect("writes");
    }
    writer.flush().expect("flushes");
    assert_eq!(EventLogReader::open(&path).expect("opens").count(), 2);
    assert!(EventLogReader::open(&folder.path().join("absent")).is_err());
}
