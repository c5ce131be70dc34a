"""litellm, its OpenAI way and its Ollama way: chats, tools, schemas, vectors, errors, time."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

import json
import os

import litellm

url = os.environ["GATEWAY"]
model = os.environ["MODEL"]
messages = [{"role": "user", "content": "Say hello."}]
ways = [
    {"model": f"openai/{model}", "api_base": url + "/v1", "api_key": "none"},
    {"model": f"ollama_chat/{model}", "api_base": url},
]
texts = set()
for way in ways:
    answer = litellm.completion(messages=messages, max_tokens=12, temperature=0, **way)
    texts.add(answer.choices[0].message.content)
    stream = litellm.completion(messages=messages, max_tokens=12, temperature=0, stream=True, **way)
    texts.add("".join(chunk.choices[0].delta.content or "" for chunk in stream))
assert len(texts) == 1, texts
try:
    litellm.completion(messages=messages, temperature=-1, num_retries=0, **ways[0])
except litellm.BadRequestError as error:
    assert "temperature" in str(error)
else:
    raise AssertionError("a negative temperature was taken")
properties = {"on": {"type": "boolean"}}
schema = {"type": "object", "properties": properties, "required": ["on"]}
schema["additionalProperties"] = False
form = {"type": "json_schema", "json_schema": {"name": "state", "schema": schema}}
lamp = {"type": "function", "function": {"name": "lamp", "parameters": schema}}
forced = {"type": "function", "function": {"name": "lamp"}}
for way in ways:
    told = litellm.completion(
        messages=messages, response_format=form, max_tokens=200, temperature=0, **way
    )
    assert json.loads(told.choices[0].message.content)["on"] in (True, False), told
    try:
        litellm.completion(messages=messages, timeout=0.05, num_retries=0, max_retries=0, **way)
    except (litellm.Timeout, litellm.APIConnectionError) as error:
        assert "time" in str(error).lower(), error
    else:
        raise AssertionError("a whole answer came within 50 ms")
called = litellm.completion(
    messages=messages, tools=[lamp], tool_choice=forced, max_tokens=200, **ways[0]
)
call = called.choices[0].message.tool_calls[0]
assert (call.function.name, *json.loads(call.function.arguments)) == ("lamp", "on"), called
offered = litellm.completion(messages=messages, tools=[lamp], max_tokens=12, **ways[1])
assert offered.choices[0].message.content or offered.choices[0].message.tool_calls, offered
vectors = os.environ["VECTORS"]
one = litellm.embedding("openai/vectors", ["a"], api_base=vectors + "/v1", api_key="none").data
other = litellm.embedding("ollama/vectors", ["a"], api_base=vectors).data
assert one[0]["embedding"][:3] == other[0]["embedding"][:3]
left = litellm.completion(messages=messages, stream=True, **ways[0])
next(iter(left))
left.completion_stream.close()
