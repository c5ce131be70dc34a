"""ollama: list, show, ps, a chat whole and streamed, generate, an error."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

import os

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
