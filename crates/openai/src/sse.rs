//! Server-sent events: an incremental parser that keeps every byte.
//!
//! Follows the WHATWG HTML standard, section 9.2.6, for lines that end with LF or CRLF (no engine ends them with CR
//! alone). Fields other than `data` and `event` are passed over; they are in [`SseEvent::raw`] all the same.

use std::borrow::Cow;
use std::ops::Range;

/// The payload that ends an OpenAI stream.
pub const DONE: &[u8] = b"[DONE]";

/// Longest frame that [`SseParser::default`] accepts, bytes.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 1 << 20;

/// One frame: all bytes up to and including the blank line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The frame as it came. The `raw` of all events and the parser's rest, joined, are the stream.
    pub raw: &'a [u8],
    /// Where the frame lies in the pushed chunk; `None` if it began in an earlier one.
    pub range: Option<Range<usize>>,
    /// The `data` lines joined by LF; `None` if there are none (a comment, a keep-alive).
    pub data: Option<Cow<'a, [u8]>>,
    /// The last `event` line, if any.
    pub name: Option<&'a [u8]>,
}

impl SseEvent<'_> {
    /// Whether this is `data: [DONE]`.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.data.as_deref() == Some(DONE)
    }
}

/// The stream cannot be parsed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A frame does not end.
    #[error("an event of the stream is longer than {limit} bytes; the engine sends no valid SSE, or raise the limit")]
    FrameTooLong {
        /// The limit that was passed.
        limit: usize,
    },
}

/// What the current line holds so far; decides with the next byte whether a frame ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    OnlyCr,
    Text,
}

impl Line {
    /// The same with further bytes of the line, none of which ends it.
    fn and(self, bytes: &[u8]) -> Self {
        match (self, bytes) {
            (line, []) => line,
            (Self::Empty, [b'\r']) => Self::OnlyCr,
            _ => Self::Text,
        }
    }
}

/// Splits a byte stream into frames, whatever the chunks it comes in.
#[derive(Clone, Debug)]
pub struct SseParser {
    pending: Vec<u8>,
    line: Line,
    max_frame_bytes: usize,
    failed: Option<SseError>,
}

impl Default for SseParser {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_FRAME_BYTES)
    }
}

impl SseParser {
    /// A parser at the start of a stream that accepts frames of at most `max_frame_bytes`.
    #[must_use]
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            pending: Vec::new(),
            line: Line::Empty,
            max_frame_bytes,
            failed: None,
        }
    }

    /// Takes the next bytes in and hands every frame that they complete to `on_event`. A frame that lies wholly in
    /// `chunk` is not copied.
    ///
    /// # Errors
    /// A frame is too long. The bytes that were not handed out are then in [`Self::rest`], and every further push
    /// adds to them and fails again.
    pub fn push(&mut self, chunk: &[u8], mut on_event: impl FnMut(SseEvent<'_>)) -> Result<(), SseError> {
        if let Some(error) = self.failed {
            self.pending.extend_from_slice(chunk);
            return Err(error);
        }
        let (mut start, mut line_start) = (0, 0);
        for newline in memchr::memchr_iter(b'\n', chunk) {
            let line = self.line.and(&chunk[line_start..newline]);
            let end = newline + 1;
            line_start = end;
            self.line = Line::Empty;
            if line == Line::Text {
                continue;
            }
            if self.pending.len() + end - start > self.max_frame_bytes {
                return self.fail(&chunk[start..]);
            }
            if self.pending.is_empty() {
                on_event(event(&chunk[start..end], Some(start..end)));
            } else {
                self.pending.extend_from_slice(&chunk[start..end]);
                on_event(event(&self.pending, None));
                self.pending.clear();
            }
            start = end;
        }
        self.line = self.line.and(&chunk[line_start..]);
        if self.pending.len() + chunk.len() - start > self.max_frame_bytes {
            return self.fail(&chunk[start..]);
        }
        self.pending.extend_from_slice(&chunk[start..]);
        Ok(())
    }

    fn fail(&mut self, unread: &[u8]) -> Result<(), SseError> {
        let error = SseError::FrameTooLong {
            limit: self.max_frame_bytes,
        };
        self.pending.extend_from_slice(unread);
        self.failed = Some(error);
        Err(error)
    }

    /// The bytes of the frame that has not ended. Not empty after the last chunk: the stream was cut short.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.pending
    }
}

/// The payload of a frame that is one line of data, as nearly all are.
fn only_data(raw: &[u8]) -> Option<&[u8]> {
    let rest = raw.strip_prefix(b"data: ")?;
    let (line, end) = rest.split_at(memchr::memchr(b'\n', rest)?);
    matches!(end, b"\n\n" | b"\n\r\n").then(|| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Reads the lines of one frame.
fn event(raw: &[u8], range: Option<Range<usize>>) -> SseEvent<'_> {
    if let Some(data) = only_data(raw) {
        let data = Some(Cow::Borrowed(data));
        return SseEvent {
            raw,
            range,
            data,
            name: None,
        };
    }
    let mut data: Option<Cow<'_, [u8]>> = None;
    let mut name = None;
    for line in raw.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (field, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(lines) => {
                    let lines = lines.to_mut();
                    lines.push(b'\n');
                    lines.extend_from_slice(value);
                }
            },
            b"event" => name = Some(value),
            _ => {}
        }
    }
    SseEvent { raw, range, data, name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

    /// Events, the unfinished rest, and how it ended, for one way to cut the stream.
    fn parse(stream: &[u8], cuts: &[usize], limit: usize) -> (Vec<Owned>, Vec<u8>, Result<(), SseError>) {
        let mut parser = SseParser::new(limit);
        let mut events = Vec::new();
        let mut outcome = Ok(());
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let to = to.clamp(from, stream.len());
            let chunk = &stream[from..to];
            let result = parser.push(chunk, |event| {
                if let Some(range) = event.range.clone() {
                    assert_eq!(&chunk[range], event.raw);
                }
                events.push((
                    event.raw.to_vec(),
                    event.data.map(Cow::into_owned),
                    event.name.map(<[u8]>::to_vec),
                ));
            });
            outcome = outcome.and(result);
            from = to;
        }
        (events, parser.rest().to_vec(), outcome)
    }

    fn payloads(stream: &str) -> Vec<Option<String>> {
        let (events, _, outcome) = parse(stream.as_bytes(), &[], 1000);
        assert_eq!(outcome, Ok(()));
        events
            .into_iter()
            .map(|(_, data, _)| data.map(|data| String::from_utf8(data).expect("UTF-8")))
            .collect()
    }

    #[test]
    fn frames_of_every_form() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            payloads("data: {\"a\":1}\n\ndata: [DONE]\n\n"),
            [some("{\"a\":1}"), some("[DONE]")]
        );
        assert_eq!(payloads("data:x\r\n\r\n: keep-alive\r\n\r\n"), [some("x"), None]);
        assert_eq!(
            payloads("event: e\ndata: one\ndata:  two\ndata\nid: 3\n\n"),
            [some("one\n two\n")]
        );
        assert_eq!(payloads("data: cut"), Vec::<Option<String>>::new());
        assert_eq!(payloads("\ndata: x\n\n\n"), [None, some("x"), None]);
    }

    #[test]
    fn done_and_names_are_recognised() {
        let mut seen = Vec::new();
        let pushed = SseParser::default().push(b"event: error\ndata: {}\n\ndata: [DONE]\n\n", |event| {
            seen.push((event.is_done(), event.name.map(<[u8]>::to_vec)));
        });
        assert_eq!(pushed, Ok(()));
        assert_eq!(seen, [(false, Some(b"error".to_vec())), (true, None)]);
    }

    #[test]
    fn a_frame_that_does_not_end_is_an_error_and_loses_nothing() {
        let stream = b"data: a\n\ndata: too long a frame\n\ndata: b\n\n";
        for cuts in [vec![], vec![12], (0..stream.len()).collect()] {
            let (events, rest, outcome) = parse(stream, &cuts, 12);
            assert_eq!(outcome, Err(SseError::FrameTooLong { limit: 12 }));
            assert_eq!(events.len(), 1);
            assert_eq!([events[0].0.clone(), rest].concat(), stream);
        }
    }

    fn any_stream() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            Just("data: {\"x\":1}\n\n".to_owned()),
            Just("data: [DONE]\r\n\r\n".to_owned()),
            "[dataevn:\\r\\n \u{e9}]{0,12}",
        ];
        let structured = proptest::collection::vec(pieces, 0..12).prop_map(|parts| parts.concat().into_bytes());
        prop_oneof![structured, proptest::collection::vec(any::<u8>(), 0..80)]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            stream in any_stream(), mut cuts in proptest::collection::vec(0_usize..120, 0..20), limit in 1_usize..60,
        ) {
            cuts.sort_unstable();
            let whole = parse(&stream, &[], limit);
            prop_assert_eq!(&parse(&stream, &cuts, limit), &whole);
            let (events, rest, _) = whole;
            let joined: Vec<u8> = events.iter().flat_map(|(raw, _, _)| raw.clone()).chain(rest).collect();
            prop_assert_eq!(joined, stream);
        }
    }
}
