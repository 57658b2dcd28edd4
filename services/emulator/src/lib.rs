//! A vLLM-compatible engine without a GPU: the engine model in real time behind real HTTP.
