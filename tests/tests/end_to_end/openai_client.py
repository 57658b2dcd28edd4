"""OpenAI's own client against a router in front of real vLLM: openai_client.py BASE_URL MODEL.

Prints a line for each case that held, and fails at the first that did not.
"""

import json
import sys

import openai
from openai import OpenAI

base_url, model = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=300)
ASK = [{"role": "user", "content": "What does a balance weigh?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weigh",
        "description": "Weighs a thing.",
        "parameters": {
            "type": "object",
            "properties": {"grams": {"type": "integer", "maximum": 9}},
            "required": ["grams"],
            "additionalProperties": False,
        },
    },
}


def chat():
    answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=8, extra_body={"ignore_eos": True})
    assert answer.model == model and answer.choices[0].finish_reason == "length", answer
    assert answer.usage.completion_tokens == 8, answer.usage


def stream():
    chunks = list(client.chat.completions.create(model=model, messages=ASK, max_tokens=8, stream=True))
    assert chunks[-1].choices[0].finish_reason, chunks[-1]
    assert all(chunk.usage is None for chunk in chunks), "nobody asked for counts"


def stream_with_usage():
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model=model, messages=ASK, max_tokens=8, stream=True, stream_options=options)
    )
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices, chunks[-1]


def tools():
    answer = client.chat.completions.create(
        model=model,
        messages=ASK,
        max_tokens=64,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weigh"}},
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weigh", call
    # What the model writes is forced into the schema, as far as its tokens go.
    if answer.choices[0].finish_reason != "length":
        assert "grams" in json.loads(call.function.arguments), call


def logprobs():
    answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=4, logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert tokens and all(token.logprob <= 0 and len(token.top_logprobs) >= 2 for token in tokens), tokens


def choices():
    answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=4, n=3, seed=7, temperature=1.0)
    assert len(answer.choices) == 3, answer


def completions():
    answer = client.completions.create(model=model, prompt=["One", "Two"], max_tokens=4, logprobs=1)
    assert len(answer.choices) == 2 and answer.choices[0].logprobs.token_logprobs, answer
    chunks = list(client.completions.create(model=model, prompt="One", max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason, chunks[-1]


def responses():
    answer = client.responses.create(model=model, input="What does a balance weigh?", max_output_tokens=16)
    assert answer.id and answer.usage.output_tokens > 0, answer
    kinds = [event.type for event in client.responses.create(model=model, input="One", max_output_tokens=16, stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds


def models():
    assert model in [card.id for card in client.models.list()]


def embeddings_of_a_chat_model_are_refused():
    try:
        client.embeddings.create(model=model, input="One")
    except openai.APIStatusError as error:
        assert error.status_code in (400, 404, 501) and error.message, error
    else:
        raise AssertionError("a chat model embeds nothing")


def what_the_engine_refuses_is_shown():
    try:
        client.chat.completions.create(model=model, messages=ASK, max_tokens=8, temperature=-1)
    except openai.BadRequestError as error:
        assert "temperature" in str(error), error
    else:
        raise AssertionError("no such temperature")


def too_long_a_prompt_is_refused():
    long = [{"role": "user", "content": "word " * 20000}]
    try:
        client.chat.completions.create(model=model, messages=long, max_tokens=8)
    except openai.BadRequestError as error:
        assert error.message, error
    else:
        raise AssertionError("longer than the context")


def a_stream_that_is_left():
    left = client.chat.completions.create(
        model=model, messages=ASK, max_tokens=1500, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(left))
    left.close()


CASES = [
    chat,
    stream,
    stream_with_usage,
    tools,
    logprobs,
    choices,
    completions,
    responses,
    models,
    embeddings_of_a_chat_model_are_refused,
    what_the_engine_refuses_is_shown,
    too_long_a_prompt_is_refused,
    a_stream_that_is_left,
]
for case in CASES:
    case()
    print(f"ok {case.__name__}", flush=True)
print(f"all {len(CASES)} cases hold", flush=True)
