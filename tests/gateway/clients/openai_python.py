"""openai: a chat whole and streamed, tools, a schema, vectors, errors, time, leaving."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

import json
import os

import openai

client = openai.OpenAI(base_url=os.environ["GATEWAY"] + "/v1", api_key="none")
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Say hello."}]
answer = client.chat.completions.create(
    model=model, messages=messages, max_tokens=12, temperature=0
)
stream = client.chat.completions.create(
    model=model,
    messages=messages,
    max_tokens=12,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == answer.choices[0].message.content, (text, answer)
assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
asked = {"model": model, "input": "Say hello.", "max_output_tokens": 12, "temperature": 0}
response = client.responses.create(**asked)
assert response.output_text == text, (response, text)
with client.responses.stream(**asked) as events:
    last = list(events)[-1]
assert last.response.output_text == text, last
try:
    client.chat.completions.create(model=model, messages=messages, temperature=-1)
except openai.BadRequestError as error:
    assert "temperature" in str(error)
else:
    raise AssertionError("a negative temperature was taken")
with client.chat.completions.create(model=model, messages=messages, stream=True) as left:
    next(iter(left))
properties = {"on": {"type": "boolean"}}
schema = {"type": "object", "properties": properties, "required": ["on"]}
schema["additionalProperties"] = False
lamp = {"type": "function", "function": {"name": "lamp", "parameters": schema}}
forced = {"type": "function", "function": {"name": "lamp"}}
called = client.chat.completions.create(
    model=model, messages=messages, tools=[lamp], tool_choice=forced, max_tokens=200
)
call = called.choices[0].message.tool_calls[0]
assert (call.function.name, *json.loads(call.function.arguments)) == ("lamp", "on"), called
form = {"type": "json_schema", "json_schema": {"name": "state", "schema": schema}}
told = client.chat.completions.create(
    model=model, messages=messages, response_format=form, max_tokens=200, temperature=0
)
assert json.loads(told.choices[0].message.content)["on"] in (True, False), told
vectors = openai.OpenAI(base_url=os.environ["VECTORS"] + "/v1", api_key="none")
found = vectors.embeddings.create(model="vectors", input=["a", "b"]).data
assert len(found) == 2, found
assert abs(sum(value * value for value in found[0].embedding) - 1) < 1e-3
try:
    client.with_options(timeout=0.05, max_retries=0).chat.completions.create(
        model=model, messages=messages
    )
except openai.APITimeoutError:
    pass
else:
    raise AssertionError("a whole answer came within 50 ms")
