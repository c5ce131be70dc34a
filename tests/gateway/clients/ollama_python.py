"""ollama: lists, a chat whole and streamed, a tool, a schema, vectors, errors, time, leaving."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

import json
import os

import httpx
import ollama

client = ollama.Client(host=os.environ["GATEWAY"])
model = client.list().models[0].model
assert "completion" in client.show(model).capabilities
assert client.ps().models[0].model == model
messages = [{"role": "user", "content": "Say hello."}]
options = {"temperature": 0, "num_predict": 12, "num_ctx": 8192}
answer = client.chat(model, messages, options=options, keep_alive=-1.0)
lines = list(client.chat(model, messages, options=options, stream=True))
assert "".join(line.message.content for line in lines) == answer.message.content
assert lines[-1].done
assert client.generate(model, "Say hello.", options=options).response == answer.message.content
try:
    client.chat("nobody", messages)
except ollama.ResponseError as error:
    assert error.status_code == 404
else:
    raise AssertionError("a model that does not exist answered")
properties = {"on": {"type": "boolean"}}
schema = {"type": "object", "properties": properties, "required": ["on"]}
schema["additionalProperties"] = False
told = client.chat(model, messages, format=schema, options={"num_predict": 60, "temperature": 0})
assert json.loads(told.message.content)["on"] in (True, False), told
lamp = {"type": "function", "function": {"name": "lamp", "parameters": schema}}
offered = client.chat(model, messages, tools=[lamp], options=options)  # nothing can force a call
assert offered.message.content or offered.message.tool_calls, offered
vectors = ollama.Client(host=os.environ["VECTORS"])
name = vectors.list().models[0].model
found = vectors.embed(name, ["a", "b"]).embeddings
assert len(found) == 2, found
assert list(vectors.embeddings(name, "a").embedding)[:3] == list(found[0])[:3]
try:
    ollama.Client(host=os.environ["GATEWAY"], timeout=0.05).chat(model, messages)
except httpx.TimeoutException:
    pass
else:
    raise AssertionError("a whole answer came within 50 ms")
left = client.chat(model, messages, stream=True)
next(left)
left.close()
