//! OpenAI wire types and the SSE codec, lossless pass-through.
