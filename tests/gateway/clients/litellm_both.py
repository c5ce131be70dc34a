"""litellm: its OpenAI way and its Ollama way, streamed and not."""
# mypy: ignore-errors
# ruff: noqa: PT017 - no pytest in these environments

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
