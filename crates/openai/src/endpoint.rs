//! The paths that go through a decision, and what their answers are like.

/// Which API a request speaks: one of the paths of a vLLM-style engine that take a model's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /tokenize` (vLLM's).
    Tokenize,
    /// `POST /detokenize` (vLLM's).
    Detokenize,
    /// `POST /rerank` (vLLM's).
    Rerank,
    /// `POST /v1/rerank` (Jina's form).
    RerankV1,
    /// `POST /v2/rerank` (Cohere's form).
    RerankV2,
    /// `POST /score` (vLLM's).
    Score,
    /// `POST /v1/score` (vLLM's).
    ScoreV1,
    /// `POST /pooling` (vLLM's).
    Pooling,
    /// `POST /classify` (vLLM's).
    Classify,
}

/// What an endpoint does with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Makes an answer, token by token.
    Generate,
    /// One pass over the input: vectors, scores, classes.
    Pool,
    /// The tokenizer only; no GPU is asked.
    Tokens,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::Tokenize,
        Self::Detokenize,
        Self::Rerank,
        Self::RerankV1,
        Self::RerankV2,
        Self::Score,
        Self::ScoreV1,
        Self::Pooling,
        Self::Classify,
    ];

    /// The endpoint at `path`, if it is one of them.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Rerank => "/rerank",
            Self::RerankV1 => "/v1/rerank",
            Self::RerankV2 => "/v2/rerank",
            Self::Score => "/score",
            Self::ScoreV1 => "/v1/score",
            Self::Pooling => "/pooling",
            Self::Classify => "/classify",
        }
    }

    /// What it does.
    #[must_use]
    pub fn task(self) -> Task {
        match self {
            Self::Chat | Self::Completions | Self::Responses => Task::Generate,
            Self::Tokenize | Self::Detokenize => Task::Tokens,
            _ => Task::Pool,
        }
    }

    /// Whether `messages` are read as its prompt.
    pub(crate) fn takes_messages(self) -> bool {
        matches!(self, Self::Chat | Self::Tokenize) || self.takes_input()
    }

    /// Whether `prompt` is.
    pub(crate) fn takes_prompt(self) -> bool {
        matches!(self, Self::Completions | Self::Tokenize)
    }

    /// Whether `input` is, as strings or token ids.
    pub(crate) fn takes_input(self) -> bool {
        matches!(self, Self::Embeddings | Self::Pooling | Self::Classify)
    }

    /// Whether it compares texts.
    pub(crate) fn ranks(self) -> bool {
        self.task() == Task::Pool && !self.takes_input()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_back_to_its_endpoint() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_path(endpoint.path()), Some(endpoint));
        }
        assert_eq!(Endpoint::from_path("/v1/chat"), None);
        assert_eq!(Endpoint::from_path("/v1/chat/completions/"), None);
    }

    #[test]
    fn tasks_are_told_apart() {
        assert_eq!(Endpoint::Responses.task(), Task::Generate);
        assert_eq!(Endpoint::Detokenize.task(), Task::Tokens);
        assert!(Endpoint::ScoreV1.ranks() && !Endpoint::Classify.ranks() && !Endpoint::Tokenize.ranks());
    }
}
