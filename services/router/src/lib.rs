//! The data plane: OpenAI HTTP in, one joint decision, a vLLM-style engine out.
