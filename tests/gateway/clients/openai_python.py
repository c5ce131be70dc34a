"""openai: models, a chat, a stream with usage, an error, a client that leaves."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

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
