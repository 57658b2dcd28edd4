//! What a prompt asks, kept for the moment of its forecast: the last thing that the user says, bounded. It goes nowhere
//! else, and is dropped with this.

use equipoise_openai::PromptPart;

/// Bytes kept of the beginning of a text, and of its end where it is longer than both: more than predictors read of either.
const KEPT_BYTES: usize = 2048;
/// A message longer than this says what it is about. A shorter one ("and the second one?") leans on those before it.
const SHORT_BYTES: usize = 100;

/// Reads a prompt piece by piece. Predictors are trained on single questions: of a conversation that is the user's last
/// message, with the user's earlier ones before it only where it is short. Without any message by a user it is the last
/// message or prompt there is.
#[derive(Default)]
pub(crate) struct Question {
    asked: Excerpt,
    asked_by_user: bool,
    message: Excerpt,
    by_user: bool,
}

impl std::fmt::Debug for Question {
    /// Says how much there is: what clients write is in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.asked.text.len() + self.message.text.len();
        write!(f, "Question({bytes} bytes)")
    }
}

impl Question {
    pub(crate) fn read(&mut self, part: PromptPart<'_>) {
        match part {
            PromptPart::Start => self.end_message(),
            PromptPart::Role(role) => self.by_user = role == "user",
            PromptPart::Text(text) => self.message.push(text),
            PromptPart::Token(_) => {}
        }
    }

    fn end_message(&mut self) {
        let by_user = std::mem::take(&mut self.by_user);
        let counts = (by_user || !self.asked_by_user) && !self.message.text.is_empty();
        if counts {
            let leans = by_user && self.asked_by_user && self.message.text.len() < SHORT_BYTES;
            if leans {
                self.asked.push("\n");
                self.asked.push(&self.message.text);
            } else {
                std::mem::swap(&mut self.asked, &mut self.message);
            }
            self.asked_by_user = by_user;
        }
        self.message.text.clear();
    }

    /// `None` where there was no text.
    pub(crate) fn into_text(mut self) -> Option<String> {
        self.end_message();
        Some(self.asked.text).filter(|text| !text.is_empty())
    }
}

/// Beginning and end of a text.
#[derive(Default)]
struct Excerpt {
    text: String,
}

impl Excerpt {
    fn push(&mut self, part: &str) {
        // Of a long part only its ends can matter.
        let (head, tail) = if part.len() > 2 * KEPT_BYTES {
            (
                &part[..part.floor_char_boundary(KEPT_BYTES)],
                &part[part.ceil_char_boundary(part.len() - KEPT_BYTES)..],
            )
        } else {
            (part, "")
        };
        self.text.push_str(head);
        self.text.push_str(tail);
        if self.text.len() > 2 * KEPT_BYTES {
            let from = self.text.floor_char_boundary(KEPT_BYTES);
            let to = self.text.ceil_char_boundary(self.text.len() - KEPT_BYTES);
            self.text.replace_range(from..to, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(messages: &[(&str, &str)]) -> Option<String> {
        let mut question = Question::default();
        for (role, text) in messages {
            question.read(PromptPart::Start);
            if !role.is_empty() {
                question.read(PromptPart::Role(role));
            }
            question.read(PromptPart::Text(text));
        }
        question.into_text()
    }

    #[test]
    fn it_is_what_the_user_asks_last() {
        let long = "Prove that there are infinitely many primes, and then that there are infinitely many of the form 4k+3, please.";
        let system = ("system", "You are a helpful assistant.");
        assert_eq!(question(&[system, ("user", "Hello")]).as_deref(), Some("Hello"));
        let turns = [
            system,
            ("user", "Hello"),
            ("assistant", "Hi! What can I do?"),
            ("user", long),
        ];
        assert_eq!(question(&turns).as_deref(), Some(long));
        let leaning = [("user", long), ("assistant", "Done."), ("user", "And the second?")];
        assert_eq!(question(&leaning), Some(format!("{long}\nAnd the second?")));
        assert_eq!(question(&[system]).as_deref(), Some(system.1), "better than nothing");
        assert_eq!(
            question(&[("", "Once upon a time")]).as_deref(),
            Some("Once upon a time")
        );
        assert_eq!(question(&[]), None);
        assert_eq!(question(&[("user", long), ("tool", "42")]).as_deref(), Some(long));
    }

    #[test]
    fn the_role_may_come_after_the_text() {
        let mut question = Question::default();
        for (role, text) in [("user", "What is this?"), ("assistant", "A cat.")] {
            question.read(PromptPart::Start);
            question.read(PromptPart::Text(text));
            question.read(PromptPart::Role(role));
        }
        assert_eq!(question.into_text().as_deref(), Some("What is this?"));
    }

    #[test]
    fn what_is_kept_is_bounded_and_has_both_ends() {
        let long = format!("begin{}end", "äöü€".repeat(200_000));
        let text = question(&[("user", &long)]).expect("text");
        assert!(text.len() <= 2 * KEPT_BYTES && text.starts_with("begin") && text.ends_with("end"));
        let mut question = Question::default();
        question.read(PromptPart::Text("begin"));
        for _ in 0..1000 {
            question.read(PromptPart::Text("äöü€ and so on "));
        }
        question.read(PromptPart::Text("end"));
        assert!(!format!("{question:?}").contains("begin"));
        let text = question.into_text().expect("text");
        assert!(text.len() <= 2 * KEPT_BYTES && text.starts_with("begin") && text.ends_with("end"));
    }
}
